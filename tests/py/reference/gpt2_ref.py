"""GPT-2 in NumPy, and small random model folders to test loaders with.

The forward follows the published GPT-2: learned positions, LayerNorm before
each half, fused qkv stored [in, out] (Conv1D), tanh-GELU, tied output. It
reads Hugging Face's names with or without the "transformer." prefix.

The writers make whole folders (config.json, tokenizer.json, one or several
safetensors in f32, f16 or bf16) of models of a few hundred kB, with weights
large enough that the arg-max is rarely a near-tie:
    python3 gpt2_ref.py gpt2  FOLDER [--dtype F16] [--shards 3] [--seed 1]
    python3 gpt2_ref.py llama FOLDER [--dtype BF16] [--option tied] ...
"""

import argparse
import json
import math
import os
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import st_np  # noqa: E402
import tokenizer_ref  # noqa: E402
from llama_ref import Cache, attention, perplexity  # noqa: E402


def layer_norm(x, weight, bias, eps):
    mean = x.mean(axis=-1, keepdims=True)
    d = x - mean
    var = (d * d).mean(axis=-1, keepdims=True)
    return d / np.sqrt(var + x.dtype.type(eps)) * weight + bias


def gelu_tanh(x):
    inner = x.dtype.type(math.sqrt(2 / math.pi)) * (x + 0.044715 * x * x * x)
    return 0.5 * x * (1 + np.tanh(inner))


class Gpt2:
    def __init__(self, folder, dtype=np.float32):
        with open(os.path.join(folder, "config.json")) as f:
            self.c = json.load(f)
        self.w = {n.removeprefix("transformer."): v.astype(dtype)
                  for n, v in st_np.read_folder(folder).items()}
        self.layers, self.heads = self.c["n_layer"], self.c["n_head"]
        self.eps = self.c.get("layer_norm_epsilon", 1e-5)
        path = os.path.join(folder, "tokenizer.json")
        self.tokenizer = (tokenizer_ref.from_folder(folder)
                          if os.path.exists(path) else None)

    def encode(self, text):
        return tokenizer_ref.encode(self.tokenizer, text)

    def norm(self, name, x):
        return layer_norm(x, self.w[name + ".weight"],
                          self.w[name + ".bias"], self.eps)

    def conv1d(self, name, x):
        return x @ self.w[name + ".weight"] + self.w[name + ".bias"]

    def block(self, i, x, cache):
        p = "h.%d." % i
        qkv = self.conv1d(p + "attn.c_attn", self.norm(p + "ln_1", x))
        q, k, v = (part.reshape(len(x), self.heads, -1)
                   for part in np.split(qkv, 3, axis=-1))
        k, v = cache.append(i, k, v)
        mixed = attention(q, k, v, cache.length)
        x = x + self.conv1d(p + "attn.c_proj", mixed)
        h = gelu_tanh(self.conv1d(p + "mlp.c_fc", self.norm(p + "ln_2", x)))
        return x + self.conv1d(p + "mlp.c_proj", h)

    def forward(self, ids, cache, last_only=False):
        at = cache.length + np.arange(len(ids))
        x = self.w["wte.weight"][np.asarray(ids)] + self.w["wpe.weight"][at]
        for i in range(self.layers):
            x = self.block(i, x, cache)
        cache.length += len(ids)
        x = self.norm("ln_f", x[-1:] if last_only else x)
        return x @ self.w.get("lm_head.weight", self.w["wte.weight"]).T

    def logits(self, ids):
        return self.forward(ids, Cache(self.layers))

    def greedy(self, ids, count):
        cache, out, step = Cache(self.layers), [], list(ids)
        for _ in range(count):
            step = [int(self.forward(step, cache, True)[0].argmax())]
            out += step
        return out

    perplexity = perplexity


# --- random folders --------------------------------------------------------

# What the small tokenizer is trained on; any text with several scripts does.
TRAINING_TEXT = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "It was the best of times, it was the worst of times, it was the age",
    "for (int i = 0; i < n; i++) { sum += values[i] * weights[i]; }",
    "def add(a, b):\n    return a + b\n",
    "Grüße aus Köln, à bientôt, ¿qué tal? Здравствуй, мир! 你好，世界。",
    "0 1 2 3 4 5 6 7 8 9 10 100 1000 3.14159 2.71828",
] * 4

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + "
    "m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def write_tokenizer(folder, vocab):
    """A byte-level BPE of at most `vocab` entries; returns its real size."""
    from tokenizers import Tokenizer, decoders, models, trainers
    from tokenizers import pre_tokenizers as pre

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, show_progress=False,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre.ByteLevel.alphabet()))
    tok.train_from_iterator(TRAINING_TEXT, trainer)
    tok.save(os.path.join(folder, "tokenizer.json"))
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
        json.dump({"eos_token": "<|im_end|>", "bos_token": "<|endoftext|>",
                   "chat_template": CHAT_TEMPLATE}, f, indent=1)
    return tok.get_vocab_size()


