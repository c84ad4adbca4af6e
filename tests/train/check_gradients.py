"""check_gradients.py PROBE MODEL.gguf...: LoRA gradients of the trainer (f32 kernel) against PyTorch on the same file."""
import subprocess
import sys
import tempfile

import numpy as np
import torch
from safetensors.numpy import load_file

from torch_model import Model

torch.set_num_threads(2)
bad = 0
for path in sys.argv[2:]:
    rng = np.random.default_rng(1)
    ids = rng.integers(300, 20000, 40)
    with tempfile.TemporaryDirectory() as d:
        out = subprocess.run([sys.argv[1], "grad", path, "f32", "0.02", d + "/a", d + "/g"] + [str(i) for i in ids],
                             check=True, capture_output=True, text=True).stdout
        adapter, ours = load_file(d + "/a/adapter_model.safetensors"), load_file(d + "/g/adapter_model.safetensors")
    m = Model(path, torch.float64)
    m.add_lora({k: v.astype(np.float64) for k, v in adapter.items()}, 2.0)
    loss = m.loss(torch.tensor(ids)[None])
    loss.backward()
    worst, where = 0.0, ""
    for k, g in m.gradients().items():
        e = float(np.linalg.norm(g - ours[k]) / np.linalg.norm(g))
        if e > worst:
            worst, where = e, k
    ok = worst <= 1e-4 and abs(float(out) - float(loss)) <= 1e-5 * float(loss)
    bad += not ok
    print(f"{'ok' if ok else 'FAILED'}: {path.split('/')[-1]}: loss {float(out):.6f} / {float(loss):.6f}, "
          f"{len(ours)} gradients, worst relative difference {worst:.1e} ({where})")
sys.exit(bad > 0)
