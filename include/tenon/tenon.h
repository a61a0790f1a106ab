/* Tenon: lazy arrays in C. Read this header from top to bottom; it is the manual.
 *
 * You write array expressions; nothing runs until a result is needed; then the
 * whole graph is fused, planned and run. Expressions nest, scopes own, errors are
 * sticky: one status check per evaluation is enough.
 *
 *     #include <tenon/tenon.h>
 *     TN_SCOPE {
 *         tn_array *x = tn_random_normal(TN_SHAPE(128, 64), TN_F32, NULL);
 *         tn_array *y = tn_softmax(tn_mul(x, tn_f32(0.5)), TN_AXES(-1));
 *         if (tn_eval(TN_LIST(y))) return puts(tn_error()), 1;
 *         printf("%g\n", tn_item_f32(tn_sum(y, TN_ALL, false)));
 *     }
 *
 * OWNERSHIP
 *  O1  Every function that returns tn_array * returns a handle owned by the calling
 *      thread's innermost open scope; it is valid until that scope ends. Never NULL.
 *      Without an open scope the thread's root scope owns it, until the thread ends.
 *  O2  tn_keep(a) makes a handle yours beyond the scope: you owe one tn_drop(a).
 *      tn_drop(NULL) does nothing. Nothing else transfers ownership.
 *  O3  Long-lived arrays live in slots (variables or fields of yours, NULL at first).
 *      tn_assign(&slot, a) keeps `a` and drops what the slot held; given an error
 *      array it returns its status and leaves the slot alone. tn_commit(slots, news,
 *      also) does so for a set, all or nothing, then evaluates `news` and `also`
 *      together, with the old values free to be overwritten in place.
 *  O4  Scopes nest per thread and end on the thread that began them. TN_SCOPE { }
 *      ends on break, return, continue and goto; tn_scope_begin/tn_scope_end do it by
 *      hand; tn_escape(a) moves a handle to the parent scope.
 *  O5  A callback given to a transform runs in a scope of its own; what it returns
 *      moves to the caller's scope. Callbacks never free.
 *  O6  A helper that extends the caller's graph opens no scope; a function that
 *      finishes a graph (a training step, a decode step) opens one.
 *  O7  Build inside, evaluate outside: tn_scope_eval(scope, list) ends the scope, moves
 *      `list` to its parent and evaluates it, so that intermediates die as they are used.
 *  O8  Every other object: tn_x_new/open/load and exactly one tn_x_free (NULL accepted).
 *
 * ERRORS
 *  E1  An op given bad arguments returns an error array: it has a status and a message
 *      naming op, shapes and dtypes. An op given an error array returns that array.
 *  E2  What does not return an array returns int: 0 or a negative TN_E... code.
 *  E3  tn_error() is the text of this thread's last failure; tn_array_status(a) and
 *      tn_array_error(a) ask one array.
 *  E4  Accessors on an error array are harmless: ndim 0, size 0, data NULL, item NaN or 0.
 *  E5  A failed tn_eval leaves what it did not compute unevaluated: nothing is lost, and
 *      it may be tried again. A failed asynchronous evaluation poisons its outputs; the
 *      next eval, wait or read of them reports it.
 *  E6  The library never calls abort or exit and never prints.
 *
 * THREADS
 *  T1  Reference counts are atomic. An evaluated array is immutable and may be read from
 *      any thread that keeps it.
 *  T2  An unevaluated array, and the graph below it, belong to one thread at a time.
 *      Scopes, the current stream and the last error are per thread.
 *  T3  Every function may be called from any thread; a comment says where that is not so.
 *
 * STREAMS
 *  S1  Each thread has a current stream, at first the default one; ops record it when
 *      called. No stream parameter on ops.
 *  S2  tn_eval runs on the calling thread; tn_async_eval hands the work to the current
 *      stream's worker and returns. Waits between streams are the library's job. */
#ifndef TENON_H
#define TENON_H

