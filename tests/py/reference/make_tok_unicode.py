"""Writes src/llm/tok_unicode.def: where the Unicode tables of the `tokenizers` package differ.

The package does not use one version of Unicode: its regular expressions (Oniguruma) know
Unicode 16, its normal forms 9, char::is_numeric and lower case are Rust's, punctuation is an old
crate's. All sets are measured, character by character, with the package itself; PCRE2's side is
Unicode 14 (PCRE2 10.40 to 10.44; a later one knows some of the added characters itself), which
Python 3.11's unicodedata has too; the newest names come from the package unicodedata2.

    python3.11 make_tok_unicode.py > ../../../src/llm/tok_unicode.def
"""

import unicodedata

import unicodedata2
from tokenizers import Regex
from tokenizers import normalizers as nm
from tokenizers import pre_tokenizers as pre

CHARS = [c for c in range(0x110000) if not 0xd800 <= c < 0xe000]
PROPERTIES = ["L", "Lu", "Ll", "Lt", "Lm", "Lo", "N", "Nd", "Nl", "No", "M", "Mn", "Mc", "P", "Po",
              "S", "Sm", "Sc", "So"]


def removed(pretokenizer):
    """The characters a pre-tokenizer removes."""
    out = set()
    for i in range(0, len(CHARS), 4096):
        part = CHARS[i:i + 4096]
        kept = set()
        for _, (a, b) in pretokenizer.pre_tokenize_str("".join(map(chr, part))):
            kept.update(part[a:b])
        out.update(set(part) - kept)
    return out


def ranges(chars):
    out = []
    for c in sorted(chars):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def rows(name, chars):
    """Members of a class, as many as fit a line."""
    parts = ["\\\\x{%x}" % a if a == b else "\\\\x{%x}-\\\\x{%x}" % (a, b) for a, b in ranges(chars)]
    lines, line = [], ""
    for p in parts:
        if len(line) + len(p) > 84:
            lines.append(line)
            line = ""
        line += p
    lines.append(line)
    print('TOK_MORE("%s", %s)' % (name, "\n    ".join('"%s"' % s for s in lines)))


def known14(name):
    return {c for c in CHARS if unicodedata.category(chr(c)).startswith(name)}


def context(c):
    """Shows a canonical class by the order marks get."""
    return "a\u0345" + c + "\u0301" + c + "\u0323" + c + "\u0334"


def not_normalised():
    """Characters that have a canonical class or a decomposition now, or take part in one, but
    none in the package's tables."""
    nfd, nfkd, out = nm.NFD(), nm.NFKD(), set()
    known = set()
    for c in CHARS:
        s = context(chr(c))
        if (nfd.normalize_str(s) != unicodedata2.normalize("NFD", s) or
                nfkd.normalize_str(s) != unicodedata2.normalize("NFKD", s)):
            out.add(c)
        else:
            known.update(map(ord, unicodedata2.normalize("NFD", chr(c))))
    for c in list(out):
        out.update(set(map(ord, unicodedata2.normalize("NFD", chr(c)))) - known)
    return out


def is_word(c):
    return (unicodedata2.category(chr(c))[0] in "LM" or
            unicodedata2.category(chr(c)) in ("Nd", "Nl", "Pc"))


def lower_case():
    """Runs (first, last, difference) of what the package lowers and Unicode 14 does not."""
    lower, out = nm.Lowercase(), []
    for c in CHARS:
        s = lower.normalize_str(chr(c))
        if len(s) != 1 or s == chr(c).lower():
            continue
        if out and out[-1][1] == c - 1 and out[-1][2] == ord(s) - c:
            out[-1][1] = c
        else:
            out.append([c, c, ord(s) - c])
    return out


def main():
    assert unicodedata.unidata_version == "14.0.0"
    print("/* Written by tests/py/reference/make_tok_unicode.py from the tokenizers package; see "
          "there. */")
    print("/* Members that classes have besides those of Unicode 14. */")
    for name in PROPERTIES:
        more = removed(pre.Split(Regex("\\p{%s}" % name), "removed")) - known14(name)
        if more:
            rows(name, more)
    han = removed(pre.Split(Regex("\\p{Han}"), "removed"))
    rows("Han", {c for c in han if unicodedata.category(chr(c)) == "Cn"})

    print("/* \\w besides letters, marks, Nd, Nl and Pc: Oniguruma's, then that of Rust's regex. */")
    rows("word", {c for c in removed(pre.Split(Regex("\\w"), "removed")) if not is_word(c)})
    space = pre.Whitespace()
    rows("rust word", {c for c in CHARS if not is_word(c) and
                       len(space.pre_tokenize_str("a%sa" % chr(c))) == 1})

    print("/* Numbers to the pre-tokenizer Digits besides \\p{N}. */")
    number = removed(pre.Split(Regex("\\p{N}"), "removed"))
    digits = pre.Digits(individual_digits=True)
    rows("digit", {c for c in CHARS if c not in number and
                   len(digits.pre_tokenize_str("a%sa" % chr(c))) == 3})

    print("/* What the pre-tokenizer Punctuation takes besides \\p{P} and ASCII; what it leaves. */")
    punct = removed(pre.Punctuation("removed"))
    names = {c for c in CHARS if unicodedata2.category(chr(c))[0] == "P"}
    rows("punct", {c for c in punct - names if c > 127})
    rows("no punct", names - punct)

    print("/* First and last of characters that normal forms leave alone. */")
    for a, b in ranges(not_normalised()):
        print("TOK_UNKNOWN(0x%x, 0x%x)" % (a, b))

    print("/* First and last of the marks that StripAccents leaves. */")
    strip = nm.StripAccents()
    for a, b in ranges(c for c in CHARS if unicodedata2.category(chr(c))[0] == "M" and
                       strip.normalize_str(chr(c))):
        print("TOK_NO_MARK(0x%x, 0x%x)" % (a, b))

    print("/* Lower case since Unicode 14: first, last, difference. */")
    for a, b, d in lower_case():
        print("TOK_LOWER(0x%x, 0x%x, %d)" % (a, b, d))


main()
