"""Tokenizers against the `tokenizers` package: the same ids, the same text back.

Three real ones (SmolLM2 from GGUF and as tokenizer.json, Qwen3, DeepSeek-V3) on
WikiText-2 and on random Unicode; then small ones made here, one for each option
of tokenizer.json; then what has to be refused. Speeds are printed (pytest -s).
"""

import ctypes
import gzip
import lzma
import os
import random
import subprocess
import sys
import time

import pytest
from tokenizers import Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "reference")]
import tokenizer_ref  # noqa: E402
from tenon_llm import PROGRAM, ROOT, TenonError, check, lib  # noqa: E402

DATA = os.path.join(ROOT, "tests", "data")
STRINGS = int(os.environ.get("TENON_TOKENIZER_STRINGS", "10000"))
SPECIAL, TEMPLATE = 1, 2


class Tok:
    """Tenon's tokenizer of a file."""

    def __init__(self, path):
        self.m = ctypes.c_void_p()
        check(lib.tn_llm_open_tokenizer(os.fsencode(path), ctypes.byref(self.m)))

    def __del__(self):
        lib.tn_llm_free(self.m)

    def encode(self, text, flags=SPECIAL):
        data = text if isinstance(text, bytes) else text.encode()
        ids, n = ctypes.POINTER(ctypes.c_int32)(), ctypes.c_size_t()
        check(lib.tn_llm_tokenize(self.m, data, ctypes.c_size_t(len(data)), flags,
                                  ctypes.byref(ids), ctypes.byref(n)))
        out = ids[:n.value]
        lib.tn_llm_ids_free(ids)
        return out

    def decode_bytes(self, ids, skip=False):
        text, n = ctypes.c_void_p(), ctypes.c_size_t()
        check(lib.tn_llm_detokenize(self.m, (ctypes.c_int32 * len(ids))(*ids),
                                    ctypes.c_size_t(len(ids)), ctypes.c_bool(skip),
                                    ctypes.byref(text), ctypes.byref(n)))
        out = ctypes.string_at(text, n.value)
        lib.tn_llm_text_free(text)
        return out

    def decode(self, ids, skip=False):
        return self.decode_bytes(ids, skip).decode()


lib.tn_llm_text_free.argtypes = [ctypes.c_void_p]
lib.tn_llm_text_free.restype = None


def alphabet():
    """GPT-2's character for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


ALPHABET = alphabet()

# ---- the real ones ----

class Pair:
    """Tenon's tokenizer and the package's."""

    def __init__(self, name, tok, ref):
        self.name, self.tok, self.ref = name, tok, ref
        self.specials = [t.content for t in ref.get_added_tokens_decoder().values()]
        vocab = ref.get_vocab()
        self.bytes = {b for b, c in ALPHABET.items() if c in vocab}

    def back(self, text, ids):
        """What decoding must give: the text, unless the tokenizer itself changes it. Qwen3
        normalises; SmolLM2's vocabulary lacks 21 bytes, which `tokenizers` leaves out too."""
        changes = self.name == "qwen3" or not self.bytes.issuperset(text.encode())
        return self.ref.decode(ids, skip_special_tokens=False) if changes else text

    def want(self, texts, special):
        """Ids of all texts; special: those written in the text are recognised."""
        self.ref.encode_special_tokens = not special
        return [e.ids for e in self.ref.encode_batch(texts, add_special_tokens=False)]


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    for name in ("qwen3", "deepseek_v3"):
        with lzma.open(os.path.join(DATA, "tokenizers", name + ".json.xz")) as f:
            (folder / (name + ".json")).write_bytes(f.read())
    return folder


@pytest.fixture(scope="session")
def pairs(unpacked, smollm2):
    """All four; loaded once."""
    from gguf import GGUFReader

    ref = tokenizer_ref.from_gguf(GGUFReader(smollm2))
    own = str(unpacked / "smollm2.json")
    ref.save(own)
    out = {"smollm2-gguf": Pair("smollm2-gguf", Tok(smollm2), ref),
           "smollm2-json": Pair("smollm2-json", Tok(own), ref)}
    for name in ("qwen3", "deepseek_v3"):
        path = str(unpacked / (name + ".json"))
        out[name] = Pair(name, Tok(path), Tokenizer.from_file(path))
    return out


NAMES = ["smollm2-gguf", "smollm2-json", "qwen3", "deepseek_v3"]


@pytest.fixture(scope="session")
def wikitext():
    with gzip.open(os.path.join(DATA, "wikitext-2-test.txt.gz"), "rt", newline="") as f:
        return f.read()


def first_difference(got, want):
    i = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
    return "at %d: got %r, want %r" % (i, got[i:i + 8], want[i:i + 8])


@pytest.mark.parametrize("name", NAMES)
def test_wikitext(pairs, wikitext, name):
    p = pairs[name]
    begin = time.perf_counter()
    got = p.tok.encode(wikitext)
    ours = time.perf_counter() - begin
    begin = time.perf_counter()
    want = p.ref.encode(wikitext, add_special_tokens=False).ids
    theirs = time.perf_counter() - begin
    assert got == want, first_difference(got, want)
    assert p.tok.decode(got) == wikitext
    mb = len(wikitext.encode()) / 1e6
    print("%s: %d ids, %.1f MB/s; the tokenizers package %.1f MB/s" % (
        name, len(got), mb / ours, mb / theirs))


# ---- random Unicode ----

