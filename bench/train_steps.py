#!/usr/bin/env python3
"""Training steps of Tenon beside PyTorch's and MLX's: speed and peak memory, in one table.

    bench/train_steps.py [--bench build/bench/bench_train] [--rounds 3] [--threads N]
                         [--torch-python /usr/bin/python3] [--mlx-python build/venv/bin/python]
                         [--only mlp,cnn,gpt,lora] [--model SMOLLM2] [--tenon build/tenon]

A round runs every program once, one after the other, each in a process of its own; medians over the
rounds of the medians over the steps. A peer whose Python lacks the package is left out. Peak memory is
the process's resident set, the interpreter and its libraries included; `arrays` is what Tenon's arrays
took at once. `lora` is a step of `tenon finetune` on 4 x 256 tokens of SmolLM2 (GGUF file or folder)."""

import argparse
import json
import os
import re
import statistics
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
STEPS = {"mlp": {"tenon": 400, "torch": 400, "mlx": 40}, "cnn": {"tenon": 40, "torch": 40, "mlx": 2},
         "gpt": {"tenon": 6, "torch": 6, "mlx": 1}, "lora": {"tenon": 6, "torch": 5}}


def run(command, threads):
    env = {**os.environ, "TENON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().split("\n")[-1])


def finetune(o, steps):
    """The step's time is that of the last two steps, which the plan of the first serves."""
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "train.jsonl"), "w") as f:
            for i in range(8):
                f.write(json.dumps({"text": f"{i} " + "seven wizards brew a toxic potion " * 60}) + "\n")
        done = subprocess.run(
            [o.tenon, "finetune", "--model", o.model, "--data", folder, "--adapter", os.path.join(folder, "out"),
             "--iters", str(steps), "--steps-per-report", "2", "--max-seq-length", "257", "--threads", str(o.threads)],
            stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, check=True).stdout
    speed = float(re.findall(r"loss [0-9.]+, ([0-9.]+) tokens/s", done)[-1])
    return {"seconds": 1024 / speed, "resident": int(re.search(r"peak memory (\d+) MB", done).group(1)) * 1e6}


def has(python, package):
    return bool(python) and subprocess.run([python, "-c", "import " + package], stderr=subprocess.DEVNULL).returncode == 0


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bench", default=os.path.join(HERE, "..", "build", "bench", "bench_train"))
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--torch-python", default="/usr/bin/python3")
    p.add_argument("--mlx-python", default=os.path.join(HERE, "..", "build", "venv", "bin", "python"))
    p.add_argument("--only", default="mlp,cnn,gpt")
    p.add_argument("--model")
    p.add_argument("--tenon", default=os.path.join(HERE, "..", "build", "tenon"))
    o = p.parse_args()
    peers = [n for n, python, package in (("torch", o.torch_python, "torch"), ("mlx", o.mlx_python, "mlx.core"))
             if has(python, package)]
    print(f"{o.threads} threads, {o.rounds} rounds\n")
    print("| network | program | step | against Tenon | peak memory | against Tenon | arrays |")
    print("|---|---|---|---|---|---|---|")
    for which in o.only.split(","):
        got = {n: [] for n in ["tenon"] + peers if n in STEPS[which]}
        for _ in range(o.rounds):
            for n in got:
                steps = str(STEPS[which][n])
                python = {"torch": o.torch_python, "mlx": o.mlx_python}.get(n)
                command = [o.bench, which, steps] if n == "tenon" else [
                    python, os.path.join(HERE, "train_peer.py"), n, which, steps, str(o.threads)]
                got[n].append(finetune(o, STEPS[which][n]) if (n, which) == ("tenon", "lora")
                              else run(command, o.threads))
        mid = {n: {k: statistics.median(r[k] for r in v) for k in v[0] if k != "loss"} for n, v in got.items()}
        for n, m in mid.items():
            arrays = f"{m['arrays'] / 1e6:.0f} MB" if "arrays" in m else ""
            print(f"| {which} | {n} | {m['seconds'] * 1e3:.2f} ms | {m['seconds'] / mid['tenon']['seconds']:.2f} | "
                  f"{m['resident'] / 1e6:.0f} MB | {m['resident'] / mid['tenon']['resident']:.2f} | {arrays} |", flush=True)


if __name__ == "__main__":
    main()
