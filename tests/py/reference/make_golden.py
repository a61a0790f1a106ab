"""Write the golden data: what the float32 reference answers to the prompts.

For every prompt of tests/data/prompts.json:
  prompt_ids     the prompt (the chat template's text for chats)
  ids            greedy continuation by the float32 reference
  logprobs       log-probability of each of ids, teacher-forced in one pass
  top_ids, top_logprobs   the five best at each of those steps
  margins        best minus second best log-probability at each step
  prompt_best    arg-max after each prompt position but the last
  prompt_margins its lead over the second best
  prompt_logprobs  log-probability of the prompt's own next token
  near_ties      positions where a float64 forward picks another token

The continuation is generated step by step with the key/value cache and then
read again in one pass; the two must choose the same tokens.

    python3 make_golden.py MODEL.gguf OUT.json [--tokens 96] [--compact OUT.gz]
"""

import argparse
import gzip
import hashlib
import json
import os
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import llama_ref  # noqa: E402

PROMPTS = os.path.join(HERE, "..", "..", "data", "prompts.json")
DIGITS = 6


def prompt_text(model, prompt):
    if "text" in prompt:
        return prompt["text"]
    return model.render(prompt["messages"])


def rounded(a):
    return np.round(np.asarray(a, np.float64), DIGITS).tolist()


def best_and_margin(logp):
    top = np.partition(logp, -2, axis=-1)[:, -2:]
    return logp.argmax(axis=-1), top[:, 1] - top[:, 0]


def golden(model, exact, prompt, count):
    ids = model.encode(prompt_text(model, prompt))
    out = model.greedy(ids, count, model.c.eos)
    sequence = np.asarray(ids + out)
    logp = llama_ref.log_softmax(model.logits(sequence[:-1]))
    best, margin = best_and_margin(logp)
    first = len(ids) - 1
    if best[first:].tolist() != out:
        raise SystemExit("%s: one pass and step by step differ" %
                         prompt["name"])
    taken = logp[np.arange(len(logp)), sequence[1:]]
    logp64 = llama_ref.log_softmax(exact.logits(sequence[:-1]))
    ties = np.flatnonzero(logp64.argmax(axis=-1) != best)
    worst = float(np.abs(logp - logp64).max())
    steps = logp[first:]
    top = np.argsort(-steps, axis=-1)[:, :5]
    return {
        "name": prompt["name"], "prompt_ids": ids, "ids": out,
        "logprobs": rounded(taken[first:]), "top_ids": top.tolist(),
        "top_logprobs": rounded(np.take_along_axis(steps, top, -1)),
        "margins": rounded(margin[first:]),
        "prompt_best": best[:first].tolist(),
        "prompt_margins": rounded(margin[:first]),
        "prompt_logprobs": rounded(taken[:first]),
        "near_ties": ties.tolist(), "float32_error": worst,
    }


def main():
    p = argparse.ArgumentParser(description="golden data for the model tests")
    p.add_argument("model")
    p.add_argument("out")
    p.add_argument("--prompts", default=PROMPTS)
    p.add_argument("--tokens", type=int, default=96)
    p.add_argument("--compact", help="also write this gzip file")
    a = p.parse_args()
    with open(a.prompts, encoding="utf-8") as f:
        prompts = json.load(f)["prompts"]
    model = llama_ref.load(a.model)
    exact = llama_ref.load(a.model, np.float64)
    rows = []
    for prompt in prompts:
        rows.append(golden(model, exact, prompt, a.tokens))
        r = rows[-1]
        print("%-18s %4d + %3d tokens, smallest margin %.5f, near ties %s, "
              "float32 error %.1e" % (r["name"], len(r["prompt_ids"]),
                                      len(r["ids"]), min(r["margins"]),
                                      r["near_ties"], r["float32_error"]),
              file=sys.stderr, flush=True)
    doc = {
        "about": "Greedy continuations and log-probabilities by the NumPy "
                 "float32 reference; see tests/py/reference/make_golden.py.",
        "model": os.path.basename(a.model),
        "predicted": sum(len(r["ids"]) for r in rows),
        "prompt_positions": sum(len(r["prompt_best"]) for r in rows),
        "prompts": rows,
    }
    if os.path.isfile(a.model):
        with open(a.model, "rb") as f:
            doc["model_sha256"] = hashlib.sha256(f.read()).hexdigest()
    text = json.dumps(doc, separators=(",", ":"))
    with open(a.out, "w") as f:
        f.write(text)
    if a.compact:
        with open(a.compact, "wb") as f:      # mtime 0: the same bytes again
            f.write(gzip.compress(text.encode(), 9, mtime=0))
    print("%d tokens predicted over %d prompts, %d prompt positions" %
          (doc["predicted"], len(rows), doc["prompt_positions"]),
          file=sys.stderr)


if __name__ == "__main__":
    main()