#include "tenon/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#include <initializer_list>
extern "C" {
#endif

#define TN_VERSION  "0.1.0"
#define TN_MAX_NDIM 16 /* more axes are a TN_ESHAPE error */

typedef struct tn_array tn_array;   /* a lazy, immutable n-dimensional array */
typedef struct tn_scope tn_scope;   /* owns the handles made while it is open */
typedef struct tn_stream tn_stream; /* an ordered queue of work */

/* Element types. The order is fixed: values are written to files. */
typedef enum tn_dtype {
    TN_BOOL, /* one byte, 0 or 1 */
    TN_U8,
    TN_U16,
    TN_U32,
    TN_U64,
    TN_I8,
    TN_I16,
    TN_I32,
    TN_I64,
    TN_F16,
    TN_BF16,
    TN_F32,
    TN_F64,
    TN_C64, /* two floats: real, imaginary */
    TN_DTYPE_COUNT
} tn_dtype;

/* A list of axes, sizes or indices; borrowed for the call. TN_ALL means every axis. What TN_INTS,
 * TN_SHAPE, TN_AXES and TN_LIST make lives until the end of the block, in C++ of the statement. */
typedef struct tn_ints {
    const int64_t *v;
    int n;
} tn_ints;

/* A list of arrays; borrowed for the call. */
typedef struct tn_list {
    tn_array *const *v;
    int n;
} tn_list;

/* A list of slots (O3), such as a model's parameters; borrowed. */
typedef struct tn_slots {
    tn_array **const *v;
    int n;
} tn_slots;

#define TN_ALL TNI_ALL_()
#ifdef __cplusplus
}
static inline tn_ints TNI_ALL_() { return tn_ints{nullptr, -1}; }
struct tni_ints_arg_ {
    int64_t v[32];
    int n;
    template <class... T> tni_ints_arg_(T... x) : v{static_cast<int64_t>(x)...}, n(sizeof...(x)) {}
    operator tn_ints() const { return tn_ints{v, n}; }
};
struct tni_list_arg_ {
    std::initializer_list<tn_array *> l;
    operator tn_list() const { return tn_list{l.begin(), static_cast<int>(l.size())}; }
};
template <class T> struct tni_opt_arg_ {
    T v;
    template <class F> tni_opt_arg_(F fill) : v() { v.size = sizeof(T), fill(v); }
    const T *get() const { return &v; }
};
template <class S, class... T> static inline S tni_spatial_(T... x) {
    return S{{static_cast<int64_t>(x)...}, sizeof...(x)};
}
#define TN_INTS(...) (tn_ints)(tni_ints_arg_(__VA_ARGS__))
#define TN_LIST(...) (tn_list)(tni_list_arg_{{__VA_ARGS__}})
extern "C" {
#else
static inline tn_ints TNI_ALL_(void) { return (tn_ints){0, -1}; }
#define TN_INTS(...)                                                                               \
    ((tn_ints){(const int64_t[]){0, __VA_ARGS__} + 1,                                              \
               (int)(sizeof((const int64_t[]){0, __VA_ARGS__}) / sizeof(int64_t)) - 1})
#define TN_LIST(...)                                                                               \
    ((tn_list){(tn_array *const[]){NULL, __VA_ARGS__} + 1,                                         \
               (int)(sizeof((tn_array *const[]){NULL, __VA_ARGS__}) / sizeof(tn_array *)) - 1})
#endif
#define TN_SHAPE(...) TN_INTS(__VA_ARGS__)
#define TN_AXES(...)  TN_INTS(__VA_ARGS__)

/* ---- Making arrays ------------------------------------------------------------------ */

/* Copies row-major `data` (`shape` elements of `dtype`). */
TN_API tn_array *tn_array_new(const void *data, tn_dtype dtype, tn_ints shape);
/* Uses `data` in place, without a copy; it must stay valid and unchanged until
 * release(ud) is called (from any thread; release may be NULL). On error release
 * is called before the function returns. */
TN_API tn_array *tn_array_wrap(const void *data, tn_dtype dtype, tn_ints shape,
                               void (*release)(void *ud), void *ud);
/* Numbers in expressions: weak scalars, which take the dtype of the array they meet
 * (a float meeting integers makes f32; an int meeting bool makes i32). */
TN_API tn_array *tn_f32(double value);
TN_API tn_array *tn_i32(int64_t value); /* i64 when it does not fit 32 bits */
TN_API tn_array *tn_bool(bool value);
/* A 0-d array of exactly this dtype. The value is converted as tn_astype would. */
TN_API tn_array *tn_scalar(double value, tn_dtype dtype);
TN_API tn_array *tn_scalar_i64(int64_t value, tn_dtype dtype);
TN_API tn_array *tn_complex(float re, float im); /* weak, c64 */

/* ---- Asking arrays -------------------------------------------------------------------- */

TN_API int tn_ndim(const tn_array *a); /* number of axes */
/* Size of an axis; negative ones count from the end; 0 when out of range. */
TN_API int64_t tn_dim(const tn_array *a, int axis);
TN_API tn_ints tn_shape(const tn_array *a);     /* valid while the array lives */
TN_API int64_t tn_size(const tn_array *a);      /* elements */
TN_API size_t tn_nbytes(const tn_array *a);     /* size x item size */
TN_API tn_dtype tn_dtype_of(const tn_array *a); /* of its elements */
TN_API const char *tn_dtype_name(tn_dtype d);   /* "float32"; "?" when out of range */
TN_API size_t tn_dtype_size(tn_dtype d);        /* bytes an element */
/* MLX's promotion table (mlx/dtype.cpp): the dtype two arrays meet in. */
TN_API tn_dtype tn_promote(tn_dtype a, tn_dtype b);

/* The single element of a size-1 array, evaluated if need be. NaN or 0 with tn_error() set
 * when it cannot be had. */
TN_API float tn_item_f32(tn_array *a);
TN_API double tn_item_f64(tn_array *a);
TN_API int64_t tn_item_i64(tn_array *a);
TN_API bool tn_item_bool(tn_array *a);
/* Row-major elements, evaluated if need be; valid while the array lives. NULL on error. */
TN_API const void *tn_data(tn_array *a);
TN_API const float *tn_data_f32(tn_array *a); /* NULL with TN_EDTYPE unless f32 */
/* Copies the elements, converted to `dtype`, row-major, into dst (nbytes must be exact). */
TN_API int tn_read(tn_array *a, tn_dtype dtype, void *dst, size_t nbytes) TN_MUST_CHECK;
TN_API bool tn_is_evaluated(const tn_array *a); /* true when reading would not compute */
/* Prints as NumPy does, long axes abbreviated, into buf (always NUL-terminated);
 * returns the length the whole text has, as snprintf does, or a negative status. */
TN_API int tn_format(tn_array *a, char *buf, size_t n);

/* ---- Errors ----------------------------------------------------------------------------- */

TN_API const char *tn_error(void);                    /* this thread's last failure; "" when none */
TN_API const char *tn_status_name(int status);        /* "TN_ESHAPE" */
TN_API int tn_array_status(const tn_array *a);        /* 0, or why it is an error array */
TN_API const char *tn_array_error(const tn_array *a); /* its message; "" when it is none */
/* An error array of your own, for functions that return arrays. */
TN_API tn_array *tn_error_array(int status, const char *fmt, ...) TN_PRINTF(2, 3);
/* Called at each first failure of an op, on the failing thread, before the error array is
 * returned: a place for a breakpoint. NULL turns it off. One handler for the process. */
TN_API void tn_on_error(void (*fn)(int status, const char *message, void *ud), void *ud);

/* ---- Ownership ---------------------------------------------------------------------------- */

TN_API tn_array *tn_keep(tn_array *a); /* O2: yours beyond the scope; returns a */
TN_API void tn_drop(tn_array *a);      /* O2: gives back what tn_keep or tn_assign took */
/* O3: the slot holds `a` from now on; the status of `a`, and no change, if it is an error array. */
TN_API int tn_assign(tn_array **slot, tn_array *a);
/* O3: slots[i] holds news.v[i], all or none; then `news` and `also` are evaluated together. */
TN_API int tn_commit(tn_array **slots, tn_list news, tn_list also) TN_MUST_CHECK;
TN_API tn_scope *tn_scope_begin(void);   /* never NULL */
TN_API void tn_scope_end(tn_scope *s);   /* ends s and any scope begun after it on this thread */
TN_API tn_array *tn_escape(tn_array *a); /* O4: moves the handle to the parent scope; returns a */
/* O7: ends s, moves the handles of `list` to its parent and evaluates them. */
TN_API int tn_scope_eval(tn_scope *s, tn_list list) TN_MUST_CHECK;

#define TN_SCOPE                                                                                   \
    for (tn_scope * TN_CAT_(tn_s_, __LINE__)                                                       \
                        __attribute__((cleanup(tn_scope_cleanup_))) = tn_scope_begin();            \
         TN_CAT_(tn_s_, __LINE__);                                                                 \
         tn_scope_end(TN_CAT_(tn_s_, __LINE__)), TN_CAT_(tn_s_, __LINE__) = NULL)
#define TN_CAT_(a, b)  TN_CAT2_(a, b)
#define TN_CAT2_(a, b) a##b
static inline void tn_scope_cleanup_(tn_scope **s) {
    if (*s) tn_scope_end(*s);
}

/* ---- Evaluation and streams --------------------------------------------------------------- */

/* Computes every array of the list; 0 or the first failure. */
TN_API int tn_eval(tn_list list) TN_MUST_CHECK;
/* Plans here, runs on the current stream's worker; reads of the arrays wait. */
TN_API int tn_async_eval(tn_list list) TN_MUST_CHECK;
TN_API int tn_wait(tn_stream *s) TN_MUST_CHECK; /* NULL: the current stream; its earliest failure */
TN_API tn_stream *tn_stream_new(void);          /* NULL with tn_error() set when out of memory */
TN_API void tn_stream_free(tn_stream *s);       /* waits for its work */
/* Makes s current on this thread (NULL: the default); returns the previous one. */
TN_API tn_stream *tn_use(tn_stream *s);
#define TN_ON(stream)                                                                              \
    for (tn_stream * TN_CAT_(tn_o_, __LINE__)                                                      \
                         __attribute__((cleanup(tn_on_cleanup_))) = tn_use(stream),                \
                         *TN_CAT_(tn_f_, __LINE__) = TN_CAT_(tn_o_, __LINE__);                     \
         TN_CAT_(tn_f_, __LINE__); TN_CAT_(tn_f_, __LINE__) = NULL)
static inline void tn_on_cleanup_(tn_stream **previous) { tn_use(*previous); }

/* ---- Threads, memory, machine --------------------------------------------------------------- */

TN_API int tn_set_threads(int n) TN_MUST_CHECK; /* threads a CPU kernel may use; 0: one a core */
TN_API int tn_threads(void);                    /* how many it may use now */
typedef struct tn_memory {
    size_t active; /* bytes of array data in use */
    size_t peak;   /* highest `active` since the last tn_memory_reset_peak */
    size_t cache;  /* bytes freed and kept for reuse */
    size_t limit;  /* an allocation that would pass it fails with TN_EMEMORY; 0: none */
} tn_memory;
TN_API tn_memory tn_memory_stats(void);                /* of the whole process, exact to the byte */
TN_API void tn_memory_reset_peak(void);                /* to what is in use now */
TN_API size_t tn_memory_set_limit(size_t bytes);       /* returns the previous limit */
TN_API size_t tn_memory_set_cache_limit(size_t bytes); /* returns the previous limit */
TN_API void tn_memory_clear_cache(void);               /* gives it back to the system */
TN_API const char *tn_cpu_name(void);                  /* "AMD EPYC" */
TN_API const char *tn_isa(void); /* the kernels in use: "avx512", "avx2", "neon", "ref" */

/* ---- The graph ------------------------------------------------------------------------------- */

/* Checks the invariants of everything below the list; 0 or TN_EINTERNAL with a sentence. */
TN_API int tn_graph_check(tn_list list) TN_MUST_CHECK;
/* The graph below the list as text or in Graphviz's language, the same for the same graph; free
 * with tn_free. NULL on failure. */
TN_API char *tn_graph_print(tn_list list);
TN_API char *tn_graph_dot(tn_list list);
TN_API void tn_free(void *p); /* frees strings that the library returned */

/* ---- Options -----------------------------------------------------------------------------------
 * Four or more optional settings are a struct: NULL means all defaults, zero means the default
 * of a field, and TN_OPT fills in the size that lets fields be added later:
 *     tn_fast_scaled_dot_product_attention(q, k, v, 0.125, TN_OPT(tn_sdpa_opt, .causal = true)) */
#ifdef __cplusplus
/* C++17 has no designated initialisers: each one becomes an assignment, eight at most. */
#define TN_OPT(T, ...)                                                                             \
    (tni_opt_arg_<T>([&](T &tni_o_) {                                                              \
         TNI_COUNT_(__VA_ARGS__, TNI_SET8_, TNI_SET7_, TNI_SET6_, TNI_SET5_, TNI_SET4_, TNI_SET3_, \
                    TNI_SET2_, TNI_SET1_, )                                                        \
         (__VA_ARGS__);                                                                            \
     }).get())
#define TNI_COUNT_(a, b, c, d, e, f, g, h, set, ...) set
#define TNI_SET1_(a)                                 (void)(tni_o_ a)
#define TNI_SET2_(a, ...)                            TNI_SET1_(a), TNI_SET1_(__VA_ARGS__)
#define TNI_SET3_(a, ...)                            TNI_SET1_(a), TNI_SET2_(__VA_ARGS__)
#define TNI_SET4_(a, ...)                            TNI_SET1_(a), TNI_SET3_(__VA_ARGS__)
#define TNI_SET5_(a, ...)                            TNI_SET1_(a), TNI_SET4_(__VA_ARGS__)
#define TNI_SET6_(a, ...)                            TNI_SET1_(a), TNI_SET5_(__VA_ARGS__)
#define TNI_SET7_(a, ...)                            TNI_SET1_(a), TNI_SET6_(__VA_ARGS__)
#define TNI_SET8_(a, ...)                            TNI_SET1_(a), TNI_SET7_(__VA_ARGS__)
#else
#define TN_OPT(T, ...) (&(T){.size = sizeof(T), __VA_ARGS__})
#endif

/* ---- Making: constants and ranges ----------------------------------------------------------- */

TN_API tn_array *tn_full(tn_ints shape, tn_array *value); /* value repeated; its dtype */
TN_API tn_array *tn_zeros(tn_ints shape, tn_dtype dtype); /* all 0 */
TN_API tn_array *tn_ones(tn_ints shape, tn_dtype dtype);  /* all 1 */
/* The same with the shape and dtype of `a`. */
TN_API tn_array *tn_zeros_like(tn_array *a);
TN_API tn_array *tn_ones_like(tn_array *a);
/* start, start + step, ... up to but not including stop; computed in f64 or i64. */
TN_API tn_array *tn_arange(double start, double stop, double step, tn_dtype dtype);
/* num numbers evenly spaced from start to stop, both included. */
TN_API tn_array *tn_linspace(double start, double stop, int64_t num, tn_dtype dtype);
/* [n, m] with ones on the k-th diagonal (0: the main one, positive: above it) and zeros elsewhere;
 * tri: ones on and below it. */
TN_API tn_array *tn_eye(int64_t n, int64_t m, int64_t k, tn_dtype dtype);
TN_API tn_array *tn_tri(int64_t n, int64_t m, int64_t k, tn_dtype dtype);
/* Zeros above (tril) or below (triu) the k-th diagonal of the last two axes. */
TN_API tn_array *tn_tril(tn_array *a, int64_t k);
TN_API tn_array *tn_triu(tn_array *a, int64_t k);

/* ---- Shape and layout: no copies where strides allow ---------------------------------------- */

TN_API tn_array *tn_astype(tn_array *a, tn_dtype dtype); /* floats to integers truncate */
TN_API tn_array *tn_contiguous(tn_array *a);             /* row-major in memory */
TN_API tn_array *tn_view(tn_array *a, tn_dtype dtype); /* the same bytes; the last axis rescales */
TN_API tn_array *tn_reshape(tn_array *a, tn_ints shape);                /* one -1 is worked out */
TN_API tn_array *tn_flatten(tn_array *a, int start_axis, int end_axis); /* 0, -1: to one axis */
TN_API tn_array *tn_squeeze(tn_array *a, tn_ints axes);                 /* drops axes of size 1 */
/* New axes of size 1, at these places of the result. */
TN_API tn_array *tn_expand_dims(tn_array *a, tn_ints axes);
TN_API tn_array *tn_transpose(tn_array *a, tn_ints axes); /* TN_ALL: reversed */
/* One axis to another place, the others staying in order; two axes exchanged. */
TN_API tn_array *tn_moveaxis(tn_array *a, int source, int destination);
TN_API tn_array *tn_swapaxes(tn_array *a, int axis1, int axis2);
/* Repeated along new leading axes and axes of size 1, as NumPy does. */
TN_API tn_array *tn_broadcast_to(tn_array *a, tn_ints shape);
/* Joined along an axis, which alone may differ in size; dtypes are promoted. */
TN_API tn_array *tn_concatenate(tn_list arrays, int axis);
TN_API tn_array *tn_stack(tn_list arrays, int axis);                        /* along a new axis */
TN_API void tn_split(tn_array *a, int n, int axis, tn_array **out);         /* n equal parts */
TN_API void tn_split_at(tn_array *a, tn_ints at, int axis, tn_array **out); /* at.n + 1 parts */
/* `value` added before (low) and after (high) each axis; one entry an axis. */
TN_API tn_array *tn_pad(tn_array *a, tn_ints low, tn_ints high, tn_array *value);
/* Each element `repeats` times in a row along an axis. */
TN_API tn_array *tn_repeat(tn_array *a, int64_t repeats, int axis);
TN_API tn_array *tn_tile(tn_array *a, tn_ints reps); /* the whole, reps.v[i] times along axis i */
TN_API tn_array *tn_flip(tn_array *a, tn_ints axes); /* back to front along the axes */

/* ---- Parts and picking ---------------------------------------------------------------------- */

/* a[start:stop:step] with Python's rules, one entry an axis; step TN_ALL: all 1. To go backwards
 * through the first element, let stop be INT64_MIN. */
TN_API tn_array *tn_slice(tn_array *a, tn_ints start, tn_ints stop, tn_ints step);
TN_API tn_array *tn_slice_axis(tn_array *a, int axis, int64_t start, int64_t stop);
/* `a` with the part at `start` (stepping by `step`; TN_ALL: all 1) replaced by `update`, which says
 * how much; in place when nobody else holds `a`. A part outside `a` is TN_EINDEX. */
TN_API tn_array *tn_slice_update(tn_array *a, tn_array *update, tn_ints start, tn_ints step);
/* Parts of `a` along `axis` by integer indices of any shape; negative ones count from the end. One
 * out of range is TN_EINDEX when it is evaluated. */
TN_API tn_array *tn_take(tn_array *a, tn_array *indices, int axis);

/* The same rules of indices hold for all below. An index for every element: out[.., j, ..] =
 * a[.., indices[.., j, ..], ..] with j at `axis`; off the axis the two broadcast. */
TN_API tn_array *tn_take_along_axis(tn_array *a, tn_array *indices, int axis);
/* `a` with values (broadcast to the indices) put, or added, at the places tn_take_along_axis would
 * read. Where indices repeat, the last value stays, or all are added, in their order. */
TN_API tn_array *tn_put_along_axis(tn_array *a, tn_array *indices, tn_array *values, int axis);
TN_API tn_array *tn_scatter_add_axis(tn_array *a, tn_array *indices, tn_array *values, int axis);

/* Slices of `a`, slice_sizes.v[d] long along axis d, at the places where index array k, for every
 * k, gives the start along axis axes.v[k]; the others start at 0. The index arrays broadcast to one
 * shape, and the result has that shape, then the slice's axes. A slice must lie inside `a`. */
TN_API tn_array *tn_gather(tn_array *a, tn_list indices, tn_ints axes, tn_ints slice_sizes);
/* `a` with the slices of `updates`, shaped as tn_gather's result, written there, or combined with
 * what is there: one after the other in the order of the indices, the same bits at any number of
 * threads. Sums and products of f16 and bf16 are rounded once, at the end. */
TN_API tn_array *tn_scatter(tn_array *a, tn_list indices, tn_array *updates, tn_ints axes);
TN_API tn_array *tn_scatter_add(tn_array *a, tn_list indices, tn_array *updates, tn_ints axes);
TN_API tn_array *tn_scatter_prod(tn_array *a, tn_list indices, tn_array *updates, tn_ints axes);
TN_API tn_array *tn_scatter_max(tn_array *a, tn_list indices, tn_array *updates, tn_ints axes);
TN_API tn_array *tn_scatter_min(tn_array *a, tn_list indices, tn_array *updates, tn_ints axes);

/* ---- Products ------------------------------------------------------------------------------- */

/* [..., M, K] @ [..., K, N] with NumPy's rules for 1-d operands and batch axes. Floats and complex.
 */
TN_API tn_array *tn_matmul(tn_array *a, tn_array *b);
/* alpha a@b + beta c; c broadcasts. */
TN_API tn_array *tn_addmm(tn_array *c, tn_array *a, tn_array *b, double alpha, double beta);

/* ---- Convolution -----------------------------------------------------------------------------
 * Channels last, as in MLX: input [N, L, C], [N, H, W, C] or [N, D, H, W, C]; weight [O, taps...,
 * C / groups]; result [N, places..., O]. Floats; f16 and bf16 are summed in f32. The kernel is not
 * turned around (a correlation) unless `flip`; negative padding cuts. */

/* A setting of the axes of places: TN_SPATIAL(2) for all alike, TN_SPATIAL(2, 1) one each. */
typedef struct tn_spatial {
    int64_t v[3];
    int n; /* 0: the default */
} tn_spatial;
#ifdef __cplusplus
#define TN_SPATIAL(...) tni_spatial_<tn_spatial>(__VA_ARGS__)
#else
#define TN_SPATIAL(...)                                                                            \
    ((tn_spatial){{__VA_ARGS__}, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))})
