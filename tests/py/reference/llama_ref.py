"""A Llama-family forward in NumPy: the answer Tenon is compared with.

Independent on purpose: weights come from the `gguf` package's dequantisation
or from safetensors, arithmetic is NumPy's, and nothing of Tenon is imported.
Every matrix is widened to float32 (or float64: `dtype`) once; there is no
quantised arithmetic, so this is the model the file's numbers define.

Shapes: T new tokens, S cached + new, H query heads, K key/value heads, D head
size, E embedding, F feed-forward, V vocabulary. Matrices are [out, in].

    model = load("SmolLM2-135M-Instruct.Q4_1.gguf")     # or a folder
    ids = model.encode("The capital of France is")
    model.logits(ids)                                   # [T, V]
    model.greedy(ids, 32)                               # ids
    model.perplexity(ids, window=512, windows=8)        # (ppl, nll a window)

Run as a program it prints the perplexity of a text:
    python3 llama_ref.py MODEL TEXT [--windows N] [--context N] [--json]
"""

import argparse
import json
import math
import os
import sys
from dataclasses import dataclass, field

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import st_np  # noqa: E402
import tokenizer_ref  # noqa: E402


@dataclass
class Config:
    layers: int
    embed: int
    heads: int
    kv_heads: int
    head_dim: int
    ff: int
    vocab: int
    eps: float
    theta: float
    interleaved: bool        # pairs (2i, 2i+1) if set, else (i, i + D/2)
    eos: set = field(default_factory=set)
    rope_factors: object = None   # [D/2] divisors of the frequencies


def llama3_factors(freq, s):
    """Divisors of the rotary frequencies for rope_scaling type "llama3"."""
    wavelen = 2 * np.pi / freq
    length = s["original_max_position_embeddings"]
    low, high = s["low_freq_factor"], s["high_freq_factor"]
    smooth = np.clip((length / wavelen - low) / (high - low), 0, 1)
    return 1 / ((1 - smooth) / s["factor"] + smooth)


def base_frequencies(theta, head_dim):
    return theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)


def rms_norm(x, weight, eps):
    scale = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + x.dtype.type(eps))
    return x / scale * weight


def silu(x):
    return x / (1 + np.exp(-x))


