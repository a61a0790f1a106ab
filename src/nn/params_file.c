/* Parameter trees in safetensors files. */
#include "base/alloc.h"
#include "base/err.h"
#include "nn/params.h"
#include <string.h>

static const struct {
    tni_st_dtype st;
    tn_dtype tn;
} file_dtypes[] = {{TNI_ST_BOOL, TN_BOOL}, {TNI_ST_U8, TN_U8},     {TNI_ST_U16, TN_U16},
                   {TNI_ST_U32, TN_U32},   {TNI_ST_U64, TN_U64},   {TNI_ST_I8, TN_I8},
                   {TNI_ST_I16, TN_I16},   {TNI_ST_I32, TN_I32},   {TNI_ST_I64, TN_I64},
                   {TNI_ST_F16, TN_F16},   {TNI_ST_BF16, TN_BF16}, {TNI_ST_F32, TN_F32},
                   {TNI_ST_F64, TN_F64},   {TNI_ST_C64, TN_C64}};
enum { FILE_DTYPES = sizeof file_dtypes / sizeof *file_dtypes };

static int file_no_memory(void) { return tni_fail_memory(sizeof(tni_st_tensor), "a checkpoint"); }

/* ---- writing ---- */

void tni_tensors_free(tni_tensors *t) {
    for (size_t i = 0; i < t->names.n; i++) tni_free(t->names.v[i]);
    tni_vec_free(&t->names);
    tni_vec_free(&t->v);
}

static char *file_join(const char *prefix, const char *name) {
    tni_str s = {0};
    if (!tni_str_puts(&s, prefix) && !tni_str_puts(&s, name)) return s.v;
    tni_str_free(&s);
    return NULL;
}

static int file_tensor(const char *name, tn_array *a, tni_st_tensor *t) {
    int d = 0;
    while (d < FILE_DTYPES && file_dtypes[d].tn != tn_dtype_of(a)) d++;
    *t = (tni_st_tensor){.name = name,
                         .dtype = file_dtypes[d % FILE_DTYPES].st,
                         .ndim = tn_ndim(a),
                         .bytes = tn_nbytes(a)};
    memcpy(t->shape, tn_shape(a).v, sizeof(int64_t) * (size_t)tn_ndim(a));
    if (!tn_size(a)) return 0;
    t->data = tn_data(a);
    return t->data ? 0 : tn_array_status(a) ? tn_array_status(a) : tni_error_code();
}

int tni_tensors_add(tni_tensors *t, const tn_params *p, const char *prefix) {
    for (size_t i = 0; i < p->v.n; i++) {
        if (tni_vec_reserve(&t->v, t->v.n + 1) || tni_vec_reserve(&t->names, t->names.n + 1))
            return file_no_memory();
        char *name = file_join(prefix, p->v.v[i].name);
        if (!name) return file_no_memory();
        t->names.v[t->names.n++] = name;
        int status = file_tensor(name, *p->slot.v[i], &t->v.v[t->v.n]);
        if (status) return status;
        t->v.n++;
    }
    return 0;
}

int tn_params_save(const tn_params *p, const char *path) {
    tni_tensors t = {0};
    const tni_st_pair format = {"format", "mlx"}; /* what MLX writes and Hugging Face expects */
    int status = tni_tensors_add(&t, p, "");
    if (!status) status = tni_st_write(path, t.v.v, t.v.n, &format, 1);
    tni_tensors_free(&t);
    return status;
}

/* ---- reading ---- */

tn_array *tni_tensor_array(const char *path, const tni_st_tensor *t) {
    for (int d = 0; d < FILE_DTYPES; d++)
        if (file_dtypes[d].st == t->dtype)
            return tn_array_new(t->data, file_dtypes[d].tn, (tn_ints){t->shape, t->ndim});
    return tn_error_array(TN_EDTYPE, "%s: %s is of type %s, which arrays do not have", path,
                          t->name, tni_st_dtype_name(t->dtype));
}

static int file_shape_text(int ndim, const int64_t *shape, tni_str *s) {
    int status = tni_str_putc(s, '[');
    for (int d = 0; d < ndim && !status; d++)
        status = tni_str_printf(s, "%s%lld", d ? ", " : "", (long long)shape[d]);
    return status ? status : tni_str_putc(s, ']');
}

static int file_check_shape(const char *path, const tni_st_tensor *t, const tn_array *a) {
    tn_ints want = tn_shape(a);
    if (t->ndim == want.n && !memcmp(t->shape, want.v, sizeof(int64_t) * (size_t)want.n)) return 0;
    tni_str s = {0};
    int status = file_shape_text(t->ndim, t->shape, &s);
    if (!status) status = tni_str_puts(&s, ", but the parameter is ");
    if (!status) status = file_shape_text(want.n, want.v, &s);
    status = status ? file_no_memory() : tni_fail(TN_ESHAPE, "%s: %s is %s", path, t->name, s.v);
    tni_str_free(&s);
    return status;
}

static int file_one(const tni_st *file, const char *path, const tn_params *p, size_t i,
                    const char *prefix, bool strict, tn_array **out) {
    char *name = file_join(prefix, p->v.v[i].name);
    if (!name) return file_no_memory();
    const tni_st_tensor *t = tni_st_find(file, name);
    int status = 0;
    if (!t && strict) status = tni_fail(TN_EFORMAT, "%s: there is no parameter %s", path, name);
    tni_free(name);
    if (!t) return status;
    status = file_check_shape(path, t, *p->slot.v[i]);
    if (status) return status;
    tn_array *a = tni_tensor_array(path, t);
    if ((status = tn_array_status(a))) return status;
    *out = tn_keep(a);
    return 0;
}

/* A tensor whose name begins with `prefix` and that the tree does not have. */
static int file_check_extra(const tni_st *file, const char *path, const tn_params *p,
                            const char *prefix) {
    size_t n = strlen(prefix);
    for (size_t k = 0; k < tni_st_count(file); k++) {
        const char *name = tni_st_at(file, k)->name;
        if (!strncmp(name, prefix, n) && tn_params_find(p, name + n) < 0)
            return tni_fail(TN_EFORMAT, "%s: %s is no parameter of this model", path, name);
    }
    return 0;
}

int tni_tensors_load(const tni_st *file, const char *path, const tn_params *p, const char *prefix,
                     bool strict, tn_array **out) {
    int status = strict ? file_check_extra(file, path, p, prefix) : 0;
    memset(out, 0, sizeof *out * p->v.n);
    tn_scope *s = tn_scope_begin();
    for (size_t i = 0; i < p->v.n && !status; i++)
        status = file_one(file, path, p, i, prefix, strict, &out[i]);
    tn_scope_end(s);
    if (!status) status = tni_st_verify(file);
    for (size_t i = 0; i < p->v.n && status; i++) {
        tn_drop(out[i]);
        out[i] = NULL;
    }
    return status;
}

int tn_params_load(tn_params *p, const char *path, bool strict) {
    tni_st *file;
    tn_array **got = tni_alloc_array(p->v.n + 1, sizeof *got);
    if (!got) return file_no_memory();
    int status = tni_st_open(path, &file);
    if (!status) status = tni_tensors_load(file, path, p, "", strict, got);
    for (size_t i = 0; i < p->v.n && !status; i++) {
        if (!got[i]) continue;
        tn_drop(*p->slot.v[i]);
        *p->slot.v[i] = got[i];
    }
    if (file) tni_st_free(file);
    tni_free(got);
    return status;
}
