"""tenon finetune as its users meet it: a run, its files, stops of every kind, and what is refused."""

import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import time

import pytest

from tenon_llm import PROGRAM

TEXTS = ["The quick brown fox jumps over the lazy dog.", "It was the best of times.",
         "def add(a, b): return a + b", "0 1 2 3 4 5 6 7 8 9 10", "the dog sleeps on",
         "for (int i = 0; i < n; i++)", "Grüße aus Köln", "It was the age, it was the worst"]
FILES = ("adapters.safetensors", "adapter_config.json", "checkpoint.safetensors", "loss.csv")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, rows in (("train", TEXTS), ("valid", TEXTS[:4])):
        (folder / (name + ".jsonl")).write_text(
            "".join(json.dumps({"text": t}) + "\n" for t in rows))
    return str(folder)


def command(model, data, out, *more):
    return [PROGRAM, "finetune", "--model", model, "--data", data, "--adapter", str(out),
            "--learning-rate", "0.001", "--batch", "2", "--dropout", "0.1", "--steps-per-eval",
            "20", "--threads", "2", *map(str, more)]


def run(model, data, out, *more, **kw):
    return subprocess.run(command(model, data, out, *more), capture_output=True, text=True,
                          timeout=300, **kw)


def contents(folder, names=FILES):
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def whole(small, data, tmp_path_factory):
    """A run of 40 steps that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "adapter"
    done = run(small, data, out, "--iters", 40)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_learns_and_reports(whole):
    out, text = whole
    losses = [float(line.split("validation loss ")[1].split(",")[0])
              for line in text.splitlines() if "validation loss" in line]
    assert len(losses) == 3 and losses[2] < losses[0] - 0.3
    assert "8 examples" in text and "40 steps in this run" in text and "tokens/s" in text


def test_leaves_a_table_and_a_picture(whole):
    lines = (whole[0] / "loss.csv").read_text().splitlines()
    assert lines[0] == "step,loss,validation"
    rows = [line.split(",") for line in lines[1:]]
    assert [int(r[0]) for r in rows] == [0, 10, 20, 30, 40]
    assert all(float(r[1]) > 0 for r in rows[1:]) and rows[1][2] == "" and float(rows[4][2]) > 0
    png = (whole[0] / "loss.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", png[16:24]) == (640, 360)


def test_picture_can_be_read(whole):
    """Chunks, their sums and the pixels, by Python's own zlib."""
    import zlib

    png, at, kinds, pixels = (whole[0] / "loss.png").read_bytes(), 8, [], b""
    while at < len(png):
        n, kind = struct.unpack(">I4s", png[at:at + 8])
        body = png[at + 8:at + 8 + n]
        assert zlib.crc32(kind + body) == struct.unpack(">I", png[at + 8 + n:at + 12 + n])[0]
        kinds.append(kind)
        pixels += body if kind == b"IDAT" else b""
        at += 12 + n
    raw = zlib.decompress(pixels)
    assert kinds == [b"IHDR", b"IDAT", b"IEND"] and len(raw) == 360 * 641
    assert all(raw[y * 641] == 0 for y in range(360)) and raw.count(b"\0") > 360 + 500