#endif

typedef struct tn_conv_opt {
    size_t size;
    tn_spatial stride;         /* 1 */
    tn_spatial padding;        /* 0: zeros before, and after unless padding_high says otherwise */
    tn_spatial padding_high;   /* after */
    tn_spatial dilation;       /* 1: distance of the taps */
    tn_spatial input_dilation; /* 1: distance of the inputs, with zeros between */
    tn_spatial output_padding; /* 0; transposed only: more places at the end */
    int groups;                /* 1: parts of the channels that are convolved apart */
    bool flip;
} tn_conv_opt;
/* Over 1, 2 and 3 axes; over as many as the input has. */
TN_API tn_array *tn_conv1d(tn_array *input, tn_array *weight, const tn_conv_opt *opt);
TN_API tn_array *tn_conv2d(tn_array *input, tn_array *weight, const tn_conv_opt *opt);
TN_API tn_array *tn_conv3d(tn_array *input, tn_array *weight, const tn_conv_opt *opt);
TN_API tn_array *tn_conv_general(tn_array *input, tn_array *weight, const tn_conv_opt *opt);
/* What a convolution of these settings does backwards: each input spreads over `stride` apart
 * copies of the kernel, less `padding` at both ends. Stride, padding, dilation, output_padding and
 * groups count. */
