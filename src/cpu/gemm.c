/* The driver of the matrix product: chooses a path from the shape, cuts C into tiles, and
 * shares the tiles among the threads. A tile goes through all of K on one thread, which packs
 * what it needs into scratch of its own: one fork-join a product, packed data stays in the
 * core's own L1 and L2, nothing is shared and no split of K is needed. Large products are packed
 * as a whole instead: a panel that ten tiles pack comes ten times from far away, which was a
 * seventh of a GPT's training step.
 *
 * Paths (all give the same bits, see gemm.h):
 *   strip    up to 8 rows against a B with unit row stride: B is streamed once, not packed
 *   direct   operands small enough for L1, or used once, are read where they lie
 *   packed   panels of A of KC x mr (L2), one panel of B of KC x nr at a time (L1)
 *   shared   large products: all panels are packed first, by all threads, for all tiles
 * A product with few columns is computed as C^T = B^T A^T. */
#include "cpu/gemm.h"
#include "base/cpu.h"
#include "base/err.h"
#include "base/half.h"
#include "base/scratch.h"
#include "base/thread.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum {
    GEMM_STACK = 24 * 1024, /* scratch up to this size needs no allocation */
    GEMM_MC = 336,          /* rows of a tile: 344 KiB of packed A in L2 */
    GEMM_NC = 512,          /* columns of a tile */
    GEMM_SKINNY = 8,        /* rows the strip kernel takes */
    GEMM_SKINNY_LD = 16,    /* row length of their packed A */
    GEMM_L1 = 4096,         /* elements of A (16 KiB) that need no packing */
    GEMM_L2 = 16384,        /* elements of B (64 KiB) that need no packing */
    GEMM_INLINE = 1 << 17,  /* multiply-adds that one thread does in about 3 us */
    GEMM_TILE = 1 << 20,    /* least work of a tile that is cut for balance's sake */
    GEMM_READ = 16,         /* an element of B counts as so many multiply-adds */
    GEMM_SHARED = 1 << 24,  /* multiply-adds from which on panels are packed for all tiles */
    GEMM_SHARED_M = 4096,   /* rows and columns that are packed at once, */
    GEMM_SHARED_N = 2048,
    GEMM_SHARED_ALL = 1 << 18, /* elements a thread, or one block of k */
    GEMM_SHARED_TILE = 6,      /* panels of A: a tile that packs its own is not cut below this */
    GEMM_SHARED_GRAIN = 4      /* panels */
};

typedef struct gemm_job {
    const tni_gemm_isa *isa;
    const tni_gemm_kernels *kern;
    tni_gemm_mat a, b, c; /* strides of the real problem's elements */
    const int64_t *a_at, *b_at, *c_at;
    int64_t m, n, k, batch;         /* of the real problem: doubled for c64 */
    int64_t a_ld;                   /* row length of a packed panel of A */
    int64_t tm, tn, gm, gn;         /* tile and grid */
    size_t a_bytes, b_bytes, bytes; /* scratch: packed A, packed B, all */
    bool a_direct, b_direct, strip, buffered;
    int add;
    _Atomic int failed;
} gemm_job;

