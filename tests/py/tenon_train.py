"""Training through llm.h, and the order of its batches worked out a second time.

    with Model(folder) as m:
        adapter_new(m, rank=4, layers=2); adapter_save(m, "a0")
        data = Data(m, "train.jsonl")
        losses = [s["loss"] for s in Trainer(m, data, batch=2).steps(10)]
"""

import ctypes
import os

from tenon_llm import check, lib

P = ctypes.c_void_p
for name in ("tn_llm_adapter_drop", "tn_llm_data_free", "tn_llm_trainer_free"):
    getattr(lib, name).argtypes = [P]
    getattr(lib, name).restype = None


def struct(name, *fields):
    return type(name, (ctypes.Structure,), {"_fields_": [("size", ctypes.c_size_t), *fields]})


LoraOpt = struct("LoraOpt", ("rank", ctypes.c_int64), ("scale", ctypes.c_double),
                 ("dropout", ctypes.c_double), ("layers", ctypes.c_int64),
                 ("keys", ctypes.c_char_p), ("seed", ctypes.c_uint64))
DataOpt = struct("DataOpt", ("mask_prompt", ctypes.c_bool), ("max_tokens", ctypes.c_int64))
TrainOpt = struct("TrainOpt", ("batch", ctypes.c_int64), ("learning_rate", ctypes.c_double),
                  ("adamw", ctypes.c_bool), ("weight_decay", ctypes.c_double),
                  ("checkpoint", ctypes.c_bool), ("seed", ctypes.c_uint64))


class Loss(ctypes.Structure):
    _fields_ = [("loss", ctypes.c_double), ("tokens", ctypes.c_int64),
                ("batches", ctypes.c_int64)]


def options(kind, given):
    return ctypes.byref(kind(size=ctypes.sizeof(kind), **given))


def adapter_new(model, **given):
    check(lib.tn_llm_adapter_new(model.m, options(LoraOpt, given)))


def adapter_save(model, folder):
    check(lib.tn_llm_adapter_save(model.m, os.fsencode(folder)))


def adapter_load(model, folder):
    check(lib.tn_llm_adapter_load(model.m, os.fsencode(folder)))


class Data:
    def __init__(self, model, path, **given):
        self.p = P()
        check(lib.tn_llm_data_open(model.m, os.fsencode(path), options(DataOpt, given),
                                   ctypes.byref(self.p)))

    def __del__(self):
        lib.tn_llm_data_free(self.p)


class Trainer:
    def __init__(self, model, data, **given):
        self.p, self.data = P(), data
        check(lib.tn_llm_trainer_new(model.m, data.p, options(TrainOpt, given),
                                     ctypes.byref(self.p)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        lib.tn_llm_trainer_free(self.p)

    def steps(self, n):
        out = []
        for _ in range(n):
            loss = Loss()
            check(lib.tn_llm_trainer_step(self.p, ctypes.byref(loss)))
            out.append({"loss": loss.loss, "tokens": loss.tokens})
        return out

    def loss(self, data, batches=0):
        loss = Loss()
        check(lib.tn_llm_trainer_loss(self.p, data.p, ctypes.c_int64(batches), ctypes.byref(loss),
                                      None, None))
        return loss.loss

    def save(self, path):
        check(lib.tn_llm_trainer_save(self.p, os.fsencode(path)))

    def load(self, path):
        check(lib.tn_llm_trainer_load(self.p, os.fsencode(path)))


# ---- the order of batches ----

def threefry(key, counter):
    """Threefry-2x32 of 20 rounds (Salmon et al. 2011)."""
    mask = 0xFFFFFFFF
    turn = ((13, 15, 26, 6), (17, 29, 16, 24))
    ks = (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    x, y = (counter[0] + ks[0]) & mask, (counter[1] + ks[1]) & mask
    for i in range(5):
        for r in turn[i & 1]:
            x = (x + y) & mask
            y = ((y << r | y >> (32 - r)) & mask) ^ x
        x, y = (x + ks[(i + 1) % 3]) & mask, (y + ks[(i + 2) % 3] + i + 1) & mask
    return x, y


def batches(lengths, batch, seed, steps):
    """Which examples each of the steps sees."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    n, out = len(order) // batch, []
    for epoch in range(-(-steps // n)):
        turn = list(range(n))
        for i in range(n - 1, 0, -1):
            x, y = threefry((seed & 0xFFFFFFFF, seed >> 32), (epoch, i))
            k = (x << 32 | y) % (i + 1)
            turn[i], turn[k] = turn[k], turn[i]
        out += [order[t * batch:(t + 1) * batch] for t in turn]
    return out[:steps]
