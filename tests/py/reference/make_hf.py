"""SmolLM2's GGUF as Hugging Face folders: float16, and MLX 4-bit.

    python3 make_hf.py MODEL.gguf --f16 FOLDER [--mlx FOLDER] [--shards N]

float16: config.json, tokenizer.json, tokenizer_config.json and
model.safetensors as the model's authors publish them. GGUF stores the rows of
the q and k matrices in the order that interleaved rotation wants; here they
go back to the halves order of Hugging Face.

MLX: every matrix and the embedding through mlx.core.quantize (affine, groups
of 64, 4 bits) from the float16 values, names and config.json keys as mlx-lm
writes them (tensor, .scales, .biases; "quantization"; an index even for one
file). Needs the `mlx` package; the float16 folder does not.
"""

import argparse
import json
import os
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import llama_ref  # noqa: E402
import st_np  # noqa: E402
import tokenizer_ref  # noqa: E402

GROUP, BITS = 64, 4


def halves_order(w, heads):
    """Rows of [heads * D, E]: from pairs (2i, 2i+1) to (i, i + D/2)."""
    pairs = w.reshape(heads, -1, 2, w.shape[-1])
    return pairs.swapaxes(1, 2).reshape(w.shape)


def hf_tensors(model):
    """{Hugging Face name: float16 array} in the order of the layers."""
    names = {v: k for k, v in llama_ref.NAMES_HF.items()}
    out = {}
    for name, w in model.w.items():
        prefix, _, stem = name.rpartition(".")
        if stem == "q":
            w = halves_order(w, model.c.heads)
        if stem == "k":
            w = halves_order(w, model.c.kv_heads)
        prefix = "model.layers.%s." % prefix if prefix else ""
        out[prefix + names[stem] + ".weight"] = w.astype(np.float16)
    return out


def config(model, reader):
    c = model.c

    def token(which):
        return tokenizer_ref.gguf_field(
            reader, "tokenizer.ggml.%s_token_id" % which)

    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_act": "silu", "hidden_size": c.embed,
        "intermediate_size": c.ff, "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads, "num_key_value_heads": c.kv_heads,
        "max_position_embeddings": tokenizer_ref.gguf_field(
            reader, "llama.context_length"),
        # GGUF keeps it as float32; the shortest decimal of that is 1e-05.
        "rms_norm_eps": float(str(np.float32(c.eps))),
        "rope_theta": c.theta, "rope_scaling": None,
        "rope_interleaved": False, "attention_bias": False,
        "attention_dropout": 0.0, "mlp_bias": False, "pretraining_tp": 1,
        "initializer_range": 0.041666666666666664, "vocab_size": c.vocab,
        "tie_word_embeddings": "head" not in model.w,
        "bos_token_id": token("bos"), "eos_token_id": token("eos"),
        "pad_token_id": token("padding"), "torch_dtype": "float16",
        "use_cache": True,
    }


def tokenizer_config(model, reader):
    def token(which):
        i = tokenizer_ref.gguf_field(
            reader, "tokenizer.ggml.%s_token_id" % which)
        return model.tokenizer.id_to_token(i)

    added = model.tokenizer.get_added_tokens_decoder()
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(i): {"content": t.content, "lstrip": False,
                     "normalized": False, "rstrip": False,
                     "single_word": False, "special": True}
            for i, t in sorted(added.items())},
        "bos_token": token("bos"), "chat_template": model.template,
        "clean_up_tokenization_spaces": False, "eos_token": token("eos"),
        "model_max_length": 8192, "pad_token": token("padding"),
        "tokenizer_class": "GPT2Tokenizer", "unk_token": token("unknown"),
        "vocab_size": model.c.vocab,
    }


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2, ensure_ascii=False)
        f.write("\n")


def write_common(folder, model, reader, settings):
    os.makedirs(folder, exist_ok=True)
    write_json(folder, "config.json", settings)
    write_json(folder, "generation_config.json", {
        k: settings[k] for k in ("bos_token_id", "eos_token_id",
                                 "pad_token_id")})
    write_json(folder, "tokenizer_config.json",
               tokenizer_config(model, reader))
    model.tokenizer.save(os.path.join(folder, "tokenizer.json"))


def write_mlx(folder, tensors):
    import mlx.core as mx

    mx.set_default_device(mx.cpu)
    out = {}
    for name, w in tensors.items():
        stem = name[:-len(".weight")]
        if w.ndim != 2:
            out[name] = mx.array(w)
            continue
        parts = mx.quantize(mx.array(w), group_size=GROUP, bits=BITS)
        for part, value in zip(("weight", "scales", "biases"), parts):
            out[stem + "." + part] = value
    mx.save_safetensors(os.path.join(folder, "model.safetensors"), out,
                        metadata={"format": "mlx"})
    write_json(folder, "model.safetensors.index.json", {
        "metadata": {"total_size": sum(v.nbytes for v in out.values())},
        "weight_map": {n: "model.safetensors" for n in sorted(out)}})


def main():
    from gguf import GGUFReader

    p = argparse.ArgumentParser(description="GGUF to Hugging Face folders")
    p.add_argument("model")
    p.add_argument("--f16", help="folder for the float16 model")
    p.add_argument("--mlx", help="folder for the MLX 4-bit model")
    p.add_argument("--shards", type=int, default=1, help="of the float16 one")
    a = p.parse_args()
    reader = GGUFReader(a.model)
    model = llama_ref.load_gguf(a.model)
    settings, tensors = config(model, reader), hf_tensors(model)
    if a.f16:
        write_common(a.f16, model, reader, settings)
        st_np.write_folder(a.f16, tensors, None, a.shards)
    if a.mlx:
        kind = {"group_size": GROUP, "bits": BITS, "mode": "affine"}
        write_common(a.mlx, model, reader, {
            **settings, "quantization": kind, "quantization_config": kind})
        write_mlx(a.mlx, tensors)


if __name__ == "__main__":
    main()