TN_API tn_array *tn_conv_transpose1d(tn_array *input, tn_array *weight, const tn_conv_opt *opt);
TN_API tn_array *tn_conv_transpose2d(tn_array *input, tn_array *weight, const tn_conv_opt *opt);
TN_API tn_array *tn_conv_transpose3d(tn_array *input, tn_array *weight, const tn_conv_opt *opt);
/* The largest element, or the mean, of windows of `kernel` places, `stride` apart (by default as
 * wide as they are), over 1 to 3 axes. Padding at both ends, less than the kernel, is -inf for the
 * largest and 0, which counts, for the mean. */
TN_API tn_array *tn_max_pool(tn_array *a, tn_spatial kernel, tn_spatial stride, tn_spatial padding);
TN_API tn_array *tn_avg_pool(tn_array *a, tn_spatial kernel, tn_spatial stride, tn_spatial padding);

/* ---- Quantisation ----------------------------------------------------------------------------
 * MLX's affine layout: w = scale * q + bias, in groups of 32, 64 or 128 along the last axis. Rows
 * of 2, 3, 4, 5, 6 or 8 bit numbers are packed into u32 words, low bits first. */

/* out: packed u32 [..., K * bits / 32], scales and biases [..., K / group] in w's dtype. Gradients
 * of w come through scales and biases. */
