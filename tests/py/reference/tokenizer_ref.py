"""The `tokenizers` package's tokenizer for a GGUF or a Hugging Face folder.

GGUF carries vocabulary, merges and token types, but names the pre-tokenizer
only ("smollm"): its rules come from SmolLM2's tokenizer.json, which splits
digits one by one and then applies GPT-2's byte-level pattern.
"""

import json
import os

from tokenizers import AddedToken, Tokenizer, decoders, models
from tokenizers import pre_tokenizers as pre

TYPE_CONTROL = 3


def gguf_field(reader, key, default=None):
    field = reader.fields.get(key)
    return default if field is None else field.contents()


def pre_tokenizer(name):
    if name == "smollm":
        return pre.Sequence([
            pre.Digits(individual_digits=True),
            pre.ByteLevel(add_prefix_space=False, use_regex=True),
        ])
    if name in ("gpt-2", "gpt2", "default"):
        return pre.ByteLevel(add_prefix_space=False, use_regex=True)
    raise ValueError("no rules known for pre-tokenizer %r" % name)


def from_gguf(reader):
    """reader: gguf.GGUFReader of a model whose tokenizer is "gpt2" (BPE)."""
    if gguf_field(reader, "tokenizer.ggml.model") != "gpt2":
        raise ValueError("not a byte-level BPE tokenizer")
    tokens = gguf_field(reader, "tokenizer.ggml.tokens")
    types = gguf_field(reader, "tokenizer.ggml.token_type")
    merges = [tuple(m.split(" ")) for m in
              gguf_field(reader, "tokenizer.ggml.merges")]
    tok = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tok.pre_tokenizer = pre_tokenizer(
        gguf_field(reader, "tokenizer.ggml.pre", "default"))
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([
        AddedToken(t, special=True, normalized=False)
        for t, kind in zip(tokens, types) if kind == TYPE_CONTROL])
    return tok


def from_folder(folder):
    return Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))


def encode(tok, text):
    """Ids of text; special tokens written in it are recognised, none added."""
    return tok.encode(text, add_special_tokens=False).ids


def render(template, messages, **variables):
    """A chat template through jinja2, with the settings transformers uses."""
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message):
        raise ValueError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None,
               sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent,
                          separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    variables.setdefault("add_generation_prompt", True)
    return env.from_string(template).render(messages=messages, **variables)
