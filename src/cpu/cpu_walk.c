/* Walking an index space in pieces that kernels can take: contiguous runs of every operand.
 *
 * A long inner dimension is walked row by row: an operand with inner stride 1 is read or
 * written where it lies, stride 0 is a scalar of the row, any other stride is gathered
 * into a buffer first (scattered from one after). With a short inner dimension the space is
 * walked as one flat range instead, so that the cost of starting a piece is not paid a row:
 * then everything that is not contiguous over the whole space is gathered. */
#include "cpu/vm_run.h"
#include <string.h>

static bool walk_contiguous(const tni_walk *w, const int64_t *strides) {
    int64_t expect = 1;
    for (int d = w->nd - 1; d >= 0; d--) {
        if (w->shape[d] != 1 && strides[d] != expect) return false;
        expect *= w->shape[d];
    }
    return true;
}

static bool walk_scalar(const tni_walk *w, const int64_t *strides) {
    for (int d = 0; d < w->nd; d++)
        if (strides[d] != 0 && w->shape[d] != 1) return false;
    return true;
}

static enum tni_walk_kind walk_kind(const tni_walk *w, const int64_t *strides, bool input) {
    if (!strides) return TNI_WALK_CONTIG;
    int64_t inner = strides[w->nd - 1];
    if (input && walk_scalar(w, strides)) return TNI_WALK_SCALAR;
    if (walk_contiguous(w, strides)) return TNI_WALK_CONTIG;
    if (w->flat) return TNI_WALK_PACK;
    return inner == 1 ? TNI_WALK_CONTIG : inner == 0 && input ? TNI_WALK_SCALAR : TNI_WALK_PACK;
}

void tni_walk_plan(tni_walk *w) {
    w->flat = w->nd > 1 && w->shape[w->nd - 1] < TNI_WALK_ROWS_MIN;
    w->packs = false;
    for (int i = 0; i < w->n_in; i++) {
        w->in[i].kind = walk_kind(w, w->in[i].strides, true);
        w->packs |= w->in[i].kind == TNI_WALK_PACK;
    }
    for (int i = 0; i < w->n_out; i++) {
        w->out[i].kind = walk_kind(w, w->out[i].strides, false);
        w->packs |= w->out[i].kind == TNI_WALK_PACK;
    }
}

#define WALK_COPY(T)                                                                               \
    do {                                                                                           \
        T *d = (T *)dst;                                                                           \
        const T *s = (const T *)src;                                                               \
        for (int64_t i = 0; i < n; i++) d[i * ds] = s[i * ss];                                     \
        return;                                                                                    \
    } while (0)

static void walk_copy(char *dst, int64_t ds, const char *src, int64_t ss, int64_t n, size_t size) {
    if (ds == 1 && ss == 1) {
        memcpy(dst, src, (size_t)n * size);
        return;
    }
    switch (size) {
    case 1:
        WALK_COPY(uint8_t);
    case 2:
        WALK_COPY(uint16_t);
    case 4:
        WALK_COPY(uint32_t);
    default:
        WALK_COPY(uint64_t);
    }
}

void tni_gather(char *dst, const char *src, int64_t stride, int64_t n, size_t size) {
    walk_copy(dst, 1, src, stride, n, size);
}

/* The multi-index of a flat position. */
static void walk_index(const tni_walk *w, int64_t flat, int64_t *idx) {
    for (int d = w->nd - 1; d > 0; d--) {
        idx[d] = flat % w->shape[d];
        flat /= w->shape[d];
    }
    idx[0] = flat;
}

static int64_t walk_offset(const tni_walk *w, const int64_t *strides, const int64_t *idx) {
    int64_t off = 0;
    for (int d = 0; d < w->nd; d++) off += idx[d] * strides[d];
    return off;
}

