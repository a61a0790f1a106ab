/* Writing a GGUF file that was read, with some of its tensors replaced: the keys go over as they
 * are, the list of tensors is made anew, since other types move what follows. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/mmap.h"
#include "io/gguf.h"
#include <string.h>

enum { GGUF_ALIGNMENT_MAX = 4096 };

typedef struct gguf_writer {
    const tni_gguf *g;
    const tni_gguf_tensor **t; /* in the file's order */
    size_t n, alignment;
    tni_str list;
    int (*data)(void *ud, const char *name, const void **out);
    void *ud;
} gguf_writer;

static int gguf_put(tni_str *s, uint64_t v, size_t n) {
    char b[8];
    for (size_t i = 0; i < n; i++) b[i] = (char)(unsigned char)(v >> 8 * i);
    return tni_str_append(s, b, n);
}

static int gguf_put_tensor(tni_str *s, const tni_gguf_tensor *t, size_t offset) {
    size_t n = strlen(t->name);
    int status = gguf_put(s, n, 8);
    if (!status) status = tni_str_append(s, t->name, n);
    if (!status) status = gguf_put(s, (uint64_t)t->ndim, 4);
    for (int i = 0; i < t->ndim && !status; i++) status = gguf_put(s, (uint64_t)t->dims[i], 8);
    if (!status) status = gguf_put(s, (uint64_t)t->type, 4);
    return status ? status : gguf_put(s, offset, 8);
}

static size_t gguf_pad(const gguf_writer *w, size_t n) {
    return (w->alignment - n % w->alignment) % w->alignment;
}

/* Head and list, then bytes and padding of each tensor. */
static int gguf_part(void *ud, size_t i, tni_bytes *out) {
    static const char zeros[GGUF_ALIGNMENT_MAX];
    const gguf_writer *w = ud;
    *out = i ? (tni_bytes){w->list.v, w->list.n} : tni_gguf_head(w->g);
    if (i < 2) return 0;
    const tni_gguf_tensor *t = w->t[i / 2 - 1];
    *out = (tni_bytes){i % 2 ? zeros : t->data, i % 2 ? gguf_pad(w, t->bytes) : t->bytes};
    if (out->s || !out->n) return 0;
    const void *data = NULL;
    int status = w->data(w->ud, t->name, &data);
    out->s = data;
    return status;
}

static int gguf_write_file(gguf_writer *w, const char *path) {
    size_t offset = 0;
    for (size_t i = 0; i < w->n; i++) {
        const tni_gguf_tensor *t = w->t[i];
        if (gguf_put_tensor(&w->list, t, offset)) return tni_fail_memory(64, "a GGUF header");
        offset += t->bytes + gguf_pad(w, t->bytes);
    }
    for (size_t pad = gguf_pad(w, tni_gguf_head(w->g).n + w->list.n); pad; pad--)
        if (tni_str_putc(&w->list, 0)) return tni_fail_memory(64, "a GGUF header");
    return tni_file_write_stream(path, gguf_part, w, 2 + 2 * w->n);
}

static int gguf_replace(gguf_writer *w, const tni_gguf_tensor *with) {
    size_t values, bytes, i = 0;
    while (i < w->n && strcmp(w->t[i]->name, with->name)) i++;
    bool fits = i < w->n && tni_gguf_type_block(with->type, &values, &bytes) &&
                with->ndim == w->t[i]->ndim &&
                !memcmp(with->dims, w->t[i]->dims, sizeof with->dims);
    if (!fits) return tni_fail(TN_EVALUE, "gguf: nothing to replace by \"%s\"", with->name);
    w->t[i] = with;
    return 0;
}

int tni_gguf_write_with(const tni_gguf *g, const char *path, const tni_gguf_tensor *with, size_t n,
                        int (*data)(void *ud, const char *name, const void **out), void *ud) {
    int64_t alignment = 32;
    gguf_writer w = {.g = g, .n = tni_gguf_tensor_count(g), .data = data, .ud = ud};
    tni_gguf_i64(g, "general.alignment", &alignment);
    if (alignment > GGUF_ALIGNMENT_MAX)
        return tni_fail(TN_EVALUE, "%s: an alignment of %lld; up to %d can be written", path,
                        (long long)alignment, GGUF_ALIGNMENT_MAX);
    w.alignment = (size_t)alignment;
    w.t = tni_alloc_array(w.n, sizeof *w.t);
    int status = w.t ? 0 : tni_fail_memory(w.n * sizeof *w.t, "writing a GGUF file");
    for (size_t i = 0; i < w.n && !status; i++) w.t[i] = tni_gguf_tensor_at(g, i);
    for (size_t i = 0; i < n && !status; i++) status = gguf_replace(&w, &with[i]);
    if (!status) status = gguf_write_file(&w, path);
    tni_free((void *)w.t);
    tni_str_free(&w.list);
    return status ? status : tni_gguf_verify(g);
}
