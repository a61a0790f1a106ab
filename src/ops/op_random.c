/* Random numbers with MLX's streams (mlx/random.cpp): the same keys give the same values.
 * The default sequence is per thread: a key that is split for every draw. */
#include "base/err.h"
#include "base/threefry.h"
#include "ops/build.h"
#include "ops/random.h"
#include <math.h>
#include <string.h>

static _Thread_local tni_u32x2 random_state;
static _Thread_local tn_array **random_slot;

/* split(key) of MLX: bits of shape (2, 2), whose counters are 0, 1, 2, 3 paired (0,2), (1,3). */
static void random_split_key(tni_u32x2 key, tni_u32x2 *first, tni_u32x2 *second) {
    tni_u32x2 p = tni_threefry(key, (tni_u32x2){0, 2}), q = tni_threefry(key, (tni_u32x2){1, 3});
    *first = (tni_u32x2){p.x, q.x};
    *second = (tni_u32x2){p.y, q.y};
}

tn_array **tni_random_trace(tn_array **slot) {
    tn_array **before = random_slot;
    random_slot = slot;
    return before;
}

tn_array *tni_random_now(void) {
    if (random_slot) return tni_scope_again(*random_slot);
    return tn_array_new((uint32_t[2]){random_state.x, random_state.y}, TN_U32, TN_SHAPE(2));
}

bool tni_random_drawn(const tn_array *before) {
    if (random_slot) return *random_slot != before;
    const uint32_t key[2] = {random_state.x, random_state.y};
    return memcmp(key, tni_array_data(before), sizeof key) != 0;
}

void tni_random_get(uint32_t key[2]) { key[0] = random_state.x, key[1] = random_state.y; }
void tni_random_put(const uint32_t key[2]) { random_state = (tni_u32x2){key[0], key[1]}; }

void tn_random_seed(uint64_t seed) {
    if (random_slot) {
        (void)tn_assign(random_slot, tn_random_key(seed));
        return;
    }
    random_state = (tni_u32x2){(uint32_t)(seed >> 32), (uint32_t)seed};
}

uint64_t tn_random_state(void) { return (uint64_t)random_state.x << 32 | random_state.y; }

tn_array *tn_random_key(uint64_t seed) {
    return tn_array_new((uint32_t[2]){(uint32_t)(seed >> 32), (uint32_t)seed}, TN_U32, TN_SHAPE(2));
}

/* The same in graph words. */
static tn_array *random_next_traced(void) {
    tn_array *pair = tn_random_split(*random_slot, 2), *draw;
    int status = tn_assign(random_slot, tn_reshape(tn_slice_axis(pair, 0, 0, 1), TN_SHAPE(2)));
    draw = tn_reshape(tn_slice_axis(pair, 0, 1, 2), TN_SHAPE(2));
    return status ? tni_error_last() : draw;
}

static tn_array *random_next(void) {
    if (random_slot) return random_next_traced();
    tni_u32x2 draw;
    random_split_key(random_state, &random_state, &draw);
    return tn_array_new((uint32_t[2]){draw.x, draw.y}, TN_U32, TN_SHAPE(2));
}

static tn_array *random_key_or_next(tn_array *key, const char *op) {
    if (!key) return random_next();
    TNI_INPUTS(op, key);
    if (key->dtype != TN_U32 || key->ndim != 1 || key->shape[0] != 2)
        return tni_error_array(TN_EVALUE, "%s: a key is uint32 of shape [2], not %s", op,
                               tni_describe(key));
    return key;
}

/* Dtype and shape are free, behind the axes of keys. */
TNI_RULE_INFER(random_bits) {
    tn_dtype d = c->out[0].dtype;
    if (tni_infer_arity(c, 1, 1)) return TN_EVALUE;
    const tni_out_spec *key = c->in;
    if (key->dtype != TN_U32 || !key->ndim || key->shape[key->ndim - 1] != 2)
        return tni_fail(TN_EVALUE, "%s: a key is uint32 of shape [2], not %s", c->op,
                        tni_describe_spec(key));
    if (c->out[0].ndim < key->ndim - 1 ||
        !tni_same_shape(key->ndim - 1, key->shape, key->ndim - 1, c->out[0].shape))
        return tni_fail(TN_ESHAPE, "%s: keys %s for a result of other axes", c->op,
                        tni_describe_spec(key));
    if (d == TN_U8 || d == TN_U16 || d == TN_U32) return 0;
    return tni_fail(TN_EDTYPE, "%s: not defined for %s", c->op, tn_dtype_name(d));
}

