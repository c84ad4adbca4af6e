#!/usr/bin/env python3
"""make_quant.py: writes tests/golden/quant.json: blocks of every tensor type and their values by the gguf package.

  v/bin/pip install gguf==0.19.0 && v/bin/python tests/golden/make_quant.py

Random bytes from a fixed seed with finite scales put in; values are float32 as hex, little endian.
"""
import json, os
import numpy as np
from gguf import GGMLQuantizationType as T, GGML_QUANT_SIZES
from gguf.quants import dequantize

HALVES = {"F16": None, "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}

def main():
  rng = np.random.default_rng(7)
  out = []
  for name in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"):
    t = T[name]
    elems, size = GGML_QUANT_SIZES[t]
    blocks = 2 if elems > 1 else 16
    if name == "F32":
      raw = rng.normal(size=blocks).astype(np.float32).view(np.uint8)
    elif name == "F16":
      raw = np.array([0, 0x8000, 1, 0x3ff, 0x400, 0x7bff, 0xfbff, 0x3c00, 0x8001, 0x5640] + list(rng.integers(0, 0x7c00, 6)), np.uint16).view(np.uint8)
    elif name == "BF16":
      raw = (rng.normal(size=blocks).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    else:
      raw = rng.integers(0, 256, blocks * size, dtype=np.uint8)
      for b in range(blocks):
        for at in HALVES[name]:
          h = np.float16(rng.normal() * (1e-5 if b else 0.1)).view(np.uint16)  # the second block has a subnormal scale
          raw[b * size + at:b * size + at + 2] = np.array([h], np.uint16).view(np.uint8)
    v = dequantize(raw.reshape(1, -1), t).astype(np.float32).reshape(-1)
    out.append({"type": name, "id": int(t), "n": int(v.size), "raw": raw.tobytes().hex(), "values": v.tobytes().hex()})
  path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "quant.json")
  with open(path, "w") as f:
    json.dump(out, f, indent=0)
    f.write("\n")
  print(path, os.path.getsize(path))

main()
