/* Losses as CSV and as a picture: 640 by 360 grey pixels, the loss in black, that on validation
 * data in grey, from 0 at the bottom to the largest at the top. */
#include "curve.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/mmap.h"
#include "base/vec.h"
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CURVE_W = 640, CURVE_H = 360, CURVE_MARGIN = 12, CURVE_LIMIT = 64 << 20 };

/* ---- rows ---- */

int curve_add(curve *c, int64_t step, double loss, double valid) {
    curve_row *last = c->n ? &c->v[c->n - 1] : NULL;
    if (last && last->step == step) {
        if (!isnan(loss)) last->loss = loss;
        if (!isnan(valid)) last->valid = valid;
        return 0;
    }
    curve_row row = {step, loss, valid};
    return tni_vec_push(c, row) ? tni_fail_memory(sizeof row, "the loss curve") : 0;
}

void curve_free(curve *c) { tni_vec_free(c); }

static int curve_number(tni_str *s, double x) {
    return isnan(x) ? tni_str_puts(s, ",") : tni_str_printf(s, ",%.9g", x);
}

int curve_write(const curve *c, const char *path) {
    tni_str s = {0};
    int status = tni_str_puts(&s, "step,loss,validation\n");
    for (size_t i = 0; i < c->n && !status; i++) {
        status = tni_str_printf(&s, "%lld", (long long)c->v[i].step);
        if (!status) status = curve_number(&s, c->v[i].loss);
        if (!status) status = curve_number(&s, c->v[i].valid);
        if (!status) status = tni_str_putc(&s, '\n');
    }
    status = status ? tni_fail_memory(s.n, "the loss curve") : tni_file_write(path, s.v, s.n);
    tni_str_free(&s);
    return status;
}

static double curve_field(const char **at) {
    char *end = NULL;
    if (**at != ',') return NAN;
    const char *from = ++*at;
    double x = *from == ',' || *from == '\n' ? NAN : strtod(from, &end);
    *at = end && end > from ? end : from;
    return end == from ? NAN : x;
}

int curve_read(curve *c, const char *path, int64_t step) {
    char *text;
    size_t n;
    if (tni_file_read(path, CURVE_LIMIT, &text, &n)) return tni_error_clear(), 0;
    const char *at = strchr(text, '\n');
    int status = 0;
    while (at && *++at && !status) {
        char *end;
        long long row = strtoll(at, &end, 10);
        if (end == at || row > step) break;
        at = end;
        double loss = curve_field(&at), valid = curve_field(&at);
        status = curve_add(c, row, loss, valid);
        at = strchr(at, '\n');
    }
    tni_free(text);
    return status;
}

/* ---- the picture ---- */

typedef struct curve_image {
    unsigned char *pixel; /* CURVE_H rows of a filter byte and CURVE_W grey values */
    double high;
    int64_t first, last;
} curve_image;

static void curve_dot(const curve_image *g, double x, double y, unsigned char grey) {
    int at = (int)(x + 0.5), up = (int)(y + 0.5);
    for (int dy = 0; dy < 2; dy++)
        for (int dx = 0; dx < 2; dx++)
            if (at + dx >= 0 && at + dx < CURVE_W && up + dy >= 0 && up + dy < CURVE_H)
                g->pixel[(CURVE_H - 1 - up - dy) * (CURVE_W + 1) + 1 + at + dx] = grey;
}

static double curve_x(const curve_image *g, int64_t step) {
    double span = g->last > g->first ? (double)(g->last - g->first) : 1;
    return CURVE_MARGIN + (double)(step - g->first) / span * (CURVE_W - 2 * CURVE_MARGIN);
}

static double curve_y(const curve_image *g, double loss) {
    return CURVE_MARGIN + loss / g->high * (CURVE_H - 2 * CURVE_MARGIN);
}

static void curve_segment(const curve_image *g, double x0, double y0, double x1, double y1,
                          unsigned char grey) {
    int steps = 1 + (int)fmax(fabs(x1 - x0), fabs(y1 - y0));
    for (int i = 0; i <= steps; i++)
        curve_dot(g, x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps, grey);
}

static void curve_line(const curve_image *g, const curve *c, bool valid, unsigned char grey) {
    const curve_row *before = NULL;
    for (size_t i = 0; i < c->n; i++) {
        const curve_row *r = &c->v[i];
        double y = valid ? r->valid : r->loss;
        if (isnan(y)) continue;
        const curve_row *from = before ? before : r;
        curve_segment(g, curve_x(g, from->step), curve_y(g, valid ? from->valid : from->loss),
                      curve_x(g, r->step), curve_y(g, y), grey);
        before = r;
    }
}