def write_config(folder, config):
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=1)


class Maker:
    """Random tensors in insertion order."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.out = {}

    def normal(self, name, shape, scale, mean=0.0):
        values = mean + scale * self.rng.standard_normal(shape)
        self.out[name] = values.astype(np.float32)


def write_random_gpt2(folder, dtype="F32", shards=1, seed=1, layers=3,
                      embed=96, heads=4, positions=256, prefix="transformer."):
    os.makedirs(folder, exist_ok=True)
    vocab = write_tokenizer(folder, 400)
    m, e = Maker(seed), embed
    m.normal(prefix + "wte.weight", (vocab, e), 0.3)
    m.normal(prefix + "wpe.weight", (positions, e), 0.1)
    for i in range(layers):
        p = prefix + "h.%d." % i
        for ln in ("ln_1", "ln_2"):
            m.normal(p + ln + ".weight", (e,), 0.1, 1.0)
            m.normal(p + ln + ".bias", (e,), 0.1)
        for name, n_in, n_out in (("attn.c_attn", e, 3 * e),
                                  ("attn.c_proj", e, e),
                                  ("mlp.c_fc", e, 4 * e),
                                  ("mlp.c_proj", 4 * e, e)):
            m.normal(p + name + ".weight", (n_in, n_out), 1.5 / math.sqrt(n_in))
            m.normal(p + name + ".bias", (n_out,), 0.1)
    m.normal(prefix + "ln_f.weight", (e,), 0.1, 1.0)
    m.normal(prefix + "ln_f.bias", (e,), 0.1)
    write_config(folder, {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2",
        "activation_function": "gelu_new", "n_layer": layers, "n_embd": e,
        "n_head": heads, "n_positions": positions, "n_ctx": positions,
        "n_inner": None, "vocab_size": vocab, "layer_norm_epsilon": 1e-5,
        "bos_token_id": 0, "eos_token_id": 2, "tie_word_embeddings": True})
    st_np.write_folder(folder, m.out, dtype, shards)


LLAMA3_SCALING = {"rope_type": "llama3", "factor": 8.0,
                  "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                  "original_max_position_embeddings": 64}


def write_random_llama(folder, dtype="F32", shards=1, seed=1, layers=3,
                       embed=96, heads=4, kv_heads=2, head_dim=None, ff=160,
                       tied=False, bias=False, scaling=None):
    """bias: attention_bias; scaling: a rope_scaling object or None."""
    os.makedirs(folder, exist_ok=True)
    vocab = write_tokenizer(folder, 400)
    m, e, d = Maker(seed), embed, head_dim or embed // heads
    m.normal("model.embed_tokens.weight", (vocab, e), 0.3)
    for i in range(layers):
        p = "model.layers.%d." % i
        m.normal(p + "input_layernorm.weight", (e,), 0.1, 1.0)
        m.normal(p + "post_attention_layernorm.weight", (e,), 0.1, 1.0)
        for name, n_out, n_in in (("self_attn.q_proj", heads * d, e),
                                  ("self_attn.k_proj", kv_heads * d, e),
                                  ("self_attn.v_proj", kv_heads * d, e),
                                  ("self_attn.o_proj", e, heads * d),
                                  ("mlp.gate_proj", ff, e),
                                  ("mlp.up_proj", ff, e),
                                  ("mlp.down_proj", e, ff)):
            m.normal(p + name + ".weight", (n_out, n_in), 1.5 / math.sqrt(n_in))
            if bias and name.startswith("self_attn"):
                m.normal(p + name + ".bias", (n_out,), 0.1)
    m.normal("model.norm.weight", (e,), 0.1, 1.0)
    if not tied:
        m.normal("lm_head.weight", (vocab, e), 0.3)
    write_config(folder, {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_act": "silu", "hidden_size": e, "intermediate_size": ff,
        "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": d, "vocab_size": vocab,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "rope_scaling": scaling,
        "attention_bias": bias, "mlp_bias": False, "bos_token_id": 0,
        "eos_token_id": 2, "tie_word_embeddings": tied})
    st_np.write_folder(folder, m.out, dtype, shards)


def main():
    p = argparse.ArgumentParser(description="write a random model folder")
    p.add_argument("family", choices=["gpt2", "llama"])
    p.add_argument("folder")
    p.add_argument("--dtype", default="F32", choices=["F32", "F16", "BF16"])
    p.add_argument("--shards", type=int, default=1)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--option", action="append", default=[],
                   choices=["tied", "bias", "llama3"], help="llama only")
    a = p.parse_args()
    if a.family == "gpt2":
        write_random_gpt2(a.folder, a.dtype, a.shards, a.seed)
    else:
        write_random_llama(
            a.folder, a.dtype, a.shards, a.seed, tied="tied" in a.option,
            bias="bias" in a.option,
            scaling=LLAMA3_SCALING if "llama3" in a.option else None)


if __name__ == "__main__":
    main()
