"""Decode speed of llama.cpp through llama-cpp-python, one JSON line: peer_decode.py MODEL.gguf TOKENS [THREADS].
The time of a step is from one token of `generate` to the next, greedy sampling included, as a user sees it.
NO_EXTRA_BUFTS=1 leaves llama.cpp's repacked (AMX) weight buffers out: 0.3.36 crashes with them on some virtual
machines."""
import os
import sys
import time

import llama_cpp

if os.environ.get("NO_EXTRA_BUFTS") == "1":
    _defaults = llama_cpp.llama_cpp.llama_model_default_params

    def _without():
        p = _defaults()
        p.use_extra_bufts = False
        return p

    llama_cpp.llama_cpp.llama_model_default_params = _without
    llama_cpp.llama_model_default_params = _without

path, n = sys.argv[1], int(sys.argv[2])
threads = int(sys.argv[3]) if len(sys.argv) > 3 else 2
model = llama_cpp.Llama(model_path=path, n_ctx=n + 64, n_threads=threads, n_threads_batch=threads, verbose=False)
prompt = [100 + k * 7919 % 20000 for k in range(16)]
times, last = [], None
for i, _ in enumerate(model.generate(prompt, temp=0)):
    now = time.perf_counter()
    if last is not None:
        times.append(now - last)
    last = now
    if i >= n:
        break
times.sort()
median = times[len(times) // 2]
print('{"what": "llama.cpp decode", "best": %.6f, "median": %.6f, "tokens_per_s": %.2f}' % (times[0], median, 1 / median))
