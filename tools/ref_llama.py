#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Logits of a Llama model in float32 with NumPy, straight from the published formulas.

    tools/ref_llama.py MODEL.gguf IDS.json OUT.npy

A second opinion for tests/e2e/ref.sh: it shares no line with the C sources. Reads GGUF v2/v3
(ggml docs/gguf.md) with F32, F16, Q8_0, Q4_0 and Q4_1 (ggml-common.h gives the blocks). The model:
Touvron et al. 2023 (Llama), Su et al. 2021 (rotary embedding, neighbouring pairs, as GGUF's
permuted Q and K want), Zhang and Sennrich 2019 (RMSNorm), Shazeer 2020 (SwiGLU), Ainslie et al.
2023 (grouped queries). It knows no cache: all positions at once.
"""
import json
import struct
import sys

import numpy as np

SCALAR = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q",
          11: "<q", 12: "<d"}
BLOCK = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 8: (32, 34)}  # type: values, bytes


class Gguf:
    def __init__(self, path):
        self.b = np.memmap(path, np.uint8, "r")
        self.at = 0
        if bytes(self.b[:4]) != b"GGUF":
            sys.exit(f"{path} is no GGUF")
        self.at = 4
        version, n_tensors, n_keys = self.take("<I"), self.take("<Q"), self.take("<Q")
        if version not in (2, 3):
            sys.exit(f"{path}: version {version}")
        self.meta = {}
        for _ in range(n_keys):
            key = self.text()
            self.meta[key] = self.value(self.take("<I"))
        self.info = {}
        for _ in range(n_tensors):
            name = self.text()
            dims = [self.take("<Q") for _ in range(self.take("<I"))]
            kind, offset = self.take("<I"), self.take("<Q")
            self.info[name] = (dims, kind, offset)
        align = self.meta.get("general.alignment", 32)
        self.data = (self.at + align - 1) // align * align

    def take(self, form):
        n = struct.calcsize(form)
        v = struct.unpack(form, bytes(self.b[self.at:self.at + n]))[0]
        self.at += n
        return v

    def text(self):
        n = self.take("<Q")
        s = bytes(self.b[self.at:self.at + n])
        self.at += n
        return s.decode("utf-8", "replace")

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            of, n = self.take("<I"), self.take("<Q")
            return [self.value(of) for _ in range(n)]
        return self.take(SCALAR[kind])

    def tensor(self, name):
        """float32 [rows, columns] (or [columns])"""
        dims, kind, offset = self.info[name]
        if kind not in BLOCK:
            sys.exit(f"{name} has type {kind}, which this reference does not read")
        per, size = BLOCK[kind]
        n = int(np.prod(dims))
        raw = np.asarray(self.b[self.data + offset:self.data + offset + n // per * size])
        if kind == 0:
            v = raw.view("<f4")
        elif kind == 1:
            v = raw.view("<f2").astype(np.float32)
        else:
            blocks = raw.reshape(-1, size)
            d = blocks[:, :2].copy().view("<f2").astype(np.float32)
            if kind == 8:
                v = d * blocks[:, 2:].copy().view(np.int8).astype(np.float32)
            else:
                head = 2 if kind == 2 else 4
                q = blocks[:, head:]
                q = np.concatenate([q & 15, q >> 4], 1).astype(np.float32)
                if kind == 2:
                    v = d * (q - 8)
                else:
                    v = d * q + blocks[:, 2:4].copy().view("<f2").astype(np.float32)
        return np.asarray(v, np.float32).reshape(dims[::-1])


def rms_norm(x, w, eps):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps) * w


def rotate(x, base):
    """x [tokens, heads, dim]: pair (2i, 2i+1) turns by position * base^(-2i/dim)"""
    n, _, dim = x.shape
    angle = np.outer(np.arange(n), base ** (-np.arange(0, dim, 2, dtype=np.float64) / dim))
    c, s = (f(angle).astype(np.float32)[:, None, :] for f in (np.cos, np.sin))
    a, b = x[..., 0::2], x[..., 1::2]
    return np.stack([a * c - b * s, a * s + b * c], -1).reshape(x.shape)


def logits(g, ids):
    m = {k.split(".", 1)[1]: v for k, v in g.meta.items() if k.startswith("llama.")}
    heads = m["attention.head_count"]
    kv_heads = m.get("attention.head_count_kv", heads)
    eps, base = m["attention.layer_norm_rms_epsilon"], m.get("rope.freq_base", 10000.0)
    table = g.tensor("token_embd.weight")
    x = table[ids]
    n, dim = len(ids), x.shape[1] // heads
    mask = np.triu(np.full((n, n), -np.inf, np.float32), 1)
    for i in range(m["block_count"]):
        def w(name, layer=i):
            return g.tensor(f"blk.{layer}.{name}.weight")
        h = rms_norm(x, w("attn_norm"), eps)
        q = rotate((h @ w("attn_q").T).reshape(n, heads, dim), base)
        k = rotate((h @ w("attn_k").T).reshape(n, kv_heads, dim), base)
        v = (h @ w("attn_v").T).reshape(n, kv_heads, dim)
        k, v = (np.repeat(t, heads // kv_heads, 1) for t in (k, v))
        score = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(np.float32(dim)) + mask
        score = np.exp(score - score.max(-1, keepdims=True))
        score /= score.sum(-1, keepdims=True)
        x = x + np.einsum("hqk,khd->qhd", score, v).reshape(n, -1) @ w("attn_output").T
        h = rms_norm(x, w("ffn_norm"), eps)
        gate = h @ w("ffn_gate").T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w("ffn_up").T)) @ w("ffn_down").T
    x = rms_norm(x, g.tensor("output_norm.weight"), eps)
    return x @ (g.tensor("output.weight") if "output.weight" in g.info else table).T


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    with open(sys.argv[2], encoding="utf-8") as f:
        ids = json.load(f)
    np.save(sys.argv[3], np.ascontiguousarray(logits(Gguf(sys.argv[1]), ids), np.float32))


if __name__ == "__main__":
    main()
