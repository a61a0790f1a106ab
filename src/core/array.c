/* Array records: making, counting, freeing, error arrays and the simple questions. */
#include "core/array.h"
#include "base/alloc.h"
#include "base/err.h"
#include "core/buffer.h"
#include "core/dtype.h"
#include "core/shape.h"
#include "core/stream.h"
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static tn_array array_oom_record = {.magic = TNI_ALIVE,
                                    .refs = 1,
                                    .state = TNI_ERROR,
                                    .dtype = TN_F32,
                                    .flags = TNI_A_STATIC,
                                    .status = TN_EMEMORY,
                                    .message = (char *)(uintptr_t) "out of memory"};

tn_array *tni_oom(void) { return &array_oom_record; }

static size_t array_record_size(int ndim) {
    return sizeof(tn_array) + 2 * (size_t)ndim * sizeof(int64_t);
}
static void array_give_back(tn_array *a) {
    if (a) tni_record_free(a, array_record_size(a->ndim));
}

#ifndef NDEBUG
/* Debug builds keep the last freed records for a while, marked dead, so that a handle used
 * after its scope is told from a live one. */
enum { ARRAY_QUARANTINE = 1024 };
static pthread_mutex_t array_q_lock = PTHREAD_MUTEX_INITIALIZER;
static tn_array *array_q[ARRAY_QUARANTINE];
static unsigned array_q_next;

static void array_free_record(tn_array *a) {
    a->magic = TNI_DEAD;
    pthread_mutex_lock(&array_q_lock);
    unsigned i = array_q_next++ % ARRAY_QUARANTINE;
    tn_array *old = array_q[i];
    array_q[i] = a;
    pthread_mutex_unlock(&array_q_lock);
    if (!old) tni_alloc_idle();
    array_give_back(old); /* counts one block less; there are as many aside as before */
}
#else
static void array_free_record(tn_array *a) { array_give_back(a); }
#endif

tn_array *tni_array_alloc(tn_dtype dtype, int ndim, const int64_t *shape) {
    tn_array *a = tni_record_alloc(array_record_size(ndim));
    if (!a) {
        tni_fail_memory(sizeof *a, "an array record");
        return NULL;
    }
    memset(a, 0, sizeof *a);
    a->magic = TNI_ALIVE;
    atomic_init(&a->refs, 1);
    a->dtype = (uint8_t)dtype;
    a->ndim = (uint8_t)ndim;
    a->size = 1;
    for (int i = 0; i < ndim; i++) a->shape[i] = shape[i], a->size *= shape[i];
    a->strides = a->shape + ndim;
    tni_row_strides(ndim, a->shape, a->strides);
    return a;
}

void tni_array_retain(tn_array *a) {
    if (!(a->flags & TNI_A_STATIC)) atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
}

/* Takes the node away from an array; returns it when nothing else held it. */
static tni_node *array_detach(tn_array *a) {
    tni_node *n = a->node;
    a->node = NULL;
    if (!n) return NULL;
    n->out[a->out_index] = NULL;
    return atomic_fetch_sub_explicit(&n->refs, 1, memory_order_acq_rel) == 1 ? n : NULL;
}

/* Frees one record whose count reached zero; returns its node when that died with it. */
static tni_node *array_destroy(tn_array *a) {
    if (a->node && a->node->n_out > 1 &&
        atomic_load_explicit(&a->node->refs, memory_order_acquire) > 1) {
        atomic_fetch_sub_explicit(&a->node->refs, 1, memory_order_acq_rel);
        a->node = NULL; /* an orphan: the node's, until that runs or dies */
        return NULL;
    }
    tni_node *dead = array_detach(a);
    if (tni_state_of(a) == TNI_ERROR)
        tni_free(a->message);
    else
        tni_buffer_release(a->buf);
    tni_buffer_release(atomic_load_explicit(&a->dense, memory_order_acquire));
    tni_event_release(a->event);
    array_free_record(a);
    return dead;
}

static bool array_unref(tn_array *a) {
    return !(a->flags & TNI_A_STATIC) &&
           atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) == 1;
}

/* A graph of any depth is freed without recursion: dead nodes wait in a list threaded
 * through inl_out, which a node without outputs no longer needs. */
static void array_free_nodes(tni_node *dead) {
    if (dead) dead->inl_out[0] = NULL;
    while (dead) {
        tni_node *n = dead;
        dead = (tni_node *)(void *)n->inl_out[0];
        for (int i = 0; i < n->n_in; i++) {
            if (!array_unref(n->in[i])) continue;
            tni_node *m = array_destroy(n->in[i]);
            if (m) m->inl_out[0] = (tn_array *)(void *)dead, dead = m;
        }
        for (int i = 0; i < n->n_out && n->n_out > 1; i++)
            if (n->out[i]) array_free_record(n->out[i]);
        tni_node_free_shell(n);
    }
}

void tni_array_release(tn_array *a) {
    if (a && array_unref(a)) array_free_nodes(array_destroy(a));
}

bool tni_array_orphaned(const tn_array *a) {
    return atomic_load_explicit(&((tn_array *)(uintptr_t)a)->refs, memory_order_relaxed) == 0;
}

