#!/usr/bin/env python3
"""Fine-tunes a model on questions about tables for a few minutes, and shows what it answers to
questions it never saw, before and after.

    tools/demo_finetune.py build/tenon MODEL build/demo-finetune [iters]

The folder keeps the adapter, the table and picture of losses (loss.csv, loss.png), and the data.
"""

import gzip
import json
import os
import shutil
import subprocess
import sys
import time

DATA = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "examples",
                    "wikisql")
SHOWN, COUNTED = 4, 20
TRAINING = ["--batch", "4", "--learning-rate", "2e-4", "--steps-per-report", "10",
            "--steps-per-eval", "50", "--val-batches", "10"]


def unpack(folder):
    os.makedirs(folder, exist_ok=True)
    for name in ("train", "valid", "test"):
        with gzip.open(os.path.join(DATA, name + ".jsonl.gz")) as packed, \
                open(os.path.join(folder, name + ".jsonl"), "wb") as out:
            shutil.copyfileobj(packed, out)


def questions(folder):
    """Prompt and wanted answer of held-out examples, spread over the tables."""
    with open(os.path.join(folder, "test.jsonl")) as f:
        texts = [json.loads(line)["text"] for line in f]
    pairs = [t.split("\nA: ", 1) for t in texts[::len(texts) // COUNTED]]
    return [(q + "\nA:", a.strip()) for q, a in pairs[:COUNTED]]


def answer(program, model, prompt, *more):
    done = subprocess.run([program, "generate", "--model", model, "--raw", "--prompt", prompt,
                           "--max-tokens", "60", "--json", *more], check=True,
                          stdout=subprocess.PIPE)
    return json.loads(done.stdout)["text"].strip().split("\n")[0].strip()


def main():
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    program, model, folder = sys.argv[1:4]
    iters = sys.argv[4] if len(sys.argv) > 4 else "200"
    data, adapter = os.path.join(folder, "data"), os.path.join(folder, "adapter")
    unpack(data)
    shutil.rmtree(adapter, ignore_errors=True)
    asked = questions(data)
    print("== %d held-out questions, before" % COUNTED, flush=True)
    before = [answer(program, model, q) for q, _ in asked]
    print("== training: %s steps of 4 examples, 1,000 examples in all" % iters, flush=True)
    begin = time.time()
    subprocess.run([program, "finetune", "--model", model, "--data", data, "--adapter", adapter,
                    "--iters", iters, *TRAINING], check=True)
    minutes = (time.time() - begin) / 60
    print("== the same questions, after", flush=True)
    after = [answer(program, model, q, "--adapter", adapter) for q, _ in asked]
    for i in range(SHOWN):
        i = i * COUNTED // SHOWN
        print("\n%s\n  wanted  %s\n  before  %s\n  after   %s"
              % (asked[i][0][:-3], asked[i][1], before[i], after[i]))
    right = [sum(a == w for a, (_, w) in zip(got, asked)) for got in (before, after)]
    print("\n%d of %d answers were right to the letter before, %d after %.1f minutes of training"
          % (right[0], COUNTED, right[1], minutes))
    print("the adapter and the curve of losses are in %s" % adapter)


if __name__ == "__main__":
    main()