def test_adapter_is_loaded(small, data, whole, tmp_path):
    """generate and perplexity take it; on what was learned the perplexity is lower."""
    text = tmp_path / "text"
    text.write_text(TEXTS[0])

    def perplexity(*more):
        done = subprocess.run([PROGRAM, "perplexity", "--model", small, "--text", str(text),
                               "--json", *more], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["perplexity"]

    assert perplexity("--adapter", str(whole[0])) < 0.8 * perplexity()
    done = subprocess.run([PROGRAM, "generate", "--model", small, "--prompt", "The", "--raw",
                           "--max-tokens", "4", "--adapter", str(whole[0])], capture_output=True)
    assert done.returncode == 0 and done.stdout


def test_a_second_run_is_the_same(small, data, whole, tmp_path):
    done = run(small, data, tmp_path / "a", "--iters", 40, "--threads", 3)
    assert done.returncode == 0
    assert contents(tmp_path / "a") == contents(whole[0])


def test_interrupted_and_resumed(small, data, whole, tmp_path):
    """Ctrl-C after the first line of losses, twice; the third run ends as one would have."""
    out = tmp_path / "a"
    for stop in ([], ["--resume"]):
        p = subprocess.Popen(command(small, data, out, "--iters", "40", "--steps-per-report", "1",
                                     *stop), stdout=subprocess.PIPE, text=True)
        for line in p.stdout:
            if ": loss " in line:
                p.send_signal(signal.SIGINT)
                break
        rest = p.stdout.read()
        assert p.wait(60) == 0 and "--resume goes on" in rest, rest
    done = run(small, data, out, "--iters", 40, "--resume")
    assert done.returncode == 0 and "going on after step" in done.stdout
    names = FILES[:3]
    assert contents(out, names) == contents(whole[0], names)


def test_killed_and_resumed(small, data, whole, tmp_path):
    """SIGKILL at random moments: what is left is always a run that can be taken up."""
    out, chance = tmp_path / "a", random.Random(7)
    for _ in range(8):
        more = ["--resume"] if (out / "checkpoint.safetensors").exists() else []
        p = subprocess.Popen(command(small, data, out, "--iters", "40", "--save-every", "1", *more),
                             stdout=subprocess.DEVNULL)
        time.sleep(0.05 + 0.4 * chance.random())
        p.kill()
        p.wait(60)
    more = ["--resume"] if (out / "checkpoint.safetensors").exists() else []
    done = run(small, data, out, "--iters", 40, "--save-every", 1, *more)
    assert done.returncode == 0, done.stderr
    names = FILES[:3]
    assert contents(out, names) == contents(whole[0], names)


def test_a_full_disk_loses_nothing(small, data, tmp_path):
    """No file may grow beyond 20 kB in the second run: it fails, and the first one's files stay."""
    out = tmp_path / "a"
    assert run(small, data, out, "--iters", 4).returncode == 0
    before = contents(out)

    def small_disk():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))

    done = run(small, data, out, "--iters", 8, "--resume", preexec_fn=small_disk)
    assert done.returncode == 1 and "cannot" in done.stderr, done.stderr
    after = contents(out)
    assert {k: after[k] for k in FILES[:3]} == {k: before[k] for k in FILES[:3]}
    assert not [f for f in os.listdir(out) if f not in (*FILES, "loss.png")]
    assert run(small, data, out, "--iters", 8, "--resume").returncode == 0


# ---- fuse ----

