/* Exported functions to a file: the head is put together in memory, constants go from their arrays
 * to the file uncopied. The same function gives the same bytes. */
#include "base/err.h"
#include "base/mmap.h"
#include "ops/op.h"
#include "trans/export.h"
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are written as memory is");

static const char write_zeros[EX_ALIGN];

typedef struct write_job {
    const ex_function *f;
    tni_str head;
    int prim[TNI_OP_COUNT]; /* number in the file; -1: not there */
    int n_prims;
    tni_bytes *parts;
    size_t n_parts, data; /* bytes */
    uint64_t checksum;    /* of the data */
} write_job;

static int write_no_memory(void) {
    return tni_fail_memory(sizeof(ex_function), "an exported file");
}

/* ---- numbers ---- */

static int write_bytes(write_job *w, const void *bytes, size_t n) {
    return n ? tni_str_append(&w->head, bytes, n) : 0;
}
static int write_u8(write_job *w, uint64_t v) { return write_bytes(w, &(uint8_t){(uint8_t)v}, 1); }
static int write_u16(write_job *w, uint64_t v) {
    return write_bytes(w, &(uint16_t){(uint16_t)v}, 2);
}
static int write_u32(write_job *w, uint64_t v) {
    return write_bytes(w, &(uint32_t){(uint32_t)v}, 4);
}

static int write_spec(write_job *w, tni_out_spec s, bool weak) {
    int status = write_u8(w, s.dtype) | write_u8(w, (uint64_t)s.ndim) | write_u8(w, weak);
    return status | write_bytes(w, s.shape, sizeof *s.shape * (size_t)s.ndim);
}

/* ---- tables ---- */

static int write_prims(write_job *w) {
    int status = 0;
    uint32_t n = 0;
    memset(w->prim, -1, sizeof w->prim);
    size_t at = w->head.n;
    status |= write_u32(w, 0);
    for (size_t i = 0; i < w->f->traces.n; i++) {
        const ex_trace *t = w->f->traces.v[i];
        for (size_t k = 0; k < t->nodes.n; k++) {
            const tni_prim *p = t->nodes.v[k].prim;
            if (w->prim[p->id] >= 0) continue;
            w->prim[p->id] = (int)n++;
            status |= write_u8(w, strlen(p->name)) | write_bytes(w, p->name, strlen(p->name));
            status |= write_u16(w, p->params_size);
        }
    }
    if (!status) memcpy(w->head.v + at, &n, sizeof n);
    return status;
}

static size_t write_padding(size_t n) { return (EX_ALIGN - n % EX_ALIGN) % EX_ALIGN; }

/* A constant and what fills it up to the next place. */
static int write_constant(write_job *w, tn_array *a) {
    size_t n = tn_nbytes(a), gap = write_padding(n);
    const void *data = n ? tn_data(a) : write_zeros;
    if (!data) return tni_error_code();
    int status = write_spec(w, (tni_out_spec){(tn_dtype)a->dtype, a->ndim, a->shape},
                            a->flags & TNI_A_WEAK && !a->ndim);
    if (status || write_bytes(w, &(uint64_t){w->data}, 8)) return write_no_memory();
    w->parts[w->n_parts++] = (tni_bytes){data, n};
    w->parts[w->n_parts++] = (tni_bytes){write_zeros, gap};
    w->checksum = tni_ex_checksum(data, n, w->checksum);
    w->checksum = tni_ex_checksum(write_zeros, gap / 8 * 8, w->checksum); /* as of one piece */
    w->data += n + gap;
    return 0;
}

static int write_node(write_job *w, const ex_trace *t, const ex_node *n) {
    size_t size = n->prim->params_size;
    const char *params = size ? (const char *)(t->params.v + n->params) : NULL;
    while (size && !params[size - 1]) size--;
    int status = write_u16(w, (uint64_t)w->prim[n->prim->id]) | write_u16(w, size) |
                 write_bytes(w, params, size) | write_u32(w, n->n_in) |
                 write_bytes(w, t->operands.v + n->in, sizeof *t->operands.v * n->n_in) |
                 write_u8(w, n->n_out);
    for (uint32_t k = 0; k < n->n_out; k++)
        status |= write_spec(w, tni_ex_spec(t, n->out + k), false);
    return status;
}

