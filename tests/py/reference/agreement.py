"""How often llama.cpp picks the float32 reference's token, on the same tokens.

    python3 agreement.py GOLDEN.json LLAMA_TEACHER MODEL.gguf [--threads N]

GOLDEN.json is make_golden.py's output (.gz too), LLAMA_TEACHER the program
that bench/peer_llama.sh builds.
"""

import argparse
import gzip
import json
import subprocess
import sys


def read_golden(path):
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt") as f:
        return json.load(f)


def run_teacher(program, model, threads, prompts):
    """One list of (best id, its logp, logp of the next token) a prompt."""
    lines = [" ".join(map(str, [len(p["prompt_ids"]), len(p["ids"])] +
                          p["prompt_ids"] + p["ids"])) for p in prompts]
    done = subprocess.run([program, model, str(threads)], check=True,
                          input="\n".join(lines) + "\n", text=True,
                          stdout=subprocess.PIPE)
    blocks = done.stdout.strip("\n").split("\n\n")
    return [[(int(a), float(b), float(c)) for a, b, c in
             (row.split() for row in block.split("\n"))] for block in blocks]


class Tally:
    def __init__(self):
        self.total = self.equal = 0
        self.worst_logp = self.worst_margin = self.sum_logp = 0.0

    def add(self, best, margin, logp, theirs):
        self.total += 1
        if theirs[0] == best:
            self.equal += 1
        else:
            self.worst_margin = max(self.worst_margin, margin)
        gap = abs(theirs[2] - logp)
        self.worst_logp = max(self.worst_logp, gap)
        self.sum_logp += gap

    def __str__(self):
        return ("%5d of %5d equal (%.2f %%), largest margin it lost %.3f, "
                "log-probability differs by at most %.3f, mean %.4f" %
                (self.equal, self.total, 100 * self.equal / self.total,
                 self.worst_margin, self.worst_logp,
                 self.sum_logp / self.total))


def tally(p, theirs):
    """(prompt positions, continuation) of one prompt."""
    inside, after, n = Tally(), Tally(), len(p["prompt_best"])
    for i, row in enumerate(theirs):
        if i < n:
            inside.add(p["prompt_best"][i], p["prompt_margins"][i],
                       p["prompt_logprobs"][i], row)
        else:
            after.add(p["ids"][i - n], p["margins"][i - n],
                      p["logprobs"][i - n], row)
    return inside, after


def merge(into, part):
    into.total += part.total
    into.equal += part.equal
    into.sum_logp += part.sum_logp
    into.worst_logp = max(into.worst_logp, part.worst_logp)
    into.worst_margin = max(into.worst_margin, part.worst_margin)


def main():
    a = argparse.ArgumentParser(description="llama.cpp against the reference")
    a.add_argument("golden")
    a.add_argument("teacher")
    a.add_argument("model")
    a.add_argument("--threads", type=int, default=2)
    a = a.parse_args()
    prompts = read_golden(a.golden)["prompts"]
    answers = run_teacher(a.teacher, a.model, a.threads, prompts)
    if len(answers) != len(prompts):
        sys.exit("llama.cpp answered %d prompts of %d" %
                 (len(answers), len(prompts)))
    inside, after = Tally(), Tally()
    for p, theirs in zip(prompts, answers):
        if len(theirs) != len(p["prompt_best"]) + len(p["ids"]):
            sys.exit("%s: %d answers" % (p["name"], len(theirs)))
        one = tally(p, theirs)
        print("%-18s %s" % (p["name"], one[1]))
        merge(inside, one[0])
        merge(after, one[1])
    print("continuations      %s" % after)
    print("prompt positions   %s" % inside)


if __name__ == "__main__":
    main()