def perplexity(model, text, *more):
    done = subprocess.run([PROGRAM, "perplexity", "--model", model, "--text", str(text), "--json",
                           *more], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["perplexity"]


def fuse(model, adapter, out, *more):
    return subprocess.run([PROGRAM, "fuse", "--model", model, "--adapter", str(adapter), "--save",
                           str(out), *more], capture_output=True, text=True, timeout=300)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text"
    path.write_text(" ".join(TEXTS))
    return path


def test_fuse_a_folder(small, whole, text, tmp_path):
    """Two shards of f16 become one file, beside the other files."""
    done = fuse(small, whole[0], tmp_path / "fused")
    assert done.returncode == 0 and not done.stderr
    assert done.stdout == f"{tmp_path}/fused: written; tenon generate --model {tmp_path}/fused uses it\n"
    assert sorted(os.listdir(tmp_path / "fused")) == sorted(
        ["model.safetensors"] + [f for f in os.listdir(small) if "safetensors" not in f])
    want = perplexity(small, text, "--adapter", str(whole[0]))
    assert abs(perplexity(str(tmp_path / "fused"), text) / want - 1) < 2e-3
    done = fuse(small, whole[0], tmp_path / "fused")
    assert done.returncode == 1 and "not overwritten" in done.stderr


def test_fuse_gguf(smollm2, data, text, tmp_path):
    """An adapter of one layer: its packed matrices become f16, all others stay."""
    done = run(smollm2, data, tmp_path / "a", "--iters", 2, "--layers", 1, "--keys",
               "self_attn.q_proj,self_attn.k_proj,mlp.down_proj")
    assert done.returncode == 0, done.stderr
    done = fuse(smollm2, tmp_path / "a", tmp_path / "fused")
    fused = str(tmp_path / "fused" / "model.gguf")
    assert done.returncode == 0 and f"--model {fused} uses it" in done.stdout
    want, base = perplexity(smollm2, text, "--adapter", str(tmp_path / "a")), perplexity(smollm2,
                                                                                         text)
    assert abs(want / base - 1) > 1e-3 and abs(perplexity(fused, text) / want - 1) < 2e-3
    info = subprocess.run([PROGRAM, "info", "--model", fused], capture_output=True, text=True)
    assert "Q4_1 207" in info.stdout and "F16 3" in info.stdout


def test_fuse_quantised(small, whole, text, tmp_path):
    """MLX's packing: quantised anew, or left as floats."""
    mx = pytest.importorskip("mlx.core")
    model = tmp_path / "model"
    shutil.copytree(small, model, ignore=shutil.ignore_patterns("*safetensors*"))
    weights = {}
    for path in sorted(os.listdir(small)):
        if path.endswith(".safetensors"):
            weights.update(mx.load(os.path.join(small, path)))
    packed = {}
    for name, w in weights.items():
        if "_proj" in name and w.shape[1] % 32 == 0:
            w, scales, biases = mx.quantize(w, group_size=32, bits=8)
            packed.update({name[:-6] + "scales": scales, name[:-6] + "biases": biases})
        packed[name] = w
    mx.save_safetensors(str(model / "model.safetensors"), packed)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(
        {**config, "quantization": {"group_size": 32, "bits": 8}}))
    want = perplexity(str(model), text, "--adapter", str(whole[0]))
    for more, most in (([], 0.03), (["--dequantize"], 2e-3)):
        out = tmp_path / ("fused" + "".join(more))
        assert fuse(str(model), whole[0], out, *more).returncode == 0
        assert abs(perplexity(str(out), text) / want - 1) < most
        kept = mx.load(str(out / "model.safetensors"))
        name = "model.layers.2.self_attn.q_proj."
        assert (name + "scales" in kept) == (not more)
        assert kept[name + "weight"].dtype == (mx.float16 if more else mx.uint32)


# ---- what is refused ----

