"""The part of llm.h that the tests of models need, through ctypes.

    with Model(path) as m:
        m.tokenize("Hello", special=True)   # ids
        m.score(ids)                        # log-probabilities [n-1], best ids [n-1]

TENON_LIBRARY names the shared library (build/libtenon.so when unset).
"""

import ctypes
import os

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIBRARY = os.environ.get("TENON_LIBRARY", os.path.join(ROOT, "build", "libtenon.so"))
PROGRAM = os.environ.get("TENON_PROGRAM", os.path.join(ROOT, "build", "tenon"))

lib = ctypes.CDLL(LIBRARY)
lib.tn_error.restype = ctypes.c_char_p
lib.tn_llm_session_length.restype = ctypes.c_int64
for name in ("tn_llm_free", "tn_llm_session_free", "tn_llm_ids_free", "tn_llm_text_free"):
    getattr(lib, name).argtypes = [ctypes.c_void_p]
    getattr(lib, name).restype = None

SPECIAL, BOS = 1, 2


class TenonError(Exception):
    def __init__(self, code):
        super().__init__(lib.tn_error().decode())
        self.code = code


def check(code):
    if code:
        raise TenonError(code)


class SessionOpt(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("context", ctypes.c_int64), ("chunk", ctypes.c_int64),
                ("cache_f16", ctypes.c_bool), ("seed", ctypes.c_uint64)]


class Model:
    """A model, or with text=True only its tokenizer and chat template."""

    def __init__(self, path, text=False):
        self.m = ctypes.c_void_p()
        opener = lib.tn_llm_open_tokenizer if text else lib.tn_llm_open
        check(opener(os.fsencode(path), ctypes.byref(self.m)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        lib.tn_llm_free(self.m)

    def tokenize(self, text, special=True):
        data = text if isinstance(text, bytes) else text.encode()
        ids, n = ctypes.POINTER(ctypes.c_int32)(), ctypes.c_size_t()
        check(lib.tn_llm_tokenize(self.m, data, ctypes.c_size_t(len(data)), SPECIAL * special,
                                  ctypes.byref(ids), ctypes.byref(n)))
        out = ids[:n.value] if n.value else []
        lib.tn_llm_ids_free(ids)
        return out

    def decode(self, ids, skip_special=False):
        ids = np.asarray(ids, np.int32)
        text, n = ctypes.c_void_p(), ctypes.c_size_t()
        check(lib.tn_llm_detokenize(self.m, ids.ctypes.data_as(ctypes.c_void_p),
                                    ctypes.c_size_t(len(ids)), ctypes.c_bool(skip_special),
                                    ctypes.byref(text), ctypes.byref(n)))
        out = ctypes.string_at(text, n.value)
        lib.tn_llm_text_free(text)
        return out

    def session(self, **options):
        opt, s = SessionOpt(size=ctypes.sizeof(SessionOpt), **options), ctypes.c_void_p()
        check(lib.tn_llm_session_new(self.m, ctypes.byref(opt), ctypes.byref(s)))
        return s

    def score(self, ids, **options):
        """(log-probability of ids[i + 1], likeliest id there) for i < n - 1, as arrays."""
        s = self.session(**options)
        try:
            ids = np.asarray(ids, np.int32)
            logp = np.empty(max(len(ids) - 1, 0), np.float32)
            best = np.empty(len(logp), np.int32)
            check(lib.tn_llm_score(s, ids.ctypes.data_as(ctypes.c_void_p),
                                   ctypes.c_size_t(len(ids)),
                                   logp.ctypes.data_as(ctypes.c_void_p),
                                   best.ctypes.data_as(ctypes.c_void_p)))
            return logp, best
        finally:
            lib.tn_llm_session_free(s)

    def greedy(self, ids, count, **options):
        """`count` likeliest ids, one decoding step each."""
        s, out = self.session(**options), []
        token = ctypes.create_string_buffer(512)  # tn_llm_token begins with its id
        try:
            ids = np.asarray(ids, np.int32)
            check(lib.tn_llm_prompt(s, ids.ctypes.data_as(ctypes.c_void_p),
                                    ctypes.c_size_t(len(ids)), None, None))
            while len(out) < count:
                check(lib.tn_llm_next(s, None, token))
                out.append(int.from_bytes(token.raw[:4], "little", signed=True))
                if lib.tn_llm_is_end(self.m, out[-1]) & 1:
                    break
            return out
        finally:
            lib.tn_llm_session_free(s)