TN_API void tn_quantize(tn_array *w, int group, int bits, tn_array *out[3]);
TN_API tn_array *tn_dequantize(tn_array *w, tn_array *scales, tn_array *biases, int group,
                               int bits);
/* transpose: x [..., K] @ w^T with w [N, K]; else x [..., K] @ w with w [K, N] packed along N.
 * Batch axes of w broadcast with those of x. */
TN_API tn_array *tn_quantized_matmul(tn_array *x, tn_array *w, tn_array *scales, tn_array *biases,
                                     bool transpose, int group, int bits);

/* ---- Compositions of reductions and scans --------------------------------------------------- */

/* Mean, variance (divided by the count less ddof) and its root; integers give f32. */
TN_API tn_array *tn_mean(tn_array *a, tn_ints axes, bool keepdims);
TN_API tn_array *tn_var(tn_array *a, tn_ints axes, bool keepdims, int64_t ddof);
TN_API tn_array *tn_std(tn_array *a, tn_ints axes, bool keepdims, int64_t ddof);
TN_API tn_array *tn_softmax(tn_array *a, tn_ints axes); /* integers give f32; accumulates in f32 */
/* Running results along an axis: from the end when `reverse`; each including its own element when
 * `inclusive`, else only those before it. */
TN_API tn_array *tn_cumsum(tn_array *a, int axis, bool reverse, bool inclusive);
TN_API tn_array *tn_cumprod(tn_array *a, int axis, bool reverse, bool inclusive);
TN_API tn_array *tn_cummax(tn_array *a, int axis, bool reverse, bool inclusive);
TN_API tn_array *tn_cummin(tn_array *a, int axis, bool reverse, bool inclusive);
TN_API tn_array *tn_logcumsumexp(tn_array *a, int axis, bool reverse, bool inclusive);
TN_API tn_array *tn_sort(tn_array *a, int axis);            /* ascending, stable, NaN last */
TN_API tn_array *tn_argsort(tn_array *a, int axis);         /* u32 */
TN_API tn_array *tn_topk(tn_array *a, int64_t k, int axis); /* the k largest, ascending */
/* Kept between low and high; NULL: no bound on that side. */
TN_API tn_array *tn_clip(tn_array *a, tn_array *low, tn_array *high);

