"""check_adapters.py PROBE MODEL.gguf (llama): the adapter that the trainer writes, loaded by peft and by llama.cpp, gives its loss."""
import os
import subprocess
import sys
import tempfile

import llama_cpp.llama_cpp as ll
import numpy as np
import torch
from llama_cpp import Llama
from peft import PeftModel
from transformers import AutoModelForCausalLM

torch.set_num_threads(2)
defaults = ll.llama_model_default_params


def plain_buffers():  # llama.cpp's own AMX buffers crash with a LoRA on some processors
    p = defaults()
    p.use_extra_bufts = False
    return p


ll.llama_model_default_params = plain_buffers
probe, path = sys.argv[1:3]
ids = [int(i) for i in np.random.default_rng(2).integers(300, 20000, 48)]
bad = 0


def check(name, got, want, tol):
    global bad
    ok = abs(got - want) <= tol * want
    bad += not ok
    print(f"{'ok' if ok else 'FAILED'}: {name}: loss {got:.5f}, ours {want:.5f}", flush=True)


with tempfile.TemporaryDirectory() as d:
    ours = float(subprocess.run([probe, "grad", path, "f32", "0.3", d + "/a", d + "/g"] + [str(i) for i in ids],
                                check=True, capture_output=True, text=True).stdout)
    base = AutoModelForCausalLM.from_pretrained(os.path.dirname(path), gguf_file=os.path.basename(path), dtype=torch.float32)
    t = torch.tensor(ids)[None]
    plain = float(base(t, labels=t).loss.detach())
    tuned = float(PeftModel.from_pretrained(base, d + "/a")(t, labels=t).loss.detach())
    check("peft", tuned, ours, 1e-4)

    def llama_loss(**kw):
        m = Llama(path, n_ctx=64, logits_all=True, verbose=False, n_threads=2, **kw)
        m.eval(ids)
        z = torch.from_numpy(np.array(m.scores[:len(ids) - 1], dtype=np.float64))
        return float(torch.nn.functional.cross_entropy(z, torch.tensor(ids[1:])))

    check("llama.cpp", llama_loss(lora_path=d + "/a/adapter.gguf"), ours, 1e-2)
    check("llama.cpp without adapter", llama_loss(), plain, 1e-2)
    if abs(plain - ours) < 0.02 * ours:
        bad += 1
        print("FAILED: the adapter changes too little to show anything")
sys.exit(bad > 0)
