#!/usr/bin/env python3
"""make_logits.py FOLDER: writes tests/golden/logits.json (every 16th logit that llama.cpp gives for the tiny models of
tests/unit/tiny_model.c) and tests/golden/licence-perplexity.json (perplexity of positions 64..126 of the first 128 tokens of
LICENSE by SmolLM2 from the cache).

  mkdir d && FORAY_DUMP_TINY=d build/release/tests/model/test_model dump
  v/bin/pip install llama-cpp-python==0.3.36 && v/bin/python tests/golden/make_logits.py d
"""
import json, os, sys
import numpy as np
import llama_cpp

# The AMX weight layout of 0.3.36 crashes on prompts of SmolLM2 on AMX machines; the plain layout gives the same kind of numbers.
_defaults = llama_cpp.llama_cpp.llama_model_default_params
def without_extra_bufts():
  p = _defaults()
  p.use_extra_bufts = False
  return p
llama_cpp.llama_cpp.llama_model_default_params = without_extra_bufts

def logits(path, ids):
  m = llama_cpp.Llama(path, n_ctx=512, n_batch=512, logits_all=True, verbose=False, n_threads=2)
  m.eval(ids)
  return np.array(m.scores[:len(ids)], dtype=np.float64)

def main():
  here = os.path.dirname(os.path.abspath(__file__))
  ids = [(7 + i * i * 13) % 300 for i in range(40)]
  out = {}
  for arch in ("llama", "qwen2", "gemma3"):
    l = logits(os.path.join(sys.argv[1], arch + ".gguf"), ids)
    out[arch] = [float("%.6g" % v) for v in l[:, ::16].reshape(-1)]
    print(arch, l.std())
  with open(os.path.join(here, "logits.json"), "w") as f:
    json.dump(out, f, separators=(",", ":"))
    f.write("\n")
  cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "foray", "models")
  path = os.path.join(cache, "smollm2-135m-instruct.gguf")
  text = open(os.path.join(here, "..", "..", "LICENSE"), "rb").read()[:4096]
  ids = llama_cpp.Llama(path, vocab_only=True, verbose=False).tokenize(text, add_bos=False, special=False)
  l = logits(path, ids[:128])
  nll = [np.log(np.exp(l[i] - l[i].max()).sum()) - (l[i][ids[i + 1]] - l[i].max()) for i in range(64, 127)]
  with open(os.path.join(here, "licence-perplexity.json"), "w") as f:
    json.dump({"smollm2-135m-instruct": float(np.exp(np.mean(nll)))}, f)
    f.write("\n")
  print(np.exp(np.mean(nll)))

main()