/* ---- Layers with kernels of their own ------------------------------------------------------- */

/* Over the last axis, of size D: x / sqrt(mean(x^2) + eps), and (x - mean) / sqrt(var + eps); then
 * times weight [D] plus bias [D] (NULL: without). Computed in f32. */
TN_API tn_array *tn_fast_rms_norm(tn_array *x, tn_array *weight, double eps);
TN_API tn_array *tn_fast_layer_norm(tn_array *x, tn_array *weight, tn_array *bias, double eps);

typedef struct tn_rope_opt {
    size_t size;
    bool traditional; /* pairs (2i, 2i+1); else (i, i + dims/2) */
    double base;      /* 0: 10000 */
    double scale;     /* of positions; 0: 1 */
    tn_array *freqs;  /* [dims/2]: wavelengths in place of base^(2i/dims) */
} tn_rope_opt;
/* Rotary embedding of x [B, ..., T, D], first `dims` of D; positions start at `offset` (i32, 0-d or
 * [B]). */
TN_API tn_array *tn_fast_rope(tn_array *x, int dims, tn_array *offset, const tn_rope_opt *opt);

typedef struct tn_sdpa_opt {
    size_t size;
    bool causal; /* query i of Lq sees keys up to i + Lk - Lq */
    tn_array
        *mask; /* bool (true: look) or additive, broadcast to [B, Hq, Lq, Lk]; not with causal */
    tn_array *sinks; /* [Hq] or [B, Hq]: one more logit a head, without a value */
} tn_sdpa_opt;
/* softmax(scale * q k^T + mask) v: q [B, Hq, Lq, D], k [B, Hkv, Lk, D], v [B, Hkv, Lk, Dv]; Hq a
 * multiple of Hkv. Softmax in f32, or all in f64 where any of them is; a query that may look
 * nowhere gives zeros. */
TN_API tn_array *tn_fast_scaled_dot_product_attention(tn_array *q, tn_array *k, tn_array *v,
                                                      double scale, const tn_sdpa_opt *opt);

/* ---- Random numbers ---------------------------------------------------------------------------
 * MLX's threefry streams: the same values from the same keys. A key is u32 [2]; NULL takes the
 * next of this thread's default sequence, which tn_random_seed starts. */

TN_API void tn_random_seed(uint64_t seed);                  /* this thread's sequence anew */
TN_API uint64_t tn_random_state(void);                      /* seeded with it, it goes on as now */
TN_API tn_array *tn_random_key(uint64_t seed);              /* [2], from a number */
TN_API tn_array *tn_random_split(tn_array *key, int64_t n); /* [n, 2]: n independent keys */
/* Random bits in numbers of 1, 2 or 4 bytes: u8, u16, u32. */
TN_API tn_array *tn_random_bits(tn_ints shape, int width, tn_array *key);
/* Evenly spread over [low, high); NULL bounds: 0 and 1. */
TN_API tn_array *tn_random_uniform(tn_array *low, tn_array *high, tn_ints shape, tn_dtype dtype,
                                   tn_array *key);
TN_API tn_array *tn_random_normal(tn_ints shape, tn_dtype dtype, tn_array *key); /* mean 0, sd 1 */
/* Integers from low up to but not including high. */
TN_API tn_array *tn_random_randint(tn_array *low, tn_array *high, tn_ints shape, tn_dtype dtype,
                                   tn_array *key);
/* True with probability p. */
TN_API tn_array *tn_random_bernoulli(tn_array *p, tn_ints shape, tn_array *key);
/* The standard Gumbel distribution, -log(-log(u)). */
TN_API tn_array *tn_random_gumbel(tn_ints shape, tn_dtype dtype, tn_array *key);
/* Samples of softmax(logits) along `axis`, which the result lacks; u32. */
TN_API tn_array *tn_random_categorical(tn_array *logits, int axis, tn_array *key);

/* ---- Derivatives --------------------------------------------------------------------------------
 * Transforms are calls: they run your function once, on stand-ins for its arguments, and give back
 * lazy arrays. A function that calls one may itself be given to one, to any depth. Inside, a value
 * is not known: evaluating what depends on an argument is TN_ESTATE. Functions run in a scope of
 * their own; what they return moves to the caller's. `ud` is handed on and not looked at.
 * Gradients of complex arguments: as MLX and JAX (the conjugate, for a holomorphic function). */

