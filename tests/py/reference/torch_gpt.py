"""The model and the training of examples/train_gpt.c in PyTorch, for Debian's python3-torch:

    /usr/bin/python3 torch_gpt.py CHECKPOINT BATCHES HEADS RATE STEPS

CHECKPOINT is what the example saves before its first step; BATCHES a .npy of [steps, batch, context
+ 1] numbers of letters; STEPS what the learning rate's schedule goes by. Prints each step's loss.
"""

import json
import math
import struct
import sys

import numpy as np
import torch
import torch.nn.functional as F


def safetensors(path):
    data = open(path, "rb").read()
    (n,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8:8 + n])
    for name, t in head.items():
        if name.startswith("params."):
            begin, end = t["data_offsets"]
            v = np.frombuffer(data[8 + n + begin:8 + n + end], np.float32).reshape(t["shape"])
            yield name[len("params."):], torch.tensor(v, requires_grad=True)


def scores(w, x, heads):
    norm = lambda h, name: F.layer_norm(h, h.shape[-1:], w[name + ".weight"], w[name + ".bias"], 1e-5)
    linear = lambda h, name: F.linear(h, w[name + ".weight"], w.get(name + ".bias"))
    n, t = x.shape
    h = w["token.weight"][x] + w["position.weight"][:t]
    mask = torch.triu(torch.full((t, t), -math.inf), 1)
    for i in range(sum(k.endswith(".linear1.weight") for k in w)):
        b = f"stack.layers.{i}."
        y = norm(h, b + "ln1")
        q, k, v = (linear(y, f"{b}attention.{a}_proj").reshape(n, t, heads, -1).transpose(1, 2)
                   for a in ("query", "key", "value"))
        a = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + mask, -1) @ v
        h = h + linear(a.transpose(1, 2).reshape(n, t, -1), b + "attention.out_proj")
        h = h + linear(F.gelu(linear(norm(h, b + "ln2"), b + "linear1")), b + "linear2")
    return norm(h, "stack.ln") @ w["token.weight"].T


def rate(step, most, steps):
    if step < 20:
        return most * step / 20
    rest = max(1, steps - 20)
    return most / 10 + 0.45 * most * (1 + math.cos(math.pi * min(step - 20, rest) / rest))


def main(checkpoint, batches, heads, most, steps):
    w = dict(safetensors(checkpoint))
    optimizer = torch.optim.AdamW(w.values(), betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
    for i, batch in enumerate(np.load(batches).astype(np.int64)):
        batch = torch.tensor(batch)
        s = scores(w, batch[:, :-1], int(heads))
        loss = F.cross_entropy(s.reshape(-1, s.shape[-1]), batch[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(w.values(), 1.0)
        optimizer.param_groups[0]["lr"] = rate(i, float(most), int(steps))
        optimizer.step()
        print(f"{loss.item():.7g}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(*sys.argv[1:])
