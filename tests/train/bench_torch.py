"""bench_torch.py MODEL.gguf bf16|f32 THREADS RANK SEQS LEN STEPS CHECKPOINT: tokens a second of LoRA steps, and peak memory while training."""
import json
import resource
import sys
import time

import numpy as np
import torch

from torch_model import HF, LIN, Model

path, kind = sys.argv[1:3]
threads, rank, seqs, length, steps, checkpoint = map(int, sys.argv[3:9])
torch.set_num_threads(threads)
dtype = torch.bfloat16 if kind == "bf16" else torch.float32
m = Model(path, dtype)
rng = np.random.default_rng(1)
t = {}
for l in range(m.L):
    for j in LIN:
        n_out, n_in = m.T[f"blk.{l}.{LIN[j]}.weight"].shape
        p = f"base_model.model.model.layers.{l}.{HF[j]}.lora_"
        t[p + "A.weight"] = (rng.standard_normal((rank, n_in)) / n_in**0.5).astype(np.float32)
        t[p + "B.weight"] = np.zeros((n_out, rank), np.float32)
m.add_lora(t, 2.0)
opt = torch.optim.AdamW([x for ab in m.lora.values() for x in ab], lr=1e-4)
ids = torch.tensor(rng.integers(1000, 21000, (seqs, length)))
with open("/proc/self/clear_refs", "w") as f:  # peak from here on: loading does not count
    f.write("5")
for i in range(steps + 1):
    if i == 1:
        t0 = time.time()
    loss = m.loss(ids, checkpoint != 0)
    loss.backward()
    torch.nn.utils.clip_grad_norm_([x for ab in m.lora.values() for x in ab], 1.0)
    opt.step()
    opt.zero_grad()
s = time.time() - t0
peak = next(int(x.split()[1]) for x in open("/proc/self/status") if x.startswith("VmHWM")) / 1024
print(json.dumps({"kernel": kind, "tokens_per_s": round(steps * seqs * length / s, 1), "loss": float(loss), "peak_mib": round(peak)}))