/* One result; an error array says that it failed. */
typedef tn_array *(*tn_fn)(tn_list in, void *ud);
/* n_out results into out[]; 0 or a negative status. */
typedef int (*tn_fns)(tn_list in, tn_array **out, int n_out, void *ud);

/* fn, which returns one float without axes, and its gradients by the first n_wrt of `in` (floats or
 * complex), shaped as they are: zeros by those it does not depend on. On failure `value` (may be
 * NULL) and all of grads are error arrays. */
TN_API void tn_value_and_grad(tn_fn fn, void *ud, tn_list in, int n_wrt, tn_array **value,
                              tn_array **grads);
/* The gradient by argument number `argument` alone. */
TN_API tn_array *tn_grad(tn_fn fn, void *ud, tn_list in, int argument);
/* The general form: gradients of out[0] by the arguments which[0..n_wrt) (NULL: the first n_wrt);
 * the other results are carried along. A negative status, and error arrays, on failure. */
TN_API int tn_value_and_grad_of(tn_fns fn, void *ud, tn_list in, const int *which, int n_wrt,
                                int n_out, tn_array **out, tn_array **grads);
/* Reverse: for a cotangent of each result, shaped as it is, that of each argument (grads[in.n]). */
TN_API int tn_vjp(tn_fns fn, void *ud, tn_list in, tn_list cotangents, tn_array **out,
                  tn_array **grads);
/* Forward: for a tangent of each argument, that of each result. */
TN_API int tn_jvp(tn_fns fn, void *ud, tn_list in, tn_list tangents, int n_out, tn_array **out,
                  tn_array **out_tangents);
/* `a`, seen by derivatives as a constant. */
TN_API tn_array *tn_stop_gradient(tn_array *a);

/* Gradients from the arguments, results and cotangents of a call; grads[i] for argument i, shaped
 * as it is, or left NULL: zero. */
typedef int (*tn_vjp_rule)(tn_list in, tn_list out, tn_list cotangents, tn_array **grads, void *ud);
/* fn (1 to 8 results), whose derivatives are what `rule` says; arrays that fn takes from elsewhere
 * are constants. Second derivatives are those of the rule's ops, in which `in` are the arguments
 * and `out` the results of this very call: their derivatives are again the rule's, not fn's.
 * `ud` must stay valid for as long as the results can be differentiated. */
TN_API int tn_custom_vjp(tn_fns fn, tn_vjp_rule rule, void *ud, tn_list in, int n_out,
                         tn_array **out);
/* Tangents of the results from the arguments, results and tangents of the arguments of a call, in
 * which it must be linear; out_tangents[k] shaped as result k, or left NULL: zero. */
typedef int (*tn_jvp_rule)(tn_list in, tn_list out, tn_list tangents, tn_array **out_tangents,
                           void *ud);
/* The same for tangents; gradients are those of the rule transposed. */
TN_API int tn_custom_jvp(tn_fns fn, tn_jvp_rule rule, void *ud, tn_list in, int n_out,
                         tn_array **out);
/* fn (1 to 8 results), of which reverse differentiation keeps the arguments alone and runs it again
 * for the rest: less memory for more work. It must give the same again, and does where it draws
 * from the thread's random sequence; `ud` as above. */
TN_API int tn_checkpoint(tn_fns fn, void *ud, tn_list in, int n_out, tn_array **out);

/* ---- Many at once -------------------------------------------------------------------------------
 * A function of one example as one of many: fn runs once and sees arguments without their mapped
 * axes; every op of it is then done for all. Random numbers without a key of their own are the same
 * for each. */
#define TN_UNMAPPED INT64_MIN /* in place of an axis: the argument, or result, is one for all */
/* Arguments are split along in_axes (one entry each; TN_ALL: axis 0 of all), of which all sizes
 * agree and one at least is an axis. Results are stacked along out_axes (TN_ALL: axis 0); those
 * that depend on no mapped argument are repeated, or, with TN_UNMAPPED, left as they are. */
TN_API int tn_vmap(tn_fns fn, void *ud, tn_list in, tn_ints in_axes, int n_out, tn_ints out_axes,
                   tn_array **out);

/* All calls of a function at once: axes.v[i] is 0 where argument i is stacked along axis 0, or
 * TN_UNMAPPED where it is one for all. Results stacked along out_axes[k], which is 0 unless set, or
 * one for all: TN_UNMAPPED. */
typedef int (*tn_vmap_rule)(tn_list in, tn_ints axes, tn_array **out, int64_t *out_axes, void *ud);
/* fn (1 to 8 results), which tn_vmap maps by `rule`. */
TN_API int tn_custom_vmap(tn_fns fn, tn_vmap_rule rule, void *ud, tn_list in, int n_out,
                          tn_array **out);

/* ---- Compiled functions ------------------------------------------------------------------------
 * A compiled function is run once for each signature of its arguments (how many, dtypes, shapes) to
 * see what it computes; from then on its plan is replayed: a list of launches over memory with
 * fixed offsets, without building, planning or allocating anything. It pays when the same small
 * steps come again and again; results are the same bits as without, unless `fold` is set.
 *
 *     static int step(tn_list in, tn_array **out, int n_out, void *ud);   may tn_assign to slots
 *     tn_compiled *c = tn_compile(step, &model, 1, TN_OPT(tn_compile_opt, .state = slots));
 *     while (...) if (tn_compiled_call(c, TN_LIST(x, y), &loss)) return fail(tn_error());
 *
 * Arrays that fn takes from elsewhere, and all else it looks at, are constants: what must vary is
 * an argument or state.
 *
 * With `shapeless`, fn is promised to do the same operations whatever its arguments' sizes (of 2
 * and more; 0 and 1 are always looked at). It is then run a few times when it is first called, also
 * for larger sizes, and what changes from one to the other is found as for
 * tn_exporter_add_shapeless. From then on new sizes are planned without running fn. Where nothing
 * is found, fn is run for each new set of sizes, as without.
 *
 * With `fold`, scales and shifts by constants (one number, or one a channel along the last axis)
 * are gathered, and scales go into the constant weights of the convolution or matrix product before
 * them, if nothing else uses what that gives: batch norm by fixed statistics becomes one shift a
 * channel. Other bits, within the rounding of what the operations went through; not done where a
 * number is not finite or leaves the dtype's normal range. Each plan keeps copies of the weights
 * that it changed. Weights that are arguments or state, or large and made by fn itself, are not
 * constant. */