tn_array *tn_random_bits(tn_ints shape, int width, tn_array *key) {
    tn_array *k = random_key_or_next(key, "random_bits");
    int64_t size;
    if (tni_is_error(k)) return k;
    if (width != 1 && width != 2 && width != 4)
        return tni_error_array(TN_EVALUE, "random_bits: width %d; 1, 2 or 4 bytes are allowed",
                               width);
    if (shape.n < 0 || shape.n > TN_MAX_NDIM || !tni_shape_size(shape.n, shape.v, &size))
        return tni_error_array(
            TN_ESHAPE, "random_bits: the shape has too many axes, or is negative or too large");
    return tni_op1(TNI_PRIM(random_bits), 1, &k, NULL,
                   width == 1   ? TN_U8
                   : width == 2 ? TN_U16
                                : TN_U32,
                   shape.n, shape.v);
}

tn_array *tn_random_split(tn_array *key, int64_t n) {
    return tn_random_bits(TN_SHAPE(n, 2), 4, key);
}

/* The largest value below 1 of the dtype the numbers are made in. */
static double random_below_one(tn_dtype d) {
    return d == TN_F16 ? 1 - 0x1p-11 : d == TN_BF16 ? 1 - 0x1p-8 : 1 - 0x1p-24;
}

static tn_array *random_check_float(const char *op, tn_dtype d) {
    return d == TN_F16 || d == TN_BF16 || d == TN_F32
               ? NULL
               : tni_error_array(TN_EDTYPE,
                                 "%s: not defined for %s; float16, bfloat16 and float32 are", op,
                                 tn_dtype_name(d));
}

tn_array *tn_random_uniform(tn_array *low, tn_array *high, tn_ints shape, tn_dtype dtype,
                            tn_array *key) {
    tn_array *bad = random_check_float("random_uniform", dtype);
    if (bad) return bad;
    tn_array *lo = tn_astype(low ? low : tn_f32(0), dtype),
             *hi = tn_astype(high ? high : tn_f32(1), dtype);
    tn_array *u = tn_div(tn_random_bits(shape, 4, key), tn_scalar(4294967295.0, TN_F32));
    u = tn_minimum(tn_astype(u, dtype), tn_scalar(random_below_one(dtype), dtype));
    return tn_add(tn_mul(tn_sub(hi, lo), u), lo);
}

tn_array *tn_random_normal(tn_ints shape, tn_dtype dtype, tn_array *key) {
    tn_array *bad = random_check_float("random_normal", dtype);
    if (bad) return bad;
    /* Halves are rounded before they are scaled, as MLX does. */
    tn_array *u =
        tn_random_uniform(tn_scalar(-random_below_one(TN_F32), TN_F32), NULL, shape, TN_F32, key);
    return tn_mul(tn_scalar(sqrt(2), dtype), tn_astype(tn_erfinv(u), dtype));
}

tn_array *tn_random_randint(tn_array *low, tn_array *high, tn_ints shape, tn_dtype dtype,
                            tn_array *key) {
    if (!tni_is_int(dtype))
        return tni_error_array(TN_EDTYPE, "random_randint: not defined for %s",
                               tn_dtype_name(dtype));
    tn_array *u = tn_random_uniform(low, high, shape, TN_F32, key);
    return tn_astype(tn_maximum(tn_floor(u), tn_astype(low, TN_F32)), dtype);
}

tn_array *tn_random_bernoulli(tn_array *p, tn_ints shape, tn_array *key) {
    TNI_INPUTS("random_bernoulli", p);
    tn_array *upper = tn_minimum(tn_mul(tn_astype(p, TN_F32), tn_scalar(4294967295.0, TN_F32)),
                                 tn_scalar(4294967040.0, TN_F32));
    return tn_less(tn_random_bits(shape, 4, key), tn_astype(upper, TN_U32));
}

tn_array *tn_random_gumbel(tn_ints shape, tn_dtype dtype, tn_array *key) {
    return tn_neg(tn_log(tn_neg(tn_log(tn_random_uniform(NULL, NULL, shape, dtype, key)))));
}

tn_array *tn_random_categorical(tn_array *logits, int axis, tn_array *key) {
    TNI_INPUTS("random_categorical", logits);
    if (tni_axis(logits->ndim, axis) < 0)
        return tni_error_array(TN_EAXIS, "random_categorical: axis %d is out of range for %s", axis,
                               tni_describe(logits));
    return tn_argmax(tn_add(logits, tn_random_gumbel(tn_shape(logits), TN_F32, key)), TN_AXES(axis),
                     false);
}
