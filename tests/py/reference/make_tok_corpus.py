"""Writes the seeds of the tokenizer's fuzzer into tests/fuzz/corpus/tokenizer: small tokenizers
with each part of tokenizer.json, and a text after a line of "====".

    python3 make_tok_corpus.py FOLDER
"""

import json
import os
import sys

WORDS = ["a", "b", "e", "h", "l", "o", "r", "w", "d", "s", "1", "2", "\u0120", "\u010a", "\u00c3",
         "\u00a9", "\u0120h", "el", "lo", "\u0120w", "or", "ld", "\u0120hel", "\u0120hello"]
MERGES = ["\u0120 h", "e l", "l o", "\u0120 w", "o r", "l d", "\u0120h el", "\u0120hel lo"]
META = "\u2581"


def byte_level(**parts):
    j = {"added_tokens": [added("<s>", 24), added("[MASK]", 25, lstrip=True, rstrip=True),
                          added("x", 26, single_word=True, normalized=True, special=False)],
         "normalizer": None,
         "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
         "decoder": {"type": "ByteLevel"}, "post_processor": None,
         "model": {"type": "BPE", "vocab": {w: i for i, w in enumerate(WORDS)}, "merges": MERGES}}
    j["model"].update(parts.pop("model", {}))
    j.update(parts)
    return j


def added(content, i, **flags):
    return {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True, **flags}


def pieces(**parts):
    words = ["<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "<0xFF>", META, "h", "e", "l", "o",
             META + "h", "el", "lo"]
    return {"added_tokens": [added("<unk>", 0), added("<s>", 1), added("</s>", 2)],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": META},
                {"type": "Replace", "pattern": {"String": " "}, "content": META}]},
            "pre_tokenizer": None,
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": META}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                           {"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
            "model": {"type": "BPE", "vocab": {w: i for i, w in enumerate(words)},
                      "merges": [[META, "h"], ["e", "l"], ["l", "o"]], "unk_token": "<unk>",
                      "fuse_unk": True, "byte_fallback": True}, **parts}


def split(regex, behavior, invert=False):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": [*steps, {
        "type": "ByteLevel", "add_prefix_space": True, "use_regex": False}]}


SEEDS = {
    "byte_level": byte_level(),
    "ignore_merges": byte_level(model={"ignore_merges": True, "unk_token": "a", "fuse_unk": True}),
    "pairs": byte_level(model={"merges": [m.split() for m in MERGES]}),
    "llama3": byte_level(pre_tokenizer=sequence(split(
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+"
        "[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", "Isolated"))),
    "splits": byte_level(pre_tokenizer=sequence(
        split("\\s+", "MergedWithNext"), split("o", "MergedWithPrevious", True),
        split("x*", "Contiguous"), split("[\\p{Han}\\h]", "Removed"))),
    "steps": byte_level(pre_tokenizer=sequence(
        {"type": "Digits", "individual_digits": True}, {"type": "Punctuation", "behavior": "Isolated"},
        {"type": "Whitespace"}, {"type": "WhitespaceSplit"})),
    "normalizers": byte_level(normalizer={"type": "Sequence", "normalizers": [
        {"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, {"type": "NFKC"},
        {"type": "Strip", "strip_left": True, "strip_right": True},
        {"type": "Prepend", "prepend": "_"},
        {"type": "Replace", "pattern": {"Regex": "l+"}, "content": "L"}]}),
    "nfc": byte_level(normalizer={"type": "NFC"}),
    "pieces": pieces(),
    "metaspace": pieces(normalizer=None, pre_tokenizer={
        "type": "Metaspace", "replacement": META, "prepend_scheme": "first", "split": True},
        decoder={"type": "Metaspace", "replacement": META, "prepend_scheme": "first", "split": True}),
}


# "#", a letter for the kind, the pre-tokenizer's name; a type's digit and a token; a merge.
BYTES = "".join("1%s\n" % w for w in WORDS) + "3<s>\n4[MASK]\n"
LINES = {
    "gguf_%s" % name: "#g%s\n%s%s" % (name, BYTES, "".join(" %s\n" % m for m in MERGES))
    for name in ("gpt-2", "smollm", "llama-bpe", "falcon", "deepseek-v3", "kimi-k2", "superbpe")}
PIECES = "".join("%d%s\n" % p for p in [
    (2, "<unk>"), (3, "<s>"), *((6, "<0x%02X>" % b) for b in (0xc3, 0xa9, 0xff)),
    *((1, w) for w in [META, "h", "e", "l", "o", META + "h", "el", "lo", "ello", META + "hello"])])
LINES["gguf_sentencepiece"] = "#ldefault\n" + PIECES
LINES["gguf_gemma4"] = "#m\n" + PIECES + " \u2581 h\n e l\n l o\n"


def main(folder):
    os.makedirs(folder, exist_ok=True)
    for name, j in SEEDS.items():
        with open(os.path.join(folder, name), "wb") as f:
            f.write(json.dumps(j, ensure_ascii=False, separators=(",", ":")).encode())
            f.write("\n====\n hello world <s> x [MASK] e\u0301lo 12".encode() + b"\xff\xc3")
    for name, text in LINES.items():
        with open(os.path.join(folder, name), "w") as f:
            f.write(text)


main(sys.argv[1])