BLOCKS = [
    (0x20, 0x7e), (0x20, 0x7e), (0x20, 0x7e), (0, 0x1f), (0x7f, 0xff), (0x100, 0x24f),
    (0x250, 0x2ff), (0x300, 0x36f), (0x370, 0x3ff), (0x400, 0x4ff), (0x590, 0x5ff),
    (0x600, 0x6ff), (0x900, 0x97f), (0xe00, 0xe7f), (0x1100, 0x11ff), (0x1e00, 0x1fff),
    (0x2000, 0x206f), (0x2070, 0x214f), (0x2150, 0x218f), (0x2190, 0x23ff), (0x2460, 0x27bf),
    (0x3000, 0x30ff), (0x3400, 0x9fff), (0xac00, 0xd7a3), (0xe000, 0xe0ff), (0xf900, 0xfaff),
    (0xfb00, 0xfdff), (0xfe00, 0xfe2f), (0xff00, 0xffff), (0x10000, 0x10fff), (0x11000, 0x11fff),
    (0x1d000, 0x1d7ff), (0x1f000, 0x1faff), (0x1f1e6, 0x1f1ff), (0x20000, 0x2a6df),
    (0x2f800, 0x2fa1f), (0xe0000, 0xe01ef), (0, 0xd7ff), (0xe000, 0x10ffff),
]
PIECES = [
    " ", "  ", "\n", "\r\n", "\t", " \n ", "\n\n\n", "'s", "'LL", "'\u017f", "n't", "123", "1 000,5",
    "e\u0301", "a\u0328\u0301", "\u1100\u1161\u11a8", "\U0001f469\u200d\U0001f4bb",
    "\U0001f1e9\U0001f1ea", "\u05e9\u05dc\u05d5\u05dd", "\u202e", "\ufeff", "\u0085", "\u180e",
    "\u200b", "\u2028", "\u0378", "\U000e0001", "def f(x):", "http://x.y/?z=1&q=%20", "\x00", "\u00ad",
    "\u01c5", "\u2160", "\u00b2", "\u3007", "\u212b", "\ufb01", "\u0130", "<|", "|>", "<", "\uff5c",
]


def random_strings(count, specials, seed):
    r = random.Random(seed)

    def char():
        low, high = r.choice(BLOCKS)
        while True:
            c = r.randint(low, high)
            if not 0xd800 <= c < 0xe000:
                return chr(c)

    def piece():
        kind = r.random()
        if kind < 0.35:
            return "".join(char() for _ in range(r.randint(1, 6)))
        if kind < 0.55:
            low, high = r.choice(BLOCKS)
            high = min(high, 0xd7ff) if low < 0xd800 else high
            return "".join(chr(r.randint(low, high)) for _ in range(r.randint(1, 12)))
        if kind < 0.85:
            return r.choice(PIECES)
        if kind < 0.95:
            s = r.choice(specials)
            return s if r.random() < 0.8 else s[:r.randint(0, len(s))]
        return char() * r.randint(2, 80)

    return ["".join(piece() for _ in range(r.randint(0, 12))) for _ in range(count)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("special", [True, False], ids=["special", "plain"])
def test_random_strings(pairs, name, special):
    p = pairs[name]
    texts = random_strings(STRINGS, p.specials, "%s %s" % (name, special))
    bad = 0
    for text, want in zip(texts, p.want(texts, special)):
        got = p.tok.encode(text, SPECIAL if special else 0)
        if got != want:
            bad += 1
            if bad <= 5:
                print(ascii(text), first_difference(got, want))
        assert p.tok.decode(got) == p.back(text, want), ascii(text)
    assert bad == 0, "%d of %d strings differ" % (bad, len(texts))


@pytest.mark.parametrize("name", ["smollm2-json", "qwen3", "deepseek_v3"])
def test_every_character(pairs, name):
    """Each code point alone and between letters, digits and marks, a few hundred in one text."""
    p = pairs[name]
    chars = [chr(c) for c in range(0x110000) if not 0xd800 <= c < 0xe000]
    texts = ["".join("x%s1%s%s \u0301%s-" % (c, c, c, c) for c in chars[i:i + 64])
             for i in range(0, len(chars), 64)
             if i < 0x32000 or i % (64 * 37) == 0 or 0xe0000 <= i < 0xe0200]
    for text, want in zip(texts, p.want(texts, True)):
        got = p.tok.encode(text)
        assert got == want, ascii(text[:80]) + first_difference(got, want)


# ---- the program ----

def run(*args, data=b""):
    done = subprocess.run([PROGRAM, "tokenize", *args], input=data, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_program(pairs, unpacked):
    text = "<|im_start|>user\nHow m\u00fcch is \u4f60\u597d, 12345?<|im_end|>\n"
    path = str(unpacked / "qwen3.json")
    p = pairs["qwen3"]
    for special in (True, False):
        flags = [] if special else ["--no-special"]
        out = run("--model", path, *flags, data=text.encode())
        assert [int(i) for i in out.split()] == p.want([text], special)[0]
    assert run("--model", path, "--decode", data=out).decode() == text
    ids = " ".join(map(str, p.want([text], True)[0])).encode()
    assert run("--model", path, "--decode", data=ids).decode() == text
    plain = text.replace("<|im_start|>", "").replace("<|im_end|>", "")
    assert run("--model", path, "--decode", "--no-special", data=ids).decode() == plain