static int write_open(write_job *w, const ex_trace *t) {
    int status =
        write_bytes(w, t->open.v, sizeof *t->open.v * t->open.n) | write_u32(w, t->sizes.n);
    for (size_t k = 0; k < t->sizes.n; k++) {
        const ex_size *s = &t->sizes.v[k];
        status |= write_bytes(w, (uint32_t[3]){s->kind, s->x, s->y}, 12) |
                  write_bytes(w, (int64_t[3]){s->num, s->add, s->den}, 24);
    }
    status |= write_u32(w, t->patches.n);
    for (size_t k = 0; k < t->patches.n; k++) {
        const ex_patch *p = &t->patches.v[k];
        status |= write_bytes(w, (uint32_t[4]){p->node, p->target, p->index, p->size}, 16) |
                  write_bytes(w, &p->num, 8);
    }
    return status;
}

static int write_trace(write_job *w, const ex_trace *t) {
    int status = write_u8(w, t->random + (t->open.n ? 2u : 0)) | write_u32(w, t->n_in);
    for (uint32_t i = 0; i < t->n_in; i++) status |= write_spec(w, tni_ex_spec(t, i), false);
    status |= write_u32(w, t->nodes.n);
    for (size_t k = 0; k < t->nodes.n && !status; k++) status |= write_node(w, t, &t->nodes.v[k]);
    status |= write_bytes(w, t->results.v, sizeof *t->results.v * t->results.n);
    return status || !t->open.n ? status : write_open(w, t);
}

static int write_start(write_job *w) {
    size_t head = w->head.n - EX_START;
    const uint64_t numbers[4] = {head, w->data, tni_ex_checksum(w->head.v + EX_START, head, 0),
                                 w->checksum};
    memcpy(w->head.v, EX_MAGIC, 8);
    memcpy(w->head.v + 8, &(uint32_t){EX_VERSION}, 4);
    memcpy(w->head.v + 16, numbers, sizeof numbers);
    return 0;
}

static int write_head(write_job *w) {
    const ex_function *f = w->f;
    const char *text = f->text ? f->text : "";
    int status = write_bytes(w, write_zeros, EX_START) | write_prims(w);
    status |= write_u32(w, f->constants.n);
    if (status) return write_no_memory();
    w->n_parts = 1;
    for (size_t i = 0; i < f->constants.n && !status; i++)
        status = write_constant(w, f->constants.v[i]);
    if (status) return status;
    status = write_u32(w, strlen(text)) | write_bytes(w, text, strlen(text)) |
             write_u32(w, (uint64_t)f->n_out) | write_u32(w, f->traces.n);
    for (size_t i = 0; i < f->traces.n && !status; i++) status = write_trace(w, f->traces.v[i]);
    if (!status) status = write_bytes(w, write_zeros, write_padding(w->head.n));
    return status ? write_no_memory() : write_start(w);
}

static int write_check_text(const char *path, const char *text) {
    size_t n = strlen(text);
    uint32_t cp;
    if (n > EX_MOST_TEXT)
        return tni_fail(TN_EVALUE, "%s: export: a text of %zu bytes; %d are allowed", path, n,
                        EX_MOST_TEXT);
    for (size_t at = 0; at < n;) {
        int len = tni_utf8_decode(text + at, n - at, &cp);
        if (len <= 0) return tni_fail(TN_EVALUE, "%s: export: the text is not UTF-8", path);
        at += (size_t)len;
    }
    return 0;
}

int tni_ex_save(const ex_function *f, const char *path) {
    write_job w = {.f = f};
    int status = f->text ? write_check_text(path, f->text) : 0;
    if (status) return status;
    w.parts = tni_alloc_array(2 * f->constants.n + 1, sizeof *w.parts);
    status = w.parts ? write_head(&w) : write_no_memory();
    if (!status) w.parts[0] = (tni_bytes){w.head.v, w.head.n};
    if (!status) status = tni_file_write_parts(path, w.parts, w.n_parts);
    tni_free(w.parts);
    tni_str_free(&w.head);
    return status;
}