tn_array *tni_array_adopt(tni_node *n, int k) {
    tn_array *a = n->out[k];
    if (!tni_array_orphaned(a)) return tni_scope_again(a);
    atomic_store_explicit(&a->refs, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&n->refs, 1, memory_order_relaxed);
    a->node = n;
    return tni_scope_own(a);
}

void tni_array_finish(tn_array *a, tni_buffer *buf, int64_t offset) {
    if (tni_array_orphaned(a)) { /* dies with its node's shell */
        tni_buffer_release(buf);
        return;
    }
    tni_node *dead = array_detach(a);
    a->buf = buf, a->offset = offset;
    atomic_store_explicit(&a->state, TNI_READY, memory_order_release);
    array_free_nodes(dead);
}

void tni_array_poison(tn_array *a, int status, const char *message) {
    tni_node *dead = array_detach(a);
    a->status = status;
    a->message = tni_strdup(message); /* NULL is shown as "out of memory" */
    atomic_store_explicit(&a->state, TNI_ERROR, memory_order_release);
    array_free_nodes(dead);
}

bool tni_alive(const tn_array *a) {
#ifndef NDEBUG
    return a && a->magic == TNI_ALIVE;
#else
    return a != NULL;
#endif
}

tn_array *tni_check(tn_array *a, const char *op) {
    if (!a) return tni_error_array(TN_EVALUE, "%s: an array argument is NULL", op);
    if (!tni_alive(a))
        return tni_error_array(
            TN_ESTATE, "%s: an array argument was freed (its scope has ended, or it was dropped)",
            op);
    return a;
}

bool tni_row_major(const tn_array *a) {
    int64_t expect = 1;
    for (int i = a->ndim - 1; i >= 0; i--) {
        if (a->shape[i] == 0) return true;
        if (a->shape[i] != 1 && a->strides[i] != expect) return false;
        expect *= a->shape[i];
    }
    return true;
}

/* ---- error arrays ---- */

static pthread_mutex_t array_hook_lock = PTHREAD_MUTEX_INITIALIZER;
static void (*array_hook)(int, const char *, void *);
static void *array_hook_ud;

void tn_on_error(void (*fn)(int, const char *, void *), void *ud) {
    pthread_mutex_lock(&array_hook_lock);
    array_hook = fn, array_hook_ud = ud;
    pthread_mutex_unlock(&array_hook_lock);
}

tn_array *tni_error_last(void) {
    int status = tni_error_code() ? tni_error_code() : TN_EINTERNAL;
    pthread_mutex_lock(&array_hook_lock);
    void (*hook)(int, const char *, void *) = array_hook;
    void *ud = array_hook_ud;
    pthread_mutex_unlock(&array_hook_lock);
    if (hook) hook(status, tni_error(), ud);
    char *message = status == TN_EMEMORY ? NULL : tni_strdup(tni_error());
    if (!message) return tni_oom();
    tn_array *a = tni_array_alloc(TN_F32, 0, NULL);
    if (!a) {
        tni_free(message);
        return tni_oom();
    }
    a->message = message;
    a->status = status;
    a->size = 0;
    atomic_store_explicit(&a->state, TNI_ERROR, memory_order_release);
    return tni_scope_own(a);
}

tn_array *tni_error_array(int status, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    tni_vfail(status, fmt, ap);
    va_end(ap);
    return tni_error_last();
}

tn_array *tn_error_array(int status, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    tni_vfail(status < 0 ? status : TN_EINTERNAL, fmt, ap);
    va_end(ap);
    return tni_error_last();
}

int tn_array_status(const tn_array *a) {
    if (!a) return TN_EVALUE;
    if (!tni_alive(a)) return TN_ESTATE;
    return tni_is_error(a) ? a->status : 0;
}

const char *tn_array_error(const tn_array *a) {
    if (!a) return "the array is NULL";
    if (!tni_alive(a)) return "the array was freed";
    if (!tni_is_error(a)) return "";
    return a->message ? a->message : "out of memory";
}

const char *tn_error(void) { return tni_error(); }
const char *tn_status_name(int status) { return tni_status_name(status); }

/* ---- questions; harmless on error arrays ---- */

static bool array_usable(const tn_array *a) { return tni_alive(a) && !tni_is_error(a); }

int tn_ndim(const tn_array *a) { return array_usable(a) ? a->ndim : 0; }
int64_t tn_size(const tn_array *a) { return array_usable(a) ? a->size : 0; }
tn_dtype tn_dtype_of(const tn_array *a) { return tni_alive(a) ? (tn_dtype)a->dtype : TN_F32; }
size_t tn_nbytes(const tn_array *a) { return (size_t)tn_size(a) * tn_dtype_size(tn_dtype_of(a)); }

int64_t tn_dim(const tn_array *a, int axis) {
    int i = tni_axis(tn_ndim(a), axis);
    return i < 0 ? 0 : a->shape[i];
}

tn_ints tn_shape(const tn_array *a) {
    return array_usable(a) ? (tn_ints){a->shape, a->ndim} : (tn_ints){NULL, 0};
}