static int64_t gemm_min(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t gemm_up(int64_t a, int64_t to) { return (a + to - 1) / to; }

static int gemm_size(int kind) {
    static const int size[TNI_GEMM_KINDS] = {4, 2, 2, 8, 8};
    return size[kind];
}

static _Atomic(const tni_gemm_isa *) gemm_isa;

void tni_gemm_use(const tni_gemm_isa *isa) {
    atomic_store_explicit(&gemm_isa, isa, memory_order_relaxed);
}

const tni_gemm_isa *tni_gemm_current(void) {
    const tni_gemm_isa *isa = atomic_load_explicit(&gemm_isa, memory_order_relaxed);
    if (isa) return isa;
    isa = tni_gemm_isa_ref();
#if defined(__x86_64__)
    if (tni_cpu_info()->isa == TNI_ISA_AVX512) isa = tni_gemm_isa_avx512();
    if (tni_cpu_info()->isa == TNI_ISA_AVX2) isa = tni_gemm_isa_avx2();
#elif defined(__aarch64__)
    if (tni_cpu_info()->isa == TNI_ISA_NEON) isa = tni_gemm_isa_neon();
#endif
    atomic_store_explicit(&gemm_isa, isa, memory_order_relaxed);
    return isa;
}

/* ---- c64 as f32 ----
 * A [M, K] of pairs is taken as [M, 2K]; every element x + iy of B becomes the 2 x 2 block
 * [x y; -y x], so that rows of A times columns of B give real and imaginary parts side by
 * side, as C stores them: the four multiplications of a complex product and no more. */
static void gemm_pack_c64_a(float *dst, int64_t ld, const tni_gemm_mat *s, int64_t n, int64_t k) {
    for (int64_t q = 0; q < k / 2; q++)
        for (int64_t i = 0; i < n; i++) {
            const float *z = (const float *)s->data + 2 * (i * s->rs + q * s->cs);
            dst[2 * q * ld + i] = z[0];
            dst[(2 * q + 1) * ld + i] = z[1];
        }
}

static void gemm_pack_c64_b(float *dst, int64_t ld, const tni_gemm_mat *s, int64_t n, int64_t k) {
    for (int64_t q = 0; q < k / 2; q++)
        for (int64_t j = 0; j < n / 2; j++) {
            const float *z = (const float *)s->data + 2 * (j * s->rs + q * s->cs);
            float *d = dst + 2 * q * ld + 2 * j;
            d[0] = z[0];
            d[1] = z[1];
            d[ld] = -z[1];
            d[ld + 1] = z[0];
        }
}

/* ---- one tile ---- */

/* The part of an operand from row i and column j of the real problem on. */
static tni_gemm_mat gemm_part(const tni_gemm_mat *s, int64_t at, int64_t i, int64_t j) {
    tni_gemm_mat r = *s;
    r.data = (const char *)s->data + (at + i * s->rs + j * s->cs) * gemm_size(s->kind);
    return r;
}

static void gemm_pack_a(const gemm_job *g, char *dst, int64_t at, int64_t m0, int64_t mc,
                        int64_t rows, int64_t k0, int64_t kc) {
    const tni_gemm_kernels *kn = g->kern;
    int64_t ld = g->a_ld;
    bool c64 = g->a.kind == TNI_GEMM_C64;
    for (int64_t i = 0; i < mc; i += rows) {
        tni_gemm_mat s = gemm_part(&g->a, at, m0 + i, c64 ? k0 / 2 : k0);
        if (c64)
            gemm_pack_c64_a((float *)dst, ld, &s, gemm_min(rows, mc - i), kc);
        else
            kn->pack(dst, ld, &s, gemm_min(rows, mc - i), kc);
        dst += kc * ld * kn->size;
    }
}

static void gemm_pack_b(const gemm_job *g, char *dst, int64_t at, int64_t n0, int64_t nc,
                        int64_t k0, int64_t kc) {
    bool c64 = g->b.kind == TNI_GEMM_C64;
    tni_gemm_mat s = c64 ? gemm_part(&g->b, at, k0 / 2, n0 / 2) : gemm_part(&g->b, at, k0, n0);
    int64_t rs = s.rs;
    s.rs = s.cs;
    s.cs = rs;
    if (c64)
        gemm_pack_c64_b((float *)dst, g->kern->nr, &s, nc, kc);
    else
        g->kern->pack(dst, g->kern->nr, &s, nc, kc);
}

typedef struct gemm_tile {
    int64_t a_at, b_at, m0, mc, n0, nc, rows; /* rows: of a panel of A */
    char *c;                                  /* element (m0, n0), and its row length */
    int64_t ldc;
    char *a_buf, *b_buf;
} gemm_tile;

/* One panel of B against all of the tile's A. */
static void gemm_panel(const gemm_job *g, const gemm_tile *t, int64_t j, int64_t k0, int64_t kc,
                       int add) {
    const tni_gemm_kernels *kn = g->kern;
    int64_t w = gemm_min(kn->nr, t->nc - j), ldb = kn->nr;
    const void *b = t->b_buf;
    if (g->b_direct) {
        b = gemm_part(&g->b, t->b_at, k0, t->n0 + j).data;
        ldb = g->b.rs;
    } else {
        gemm_pack_b(g, t->b_buf, t->b_at, t->n0 + j, w, k0, kc);
    }
    for (int64_t i = 0, p = 0; i < t->mc; i += t->rows, p++) {
        const void *a = t->a_buf + p * kc * g->a_ld * kn->size;
        int64_t rsa = 1, csa = g->a_ld;
        if (g->a_direct) {
            a = gemm_part(&g->a, t->a_at, t->m0 + i, k0).data;
            rsa = g->a.rs;
            csa = g->a.cs;
        }
        kn->tile(kc, a, rsa, csa, b, ldb, t->c + (i * t->ldc + j) * kn->size, t->ldc,
                 (int)gemm_min(t->rows, t->mc - i), (int)w, add);
    }
}

static void gemm_strip(const gemm_job *g, const gemm_tile *t, int64_t k0, int64_t kc, int add) {
    const float *a = (const float *)t->a_buf;
    int64_t rsa = 1, csa = g->a_ld;
    if (g->a_direct) {
        a = gemm_part(&g->a, t->a_at, t->m0, k0).data;
        rsa = g->a.rs;
        csa = g->a.cs;
    }
    g->isa->strip(kc, a, rsa, csa, gemm_part(&g->b, t->b_at, k0, t->n0).data, g->b.kind, g->b.rs,
                  (float *)t->c, t->ldc, (int)t->mc, t->nc, add);
}

static void gemm_tile_run(const gemm_job *g, const gemm_tile *t, int add) {
    for (int64_t k0 = 0; k0 < g->k; k0 += TNI_GEMM_KC) {
        int64_t kc = gemm_min(TNI_GEMM_KC, g->k - k0);
        if (!g->a_direct) gemm_pack_a(g, t->a_buf, t->a_at, t->m0, t->mc, t->rows, k0, kc);
        if (g->strip)
            gemm_strip(g, t, k0, kc, add);
        else
            for (int64_t j = 0; j < t->nc; j += g->kern->nr) gemm_panel(g, t, j, k0, kc, add);
        add = 1;
    }
}

/* The finished f32 or f64 sums of a tile to where and as what C wants them. */
static void gemm_put(const gemm_job *g, const gemm_tile *t, int64_t c_at) {
    int size = gemm_size(g->c.kind);
    for (int64_t i = 0; i < t->mc; i++) {
        const char *s = t->c + i * t->nc * g->kern->size;
        char *d = (char *)gemm_part(&g->c, c_at, t->m0 + i, t->n0).data;
        if (g->c.cs == 1 && size == 2) {
            g->isa->narrow(d, g->c.kind, (const float *)s, t->nc);
            continue;
        }
        for (int64_t j = 0; j < t->nc; j++, d += g->c.cs * size) {
            const float *f = (const float *)s + j;
            if (size == 2)
                g->isa->narrow(d, g->c.kind, f, 1);
            else if (size == 4)
                *(float *)d = g->add ? *(float *)d + *f : *f;
            else
                *(double *)d = ((const double *)s)[j];
        }
    }
}

static void gemm_item(const gemm_job *g, int64_t item, char *scratch) {
    int64_t q = item / (g->gm * g->gn), at = item % (g->gm * g->gn);
    int64_t c_at = g->c_at ? g->c_at[q] : 0;
    gemm_tile t = {.a_at = g->a_at ? g->a_at[q] : 0, .b_at = g->b_at ? g->b_at[q] : 0};
    t.m0 = at / g->gn * g->tm;
    t.n0 = at % g->gn * g->tn;
    t.mc = gemm_min(g->tm, g->m - t.m0);
    t.nc = gemm_min(g->tn, g->n - t.n0);
    t.rows = g->strip ? t.mc : gemm_up(t.mc, gemm_up(t.mc, g->kern->mr));
    t.a_buf = scratch;
    t.b_buf = scratch + g->a_bytes;
    if (g->buffered) {
        t.c = scratch + g->a_bytes + g->b_bytes;
        t.ldc = t.nc;
        gemm_tile_run(g, &t, 0);
        gemm_put(g, &t, c_at);
        return;
    }
    bool c64 = g->c.kind == TNI_GEMM_C64; /* offsets count pairs, columns halves of them */
    t.c = (char *)gemm_part(&g->c, c_at, t.m0, c64 ? t.n0 / 2 : t.n0).data;
    t.ldc = c64 ? 2 * g->c.rs : g->c.rs;
    gemm_tile_run(g, &t, g->add);
}

static void gemm_range_small(gemm_job *g, int64_t begin, int64_t end) {
    _Alignas(64) char scratch[GEMM_STACK];
    for (int64_t i = begin; i < end; i++) gemm_item(g, i, scratch);
}

static void gemm_range(void *ctx, int64_t begin, int64_t end, int worker) {
    gemm_job *g = ctx;
    (void)worker;
    if (g->bytes <= GEMM_STACK) {
        gemm_range_small(g, begin, end);
        return;
    }
    if (atomic_load_explicit(&g->failed, memory_order_relaxed)) return;
    char *scratch = tni_scratch_take(g->bytes);
    if (!scratch) {
        atomic_store_explicit(&g->failed, 1, memory_order_relaxed);
        return;
    }
    for (int64_t i = begin; i < end; i++) gemm_item(g, i, scratch);
    tni_scratch_give(scratch);
}

/* ---- panels for all tiles ----
 * Two ways. With many rows a tile has all columns, so that only B is needed more than once: it is
 * packed for all, A by who uses it, into its own L2. Otherwise (a gradient of a weight: few rows,
 * long sums) both are packed for all. */

/* A part of the product: rows from m0, columns from n0, k from k0, in whole panels and blocks. */
typedef struct gemm_shared {
    const gemm_job *g;
    bool own_a; /* tiles pack their A */
    int64_t m0, mc, n0, nc, k0, kc;
    int64_t pa, pb, blocks; /* panels of A and of B in a block of k */
    int64_t tm, tn, gn;     /* tiles, in panels */
    char *a, *b;
    int add;
    _Atomic int failed;
} gemm_shared;

static int64_t shared_depth(const gemm_shared *s, int64_t block) {
    return gemm_min(TNI_GEMM_KC, s->kc - block * TNI_GEMM_KC);
}

/* Panel p of a block, among blocks of `panels` of them with rows of ld. */
static char *shared_panel(const gemm_shared *s, char *all, int64_t panels, int64_t ld,
                          int64_t block, int64_t p) {
    int64_t row = block * TNI_GEMM_KC * panels + p * shared_depth(s, block);
    return all + row * ld * s->g->kern->size;
}

static void shared_pack_a(const gemm_shared *s, int64_t block, int64_t p, int64_t n, char *dst) {
    int64_t mr = s->g->kern->mr;
    gemm_pack_a(s->g, dst, 0, s->m0 + p * mr, gemm_min(n * mr, s->mc - p * mr), mr,
                s->k0 + block * TNI_GEMM_KC, shared_depth(s, block));
}

static void shared_pack(void *ctx, int64_t begin, int64_t end, int worker) {
    const gemm_shared *s = ctx;
    int64_t na = s->own_a ? 0 : s->pa, nr = s->g->kern->nr, ld = s->g->a_ld;
    (void)worker;
    for (int64_t at = begin; at < end; at++) {
        int64_t q = at / (na + s->pb), p = at % (na + s->pb), n = (p - na) * nr;
        if (p < na)
            shared_pack_a(s, q, p, 1, shared_panel(s, s->a, s->pa, ld, q, p));
        else
            gemm_pack_b(s->g, shared_panel(s, s->b, s->pb, nr, q, p - na), 0, s->n0 + n,
                        gemm_min(nr, s->nc - n), s->k0 + q * TNI_GEMM_KC, shared_depth(s, q));
    }
}

/* A block of k of the tile at panels (i0, j0); own: room for its panels of A, or NULL. */
static void shared_block(const gemm_shared *s, int64_t q, int64_t i0, int64_t j0, char *own,
                         int add) {
    const tni_gemm_kernels *kn = s->g->kern;
    int64_t kc = shared_depth(s, q), ld = s->g->a_ld, i1 = gemm_min(i0 + s->tm, s->pa),
            j1 = gemm_min(j0 + s->tn, s->pb);
    if (own) shared_pack_a(s, q, i0, i1 - i0, own);
    const char *a = own ? own : shared_panel(s, s->a, s->pa, ld, q, i0);
    for (int64_t j = j0; j < j1; j++) {
        const char *b = shared_panel(s, s->b, s->pb, kn->nr, q, j);
        for (int64_t i = i0; i < i1; i++) {
            int64_t m = i * kn->mr, n = j * kn->nr;
            char *c = (char *)gemm_part(&s->g->c, 0, s->m0 + m, s->n0 + n).data;
            kn->tile(kc, a + (i - i0) * kc * ld * kn->size, 1, ld, b, kn->nr, c, s->g->c.rs,
                     (int)gemm_min(kn->mr, s->mc - m), (int)gemm_min(kn->nr, s->nc - n), add);
        }
    }
}

static void shared_tiles(void *ctx, int64_t begin, int64_t end, int worker) {
    gemm_shared *s = ctx;
    int64_t bytes = s->tm * s->g->a_ld * TNI_GEMM_KC * s->g->kern->size;
    char *own = s->own_a ? tni_scratch_take((size_t)bytes) : NULL;
    (void)worker;
    if (s->own_a && !own) {
        atomic_store_explicit(&s->failed, 1, memory_order_relaxed);
        return;
    }
    for (int64_t at = begin; at < end; at++)
        for (int64_t q = 0; q < s->blocks; q++)
            shared_block(s, q, at / s->gn * s->tm, at % s->gn * s->tn, own, s->add || q);
    tni_scratch_give(own);
}

static void gemm_each(int threads, int64_t n, int64_t grain,
                      void (*fn)(void *ctx, int64_t begin, int64_t end, int worker), void *ctx) {
    if (threads == 1)
        fn(ctx, 0, n, 0);
    else
        tni_parallel(n, grain, fn, ctx);
}

/* Tiles of 24 by 16 panels, smaller until every thread has some, then even ones. */
static void shared_grid(gemm_shared *s, int threads) {
    const tni_gemm_kernels *kn = s->g->kern;
    s->tm = GEMM_MC / kn->mr, s->tn = s->own_a ? s->pb : GEMM_NC / kn->nr;
    while (threads > 1 && gemm_up(s->pa, s->tm) * gemm_up(s->pb, s->tn) < 4 * threads) {
        if (s->tm > GEMM_SHARED_TILE && (s->own_a || s->tm * kn->mr >= s->tn * kn->nr))
            s->tm = gemm_up(s->tm, 2);
        else if (s->tn > 2 && !s->own_a)
            s->tn = gemm_up(s->tn, 2);
        else
            break;
    }
    s->tm = gemm_up(s->pa, gemm_up(s->pa, s->tm));
    s->tn = gemm_up(s->pb, gemm_up(s->pb, s->tn));
    s->gn = gemm_up(s->pb, s->tn);
}

static void shared_part(gemm_shared *s, int threads) {
    shared_grid(s, threads);
    gemm_each(threads, s->blocks * (s->pb + (s->own_a ? 0 : s->pa)), GEMM_SHARED_GRAIN, shared_pack,
              s);
    gemm_each(threads, gemm_up(s->pa, s->tm) * s->gn, 1, shared_tiles, s);
}

static bool shared_wanted(const gemm_job *g) {
    return g->batch == 1 && !g->strip && !g->buffered && !g->a_direct && !g->b_direct &&
           g->a.kind != TNI_GEMM_C64 && g->gm * g->gn > 1 && g->m * g->n * g->k >= GEMM_SHARED;
}

/* How much is packed at once. A tile goes through all of a part's k while its sums stay in its L2,
 * so deep parts are better than wide ones; what is packed should stay in the caches of all. */
static void shared_parts(const gemm_shared *s, int threads, int64_t *mc, int64_t *nc, int64_t *kc) {
    const tni_gemm_kernels *kn = s->g->kern;
    int64_t all = gemm_up(s->g->k, TNI_GEMM_KC) * TNI_GEMM_KC, least = GEMM_NC / kn->nr * kn->nr,
            room = (int64_t)GEMM_SHARED_ALL * (threads > 8   ? threads
                                               : s->own_a    ? 8
                                               : threads > 2 ? threads
                                                             : 2);
    *mc = s->own_a ? s->g->m : gemm_min(s->g->m, GEMM_SHARED_M / kn->mr * kn->mr);
    *nc = gemm_min(s->g->n, GEMM_SHARED_N / kn->nr * kn->nr);
    if (s->own_a && *nc * all > room)
        *nc = gemm_min(*nc, room / all < least ? least : room / all / kn->nr * kn->nr);
    int64_t row = gemm_up(*nc, kn->nr) * kn->nr;
    if (!s->own_a) row += gemm_up(*mc, kn->mr) * s->g->a_ld;
    int64_t blocks = room / (row * TNI_GEMM_KC);
    *kc = gemm_min(all, TNI_GEMM_KC * (blocks < 1 ? 1 : blocks));
}

static int gemm_run_shared(gemm_job *g, int threads) {
    const tni_gemm_kernels *kn = g->kern;
    gemm_shared s = {.g = g};
    int64_t mc, nc, kc;
    s.own_a = gemm_up(g->m, GEMM_SHARED_TILE * kn->mr) >= 4 * threads;
    shared_parts(&s, threads, &mc, &nc, &kc);
    int64_t a = s.own_a ? 0 : gemm_up(mc, kn->mr) * g->a_ld, b = gemm_up(nc, kn->nr) * kn->nr;
    g->bytes = (size_t)((a + b) * kc * kn->size);
    s.a = tni_scratch_take(g->bytes);
    if (!s.a) return TN_EMEMORY;
    s.b = s.a + a * kc * kn->size;
    for (s.n0 = 0; s.n0 < g->n; s.n0 += nc)
        for (s.m0 = 0; s.m0 < g->m; s.m0 += mc)
            for (s.k0 = 0; s.k0 < g->k; s.k0 += kc) {
                s.nc = gemm_min(nc, g->n - s.n0), s.mc = gemm_min(mc, g->m - s.m0);
                s.kc = gemm_min(kc, g->k - s.k0), s.blocks = gemm_up(s.kc, TNI_GEMM_KC);
                s.pa = gemm_up(s.mc, kn->mr), s.pb = gemm_up(s.nc, kn->nr);
                s.add = g->add || s.k0;
                shared_part(&s, threads);
            }
    tni_scratch_give(s.a);
    return s.failed ? TN_EMEMORY : 0;
}

/* ---- the whole product ---- */

static void gemm_zero(const tni_gemm *p) {
    int size = gemm_size(p->c.kind);
    for (int64_t q = 0; q < p->batch; q++)
        for (int64_t i = 0; i < p->m; i++)
            for (int64_t j = 0; j < p->n; j++)
                memset((char *)gemm_part(&p->c, p->c_at ? p->c_at[q] : 0, i, j).data, 0,
                       (size_t)size);
}

/* Few columns: C^T = B^T A^T, so that vectors run along the long side. */
static void gemm_swap(gemm_job *g) {
    tni_gemm_mat a = g->a, b = g->b, c = g->c;
    const int64_t *at = g->a_at;
    int64_t m = g->m;
    g->a = (tni_gemm_mat){b.data, b.kind, b.cs, b.rs};
    g->b = (tni_gemm_mat){a.data, a.kind, a.cs, a.rs};
    g->c = (tni_gemm_mat){c.data, c.kind, c.cs, c.rs};
    g->a_at = g->b_at;
    g->b_at = at;
    g->m = g->n;
    g->n = m;
}

static void gemm_paths(gemm_job *g) {
    const tni_gemm_kernels *kn = g->kern;
    int word = kn->size == 8 ? TNI_GEMM_F64 : TNI_GEMM_F32;
    bool half = g->c.kind == TNI_GEMM_F16 || g->c.kind == TNI_GEMM_BF16;
    g->buffered = half || (g->c.cs != 1 && g->n > 1);
    g->strip = g->m <= GEMM_SKINNY && g->b.cs == 1 && word == TNI_GEMM_F32 &&
               g->b.kind <= TNI_GEMM_BF16 && (g->n * g->k > GEMM_L1 || g->b.kind != TNI_GEMM_F32);
    g->a_direct = g->a.kind == word && (g->n <= 2 * kn->nr || g->m * g->k <= GEMM_L1);
    g->b_direct = g->b.kind == word && (g->b.cs == 1 || g->n == 1) &&
                  (g->n * g->k <= GEMM_L2 || g->m <= kn->mr / 2);
}

/* The largest tile that the caches like, cut until every thread has some, while the pieces
 * are worth a thread's time. */
static void gemm_grid(gemm_job *g, int threads) {
    const tni_gemm_kernels *kn = g->kern;
    int64_t mc = GEMM_MC / kn->mr * kn->mr, nc = GEMM_NC / kn->nr * kn->nr;
    if (g->strip) nc = 2048;
    if (g->buffered && !g->strip) nc /= 2;
    g->tm = gemm_min(g->m, mc);
    g->tn = gemm_min(g->n, nc);
    for (;;) {
        g->gm = gemm_up(g->m, g->tm);
        g->gn = gemm_up(g->n, g->tn);
        int64_t work = (g->tm + GEMM_READ) * g->tn * g->k;
        if (threads == 1 || g->gm * g->gn * g->batch >= 4 * threads || work < 2 * GEMM_TILE) break;
        if (!g->strip && g->tm >= g->tn && g->tm >= 2 * kn->mr)
            g->tm = gemm_up(gemm_up(g->tm, 2), kn->mr) * kn->mr;
        else if (g->tn >= (g->strip ? 512 : 2 * kn->nr))
            g->tn = gemm_up(gemm_up(g->tn, 2), kn->nr) * kn->nr;
        else
            break;
    }
    /* Even pieces of whole panels. */
    g->tm = g->strip ? g->m : gemm_up(gemm_up(g->m, g->gm), kn->mr) * kn->mr;
    g->tn = gemm_up(gemm_up(g->n, g->gn), kn->nr) * kn->nr;
    g->gm = gemm_up(g->m, g->tm);
    g->gn = gemm_up(g->n, g->tn);
}

static void gemm_scratch(gemm_job *g) {
    const tni_gemm_kernels *kn = g->kern;
    int64_t kc = gemm_min(g->k, TNI_GEMM_KC), mc = gemm_min(g->tm, g->m),
            nc = gemm_min(g->tn, g->n);
    int64_t panels = g->strip ? 1 : gemm_up(mc, kn->mr);
    g->a_ld = g->strip ? GEMM_SKINNY_LD : kn->mrp;
    if (!g->a_direct) g->a_bytes = (size_t)(panels * kc * g->a_ld * kn->size);
    if (!g->b_direct && !g->strip) g->b_bytes = (size_t)(kc * kn->nr * kn->size);
    g->bytes = g->a_bytes + g->b_bytes;
    if (g->buffered) g->bytes += (size_t)(mc * nc * kn->size);
}

int tni_gemm_run(const tni_gemm *p) {
    if (p->m <= 0 || p->n <= 0 || p->batch <= 0) return 0;
    if (p->k <= 0) {
        if (!p->add) gemm_zero(p);
        return 0;
    }
    gemm_job g = {.a = p->a,
                  .b = p->b,
                  .c = p->c,
                  .a_at = p->a_at,
                  .b_at = p->b_at,
                  .c_at = p->c_at,
                  .m = p->m,
                  .n = p->n,
                  .k = p->k,
                  .batch = p->batch,
                  .add = p->add};
    bool c64 = p->a.kind == TNI_GEMM_C64;
    g.isa = tni_gemm_current();
    g.kern = p->a.kind == TNI_GEMM_F64 ? &g.isa->f64 : &g.isa->f32;
    if (c64)
        g.n *= 2, g.k *= 2;
    else if (g.n < g.m && g.n <= GEMM_SKINNY)
        gemm_swap(&g);
    gemm_paths(&g);
    int64_t each = (g.m + GEMM_READ) * g.n * g.k, grain = gemm_up(GEMM_INLINE, each);
    int threads = p->serial || each * g.batch <= GEMM_INLINE ? 1 : tni_threads();
    gemm_grid(&g, threads);
    gemm_scratch(&g);
    int failed = 0;
    if (shared_wanted(&g))
        failed = gemm_run_shared(&g, threads);
    else
        gemm_each(threads, g.gm * g.gn * g.batch, g.gm * g.gn > 1 ? 1 : grain, gemm_range, &g);
    if (failed || atomic_load_explicit(&g.failed, memory_order_relaxed))
        return tni_fail(TN_EMEMORY,
                        "matmul of %lld x %lld x %lld: no memory for %zu bytes of scratch",
                        (long long)p->m, (long long)p->n, (long long)p->k, g.bytes);
    return 0;
}

int tni_gemm_f32(int64_t m, int64_t n, int64_t k, const float *a, int64_t rsa, int64_t csa,
                 const float *b, int64_t rsb, int64_t csb, float *c, int64_t ldc, int add) {
    tni_gemm g = {.m = m,
                  .n = n,
                  .k = k,
                  .batch = 1,
                  .add = add,
                  .a = {a, TNI_GEMM_F32, rsa, csa},
                  .b = {b, TNI_GEMM_F32, rsb, csb},
                  .c = {c, TNI_GEMM_F32, ldc, 1}};
    return tni_gemm_run(&g);
}
