"""Whole models against independent float32 forwards in NumPy.

SmolLM2 (GGUF) against the golden answers in tests/data; the same weights as a
Hugging Face folder in float16 and in MLX's 4 bits; random GPT-2 and Llama
folders. The rates and the largest differences are printed (pytest -s).
"""

import gzip
import json
import os
import subprocess
import sys

import numpy as np
import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "reference")]
import gpt2_ref  # noqa: E402
import llama_ref  # noqa: E402
import tenon_llm  # noqa: E402
from tenon_llm import Model, PROGRAM, ROOT  # noqa: E402

DATA = os.path.join(ROOT, "tests", "data")
# Of the float32 reference on the first 8 windows of WikiText-2 test (make_golden.py, llama_ref.py).
PERPLEXITY = {"gguf": 27.613874, "f16": 27.61321, "mlx4": 36.36635}


@pytest.fixture(scope="session")
def folders(smollm2, tmp_path_factory):
    """The same weights as Hugging Face's float16 and MLX's 4-bit folder."""
    top = tmp_path_factory.mktemp("folders")
    subprocess.run([sys.executable, os.path.join(HERE, "reference", "make_hf.py"), smollm2,
                    "--f16", str(top / "f16"), "--mlx", str(top / "mlx4")], check=True)
    return {"gguf": smollm2, "f16": str(top / "f16"), "mlx4": str(top / "mlx4")}


@pytest.fixture(scope="session")
def golden():
    with gzip.open(os.path.join(DATA, "golden_smollm2.json.gz"), "rt") as f:
        return json.load(f)


@pytest.fixture(scope="session")
def wikitext(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "wiki.txt"
    with gzip.open(os.path.join(DATA, "wikitext-2-test.txt.gz"), "rb") as f:
        path.write_bytes(f.read())
    return str(path)


class Tally:
    def __init__(self):
        self.total = self.equal = 0
        self.worst = self.margin = 0.0

    def add(self, best, logp, want_best, want_logp, margin=None):
        equal = np.asarray(best) == np.asarray(want_best)
        self.total += len(equal)
        self.equal += int(equal.sum())
        if len(equal):
            self.worst = max(self.worst, float(np.abs(np.asarray(logp) - want_logp).max()))
        if margin is not None and not equal.all():
            self.margin = max(self.margin, float(np.asarray(margin)[~equal].max()))

    @property
    def rate(self):
        return self.equal / self.total

    def __str__(self):
        return "%d of %d arg-max equal (%.2f %%), log-probability differs by at most %.2g" % (
            self.equal, self.total, 100 * self.rate, self.worst)


def test_smollm2_agrees_with_reference(smollm2, golden):
    after, inside = Tally(), Tally()
    with Model(smollm2) as m:
        for p in golden["prompts"]:
            n = len(p["prompt_ids"])
            logp, best = m.score(p["prompt_ids"] + p["ids"])
            k = len(p["prompt_best"])
            inside.add(best[:k], logp[:k], p["prompt_best"], p["prompt_logprobs"])
            after.add(best[n - 1:], logp[n - 1:], p["ids"], p["logprobs"], p["margins"])
    print("\ncontinuations: %s\nprompts: %s" % (after, inside))
    assert after.total >= 1000 and len(golden["prompts"]) >= 12
    assert after.rate >= 0.995 and inside.rate >= 0.995
    assert max(after.worst, inside.worst) < 0.05


def test_smollm2_decodes_as_it_scores(smollm2, golden):
    """One token at a time through the cache gives the reference's text too."""
    equal = total = 0
    with Model(smollm2) as m:
        for p in golden["prompts"][:8]:
            out = m.greedy(p["prompt_ids"], len(p["ids"]))
            same = [a == b for a, b in zip(out, p["ids"])]
            total += len(p["ids"])
            equal += same.index(False) if False in same else len(same)
    print("\n%d of %d greedy tokens before the first difference" % (equal, total))
    assert equal >= 0.95 * total


@pytest.mark.parametrize("kind", PERPLEXITY)
def test_perplexity(kind, folders, wikitext):
    done = subprocess.run([PROGRAM, "perplexity", "--model", folders[kind], "--text", wikitext,
                           "--context", "512", "--windows", "8", "--json"], check=True,
                          stdout=subprocess.PIPE)
    got = json.loads(done.stdout)
    print("\n%s: %.5f, reference %.5f" % (kind, got["perplexity"], PERPLEXITY[kind]))
    assert got["tokens"] == 8 * 511 and got["windows"] == 8
    assert abs(got["perplexity"] / PERPLEXITY[kind] - 1) < 1e-3


@pytest.mark.parametrize("kind", ["f16", "mlx4"])
def test_folder_agrees_with_reference(kind, folders, golden):
    ref = llama_ref.load(folders[kind])
    tally = Tally()
    with Model(folders[kind]) as m:
        for p in golden["prompts"]:
            ids = (p["prompt_ids"] + p["ids"])[:32]
            want = llama_ref.log_softmax(ref.logits(ids)[:-1])
            logp, best = m.score(ids)
            tally.add(best, logp, want.argmax(-1), want[np.arange(len(ids) - 1), ids[1:]])
    print("\n%s: %s" % (kind, tally))
    assert tally.total >= 500 and tally.rate >= 0.995 and tally.worst < 0.05


def random_folders():
    for dtype in ("F32", "F16", "BF16"):
        for shards in (1, 3):
            yield "gpt2", dtype, shards, {}
    yield "gpt2", "F32", 1, {"prefix": ""}
    yield "llama", "BF16", 2, {}
    yield "llama", "F32", 1, {"tied": True, "bias": True}
    yield "llama", "F16", 1, {"scaling": gpt2_ref.LLAMA3_SCALING}
    yield "llama", "F32", 1, {"head_dim": 32, "kv_heads": 4}


@pytest.mark.parametrize("family,dtype,shards,options", list(random_folders()))
def test_random_model(family, dtype, shards, options, tmp_path):
    if family == "gpt2":
        gpt2_ref.write_random_gpt2(str(tmp_path), dtype, shards, **options)
        ref = gpt2_ref.Gpt2(str(tmp_path))
    else:
        gpt2_ref.write_random_llama(str(tmp_path), dtype, shards, **options)
        ref = llama_ref.load(str(tmp_path))
    ids = np.random.default_rng(5).integers(0, 300, 150).tolist()
    want = llama_ref.log_softmax(ref.logits(ids)[:-1])
    tally = Tally()
    with Model(str(tmp_path)) as m:
        logp, best = m.score(ids)
        assert m.tokenize("The quick brown fox, Grüße aus Köln") == \
            ref.encode("The quick brown fox, Grüße aus Köln")
    tally.add(best, logp, want.argmax(-1), want[np.arange(len(ids) - 1), ids[1:]])
    print("\n%s" % tally)
    assert tally.rate >= 0.99 and tally.worst < 1e-3


def test_chunks_do_not_matter(smollm2, golden):
    """A prompt run in pieces of any size leaves the same scores behind, to rounding."""
    ids = golden["prompts"][3]["prompt_ids"][:200]
    with Model(smollm2) as m:
        whole = m.greedy(ids, 8)
        assert m.greedy(ids, 8, chunk=7) == whole
        assert m.greedy(ids, 8, context=len(ids) + 8) == whole


def test_full_context_is_an_error(smollm2):
    with Model(smollm2) as m:
        with pytest.raises(tenon_llm.TenonError, match="context"):
            m.greedy([1, 2, 3], 8, context=6)
        with pytest.raises(tenon_llm.TenonError, match="vocabulary"):
            m.score([1, 1 << 30])
