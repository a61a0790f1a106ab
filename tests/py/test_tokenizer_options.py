"""Each option of tokenizer.json on a small tokenizer, against the `tokenizers` package; and what
has to be refused. The tokenizers are made here: one byte-level, one in the way of SentencePiece."""

import copy
import itertools
import json
import random

import pytest
from tokenizers import Tokenizer, decoders, models, trainers
from tokenizers import pre_tokenizers as pre

from tenon_llm import TenonError
from test_tokenizer import SPECIAL, TEMPLATE, Tok, first_difference, random_strings

TEXT = ["The quick brown fox jumps over the lazy dog; it's 12,345 times' faster than 'you'll think.",
        "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. Ça va? École, œuvre.",
        "Съешь же ещё этих мягких французских булок, да выпей чаю. 我能吞下玻璃而不伤身体。",
        "def f(x):\n    return x ** 2  # comment\n\n\nfor i in range(100):\n\tprint(f(i))\r\n"] * 3
TEXTS = ["", " ", "a", " a", "a ", "  a  b  ", "The quick\n\n  brown fox's 12345 DOGS!!! <unk>",
         "<s>hi</s>", "x <s> y", "x<s>y", "don't  'S 'LL'm", "\tTabs\r\nand\n\nlines\n", "É e\u0301 \u0130I ß ſ",
         "ﬁ ² ½ Å \u212b \u1e9b\u0323", "a_b-c.d,e;f", "日本語 テキスト 12 ٣٤ Ⅻ", "👩\u200d💻 emoji 🇩🇪",
         "\u2581already \u2581\u2581marked", "...", "!?", "\u00a0nbsp\u3000wide", "MiXeD CaSe ΑΣ ΑΣΣ",
         "<0x41> <0x0A>", "[MASK] [mask]x [MASK]y  [MASK]  z", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]


def small(byte_level=True):
    tok = Tokenizer(models.BPE(unk_token=None if byte_level else "<unk>",
                               byte_fallback=not byte_level, fuse_unk=not byte_level))
    if byte_level:
        tok.pre_tokenizer = pre.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(vocab_size=420, show_progress=False,
                                      initial_alphabet=pre.ByteLevel.alphabet())
        tok.train_from_iterator(TEXT, trainer)
        tok.decoder = decoders.ByteLevel()
        return json.loads(tok.to_str())
    tok.pre_tokenizer = pre.Metaspace()
    specials = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]
    tok.train_from_iterator(TEXT[:3], trainers.BpeTrainer(vocab_size=420, special_tokens=specials,
                                                         show_progress=False))
    j = json.loads(tok.to_str())
    j["added_tokens"] = [t for t in j["added_tokens"] if t["id"] < 3]
    j["pre_tokenizer"] = None
    j["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
    j["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    return j


BYTES, PIECES = small(), small(False)


def same_text(tok, ref, ids, skip):
    got, want = tok.decode(ids, skip), ref.decode(ids, skip_special_tokens=skip)
    assert got == want, "%s: %r, want %r" % (ids, got, want)


def compare(tmp_path, j, template=False):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(j, ensure_ascii=False))
    ref, tok = Tokenizer.from_str(json.dumps(j)), Tok(str(path))
    texts = TEXTS + random_strings(150, ["<s>", "[MASK]", "<unk>"], "options")
    for special in (True, False):
        ref.encode_special_tokens = not special
        flags = SPECIAL * special | TEMPLATE * template
        for text in texts:
            want = ref.encode(text, add_special_tokens=template).ids
            got = tok.encode(text, flags)
            assert got == want, "%s special=%s: %s" % (ascii(text), special,
                                                        first_difference(got, want))
            for skip in (True, False):
                same_text(tok, ref, want, skip)
    r = random.Random(5)
    for _ in range(300):
        ids = [r.randrange(ref.get_vocab_size()) for _ in range(r.randint(0, 9))]
        same_text(tok, ref, ids, False)


def changed(base, **parts):
    j = copy.deepcopy(base)
    model = parts.pop("model", {})
    j.update(parts)
    j["model"].update(model)
    return j


def added(content, i, **flags):
    return {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True, **flags}


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split(pattern, behavior, invert=False, regex=True):
    return {"type": "Split", "pattern": {"Regex" if regex else "String": pattern},
            "behavior": behavior, "invert": invert}


BEHAVIORS = ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
NORMALIZERS = [
    *({"type": t} for t in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents")),
    *({"type": "Strip", "strip_left": a, "strip_right": b}
      for a, b in itertools.product([True, False], repeat=2)),
    {"type": "Prepend", "prepend": "_"},
    {"type": "Replace", "pattern": {"String": "a"}, "content": "bb"},
    {"type": "Replace", "pattern": {"String": "  "}, "content": ""},
    {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
    {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Sequence", "normalizers": [
        {"type": "StripAccents"}, {"type": "Lowercase"}]}]},
    {"type": "Sequence", "normalizers": []},
]
PRE = [
    *({"type": "ByteLevel", "add_prefix_space": a, "trim_offsets": True, "use_regex": b}
      for a, b in itertools.product([True, False], repeat=2)),
    *(split(p, b, i, r) for b in BEHAVIORS for i in (True, False)
      for p, r in (("\\s+", True), ("a", False), ("\\p{N}{1,3}", True), ("  ", False))),
    *(split(p, "Isolated") for p in (
        "\\w+|[^\\w\\s]+", "[^\\S\\r\\n]+", "\\p{Han}+", "\\P{L}+", "[\\p{Lu}\\p{Lt}]+[\\p{Ll}]*", "(?i:'s|'t)",
        "\\h+", "[\\h]", "[\\w&]+", "^a|b$", "\\A.|.\\z", "(?<!a)b", "(?>a+)b", "a++", "x*", ".", "\\X", "[a-z&&[^aeiou]]")),
    *({"type": "Digits", "individual_digits": b} for b in (True, False)),
    *({"type": "Punctuation", "behavior": b} for b in BEHAVIORS),
    {"type": "Whitespace"}, {"type": "WhitespaceSplit"},
    {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True},
    {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Digits", "individual_digits": False},
                                           split("e", "MergedWithNext")]},
]


