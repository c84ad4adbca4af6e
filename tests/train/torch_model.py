"""The three architectures in PyTorch, read from the same GGUF file, for comparison with the trainer."""
import numpy as np
import torch
import torch.nn.functional as F
from gguf import GGUFReader
from gguf.quants import dequantize

LIN = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
HF = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
      "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}


class Model:
    def __init__(self, path, dtype=torch.float32):
        r = GGUFReader(path)
        kv = lambda k, d=None: (lambda f: f.contents() if f else d)(r.get_field(k))
        a = self.arch = kv("general.architecture")
        self.T = {t.name: torch.from_numpy(np.ascontiguousarray(dequantize(t.data, t.tensor_type))).float().reshape(
            list(reversed([int(x) for x in t.shape]))).to(dtype) for t in r.tensors}
        self.L, self.D = kv(a + ".block_count"), kv(a + ".embedding_length")
        self.H, self.KV = kv(a + ".attention.head_count"), kv(a + ".attention.head_count_kv")
        self.hd = kv(a + ".attention.key_length", self.D // self.H)
        self.eps, self.base = kv(a + ".attention.layer_norm_rms_epsilon"), kv(a + ".rope.freq_base", 10000.0)
        self.window = kv(a + ".attention.sliding_window", 0) if a == "gemma3" else 0
        self.lora, self.scale = {}, 0.0

    def add_lora(self, tensors, scale):
        """tensors: {peft name: array}; rows of llama's q and k go to the order of the GGUF file."""
        self.scale = scale
        for l in range(self.L):
            for j in LIN:
                p = f"base_model.model.model.layers.{l}.{HF[j]}.lora_"
                A, B = tensors[p + "A.weight"], tensors[p + "B.weight"]
                if self.arch == "llama" and j in "qk":
                    h = self.H if j == "q" else self.KV
                    B = B.reshape(h, 2, self.hd // 2, -1).swapaxes(1, 2).reshape(B.shape)
                self.lora[l, j] = [torch.tensor(np.ascontiguousarray(x), requires_grad=True) for x in (A, B)]

    def gradients(self):
        out = {}
        for (l, j), (A, B) in self.lora.items():
            g = B.grad.numpy()
            if self.arch == "llama" and j in "qk":
                h = self.H if j == "q" else self.KV
                g = g.reshape(h, self.hd // 2, 2, -1).swapaxes(1, 2).reshape(g.shape)
            p = f"base_model.model.model.layers.{l}.{HF[j]}.lora_"
            out[p + "A.weight"], out[p + "B.weight"] = A.grad.numpy(), g
        return out

    def norm(self, x, w):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * w

    def lin(self, l, j, x):
        y = x @ self.T[f"blk.{l}.{LIN[j]}.weight"].T
        b = self.T.get(f"blk.{l}.{LIN[j]}.bias")
        if b is not None:
            y = y + b
        if (l, j) in self.lora:
            A, B = self.lora[l, j]
            y = y + self.scale * (x @ A.T.to(x.dtype)) @ B.T.to(x.dtype)
        return y

    def rope(self, x, base):  # S, T, heads, hd
        half = self.hd // 2
        ang = torch.outer(torch.arange(x.shape[1], dtype=torch.float64),
                          base ** (-2.0 * torch.arange(half, dtype=torch.float64) / self.hd))
        c, s = ang.cos()[:, None].to(x.dtype), ang.sin()[:, None].to(x.dtype)
        if self.arch == "llama":
            a, b = x[..., 0::2], x[..., 1::2]
            return torch.stack((a * c - b * s, a * s + b * c), -1).flatten(-2)
        a, b = x[..., :half], x[..., half:]
        return torch.cat((a * c - b * s, a * s + b * c), -1)

    def block(self, l, x):
        S, T, _ = x.shape
        local = self.window and l % 6 < 5
        g3 = self.arch == "gemma3"
        h = self.norm(x, self.T[f"blk.{l}.attn_norm.weight"])
        q, k = self.lin(l, "q", h).view(S, T, self.H, self.hd), self.lin(l, "k", h).view(S, T, self.KV, self.hd)
        v = self.lin(l, "v", h).view(S, T, self.KV, self.hd)
        if g3:
            q, k = self.norm(q, self.T[f"blk.{l}.attn_q_norm.weight"]), self.norm(k, self.T[f"blk.{l}.attn_k_norm.weight"])
        base = 10000.0 if local else self.base
        q, k = self.rope(q, base), self.rope(k, base)
        k, v = (t.repeat_interleave(self.H // self.KV, 2) for t in (k, v))
        i = torch.arange(T)
        see = i[:, None] >= i[None, :]
        if local:
            see &= i[:, None] - i[None, :] < self.window
        o = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=see)
        o = self.lin(l, "o", o.transpose(1, 2).reshape(S, T, -1))
        if g3:
            o = self.norm(o, self.T[f"blk.{l}.post_attention_norm.weight"])
        x = x + o
        h = self.norm(x, self.T[f"blk.{l}.ffn_norm.weight"])
        g = self.lin(l, "gate", h)
        g = F.gelu(g, approximate="tanh") if g3 else F.silu(g)
        d = self.lin(l, "down", g * self.lin(l, "up", h))
        if g3:
            d = self.norm(d, self.T[f"blk.{l}.post_ffw_norm.weight"])
        return x + d

    def loss(self, ids, checkpoint=False):  # S, T
        x = self.T["token_embd.weight"][ids]
        if self.arch == "gemma3":
            x = x * float(self.D) ** 0.5
        for l in range(self.L):
            x = torch.utils.checkpoint.checkpoint(self.block, l, x, use_reentrant=False) if checkpoint else self.block(l, x)
        x = self.norm(x, self.T["output_norm.weight"])[:, :-1]
        head = self.T.get("output.weight", self.T["token_embd.weight"])
        return F.cross_entropy((x @ head.T).float().flatten(0, 1), ids[:, 1:].flatten())
