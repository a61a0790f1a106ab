"""Training of adapters against the same steps in mlx: from one adapter, over the same batches."""

import json
import os

import pytest

import tenon_train as tt
from tenon_llm import Model

mx = pytest.importorskip("mlx.core")
import mlx.nn as nn  # noqa: E402
import mlx.optimizers as optim  # noqa: E402

TEXTS = ["The quick brown fox jumps over the lazy dog.", "It was the best of times.",
         "def add(a, b): return a + b", "0 1 2 3 4 5 6 7 8 9 10", "the dog sleeps on",
         "for (int i = 0; i < n; i++)", "Grüße aus Köln", "It was the age, it was the worst"]
TURN = "<|im_start|>%s\n%s<|im_end|>\n"  # of the small model's chat template
STEPS, BATCH, RATE, SCALE = 12, 2, 1e-3, 20.0


class Llama:
    """The decoder in plain mlx ops, f32, from a Hugging Face folder; adapters beside its matrices."""

    def __init__(self, folder):
        with open(os.path.join(folder, "config.json")) as f:
            self.c = json.load(f)
        self.w = {}
        for name in os.listdir(folder):
            if name.endswith(".safetensors"):
                self.w.update(mx.load(os.path.join(folder, name)))
        self.w = {k: v.astype(mx.float32) for k, v in self.w.items()}

    def linear(self, lora, name, x):
        y = x @ self.w[name + ".weight"].T
        a = lora.get(name + ".lora_a")
        return y if a is None else y + SCALE * ((x @ a) @ lora[name + ".lora_b"])

    def norm(self, name, x):
        eps = self.c["rms_norm_eps"]
        return x * mx.rsqrt(mx.mean(x * x, -1, keepdims=True) + eps) * self.w[name + ".weight"]

    def rope(self, x):
        half = x.shape[-1] // 2
        freq = self.c["rope_theta"] ** (-mx.arange(half, dtype=mx.float32) / half)
        angle = mx.arange(x.shape[2], dtype=mx.float32)[:, None] * freq
        cos, sin = mx.cos(angle), mx.sin(angle)
        a, b = x[..., :half], x[..., half:]
        return mx.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def attention(self, lora, p, x):
        c, (n, t, _) = self.c, x.shape
        heads, kv = c["num_attention_heads"], c["num_key_value_heads"]
        q, k, v = (self.linear(lora, p + s + "_proj", x).reshape(n, t, h, -1).transpose(0, 2, 1, 3)
                   for s, h in (("q", heads), ("k", kv), ("v", kv)))
        q, k = self.rope(q), self.rope(k)
        k, v = (mx.repeat(y, heads // kv, 1) for y in (k, v))
        scores = q @ k.transpose(0, 1, 3, 2) * q.shape[-1] ** -0.5
        scores = mx.where(mx.tri(t, dtype=mx.bool_), scores, -mx.inf)
        y = (mx.softmax(scores, -1) @ v).transpose(0, 2, 1, 3).reshape(n, t, -1)
        return self.linear(lora, p + "o_proj", y)

    def __call__(self, lora, ids):
        x = self.w["model.embed_tokens.weight"][ids]
        for i in range(self.c["num_hidden_layers"]):
            p = "model.layers.%d." % i
            x = x + self.attention(lora, p + "self_attn.", self.norm(p + "input_layernorm", x))
            h = self.norm(p + "post_attention_layernorm", x)
            gate = nn.silu(self.linear(lora, p + "mlp.gate_proj", h))
            h = gate * self.linear(lora, p + "mlp.up_proj", h)
            x = x + self.linear(lora, p + "mlp.down_proj", h)
        head = self.w.get("lm_head.weight", self.w["model.embed_tokens.weight"])
        return self.norm("model.norm", x) @ head.T


def loss(model, lora, ids, spans):
    """mlx-lm's: tokens from offset to length, the one after the last among them."""
    ce = nn.losses.cross_entropy(model(lora, ids[:, :-1]), ids[:, 1:])
    at = mx.arange(1, ids.shape[1])
    mask = mx.logical_and(at >= spans[:, :1], at <= spans[:, 1:])
    return (ce * mask).sum() / mask.sum()


def pad(rows, offsets):
    length = 1 + 32 * -(-max(map(len, rows)) // 32)
    ids = mx.array([r + [0] * (length - len(r)) for r in rows])
    return ids, mx.array([[o, len(r)] for r, o in zip(rows, offsets)])


def steps_of_mlx(folder, adapter, rows, offsets, optimizer):
    model, out = Llama(folder), []
    lora = mx.load(os.path.join(adapter, "adapters.safetensors"))
    step = mx.value_and_grad(lambda lora, *batch: loss(model, lora, *batch))
    for pick in tt.batches([len(r) for r in rows], BATCH, 0, STEPS):
        value, grads = step(lora, *pad([rows[i] for i in pick], [offsets[i] for i in pick]))
        lora = optimizer.apply_gradients(grads, lora)
        mx.eval(lora, optimizer.state, value)
        out.append(value.item())
    return out, lora


@pytest.mark.parametrize("adamw,checkpoint,masked", [(False, False, False), (True, True, False),
                                                     (False, True, True)])
def test_steps_as_in_mlx(small, tmp_path, adamw, checkpoint, masked):
    data = tmp_path / "train.jsonl"
    with Model(small) as m:
        if masked:
            data.write_text("".join(json.dumps({"prompt": t, "completion": t[::-1]}) + "\n"
                                    for t in TEXTS))
            before = [TURN % ("user", t) + "<|im_start|>assistant\n" for t in TEXTS]
            rows = [m.tokenize(TURN % ("user", t) + TURN % ("assistant", t[::-1])) for t in TEXTS]
            offsets = [len(m.tokenize(b)) for b in before]
        else:
            data.write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
            rows, offsets = [m.tokenize(t + "<|im_end|>") for t in TEXTS], [0] * len(TEXTS)
        tt.adapter_new(m, rank=4, layers=2, seed=3)
        tt.adapter_save(m, str(tmp_path / "begin"))
        with tt.Trainer(m, tt.Data(m, str(data), mask_prompt=masked), batch=BATCH,
                        learning_rate=RATE, adamw=adamw, checkpoint=checkpoint) as t:
            ours = [s["loss"] for s in t.steps(STEPS)]
        tt.adapter_save(m, str(tmp_path / "end"))
    kind = optim.AdamW if adamw else optim.Adam
    theirs, lora = steps_of_mlx(small, str(tmp_path / "begin"), rows, offsets,
                                kind(learning_rate=RATE))
    assert max(abs(x - y) for x, y in zip(ours, theirs)) < 2e-4
    assert theirs[-1] < theirs[0] - 0.1
    ends = mx.load(str(tmp_path / "end" / "adapters.safetensors"))
    assert set(ends) == set(lora)
    for name, want in lora.items():
        assert mx.abs(ends[name] - want).max().item() < RATE, name  # one step is as long