def name_of(x):
    return json.dumps(x)[:90]


@pytest.mark.parametrize("normalizer", NORMALIZERS, ids=name_of)
def test_normalizer(tmp_path, normalizer):
    # `normalized` added tokens are looked for in what the normaliser leaves.
    tokens = [added("<s>", 420), added("[MASK]", 421, normalized=True, special=False),
              added("DOG", 422, normalized=True, special=False)]
    compare(tmp_path, changed(BYTES, normalizer=normalizer, added_tokens=tokens))


@pytest.mark.parametrize("step", PRE, ids=name_of)
def test_pre_tokenizer(tmp_path, step):
    steps = [step] if step["type"] == "ByteLevel" else [step, BYTE_LEVEL]
    j = changed(BYTES, pre_tokenizer={"type": "Sequence", "pretokenizers": steps})
    if "&&" in json.dumps(step):
        with pytest.raises(TenonError, match="not supported"):
            compare(tmp_path, j)
    else:
        compare(tmp_path, j)


FLAGS = ["single_word", "lstrip", "rstrip", "normalized", "special"]


@pytest.mark.parametrize("flags", list(itertools.product([True, False], repeat=5)),
                         ids=lambda f: "-".join(n for n, b in zip(FLAGS, f) if b) or "none")
def test_added_token(tmp_path, flags):
    flags = dict(zip(FLAGS, flags))
    tokens = [added("[MASK]", 420, **flags), added("[MASK]y", 421, **flags), added("<s>", 422),
              added("fox", 423, **flags), added("o", 424, single_word=True, special=False)]
    compare(tmp_path, changed(BYTES, added_tokens=tokens, normalizer={"type": "NFC"}))


@pytest.mark.parametrize("part", [
    {"ignore_merges": True}, {"ignore_merges": False}, {"unk_token": "a"},
    {"unk_token": "a", "fuse_unk": True}, {"byte_fallback": True}], ids=name_of)
def test_model(tmp_path, part):
    j = changed(BYTES, model=part)
    compare(tmp_path, j)
    if "unk_token" in part:  # bytes are missing
        for c in "ĊÃzð":
            j["model"]["vocab"].pop(c)
        j["model"]["merges"] = [m for m in j["model"]["merges"]
                                if all(p in j["model"]["vocab"] for p in [*m, "".join(m)])]
        for i, k in enumerate(sorted(j["model"]["vocab"], key=j["model"]["vocab"].get)):
            j["model"]["vocab"][k] = i
        compare(tmp_path, j)