/* The next row: idx of the dimensions but the innermost goes up by one. */
static void walk_next_row(const tni_walk *w, int64_t *idx) {
    idx[w->nd - 1] = 0;
    for (int d = w->nd - 2; d >= 0; d--) {
        if (++idx[d] < w->shape[d]) return;
        idx[d] = 0;
    }
}

/* Gathers (or scatters) n elements from multi-index `at` on, across rows. */
static void walk_pack(const tni_walk *w, const struct tni_walk_op *op, const int64_t *at, char *mem,
                      char *buf, int64_t n, bool scatter) {
    int64_t idx[TN_MAX_NDIM], inner = w->shape[w->nd - 1], ss = op->strides[w->nd - 1];
    memcpy(idx, at, sizeof(int64_t) * (size_t)w->nd);
    while (n > 0) {
        int64_t k = inner - idx[w->nd - 1];
        if (k > n) k = n;
        char *p = mem + walk_offset(w, op->strides, idx) * (int64_t)op->size;
        if (scatter)
            walk_copy(p, ss, buf, 1, k, op->size);
        else
            walk_copy(buf, 1, p, ss, k, op->size);
        buf += k * (int64_t)op->size;
        n -= k;
        walk_next_row(w, idx);
    }
}

static void walk_execute(const tni_run *r, const tni_walk *w, char *scratch, const char *const *in,
                         char *const *out, int64_t n) {
    (r->machine.used ? tni_machine_run : tni_tile_run)(r, w, scratch + r->slots_at, in, out, n);
}

/* n elements from idx on that lie in one row, or anywhere in a flat walk. */
static void walk_piece(const tni_run *r, const tni_walk *w, char *scratch, const char *const *in,
                       char *const *out, const int64_t *idx, int64_t done, int64_t n) {
    const char *pi[TNI_PROG_MAX_IN];
    char *po[TNI_PROG_MAX_OUT];
    for (int i = 0; i < w->n_in; i++) {
        const struct tni_walk_op *op = &w->in[i];
        char *buf = scratch + (size_t)i * TNI_PACK * 8;
        if (op->kind == TNI_WALK_PACK) {
            union {
                const char *c;
                char *m;
            } mem = {in[i]}; /* gathering only reads */
            walk_pack(w, op, idx, mem.m, buf, n, false);
            pi[i] = buf;
        } else
            pi[i] = in[i] + walk_offset(w, op->strides, idx) * (int64_t)op->size;
    }
    for (int i = 0; i < w->n_out; i++) {
        const struct tni_walk_op *op = &w->out[i];
        if (!op->strides)
            po[i] = out[i] + done * (int64_t)op->size;
        else if (op->kind == TNI_WALK_PACK)
            po[i] = scratch + (size_t)(w->n_in + i) * TNI_PACK * 8;
        else
            po[i] = out[i] + walk_offset(w, op->strides, idx) * (int64_t)op->size;
    }
    walk_execute(r, w, scratch, pi, po, n);
    for (int i = 0; i < w->n_out; i++)
        if (w->out[i].kind == TNI_WALK_PACK) walk_pack(w, &w->out[i], idx, out[i], po[i], n, true);
}

void tni_walk_range(const tni_run *r, const tni_walk *w, char *scratch, const char *const *in,
                    char *const *out, int64_t start, int64_t n) {
    int64_t idx[TN_MAX_NDIM], inner = w->shape[w->nd - 1], done = 0;
    walk_index(w, start, idx);
    while (done < n) {
        int64_t k = n - done;
        if (!w->flat && w->nd > 1 && k > inner - idx[w->nd - 1]) k = inner - idx[w->nd - 1];
        if (w->packs && k > TNI_PACK) k = TNI_PACK;
        walk_piece(r, w, scratch, in, out, idx, done, k);
        done += k;
        if (done == n) return;
        if (w->flat)
            walk_index(w, start + done, idx);
        else if ((idx[w->nd - 1] += k) == inner)
            walk_next_row(w, idx);
    }
}