typedef struct tn_compiled tn_compiled;

typedef struct tn_compile_opt {
    size_t size;
    tn_slots state; /* slots that fn reads and may tn_assign to: arguments and results besides */
    int capacity;   /* plans kept, 32 by default; the one not used for longest makes room */
    bool keep;      /* the plans' memory stays with the function between calls: for large steps */
    bool shapeless; /* other sizes do not make fn another function: see above */
    bool fold;      /* constant scales go into the weights before them, for inference: see above */
} tn_compile_opt;

/* fn with n_out results. `ud` and the slots must stay valid while the object lives. NULL with
 * tn_error() set on failure. */
TN_API tn_compiled *tn_compile(tn_fns fn, void *ud, int n_out, const tn_compile_opt *opt);
/* Results of fn for `in`, evaluated; slots hold the new state, in the memory of the old where
 * nobody else holds that. Draws from the thread's random sequence go on as without. Given
 * stand-ins, inside another transform, it simply calls fn. From any thread, one at a time. On
 * failure out[] are error arrays and slots keep what they held; but where the failing launch comes
 * after one that wrote new state over old (an index out of range in the midst of an update), the
 * message says so. */
TN_API int tn_compiled_call(tn_compiled *c, tn_list in, tn_array **out);
TN_API void tn_compiled_free(tn_compiled *c);

typedef struct tn_compile_stats {
    int64_t hits, misses, evictions; /* calls that found a plan, that made one; plans let go */
    int64_t plans;                   /* kept now */
    int64_t runs;                    /* of fn, to see what it does */
    int64_t launches;                /* of the plan used last */
    size_t arena;                    /* bytes of its memory, without arguments and results */
    size_t bound;                    /* bytes of that memory in use at once: no plan needs less */
    char closed[120];                /* shapeless: why fn had to be run for new sizes; "" */
} tn_compile_stats;
/* All zeros for NULL. */
TN_API tn_compile_stats tn_compiled_stats(tn_compiled *c);

/* ---- Exported functions ------------------------------------------------------------------------
 * A function in a file: what it builds for arguments of given dtypes and shapes, with the arrays it
 * takes from elsewhere as constants. It runs without its source, and is differentiated, compiled
 * and called from other functions as any function is. One file may hold several signatures.
 *
 *     tn_export("net.tenon", net, &model, TN_LIST(x), 1);
 *
 *     tn_imported *f = tn_import("net.tenon");
 *     tn_imported_call(TN_LIST(x), &y, 1, f);       or, as any tn_fns:
 *     tn_vjp(tn_imported_call, f, TN_LIST(x), TN_LIST(cotangent), &y, &gradient);
 *
 * The same function gives the same bytes. Draws from the thread's random sequence stay draws. The
 * rule of a tn_custom_vjp is code and stays behind: differentiating it is an error then. Primitives
 * of tenon/ext.h are written as what they are lowered to. */

/* fn with n_out results, traced for `in`, to a file, which is replaced or left alone. */
TN_API int tn_export(const char *path, tn_fns fn, void *ud, tn_list in, int n_out) TN_MUST_CHECK;
/* The same with several signatures. NULL with tn_error() set on failure. */
typedef struct tn_exporter tn_exporter;
TN_API tn_exporter *tn_exporter_new(tn_fns fn, void *ud, int n_out);
/* Traces fn for arguments like `in`; TN_EVALUE when it was before. A failure adds nothing. */
TN_API int tn_exporter_add(tn_exporter *e, tn_list in) TN_MUST_CHECK;
/* Traces fn for arguments like `in`, like `other`, and like them but for their sizes: those that
 * differ between the two are free; where several differ in the same way they stay equal. fn is
 * traced for more sizes, in the same steps beyond the larger of the two, with zeros for arguments.
 * TN_EVALUE, saying what, when it does other things for other sizes, or makes numbers and shapes of
 * them that are no products, linear functions or inverses of sizes. Choose no sizes of 1. */
TN_API int tn_exporter_add_shapeless(tn_exporter *e, tn_list in, tn_list other) TN_MUST_CHECK;
/* `text` (UTF-8, at most 16 MiB, may be NULL) is kept with it. */
TN_API int tn_exporter_save(tn_exporter *e, const char *path, const char *text) TN_MUST_CHECK;
TN_API void tn_exporter_free(tn_exporter *e);

typedef struct tn_imported tn_imported;
/* Reads and checks the whole file; large constants stay there (replace it, do not write over it).
 * NULL with tn_error() set: TN_EFILE, or TN_EFORMAT for one that is damaged, of a later version or
 * of operations that this version does not know. */
TN_API tn_imported *tn_import(const char *path);
/* The results for `in`, lazy; TN_ESHAPE when no trace takes such arguments. `imported` is a
 * tn_imported; from any thread. */
TN_API int tn_imported_call(tn_list in, tn_array **out, int n_out, void *imported) TN_MUST_CHECK;
TN_API void tn_imported_free(tn_imported *f);
TN_API int tn_imported_results(const tn_imported *f);      /* how many results */
TN_API int tn_imported_traces(const tn_imported *f);       /* how many signatures */
TN_API const char *tn_imported_text(const tn_imported *f); /* "" when there is none */
/* How many arguments a trace takes; the shape and dtype (may be NULL) of one: free sizes are
 * negative, equal ones alike. 0 axes and no change when there is none such. */
TN_API int tn_imported_arguments(const tn_imported *f, int trace);
TN_API tn_ints tn_imported_argument(const tn_imported *f, int trace, int argument, tn_dtype *dtype);

#ifdef __cplusplus
}
#endif

#include "tenon/ops.h"

#endif