def log_softmax(logits):
    """float64 over the last axis: the comparison should add no error."""
    x = logits.astype(np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def attention(q, k, v, start):
    """q [T, H, D], k and v [S, K, D] -> [T, H, D]; row t sees start + t + 1."""
    t, heads, d = q.shape
    s, kv_heads, _ = k.shape
    group = heads // kv_heads
    q = q.reshape(t, kv_heads, group, d).transpose(1, 2, 0, 3)
    q = q.reshape(kv_heads, group * t, d)
    scores = q @ k.transpose(1, 2, 0) * q.dtype.type(1 / math.sqrt(d))
    scores = scores.reshape(kv_heads, group, t, s)
    visible = np.arange(s)[None, :] <= start + np.arange(t)[:, None]
    scores = np.where(visible, scores, q.dtype.type(-np.inf))
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    out = scores.reshape(kv_heads, group * t, s) @ v.transpose(1, 0, 2)
    out = out.reshape(kv_heads, group, t, d).transpose(2, 0, 1, 3)
    return out.reshape(t, heads * d)


class Cache:
    """Keys and values of every layer, grown by doubling; [S, K, D] each."""

    def __init__(self, layers):
        self.length = 0
        self.k = [None] * layers
        self.v = [None] * layers

    def append(self, layer, k, v):
        n = self.length + len(k)
        for store, new in ((self.k, k), (self.v, v)):
            old = store[layer]
            if old is None or len(old) < n:
                grown = np.empty((max(2 * n, 64),) + new.shape[1:], new.dtype)
                if old is not None:
                    grown[:self.length] = old[:self.length]
                store[layer] = old = grown
            old[self.length:n] = new
        return self.k[layer][:n], self.v[layer][:n]


def perplexity(model, ids, window=512, windows=None):
    """Non-overlapping windows; window - 1 predictions each, no BOS."""
    count = len(ids) // window
    count = count if windows is None else min(count, windows)
    nll = []
    for w in range(count):
        part = np.asarray(ids[w * window:(w + 1) * window])
        logp = log_softmax(model.logits(part)[:-1])
        nll.append(-float(logp[np.arange(window - 1), part[1:]].mean()))
    return math.exp(sum(nll) / len(nll)), nll


class Llama:
    """weights: {canonical name: array}; see NAMES_GGUF for the names."""

    def __init__(self, config, weights, tokenizer, template=None):
        self.c, self.w = config, weights
        self.tokenizer, self.template = tokenizer, template
        self.dtype = weights["embed"].dtype
        freq = base_frequencies(config.theta, config.head_dim)
        if config.rope_factors is not None:
            freq = freq / config.rope_factors
        self.freq = freq

    def encode(self, text):
        return tokenizer_ref.encode(self.tokenizer, text)

    def decode(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def render(self, messages, **variables):
        return tokenizer_ref.render(self.template, messages, **variables)

    def rope(self, x, start):
        """Rotate x [T, heads, D]; angles in float64 so that they are exact."""
        angle = (start + np.arange(len(x)))[:, None] * self.freq
        cos = np.cos(angle).astype(x.dtype)[:, None, :]
        sin = np.sin(angle).astype(x.dtype)[:, None, :]
        half = x.shape[-1] // 2
        if self.c.interleaved:
            a, b = x[..., 0::2], x[..., 1::2]
        else:
            a, b = x[..., :half], x[..., half:]
        ra, rb = a * cos - b * sin, a * sin + b * cos
        if not self.c.interleaved:
            return np.concatenate([ra, rb], axis=-1)
        return np.stack([ra, rb], axis=-1).reshape(x.shape)

    def linear(self, name, x):
        y = x @ self.w[name].T
        bias = self.w.get(name + ".bias")
        return y if bias is None else y + bias

    def heads(self, layer, what, x, count):
        y = self.linear("%d.%s" % (layer, what), x)
        y = y.reshape(len(x), count, self.c.head_dim)
        norm = self.w.get("%d.%s_norm" % (layer, what))
        return y if norm is None else rms_norm(y, norm, self.c.eps)

    def block(self, i, x, cache):
        c, start = self.c, cache.length
        h = rms_norm(x, self.w["%d.attn_norm" % i], c.eps)
        q = self.rope(self.heads(i, "q", h, c.heads), start)
        k = self.rope(self.heads(i, "k", h, c.kv_heads), start)
        v = self.heads(i, "v", h, c.kv_heads)
        k, v = cache.append(i, k, v)
        x = x + self.linear("%d.o" % i, attention(q, k, v, start))
        h = rms_norm(x, self.w["%d.ff_norm" % i], c.eps)
        h = silu(self.linear("%d.gate" % i, h)) * self.linear("%d.up" % i, h)
        return x + self.linear("%d.down" % i, h)

    def forward(self, ids, cache, last_only=False):
        """Logits of the new tokens ids [T] -> [T, V], or [1, V]."""
        x = self.w["embed"][np.asarray(ids, np.int64)]
        for i in range(self.c.layers):
            x = self.block(i, x, cache)
        cache.length += len(ids)
        if last_only:
            x = x[-1:]
        x = rms_norm(x, self.w["norm"], self.c.eps)
        return x @ self.w.get("head", self.w["embed"]).T

    def logits(self, ids):
        return self.forward(ids, Cache(self.c.layers))

    def greedy(self, ids, count, stop=()):
        """Up to count ids by arg-max; a stop id ends and is included."""
        cache, out = Cache(self.c.layers), []
        step = list(ids)
        while len(out) < count:
            step = [int(self.forward(step, cache, True)[0].argmax())]
            out += step
            if step[0] in stop:
                break
        return out

    perplexity = perplexity


# --- GGUF ------------------------------------------------------------------

NAMES_GGUF = {
    "token_embd": "embed", "output_norm": "norm", "output": "head",
    "attn_norm": "attn_norm", "ffn_norm": "ff_norm",
    "attn_q": "q", "attn_k": "k", "attn_v": "v", "attn_output": "o",
    "attn_q_norm": "q_norm", "attn_k_norm": "k_norm",
    "ffn_gate": "gate", "ffn_up": "up", "ffn_down": "down",
}


def canonical_gguf(name):
    stem, kind = name.rsplit(".", 1)
    prefix = ""
    if stem.startswith("blk."):
        _, layer, stem = stem.split(".")
        prefix = layer + "."
    return prefix + NAMES_GGUF[stem] + (".bias" if kind == "bias" else "")


def load_gguf(path, dtype=np.float32):
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(path)
    arch = tokenizer_ref.gguf_field(reader, "general.architecture")
    if arch != "llama":
        raise ValueError("architecture %r is not llama" % arch)

    def get(key, default=None):
        return tokenizer_ref.gguf_field(reader, arch + "." + key, default)

    weights, factors = {}, None
    for t in reader.tensors:
        values = dequantize(t.data, t.tensor_type)
        values = values.reshape([int(n) for n in reversed(t.shape)])
        if t.name == "rope_freqs.weight":
            factors = values.astype(np.float64)
        else:
            weights[canonical_gguf(t.name)] = values.astype(dtype)
    heads = get("attention.head_count")
    config = Config(
        layers=get("block_count"), embed=get("embedding_length"), heads=heads,
        kv_heads=get("attention.head_count_kv", heads),
        head_dim=get("attention.key_length",
                     get("embedding_length") // heads),
        ff=get("feed_forward_length"), vocab=len(weights["embed"]),
        eps=get("attention.layer_norm_rms_epsilon"),
        theta=get("rope.freq_base", 10000.0), interleaved=True,
        eos={tokenizer_ref.gguf_field(reader, "tokenizer.ggml.eos_token_id")},
        rope_factors=factors)
    template = tokenizer_ref.gguf_field(reader, "tokenizer.chat_template")
    return Llama(config, weights, tokenizer_ref.from_gguf(reader), template)


# --- Hugging Face folders --------------------------------------------------

NAMES_HF = {
    "model.embed_tokens": "embed", "model.norm": "norm", "lm_head": "head",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ff_norm",
    "self_attn.q_proj": "q", "self_attn.k_proj": "k",
    "self_attn.v_proj": "v", "self_attn.o_proj": "o",
    "self_attn.q_norm": "q_norm", "self_attn.k_norm": "k_norm",
    "mlp.gate_proj": "gate", "mlp.up_proj": "up", "mlp.down_proj": "down",
}


def canonical_hf(stem):
    if stem.startswith("model.layers."):
        layer, rest = stem[len("model.layers."):].split(".", 1)
        return layer + "." + NAMES_HF[rest]
    return NAMES_HF[stem]


def unpack_affine(packed, scales, biases, bits, dtype):
    """MLX affine weights: a little-endian stream of `bits`-bit codes a row,
    value = scale * code + bias with one pair for a group of columns."""
    rows = packed.shape[0]
    stream = np.unpackbits(packed.view(np.uint8), axis=1, bitorder="little")
    powers = (1 << np.arange(bits)).astype(np.float32)
    codes = stream.reshape(rows, -1, bits).astype(np.float32) @ powers
    codes = codes.reshape(rows, scales.shape[1], -1).astype(dtype)
    values = scales.astype(dtype)[..., None] * codes
    return (values + biases.astype(dtype)[..., None]).reshape(rows, -1)


def widen(tensors, quantization, dtype):
    """Canonical float matrices of a folder, quantised layers unpacked."""
    out = {}
    for name, value in tensors.items():
        stem, kind = name.rsplit(".", 1)
        if kind in ("scales", "biases") or kind == "inv_freq":
            continue
        if stem + ".scales" in tensors:
            own = (quantization or {}).get(stem)
            bits = (own if isinstance(own, dict) else quantization)["bits"]
            value = unpack_affine(value, tensors[stem + ".scales"],
                                  tensors[stem + ".biases"], bits, dtype)
        suffix = ".bias" if kind == "bias" else ""
        out[canonical_hf(stem) + suffix] = value.astype(dtype)
    return out


def config_hf(j):
    heads = j["num_attention_heads"]
    head_dim = j.get("head_dim") or j["hidden_size"] // heads
    rope = j.get("rope_parameters") or {}
    scaling = j.get("rope_scaling") or rope
    theta = j.get("rope_theta", rope.get("rope_theta", 10000.0))
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    factors = None
    if kind == "llama3":
        factors = llama3_factors(base_frequencies(theta, head_dim), scaling)
    elif kind == "linear":
        factors = np.full(head_dim // 2, scaling["factor"])
    elif kind != "default":
        raise ValueError("rope scaling %r is not covered" % kind)
    eos = j.get("eos_token_id")
    eos = eos if isinstance(eos, list) else [] if eos is None else [eos]
    return Config(
        layers=j["num_hidden_layers"], embed=j["hidden_size"], heads=heads,
        kv_heads=j.get("num_key_value_heads") or heads, head_dim=head_dim,
        ff=j["intermediate_size"], vocab=j["vocab_size"],
        eps=j["rms_norm_eps"], theta=theta, interleaved=False, eos=set(eos),
        rope_factors=factors)


def load_folder(folder, dtype=np.float32):
    with open(os.path.join(folder, "config.json")) as f:
        j = json.load(f)
    weights = widen(st_np.read_folder(folder), j.get("quantization"), dtype)
    if j.get("tie_word_embeddings", False):
        weights.pop("head", None)
    tokenizer, template = None, None
    if os.path.exists(os.path.join(folder, "tokenizer.json")):
        tokenizer = tokenizer_ref.from_folder(folder)
    path = os.path.join(folder, "tokenizer_config.json")
    if os.path.exists(path):
        with open(path) as f:
            template = json.load(f).get("chat_template")
    return Llama(config_hf(j), weights, tokenizer, template)


def load(path, dtype=np.float32):
    loader = load_folder if os.path.isdir(path) else load_gguf
    return loader(path, dtype)


def main():
    p = argparse.ArgumentParser(description="float32 reference perplexity")
    p.add_argument("model")
    p.add_argument("text")
    p.add_argument("--windows", type=int)
    p.add_argument("--context", type=int, default=512)
    p.add_argument("--float64", action="store_true")
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    model = load(a.model, np.float64 if a.float64 else np.float32)
    with open(a.text, encoding="utf-8") as f:
        ids = model.encode(f.read())
    ppl, nll = model.perplexity(ids, a.context, a.windows)
    if a.json:
        print(json.dumps({"perplexity": ppl, "context": a.context,
                          "windows": len(nll), "window_nll": nll,
                          "predictions": len(nll) * (a.context - 1),
                          "text_tokens": len(ids),
                          "dtype": str(model.dtype)}))
    else:
        print("perplexity %.4f over %d windows of %d" %
              (ppl, len(nll), a.context))


if __name__ == "__main__":
    main()
