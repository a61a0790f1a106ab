"""The training steps of bench_train.c in PyTorch or MLX, for bench/train_steps.py:

    train_peer.py torch|mlx mlp|cnn|gpt STEPS THREADS
    train_peer.py torch lora STEPS THREADS

`lora` has the shape of SmolLM2-135M (random f32 weights, frozen, adapters of rank 8 on every matrix of
the last 16 layers, Adam, 4 x 256 tokens): what `tenon finetune` does by default. Prints the same JSON object as bench_train. MLX's steps are compiled (mx.compile); PyTorch's are
eager, which is what its CPU users run, with memory_format=channels_last for the CNN."""

import json
import math
import resource
import sys
import time

BATCH, LAYERS, WIDTH, HEADS, LETTERS, ROWS, CONTEXT = 128, 6, 384, 6, 65, 12, 256


def torch_lora(threads):
    import torch
    import torch.nn.functional as F
    from torch import nn
    torch.set_num_threads(threads)
    layers, width, heads, kv, size, inner, vocab, rank = 30, 576, 9, 3, 64, 1536, 49152, 8
    rms = lambda h, w: h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-5) * w
    at = torch.arange(256)[:, None] * 1e5 ** (-torch.arange(0, size, 2) / size)
    cos, sin = at.cos().repeat(1, 2), at.sin().repeat(1, 2)
    turn = lambda x: x * cos + torch.cat((-x[..., size // 2:], x[..., :size // 2]), -1) * sin
    mask = torch.triu(torch.full((256, 256), -math.inf), 1)
    learnt = []

    class Matrix(nn.Module):
        def __init__(self, n, m, adapted):
            super().__init__()
            self.w, self.adapted = nn.Parameter(torch.randn(m, n) / n ** 0.5, requires_grad=False), adapted
            if adapted:
                self.a, self.b = nn.Parameter(torch.randn(n, rank) / n ** 0.5), nn.Parameter(torch.zeros(rank, m))
                learnt.extend((self.a, self.b))

        def forward(self, x):
            y = F.linear(x, self.w)
            return y + 20.0 * ((x @ self.a) @ self.b) if self.adapted else y

    class Layer(nn.Module):
        def __init__(self, adapted):
            super().__init__()
            m = lambda i, o: Matrix(i, o, adapted)
            self.q, self.k, self.v, self.o = m(width, width), m(width, kv * size), m(width, kv * size), m(width, width)
            self.gate, self.up, self.down = m(width, inner), m(width, inner), m(inner, width)
            self.n1 = self.n2 = torch.ones(width)

        def forward(self, h):
            n, t, _ = h.shape
            x, split = rms(h, self.n1), lambda y: y.view(n, t, -1, size).transpose(1, 2)
            q, k, v = turn(split(self.q(x))), turn(split(self.k(x))), split(self.v(x))
            k, v = (y.repeat_interleave(heads // kv, 1) for y in (k, v))
            if hasattr(F, "scaled_dot_product_attention"):
                y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            else:
                y = torch.softmax(q @ k.transpose(-1, -2) / 8 + mask, -1) @ v
            h = h + self.o(y.transpose(1, 2).reshape(n, t, -1))
            x = rms(h, self.n2)
            return h + self.down(F.silu(self.gate(x)) * self.up(x))
    net = nn.Sequential(*(Layer(i >= layers - 16) for i in range(layers)))
    table = torch.randn(vocab, width) * 0.02
    text = torch.randint(vocab, (4, 257))
    optimizer = torch.optim.Adam(learnt, 1e-5)

    def step():
        scores = rms(net(table[text[:, :-1]]), 1.0) @ table.T
        loss = F.cross_entropy(scores.reshape(-1, vocab), text[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()
    return step


def torch_step(which, threads):
    if which == "lora":
        return torch_lora(threads)
    import torch
    import torch.nn.functional as F
    from torch import nn
    torch.set_num_threads(threads)
    gpt = which == "gpt"
    if which == "mlp":
        net = nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    elif which == "cnn":
        net = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
            nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10)).to(memory_format=torch.channels_last)
    else:
        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.n1, self.n2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
                self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
                self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)
                self.register_buffer("mask", torch.triu(torch.full((CONTEXT, CONTEXT), -math.inf), 1))

            def attend(self, q, k, v):
                if hasattr(F, "scaled_dot_product_attention"):
                    return F.scaled_dot_product_attention(q, k, v, is_causal=True)
                return torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + self.mask, -1) @ v

            def forward(self, h):
                n, t, w = h.shape
                q, k, v = (a.view(n, t, HEADS, -1).transpose(1, 2) for a in self.qkv(self.n1(h)).chunk(3, -1))
                h = h + self.proj(self.attend(q, k, v).transpose(1, 2).reshape(n, t, w))
                return h + self.down(F.gelu(self.up(self.n2(h))))

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.token, self.place = nn.Embedding(LETTERS, WIDTH), nn.Embedding(CONTEXT, WIDTH)
                self.blocks, self.norm = nn.Sequential(*(Block() for _ in range(LAYERS))), nn.LayerNorm(WIDTH)

            def forward(self, x):
                h = self.token(x) + self.place(torch.arange(x.shape[1]))
                return self.norm(self.blocks(h)) @ self.token.weight.T
        net = Net()
    if gpt:
        x, y = torch.randint(LETTERS, (ROWS, CONTEXT)), torch.randint(LETTERS, (ROWS, CONTEXT))
        optimizer = torch.optim.AdamW(net.parameters(), 1e-3, betas=(0.9, 0.99), weight_decay=0.1)
    else:
        x, y = torch.randint(256, (BATCH, 28, 28, 1), dtype=torch.uint8), torch.randint(10, (BATCH,))
        optimizer = torch.optim.Adam(net.parameters(), 1e-3)

    def step():
        at = x if gpt else (x.float() / 255).permute(0, 3, 1, 2)
        scores = net(at)
        loss = F.cross_entropy(scores.reshape(-1, scores.shape[-1]), y.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        if gpt:
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        return loss.item()
    return step


def mlx_step(which, threads):
    import mlx.core as mx
    import mlx.nn as nn
    import mlx.optimizers as optim
    from functools import partial
    mx.set_default_device(mx.cpu)
    gpt = which == "gpt"
    if which == "mlp":
        net = nn.Sequential(lambda x: x.reshape(-1, 784), nn.Linear(784, 256), nn.relu, nn.Linear(256, 10))
    elif which == "cnn":
        net = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.MaxPool2d(2, 2), nn.relu,
            nn.Conv2d(32, 64, 3, padding=1), nn.MaxPool2d(2, 2), nn.relu,
            lambda x: x.reshape(x.shape[0], -1), nn.Linear(3136, 128), nn.relu, nn.Linear(128, 10))
    else:
        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.n1, self.n2 = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
                self.attention = nn.MultiHeadAttention(WIDTH, HEADS)
                self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

            def __call__(self, h, mask):
                x = self.n1(h)
                h = h + self.attention(x, x, x, mask)
                return h + self.down(nn.gelu(self.up(self.n2(h))))

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.token, self.place = nn.Embedding(LETTERS, WIDTH), nn.Embedding(CONTEXT, WIDTH)
                self.blocks, self.norm = [Block() for _ in range(LAYERS)], nn.LayerNorm(WIDTH, bias=False)

            def __call__(self, x):
                h = self.token(x) + self.place(mx.arange(x.shape[1]))
                mask = nn.MultiHeadAttention.create_additive_causal_mask(x.shape[1])
                for b in self.blocks:
                    h = b(h, mask)
                return self.token.as_linear(self.norm(h))
        net = Net()
    if gpt:
        x, y = mx.random.randint(0, LETTERS, (ROWS, CONTEXT)), mx.random.randint(0, LETTERS, (ROWS, CONTEXT))
        optimizer = optim.AdamW(1e-3, betas=(0.9, 0.99), weight_decay=0.1, bias_correction=True)
    else:
        x, y = mx.random.randint(0, 256, (BATCH, 28, 28, 1)).astype(mx.uint8), mx.random.randint(0, 10, (BATCH,))
        optimizer = optim.Adam(1e-3, bias_correction=True)

    def loss_of(x, y):
        return nn.losses.cross_entropy(net(x if gpt else x.astype(mx.float32) / 255), y, reduction="mean")
    state = [net.state, optimizer.state]

    @partial(mx.compile, inputs=state, outputs=state)
    def run(x, y):
        loss, grads = nn.value_and_grad(net, loss_of)(x, y)
        if gpt:
            grads, _ = optim.clip_grad_norm(grads, 1.0)
        optimizer.update(net, grads)
        return loss

    def step():
        loss = run(x, y)
        mx.eval(loss, state)
        return loss.item()
    return step


def main(peer, which, steps, threads):
    step = {"torch": torch_step, "mlx": mlx_step}[peer](which, int(threads))
    step()
    times = []
    for _ in range(int(steps)):
        begin = time.perf_counter()
        loss = step()
        times.append(time.perf_counter() - begin)
    print(json.dumps({"seconds": sorted(times)[len(times) // 2],
                      "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "loss": loss}))


if __name__ == "__main__":
    main(*sys.argv[1:])
