"""Training against PyTorch (Debian's python3-torch, which belongs to /usr/bin/python3): the example
that trains a GPT, from the same weights and batches, has the same losses step by step."""

import csv
import json
import os
import struct
import subprocess

import numpy as np
import pytest

import tn

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3"
BUILD = os.path.dirname(tn.LIBRARY)
has_torch = os.path.exists(PYTHON) and subprocess.run(
    [PYTHON, "-c", "import torch"], stderr=subprocess.DEVNULL).returncode == 0
pytestmark = pytest.mark.skipif(not has_torch, reason="no python3-torch")


def example(folder, steps, **options):
    """Runs examples/train_gpt for so many steps; options are its own."""
    command = [os.path.join(BUILD, "examples", "train_gpt"), "--out", folder, "--steps", str(steps),
               "--letters", "0"]
    for name, value in options.items():
        command += ["--" + name, str(value)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def random_state(checkpoint):
    data = open(checkpoint, "rb").read()
    (n,) = struct.unpack("<Q", data[:8])
    return int(json.loads(data[8:8 + n])["__metadata__"]["random"], 16)


def batches(checkpoint, steps, batch, context):
    """What the example draws from the random state its checkpoint holds."""
    import gzip
    text = np.frombuffer(gzip.open(os.path.join(tn.ROOT, "examples/data/tinyshakespeare.txt.gz")).read(), np.uint8)
    text = np.unique(text, return_inverse=True)[1].reshape(-1)
    tn.lib.tn_random_seed(random_state(checkpoint))
    for _ in range(steps):
        with tn.scope():
            start = tn.numpy(tn.random_randint(0, len(text) - context, (batch, 1), "int32", None))
        yield text[start + np.arange(context + 1)]


def compare(tmp_path, steps, within, heads, batch, context, rate, **shape):
    out, none = str(tmp_path / "out"), str(tmp_path / "none")
    options = dict(heads=heads, batch=batch, context=context, rate=rate, **shape)
    example(none, 0, **options)
    example(out, steps, **options)
    start = os.path.join(none, "checkpoint.safetensors")
    np.save(tmp_path / "batches.npy", np.stack(list(batches(start, steps, batch, context))))
    theirs = subprocess.run(
        [PYTHON, os.path.join(HERE, "reference", "torch_gpt.py"), start, str(tmp_path / "batches.npy"),
         str(heads), str(rate), str(steps)], check=True, stdout=subprocess.PIPE, text=True).stdout
    theirs = np.array(theirs.split(), float)
    ours = np.array([float(r["loss"]) for r in csv.DictReader(open(os.path.join(out, "loss.csv")))])
    assert len(ours) == len(theirs) == steps
    worst = np.abs(ours - theirs).max()
    print(f"{steps} steps from {theirs[0]:.4f} to {theirs[-1]:.4f}: at most {worst:.2g} apart")
    assert worst <= within
    assert theirs[-1] < theirs[0] - 0.3


def test_gpt_follows_torch(tmp_path):
    compare(tmp_path, 25, 1e-4, heads=4, batch=8, context=32, rate=3e-3, layers=2, width=64)


@pytest.mark.skipif("TENON_LONG" not in os.environ, reason="minutes: TENON_LONG=1")
def test_gpt_follows_torch_for_long(tmp_path):
    compare(tmp_path, 300, 1e-3, heads=4, batch=8, context=64, rate=1e-3, layers=4, width=128)
