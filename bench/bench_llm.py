#!/usr/bin/env python3
"""SmolLM2 on Tenon and on llama.cpp, the two interleaved in one run.

Each round runs, for each thread count, a 512-token prompt and a generation of
128 tokens on both sides, one process at a time, so that a change of the
machine's clock or load touches both. Which side goes first alternates.
Reported: medians over the rounds, their spread, and the ratio Tenon / peer.

  prompt      Tenon: `generate --raw` of a text of exactly 512 tokens, one token
              generated. llama.cpp: llama-bench -p 512 -n 0.
  generation  Tenon: 128 tokens after a one-token prompt.
              llama.cpp: llama-bench -p 0 -n 128.
  memory      peak resident set of a process that does 512 + 128, from wait4;
              the model's mapped file counts on both sides.

  start       a process that loads the model and generates one token after a
              one-token prompt, 4 threads (what the peer, llama-simple, uses).

llama-bench runs each test once unmeasured first; Tenon gets no such warm-up.

    model=$(tools/fetch_smollm2.sh); peer=$(bench/peer_llama.sh)
    bench/bench_llm.py --model $model --peer $peer/llama-bench --rounds 5

The table goes to standard output; --out FILE gets one JSON line for machine and
command and one a ratio, with the value of every round. Standard library only.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROMPT, GENERATE = 512, 128
# The first 1,817 characters of the prompt "play-2000" are 512 tokens for
# SmolLM2's tokenizer; greedy continuations of it and of "Hello" run past 128.
PROMPT_CHARS = 1817
LIMIT_S = 300


def prompt_text():
    path = os.path.join(ROOT, "tests", "data", "prompts.json")
    with open(path, encoding="utf-8") as f:
        for p in json.load(f)["prompts"]:
            if p["name"] == "play-2000":
                return p["text"][:PROMPT_CHARS]
    raise SystemExit("bench_llm: no prompt play-2000 in " + path)


def run(command):
    """(standard output, peak resident bytes) of a command."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
    # wait4 must be the one to reap: communicate() would lose the statistics.
    errors = []
    reader = threading.Thread(target=lambda: errors.append(
        child.stderr.read()))
    reader.start()
    killer = threading.Timer(LIMIT_S, child.kill)
    killer.start()
    text = child.stdout.read()
    reader.join()
    _, status, usage = os.wait4(child.pid, 0)
    killer.cancel()
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit("bench_llm: %s ended with %d\n%s" % (
            " ".join(command[:3]), child.returncode, errors[0][-2000:]))
    return text, usage.ru_maxrss * 1024


class Tenon:
    name = "tenon"

    def __init__(self, program, model):
        self.program, self.model, self.text = program, model, prompt_text()

    def generate(self, text, count, threads):
        out, peak = run([self.program, "generate", "--model", self.model,
                         "--raw", "--temp", "0", "--prompt", text,
                         "--max-tokens", str(count), "--threads",
                         str(threads), "--json"])
        answer = json.loads(out)
        if len(answer["ids"]) != count:
            raise SystemExit("bench_llm: tenon generated %d tokens, not %d" %
                             (len(answer["ids"]), count))
        return answer, peak

    def prompt(self, threads):
        answer, _ = self.generate(self.text, 1, threads)
        if len(answer["prompt_ids"]) != PROMPT:
            raise SystemExit("bench_llm: the prompt is %d tokens, not %d" %
                             (len(answer["prompt_ids"]), PROMPT))
        return answer["prompt_tokens_per_second"]

    def generation(self, threads):
        answer, _ = self.generate("Hello", GENERATE, threads)
        return answer["generation_tokens_per_second"]

    def memory(self, threads):
        return self.generate(self.text, GENERATE, threads)[1]

    def start(self, threads):
        begin = time.perf_counter()
        self.generate("Hello", 1, threads)
        return time.perf_counter() - begin


