"""The peer of tests/perf/bench.sh: llama.cpp through llama-cpp-python, one measurement a run, one JSON line.

  peer_llama.py MODEL decode|verify|prefill N [CONTEXT]   as bench_engine of the same name
  peer_llama.py MODEL ppl FILE WINDOWS                     perplexity by llama.cpp's rule
  peer_llama.py MODEL smoke                                exits 0 when the build can run at all
"""
import json
import sys
import time

import llama_cpp
import numpy as np


def open_model(path, n_ctx, logits_all=False):
    return llama_cpp.Llama(path, n_ctx=n_ctx, n_batch=512, n_threads=2, n_threads_batch=2, verbose=False,
                           logits_all=logits_all)


def bench(path, what, n, context):
    m = open_model(path, n + context + 64)
    ctx = m._ctx.ctx
    memory = llama_cpp.llama_get_memory(ctx)
    ids = [100 + (i * 7919) % 20000 for i in range(n + context)]

    def run(tokens, past, all_logits):
        m._batch.set_batch(tokens, n_past=past, logits_all=all_logits)
        m._ctx.decode(m._batch)
        llama_cpp.llama_get_logits(ctx)  # waits for the result

    for at in range(0, context, 512):
        run(ids[at:min(at + 512, context)], at, False)
    times, total = [], 0.0
    while len(times) < 3 or (total < 2.0 and len(times) < 256):
        start = time.perf_counter()
        run(ids[context:], context, what == "verify")
        times.append(time.perf_counter() - start)
        total += times[-1]
        llama_cpp.llama_memory_seq_rm(memory, 0, context, -1)
    times.sort()
    print(json.dumps({"what": what, "n": n, "context": context, "best": times[0], "median": times[len(times) // 2]}))


def perplexity(path, file, windows):
    m = open_model(path, 512, logits_all=True)
    with open(file, "rb") as f:
        ids = m.tokenize(f.read(), add_bos=True, special=False)
    add_bos = llama_cpp.llama_vocab_get_add_bos(m._model.vocab)
    nll, tokens = 0.0, 0
    for w in range(windows):
        x = list(ids[w * 512:(w + 1) * 512])
        if add_bos:
            x[0] = m.token_bos()
        m.reset()
        m.eval(x)
        for p in range(256, 511):
            row = np.asarray(m.scores[p], dtype=np.float64)
            top = row.max()
            nll += np.log(np.exp(row - top).sum()) + top - row[x[p + 1]]
            tokens += 1
    print(json.dumps({"ppl": float(np.exp(nll / tokens)), "tokens": tokens}))


def main():
    path, what = sys.argv[1], sys.argv[2]
    if what == "smoke":
        open_model(path, 64).eval([1, 2, 3, 4, 5, 6, 7, 8])
    elif what == "ppl":
        perplexity(path, sys.argv[3], int(sys.argv[4]))
    else:
        bench(path, what, int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 0)


main()