/* ---- PNG: ISO/IEC 15948; the pixels in a zlib stream (RFC 1950) of stored blocks ---- */

static uint32_t curve_crc(const char *s, size_t n) {
    uint32_t c = 0xFFFFFFFFu;
    for (size_t i = 0; i < n; i++) {
        c ^= (unsigned char)s[i];
        for (int k = 0; k < 8; k++) c = c >> 1 ^ (c & 1 ? 0xEDB88320u : 0);
    }
    return ~c;
}

static int curve_u32(tni_str *s, uint32_t x) {
    const char b[4] = {(char)(x >> 24), (char)(x >> 16), (char)(x >> 8), (char)x};
    return tni_str_append(s, b, 4);
}

static int curve_chunk(tni_str *out, const char *kind, const char *data, size_t n) {
    size_t at = out->n + 4;
    int status = curve_u32(out, (uint32_t)n);
    if (!status) status = tni_str_append(out, kind, 4);
    if (!status) status = tni_str_append(out, data, n);
    return status ? status : curve_u32(out, curve_crc(out->v + at, out->n - at));
}

static int curve_zlib(tni_str *z, const unsigned char *p, size_t n) {
    uint32_t a = 1, b = 0;
    int status = tni_str_append(z, "\x78\x01", 2);
    for (size_t at = 0; at < n && !status; at += 0xFFFF) {
        size_t len = n - at < 0xFFFF ? n - at : 0xFFFF;
        const char head[5] = {at + len == n, (char)len, (char)(len >> 8), (char)~len,
                              (char)(~len >> 8)};
        status = tni_str_append(z, head, 5);
        if (!status) status = tni_str_append(z, (const char *)p + at, len);
    }
    for (size_t i = 0; i < n; i++) a = (a + p[i]) % 65521, b = (b + a) % 65521;
    return status ? status : curve_u32(z, b << 16 | a);
}

static int curve_png(tni_str *out, const unsigned char *pixel) {
    static const char size[13] = {
        0, 0, CURVE_W >> 8, CURVE_W & 255, 0, 0, CURVE_H >> 8, CURVE_H & 255, 8, 0, 0,
        0, 0}; /* 8 bits of grey */
    tni_str z = {0};
    int status = tni_str_append(out, "\x89PNG\r\n\x1a\n", 8);
    if (!status) status = curve_chunk(out, "IHDR", size, sizeof size);
    if (!status) status = curve_zlib(&z, pixel, (size_t)CURVE_H * (CURVE_W + 1));
    if (!status) status = curve_chunk(out, "IDAT", z.v, z.n);
    tni_str_free(&z);
    return status ? status : curve_chunk(out, "IEND", "", 0);
}

static void curve_paint(const curve_image *g, const curve *c) {
    memset(g->pixel, 255, (size_t)CURVE_H * (CURVE_W + 1));
    for (int y = 0; y < CURVE_H; y++) g->pixel[y * (CURVE_W + 1)] = 0;
    double left = CURVE_MARGIN / 2, right = CURVE_W - left, top = CURVE_H - left;
    curve_segment(g, left, left, right, left, 200);
    curve_segment(g, left, left, left, top, 200);
    curve_line(g, c, true, 150);
    curve_line(g, c, false, 0);
}

int curve_draw(const curve *c, const char *path) {
    curve_image g = {.high = 0};
    tni_str out = {0};
    for (size_t i = 0; i < c->n; i++) g.high = fmax(g.high, fmax(c->v[i].loss, c->v[i].valid));
    if (c->n < 2 || !(g.high > 0) || isinf(g.high)) return 0;
    g.first = c->v[0].step, g.last = c->v[c->n - 1].step;
    g.pixel = tni_alloc((size_t)CURVE_H * (CURVE_W + 1));
    if (!g.pixel) return tni_fail_memory(CURVE_H * CURVE_W, "a picture");
    curve_paint(&g, c);
    int status = curve_png(&out, g.pixel);
    status = status ? tni_fail_memory(out.n, "a picture") : tni_file_write(path, out.v, out.n);
    tni_free(g.pixel);
    tni_str_free(&out);
    return status;
}