def test_merges_as_strings(tmp_path):
    compare(tmp_path, changed(BYTES, model={"merges": [" ".join(m) for m in BYTES["model"]["merges"]]}))


def test_pieces(tmp_path):
    compare(tmp_path, PIECES)


@pytest.mark.parametrize("part", [
    {"byte_fallback": False}, {"byte_fallback": False, "fuse_unk": False}, {"fuse_unk": False},
    {"unk_token": None, "byte_fallback": False}, {"ignore_merges": True}], ids=name_of)
def test_pieces_model(tmp_path, part):
    compare(tmp_path, changed(PIECES, model=part))


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
@pytest.mark.parametrize("cut", [True, False])
def test_metaspace(tmp_path, scheme, cut):
    meta = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": cut}
    compare(tmp_path, changed(PIECES, normalizer=None, pre_tokenizer=meta, decoder={
        **meta}, added_tokens=[added("<s>", 1), added("</s>", 2), added("[MASK]", 420, lstrip=True)]))
    compare(tmp_path, changed(PIECES, normalizer=None, decoder={**meta}, pre_tokenizer={
        "type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, meta]}))


@pytest.mark.parametrize("start,stop", [(0, 0), (1, 0), (3, 2), (0, 1)])
def test_strip_decoder(tmp_path, start, stop):
    # The package itself panics on texts that become empty.
    j = copy.deepcopy(PIECES)
    j["decoder"]["decoders"][3].update(start=start, stop=stop)
    (tmp_path / "tokenizer.json").write_text(json.dumps(j))
    tok = Tok(str(tmp_path / "tokenizer.json"))
    del j["decoder"]["decoders"][3]
    ref = Tokenizer.from_str(json.dumps(j))
    for text in TEXTS + ["   a   ", "    ", "a  "]:
        ids = tok.encode(text, 0)
        want = ref.decode(ids, skip_special_tokens=False)
        want = want[min(start, len(want) - len(want.lstrip(" "))):]
        want = want[:len(want) - min(stop, len(want) - len(want.rstrip(" ")))]
        assert tok.decode(ids) == want


PROCESSOR = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
               {"SpecialToken": {"id": "</s>", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]},
                       "</s>": {"id": "</s>", "ids": [2, 1], "tokens": ["</s>", "<s>"]}}}


@pytest.mark.parametrize("processor", [
    None, PROCESSOR, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
    {"type": "Sequence", "processors": [{"type": "ByteLevel", "add_prefix_space": True,
                                         "trim_offsets": False, "use_regex": True}, PROCESSOR]},
    {"type": "RobertaProcessing", "cls": ["<s>", 1], "sep": ["</s>", 2], "trim_offsets": True,
     "add_prefix_space": True},
    {"type": "BertProcessing", "cls": ["<s>", 1], "sep": ["</s>", 2]}], ids=name_of)
def test_processor(tmp_path, processor):
    for template in (True, False):
        compare(tmp_path, changed(PIECES, post_processor=processor), template=template)


# ---- SentencePiece from GGUF ----

def sentencepiece(vocab, scores, text):
    """Again and again the neighbours that make the token of the highest score, the leftmost."""
    pieces = list("\u2581" + text.replace(" ", "\u2581")) if text else []
    while True:
        found = [(-scores[vocab[a + b]], i) for i, (a, b) in enumerate(zip(pieces, pieces[1:]))
                 if a + b in vocab]
        if not found:
            break
        i = min(found)[1]
        pieces[i:i + 2] = [pieces[i] + pieces[i + 1]]
    return [i for p in pieces for i in ([vocab[p]] if p in vocab else
                                        [vocab["<0x%02X>" % b] for b in p.encode()])]


@pytest.mark.parametrize("steps", [1, 3, 1000])
def test_sentencepiece(tmp_path, steps):
    from gguf import GGUFWriter, TokenType

    vocab = PIECES["model"]["vocab"]
    tokens = sorted(vocab, key=vocab.get)
    scores = [-float(i // steps) for i in range(len(tokens))]  # some or all are equal
    types = [TokenType.UNKNOWN if t == "<unk>" else TokenType.CONTROL if t in ("<s>", "</s>") else
             TokenType.BYTE if t.startswith("<0x") else TokenType.NORMAL for t in tokens]
    path = str(tmp_path / "model.gguf")
    w = GGUFWriter(path, "llama")
    w.add_tokenizer_model("llama")
    w.add_token_list(tokens)
    w.add_token_scores(scores)
    w.add_token_types(types)
    w.add_bos_token_id(1)
    w.add_unk_token_id(0)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()
    tok = Tok(path)
    for text in TEXTS + random_strings(300, ["\u2581", "the"], "sentencepiece"):
        ids = tok.encode(text, 0)
        assert ids == sentencepiece(vocab, scores, text), ascii(text)
        assert tok.encode(text, TEMPLATE) == [1] + ids
        assert tok.decode(ids) == text.replace("\u2581", " "), ascii(text)


# ---- what is refused ----

def refused(tmp_path, j, message):
    path = tmp_path / "tokenizer.json"
    path.write_text(j if isinstance(j, str) else json.dumps(j))
    with pytest.raises(TenonError, match=message):
        Tok(str(path))


@pytest.mark.parametrize("part,message", [
    ({"model": {"type": "Unigram"}}, '"Unigram" is not supported'),
    ({"model": {"type": "WordPiece"}}, '"WordPiece" is not supported'),
    ({"model": {"continuing_subword_prefix": "##"}}, "continuing_subword_prefix"),
    ({"model": {"end_of_word_suffix": "</w>"}}, "end_of_word_suffix"),
    ({"model": {"unk_token": "nowhere"}}, '"nowhere" is not in the vocabulary'),
    ({"model": {"merges": [["a", "nowhere"]]}}, "nowhere"),
    ({"model": {"merges": ["ab"]}}, "merge 0"),
    ({"model": {"merges": [["a"]]}}, "merge 0"),
    ({"model": {"merges": [["a", 1]]}}, "merge 0"),
    ({"model": {"vocab": {"a": -1}}}, '"a"'),
    ({"model": {"vocab": {"a": "1"}}}, '"a"'),
    ({"model": {"vocab": {"a": 1, "b": 1}}}, "one id, 1"),
    ({"model": {"vocab": {"a": 1 << 40}}}, "ids up to"),
    ({"model": {"vocab": None}}, "vocabulary"),
    ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": ""}}, '"Precompiled"'),
    ({"normalizer": {"type": "Bert"}}, '"Bert"'),
    ({"normalizer": {"type": "Replace", "content": "x"}}, "pattern"),
    ({"normalizer": {"type": "Replace", "pattern": {"Regex": "("}, "content": "x"}}, "pattern"),
    ({"pre_tokenizer": {"type": "BertPreTokenizer"}}, '"BertPreTokenizer"'),
    ({"pre_tokenizer": {"type": "UnicodeScripts"}}, '"UnicodeScripts"'),
    ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Odd"}}, '"Odd"'),
    ({"decoder": {"type": "CTC"}}, '"CTC"'),
    ({"decoder": {"type": "WordPiece"}}, '"WordPiece"'),
    ({"post_processor": {"type": "Odd"}}, '"Odd"'),
    ({"post_processor": {"type": "BertProcessing", "cls": ["x", 99999], "sep": ["x", 1]}}, "99999"),
    ({"added_tokens": [{"id": 7}]}, "content"),
    ({"added_tokens": [{"content": "x"}]}, "added token 0"),
    ({"added_tokens": [added("x", -3)]}, "added token 0"),
    ({"added_tokens": [added("x", 420), added("y", 420)]}, "one id, 420"),
], ids=lambda x: name_of(x) if isinstance(x, dict) else "")
def test_refused(tmp_path, part, message):
    refused(tmp_path, changed(BYTES, **part), message)


@pytest.mark.parametrize("text,message", [
    ("", "line"), ("{", "line"), ("[]", "not supported"), ("{}", "not supported"), ('{"model": 3}', "not supported"),
    ('{"model": {"type": "BPE"}}', "vocabulary"), ("[" * 100000, "line"), ('{"a": "\xff"}', "line"),
])
def test_not_a_tokenizer(tmp_path, text, message):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(TenonError, match=message):
        Tok(str(path))