class Llama:
    name = "llama.cpp"

    def __init__(self, program, model):
        self.program, self.model = program, model

    def bench(self, prompt, count, threads):
        out, peak = run([self.program, "-m", self.model, "-p", str(prompt),
                         "-n", str(count), "-t", str(threads), "-r", "1",
                         "-o", "json"])
        return json.loads(out), peak

    def prompt(self, threads):
        return self.bench(PROMPT, 0, threads)[0][0]["avg_ts"]

    def generation(self, threads):
        return self.bench(0, GENERATE, threads)[0][0]["avg_ts"]

    def memory(self, threads):
        return self.bench(PROMPT, GENERATE, threads)[1]

    def start(self, threads):
        simple = os.path.join(os.path.dirname(self.program), "llama-simple")
        begin = time.perf_counter()
        run([simple, "-m", self.model, "-n", "1", "Hello"])
        return time.perf_counter() - begin


WHAT = {"prompt": "tokens/s", "generation": "tokens/s", "memory": "bytes",
        "start": "seconds"}
START_THREADS = 4
SHOWN = {"tokens/s": (1, "tok/s"), "bytes": (1e6, "MB"), "seconds": (1e-3, "ms")}


def cases(threads):
    return [(what, t) for what in WHAT
            for t in ([START_THREADS] if what == "start" else threads)]


def measure(sides, threads, rounds):
    """{(what, threads, side): [values]}"""
    got = {}
    for r in range(rounds):
        for what, t in cases(threads):
            for side in (sides if r % 2 == 0 else sides[::-1]):
                value = getattr(side, what)(t)
                got.setdefault((what, t, side.name), []).append(value)
                print("round %d/%d, %d threads, %s: %s %.6g %s" % (
                    r + 1, rounds, t, side.name, what, value, WHAT[what]),
                    file=sys.stderr, flush=True)
    return got


def machine():
    cpu = platform.machine()
    try:
        with open("/proc/cpuinfo") as f:
            for line in f:
                if line.startswith("model name"):
                    cpu = line.split(":", 1)[1].strip()
                    break
    except OSError:
        pass
    return {"cpu": cpu, "cpus": len(os.sched_getaffinity(0)),
            "system": platform.platform(), "load_1min": os.getloadavg()[0],
            "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}


def spread(values):
    return (max(values) - min(values)) / statistics.median(values)


def report(got, threads, command, out):
    info = machine()
    print("%s, %d CPUs, load %.2f, %s" % (info["cpu"], info["cpus"],
                                          info["load_1min"], info["date"]))
    print("%-11s %7s %14s %14s %8s   spread" % (
        "what", "threads", "tenon", "llama.cpp", "ratio"))
    lines = [{"kind": "machine", **info, "command": command}]
    for what, t in cases(threads):
        unit = WHAT[what]
        a, b = got[what, t, "tenon"], got[what, t, "llama.cpp"]
        ma, mb = statistics.median(a), statistics.median(b)
        scale, digits = SHOWN[unit]
        print("%-11s %7d %8.1f %-5s %8.1f %-5s %8.3f   %.0f %% / %.0f %%" %
              (what, t, ma / scale, digits, mb / scale, digits, ma / mb,
               100 * spread(a), 100 * spread(b)))
        lines.append({"kind": "ratio", "what": what, "threads": t,
                      "unit": unit, "tenon": ma, "llama.cpp": mb,
                      "ratio": ma / mb, "tenon_all": a,
                      "llama.cpp_all": b})
    if out:
        with open(out, "w") as f:
            for line in lines:
                f.write(json.dumps(line) + "\n")


def main():
    p = argparse.ArgumentParser(description="Tenon against llama.cpp",
                                epilog="see the head of the file")
    p.add_argument("--tenon", default=os.path.join(ROOT, "build", "tenon"))
    p.add_argument("--peer", default=os.path.join(
        ROOT, "build", "peers", "llama", "bin", "llama-bench"))
    p.add_argument("--model", required=True)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    p.add_argument("--out", help="file for the JSON lines")
    a = p.parse_args()
    for path in (a.tenon, a.peer, a.model):
        if not os.path.exists(path):
            p.error("%s does not exist (bench/peer_llama.sh builds the peer)"
                    % path)
    sides = [Tenon(a.tenon, a.model), Llama(a.peer, a.model)]
    got = measure(sides, a.threads, a.rounds)
    command = "bench/bench_llm.py --rounds %d --threads %s" % (
        a.rounds, " ".join(map(str, a.threads)))
    report(got, a.threads, command, a.out)


if __name__ == "__main__":
    main()