bool tn_is_evaluated(const tn_array *a) { return tni_alive(a) && tni_state_of(a) == TNI_READY; }

/* ---- making arrays from data ---- */

static tn_array *array_checked(const char *op, tn_dtype dtype, tn_ints shape) {
    char s[TNI_SHAPE_STR];
    int64_t size;
    if ((unsigned)dtype >= TN_DTYPE_COUNT)
        return tni_fail(TN_EDTYPE, "%s: %d is not a dtype", op, (int)dtype), NULL;
    if (shape.n < 0 || shape.n > TN_MAX_NDIM)
        return tni_fail(TN_ESHAPE, "%s: %d axes; 0 to %d are allowed", op, shape.n, TN_MAX_NDIM),
               NULL;
    if (!tni_shape_size(shape.n, shape.v, &size))
        return tni_fail(TN_ESHAPE, "%s: shape %s is negative or too large", op,
                        tni_shape_str(shape.n, shape.v, s, sizeof s)),
               NULL;
    tn_array *a = tni_array_alloc(dtype, shape.n, shape.v);
    if (a) atomic_store_explicit(&a->state, TNI_READY, memory_order_relaxed);
    return a;
}

tn_array *tn_array_new(const void *data, tn_dtype dtype, tn_ints shape) {
    tn_array *a = array_checked("array_new", dtype, shape);
    if (!a) return tni_error_last();
    size_t n = (size_t)a->size * tn_dtype_size(dtype);
    if (n && !data) {
        tni_array_release(a);
        return tni_error_array(TN_EVALUE, "array_new: data is NULL");
    }
    if (a->size == 1) {
        memcpy(a->inl, data, n);
        return tni_scope_own(a);
    }
    if (n && !(a->buf = tni_buffer_new(n))) {
        tni_array_release(a);
        return tni_error_last();
    }
    if (n) memcpy(a->buf->data, data, n);
    return tni_scope_own(a);
}

tn_array *tn_array_wrap(const void *data, tn_dtype dtype, tn_ints shape, void (*release)(void *),
                        void *ud) {
    tn_array *a = array_checked("array_wrap", dtype, shape);
    if (a && a->size && !data)
        tni_fail(TN_EVALUE, "array_wrap: data is NULL");
    else if (a)
        a->buf = tni_buffer_wrap((void *)(uintptr_t)data, (size_t)a->size * tn_dtype_size(dtype),
                                 release, ud);
    if (a && a->buf) return tni_scope_own(a);
    tni_array_release(a);
    tn_array *e = tni_error_last();
    if (release) release(ud);
    return e;
}

static tn_array *array_number(tn_dtype dtype, const void *value, int flags) {
    tn_array *a = tni_array_alloc(dtype, 0, NULL);
    if (!a) return tni_error_last();
    memcpy(a->inl, value, tn_dtype_size(dtype));
    a->flags |= (uint8_t)flags;
    atomic_store_explicit(&a->state, TNI_READY, memory_order_relaxed);
    return tni_scope_own(a);
}

tn_array *tn_f32(double value) { return array_number(TN_F32, &(float){(float)value}, TNI_A_WEAK); }
tn_array *tn_bool(bool value) { return array_number(TN_BOOL, &(uint8_t){value}, TNI_A_WEAK); }
tn_array *tn_complex(float re, float im) {
    return array_number(TN_C64, (float[2]){re, im}, TNI_A_WEAK);
}

tn_array *tn_i32(int64_t value) {
    if (value >= INT32_MIN && value <= INT32_MAX)
        return array_number(TN_I32, &(int32_t){(int32_t)value}, TNI_A_WEAK);
    return array_number(TN_I64, &value, TNI_A_WEAK);
}

tn_array *tn_scalar(double value, tn_dtype dtype) {
    uint64_t raw = 0;
    if ((unsigned)dtype >= TN_DTYPE_COUNT)
        return tni_error_array(TN_EDTYPE, "scalar: %d is not a dtype", (int)dtype);
    tni_store_f64(dtype, value, &raw);
    return array_number(dtype, &raw, 0);
}

tn_array *tn_scalar_i64(int64_t value, tn_dtype dtype) {
    uint64_t raw = 0;
    if ((unsigned)dtype >= TN_DTYPE_COUNT)
        return tni_error_array(TN_EDTYPE, "scalar: %d is not a dtype", (int)dtype);
    tni_store_i64(dtype, value, &raw);
    return array_number(dtype, &raw, 0);
}

/* ---- keeping ---- */

tn_array *tn_keep(tn_array *a) {
    if (tni_alive(a)) tni_array_retain(a);
    return a;
}

void tn_drop(tn_array *a) {
    if (tni_alive(a)) tni_array_release(a);
}

int tn_assign(tn_array **slot, tn_array *a) {
    if (!tni_alive(a)) return tni_fail(TN_ESTATE, "assign: the array is NULL or was freed");
    if (tni_is_error(a)) return tni_fail(a->status, "%s", tn_array_error(a));
    tni_array_retain(a);
    tn_array *old = *slot;
    *slot = a;
    tni_array_release(old);
    return 0;
}
