/* Files for the training examples: gzip by zlib, which passes plain files through, and the IDX
 * format of the MNIST family: two zero bytes, the element type (8: bytes), the number of axes,
 * their sizes as big-endian 32-bit numbers, the elements. */
#include "data.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

char *data_read(const char *path, size_t *n) {
    size_t cap = 1 << 20;
    char *text = malloc(cap + 1);
    gzFile f = gzopen(path, "rb");
    int got = 0;
    *n = 0;
    while (f && text && (got = gzread(f, text + *n, (unsigned)(cap - *n))) > 0) {
        *n += (size_t)got;
        if (*n < cap) continue;
        char *more = realloc(text, (cap *= 2) + 1);
        if (!more) free(text);
        text = more;
    }
    bool whole = f && text && !got && gzclose(f) == Z_OK;
    if (whole) return text[*n] = 0, text;
    fprintf(stderr, "%s: cannot be read\n", path);
    free(text);
    return NULL;
}

/* The elements of an IDX file of `axes` axes, of which the first has n; NULL with a message. */
static unsigned char *idx_read(const char *path, int axes, int64_t item, int64_t *n) {
    size_t bytes, head = 4 + 4 * (size_t)axes;
    unsigned char *v = (unsigned char *)data_read(path, &bytes);
    if (!v) return NULL;
    if (bytes >= head && !v[0] && !v[1] && v[2] == 8 && v[3] == axes) {
        *n = (int64_t)v[4] << 24 | v[5] << 16 | v[6] << 8 | v[7];
        if ((uint64_t)bytes == head + (uint64_t)(*n * item)) return v;
    }
    fprintf(stderr, "%s: not what it should be: %d axes of bytes, %d each\n", path, axes,
            (int)item);
    free(v);
    return NULL;
}

int pictures_open(pictures *p, const char *folder, const char *which) {
    char path[2][512];
    int64_t n = 0, k = 0;
    *p = (pictures){NULL, NULL};
    snprintf(path[0], sizeof path[0], "%s/%s-images-idx3-ubyte.gz", folder, which);
    snprintf(path[1], sizeof path[1], "%s/%s-labels-idx1-ubyte.gz", folder, which);
    unsigned char *pixels = idx_read(path[0], 3, (int64_t)28 * 28, &n);
    unsigned char *labels = pixels ? idx_read(path[1], 1, 1, &k) : NULL;
    int failed = !labels || n != k;
    if (labels && n != k) fprintf(stderr, "%s: another number of labels\n", path[1]);
    TN_SCOPE {
        if (!failed &&
            (tn_assign(&p->pixels, tn_array_new(pixels + 16, TN_U8, TN_SHAPE(n, 28, 28, 1))) ||
             tn_assign(&p->labels, tn_array_new(labels + 8, TN_U8, TN_SHAPE(n)))))
            failed = fprintf(stderr, "%s\n", tn_error());
    }
    free(pixels), free(labels);
    return failed != 0;
}

void pictures_close(pictures *p) {
    tn_drop(p->pixels);
    tn_drop(p->labels);
    *p = (pictures){NULL, NULL};
}

int alphabet_open(alphabet *a, const char *path) {
    size_t n;
    bool seen[256] = {false};
    unsigned char number[256], *text = (unsigned char *)data_read(path, &n);
    *a = (alphabet){0};
    if (!text) return 1;
    for (size_t i = 0; i < n; i++) seen[text[i]] = true;
    for (int c = 0; c < 256; c++)
        if (seen[c]) number[c] = (unsigned char)a->n, a->letter[a->n++] = (char)c;
    for (size_t i = 0; i < n; i++) text[i] = number[text[i]];
    int failed = 0;
    TN_SCOPE
        failed = tn_assign(&a->text, tn_array_new(text, TN_U8, TN_SHAPE((int64_t)n)));
    if (failed) fprintf(stderr, "%s\n", tn_error());
    free(text);
    return failed != 0;
}

void alphabet_close(alphabet *a) {
    tn_drop(a->text);
    a->text = NULL;
}

const char *folder_file(const char *folder, const char *name) {
    static char path[512];
    if (!folder) return NULL;
    mkdir(folder, 0777);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

const char *option_text(char **argv, const char *name, const char *otherwise) {
    for (; argv[0] && argv[1]; argv++)
        if (!strcmp(argv[0], name)) return argv[1];
    return otherwise;
}

double option_number(char **argv, const char *name, double otherwise) {
    const char *text = option_text(argv, name, NULL);
    return text ? strtod(text, NULL) : otherwise;
}
