#!/usr/bin/env python3
"""LoRA steps of Tenon and of mlx-lm from the same adapter on the same batches: losses side by side.

    python3 bench/finetune_mlx.py MODEL_FOLDER DATA.jsonl [--steps 15] [--batch 4] [--layers 4]
        [--examples 12] [--rate 1e-4] [--checkpoint] [--f32 FOLDER]

Needs mlx-lm beside mlx (pip install mlx-lm), and TENON_LIBRARY. --f32 writes the weights there widened to float32 first, which both then
read; otherwise they compute in the folder's own types.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "py"))

import mlx.core as mx  # noqa: E402
import mlx.nn as nn  # noqa: E402
import mlx.optimizers as optim  # noqa: E402
from mlx_lm.tuner.trainer import default_loss  # noqa: E402
from mlx_lm.utils import load  # noqa: E402

import tenon_train as tt  # noqa: E402
from tenon_llm import Model  # noqa: E402


def widen(folder, to):
    os.makedirs(to, exist_ok=True)
    for name in os.listdir(folder):
        if name.endswith(".json") and "index" not in name:
            shutil.copy(os.path.join(folder, name), to)
    weights = mx.load(os.path.join(folder, "model.safetensors"))
    mx.save_safetensors(os.path.join(to, "model.safetensors"),
                        {k: v.astype(mx.float32) for k, v in weights.items()})
    return to


def pad(rows):
    length = 1 + 32 * -(-max(map(len, rows)) // 32)
    ids = mx.array([r + [0] * (length - len(r)) for r in rows])
    return ids, mx.array([[0, len(r)] for r in rows])


def mlx_losses(folder, adapter, texts, a):
    model, tokenizer = load(folder, adapter_path=adapter)
    model.freeze()
    for _, module in model.named_modules():
        if "lora_a" in module:
            module.unfreeze(keys=["lora_a", "lora_b"], recurse=False)
    rows = []
    for text in texts:
        ids = tokenizer.encode(text)
        rows.append(ids + [tokenizer.eos_token_id] * (ids[-1] != tokenizer.eos_token_id))
    model.train()
    step = nn.value_and_grad(model, default_loss)
    adam, out, begin = optim.Adam(learning_rate=a.rate), [], time.time()
    for pick in tt.batches([len(r) for r in rows], a.batch, 0, a.steps):
        (loss, _), grads = step(model, *pad([rows[i] for i in pick]))
        adam.update(model, grads)
        mx.eval(model.trainable_parameters(), adam.state, loss)
        out.append(loss.item())
    return out, time.time() - begin


def tenon_losses(folder, adapter, data, a):
    with Model(folder) as m:
        tt.adapter_new(m, layers=a.layers, seed=0)
        tt.adapter_save(m, adapter)
        begin = time.time()
        with tt.Trainer(m, tt.Data(m, data), batch=a.batch, learning_rate=a.rate,
                        checkpoint=a.checkpoint) as t:
            return [s["loss"] for s in t.steps(a.steps)], time.time() - begin


def main():
    p = argparse.ArgumentParser()
    p.add_argument("model"), p.add_argument("data"), p.add_argument("--f32")
    p.add_argument("--steps", type=int, default=15), p.add_argument("--batch", type=int, default=4)
    p.add_argument("--layers", type=int, default=4)
    p.add_argument("--examples", type=int, default=12)
    p.add_argument("--rate", type=float, default=1e-4)
    p.add_argument("--checkpoint", action="store_true")
    a = p.parse_args()
    folder = widen(a.model, a.f32) if a.f32 else a.model
    with open(a.data) as f:
        lines = [line for line in f][:a.examples]
    with tempfile.TemporaryDirectory() as tmp:
        data, adapter = os.path.join(tmp, "train.jsonl"), os.path.join(tmp, "adapter")
        with open(data, "w") as f:
            f.writelines(lines)
        ours, t0 = tenon_losses(folder, adapter, data, a)
        theirs, t1 = mlx_losses(folder, adapter, [json.loads(s)["text"] for s in lines], a)
    for i, (x, y) in enumerate(zip(ours, theirs), 1):
        print("step %2d  tenon %.6f  mlx-lm %.6f  difference %.1e" % (i, x, y, x - y))
    worst = max(abs(x - y) for x, y in zip(ours, theirs))
    print("largest difference %.2e; seconds: tenon %.1f, mlx-lm %.1f" % (worst, t0, t1))


if __name__ == "__main__":
    main()