@pytest.mark.parametrize("args,message", [
    (["--model", "x", "--data", "y"], "--adapter is needed"),
    (["--model", "x", "--adapter", "y"], "--data is needed"),
    (["--data", "x", "--adapter", "y"], "--model is needed"),
    (["--model", "x", "--data", "y", "--adapter", "z", "--optimizer", "sgd"], "adam and adamw"),
    (["--batch", "0"], "--batch: 0 is out of range, 1 to 4096"),
    (["--rank", "-1"], "--rank: -1 is out of range, 1 to 4096"),
    (["--iters", "0"], "--iters: 0 is out of range, 1 to 1000000000"),
    (["--iters", "many"], '"many" is not a whole number'),
    (["--seed"], "--seed needs a value"),
])
def test_usage_errors(args, message):
    done = subprocess.run([PROGRAM, "finetune", *args], capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr and not done.stdout


def test_folders_are_kept(small, data, whole):
    before = contents(whole[0])
    done = run(small, data, whole[0])
    assert done.returncode == 1 and "already holds a run" in done.stderr
    done = run(small, data, whole[0], "--resume", "--rank", 4)
    assert done.returncode == 1 and '"rank" was 8, now 4' in done.stderr
    assert contents(whole[0]) == before


def test_nothing_to_resume(small, data, tmp_path):
    done = run(small, data, tmp_path / "a", "--resume")
    assert done.returncode == 1 and "no run to go on with" in done.stderr
    assert not (tmp_path / "a").exists()


def test_a_finished_run_says_so(small, data, whole, tmp_path):
    out = tmp_path / "a"
    shutil.copytree(whole[0], out)
    done = run(small, data, out, "--resume", "--iters", 40)
    assert done.returncode == 0 and "has 40 steps already: a larger --iters" in done.stdout
    assert contents(out) == contents(whole[0])


@pytest.mark.parametrize("adapter,message", [
    ("file", "is a file, and a folder is needed"),
    ("file/a", "the folder cannot be made"),
    ("none/a", "the folder cannot be made"),
    ("/proc", "files cannot be made in the folder"),
])
def test_folders_that_cannot_be(small, data, tmp_path, adapter, message):
    """Seen before the first step, and before the model is read."""
    (tmp_path / "file").write_text("x")
    done = run(small, data, tmp_path / adapter)
    assert done.returncode == 1 and message in done.stderr and not done.stdout
    assert done.stderr.count("\n") == 1


def test_a_batch_larger_than_the_data(small, data, tmp_path):
    done = run(small, data, tmp_path / "a", "--batch", 9)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "8 examples are fewer than a batch of 9: a smaller batch" in done.stderr
    assert not (tmp_path / "a").exists()


def test_one_example(small, tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "all that there is"}\n')
    done = run(small, str(tmp_path), tmp_path / "a", "--batch", 1, "--iters", 2)
    assert done.returncode == 0 and "train.jsonl: 1 example, " in done.stdout


@pytest.mark.parametrize("args", [["generate", "--prompt", "The", "--raw", "--max-tokens", "1"],
                                  ["perplexity", "--text", __file__],
                                  ["fuse", "--save", "/nowhere/a"]])
def test_no_adapter_there(small, data, args):
    for adapter in ("/nowhere", data, __file__, ""):
        done = subprocess.run([PROGRAM, *args, "--model", small, "--adapter", adapter],
                              capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and not done.stdout
        assert "no folder with an adapter" in done.stderr


def test_no_data_there(small, data, tmp_path):
    for folder in (tmp_path, tmp_path / "none", data + "/train.jsonl"):
        done = run(small, str(folder), tmp_path / "a")
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and not done.stdout
        assert "no folder with a train.jsonl in it" in done.stderr
        assert not (tmp_path / "a").exists()


def test_bad_data_is_named(small, tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "a"}\n{"txt": "b"}\n')
    done = run(small, str(tmp_path), tmp_path / "a")
    assert done.returncode == 1 and "train.jsonl, line 2: neither" in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "a").exists()
    (tmp_path / "train.jsonl").write_text('{"text": "a"}\n\n{"text": "b')
    done = run(small, str(tmp_path), tmp_path / "a")
    assert done.returncode == 1 and "train.jsonl, line 2: the line is empty" in done.stderr
    (tmp_path / "train.jsonl").write_text("")
    done = run(small, str(tmp_path), tmp_path / "a")
    assert done.returncode == 1 and "train.jsonl: the file has no examples" in done.stderr


def test_a_loss_that_is_no_number(small, data, tmp_path):
    """A model whose last norm is NaN."""
    model = tmp_path / "model"
    shutil.copytree(small, model)
    for path in model.glob("*.safetensors"):
        bytes_ = bytearray(path.read_bytes())
        n = struct.unpack("<Q", bytes_[:8])[0]
        norm = json.loads(bytes_[8:8 + n]).get("model.norm.weight")
        if norm:
            begin, end = (8 + n + x for x in norm["data_offsets"])
            bytes_[begin:end] = b"\x00\x7e" * ((end - begin) // 2)
            path.write_bytes(bytes_)
    done = run(str(model), data, tmp_path / "a")
    assert done.returncode == 1 and "step 1: the loss is nan" in done.stderr
    assert done.returncode == 1 and "smaller --learning-rate" in done.stderr
    assert not (tmp_path / "a" / "adapters.safetensors").exists()
