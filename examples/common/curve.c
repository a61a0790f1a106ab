/* A curve as a picture: axes with numbers, a dot for every value, a line for the running mean. PNG
 * (W3C recommendation of 2003): a signature, then chunks of length, name, bytes and CRC-32; the
 * pixels are rows that begin with a filter byte, packed by zlib. */
#include "progress.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { WIDE = 800, HIGH = 480, LEFT = 70, RIGHT = 20, TOP = 20, BOTTOM = 40, ROW = WIDE * 3 + 1 };
enum { GRID = 0xe4e4e4, INK = 0x404040, DOT = 0xb9cfe8, LINE = 0x1f5fa8 };

typedef struct plot {
    unsigned char *v; /* HIGH rows of a filter byte and WIDE pixels */
    double x0, x1, y0, y1;
} plot;

static void plot_pixel(plot *p, int x, int y, int color) {
    if (x < 0 || x >= WIDE || y < 0 || y >= HIGH) return;
    unsigned char *at = p->v + (size_t)y * ROW + 1 + (size_t)x * 3;
    at[0] = (unsigned char)(color >> 16), at[1] = (unsigned char)(color >> 8);
    at[2] = (unsigned char)color;
}

static void plot_box(plot *p, int x, int y, int wide, int high, int color) {
    for (int i = 0; i < high; i++)
        for (int k = 0; k < wide; k++) plot_pixel(p, x + k, y + i, color);
}

static int plot_x(const plot *p, double x) {
    return LEFT + (int)((WIDE - LEFT - RIGHT) * (x - p->x0) / (p->x1 - p->x0) + 0.5);
}
static int plot_y(const plot *p, double y) {
    return HIGH - BOTTOM - (int)((HIGH - TOP - BOTTOM) * (y - p->y0) / (p->y1 - p->y0) + 0.5);
}

/* ---- numbers: 3 x 5 points a character, of 2 pixels each ---- */

static void plot_text(plot *p, int x, int y, const char *text) {
    static const char known[] = "0123456789.-e+";
    static const char *const shape[] = {"xxxx.xx.xx.xxxx", ".x.xx..x..x.xxx", "xxx..xxxxx..xxx",
                                        "xxx..xxxx..xxxx", "x.xx.xxxx..x..x", "xxxx..xxx..xxxx",
                                        "xxxx..xxxx.xxxx", "xxx..x.x..x..x.", "xxxx.xxxxx.xxxx",
                                        "xxxx.xxxx..xxxx", ".............x.", "......xxx......",
                                        "...xxxxxxx..xxx", "....x.xxx.x...."};
    for (; *text; text++, x += 8) {
        const char *at = strchr(known, *text);
        for (int i = 0; at && i < 15; i++)
            if (shape[at - known][i] == 'x') plot_box(p, x + i % 3 * 2, y + i / 3 * 2, 2, 2, INK);
    }
}

/* About `most` round steps over the range: 1, 2 or 5 times a power of ten. */
static double plot_tick(double range, int most) {
    double step = pow(10, floor(log10(range / most)));
    return step * (range / step > 5 * most   ? 10
                   : range / step > 2 * most ? 5
                   : range / step > most     ? 2
                                             : 1);
}

static void plot_axes(plot *p) {
    char text[32];
    double step = plot_tick(p->x1 - p->x0, 8);
    for (double x = ceil(p->x0 / step) * step; x <= p->x1; x += step) {
        plot_box(p, plot_x(p, x), TOP, 1, HIGH - TOP - BOTTOM, GRID);
        snprintf(text, sizeof text, "%g", x);
        plot_text(p, plot_x(p, x) - 4 * (int)strlen(text), HIGH - BOTTOM + 10, text);
    }
    step = plot_tick(p->y1 - p->y0, 8);
    for (double y = ceil(p->y0 / step) * step; y <= p->y1; y += step) {
        plot_box(p, LEFT, plot_y(p, y), WIDE - LEFT - RIGHT, 1, GRID);
        snprintf(text, sizeof text, "%g", fabs(y) < step / 2 ? 0 : y);
        plot_text(p, LEFT - 10 - 8 * (int)strlen(text), plot_y(p, y) - 5, text);
    }
    plot_box(p, LEFT, TOP, 1, HIGH - TOP - BOTTOM, INK);
    plot_box(p, LEFT, HIGH - BOTTOM, WIDE - LEFT - RIGHT, 1, INK);
}

/* ---- the curve ---- */

static void plot_segment(plot *p, int x0, int y0, int x1, int y1) {
    int n = abs(x1 - x0) > abs(y1 - y0) ? abs(x1 - x0) : abs(y1 - y0);
    for (int i = 0; i <= n; i++)
        plot_box(p, x0 + (n ? (x1 - x0) * i / n : 0), y0 + (n ? (y1 - y0) * i / n : 0), 2, 2, LINE);
}

static void plot_curve(plot *p, const float *v, int64_t n, int64_t first) {
    double mean = 0, keep = n > 400 ? 1 - 200.0 / (double)n : 0.5, weight = 0;
    int x = 0, y = 0;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(v[i]))
            plot_box(p, plot_x(p, (double)(first + i + 1)) - 1, plot_y(p, (double)v[i]) - 1, 2, 2,
                     DOT);
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(v[i])) continue;
        mean = keep * mean + (1 - keep) * (double)v[i];
        weight = keep * weight + (1 - keep);
        int to_x = plot_x(p, (double)(first + i + 1)), to_y = plot_y(p, mean / weight);
        if (i) plot_segment(p, x, y, to_x, to_y);
        x = to_x, y = to_y;
    }
}

static void png_number(unsigned char *at, unsigned long x) {
    for (int i = 0; i < 4; i++) at[i] = (unsigned char)(x >> (24 - 8 * i));
}

static void png_chunk(FILE *f, const char *name, const unsigned char *v, size_t n) {
    unsigned char length[4], sum[4];
    png_number(length, n);
    png_number(sum, crc32(crc32(0, (const unsigned char *)name, 4), v, (unsigned)n));
    fwrite(length, 1, 4, f), fwrite(name, 1, 4, f), fwrite(v, 1, n, f), fwrite(sum, 1, 4, f);
}

static int png_write(const char *path, const plot *p) {
    unsigned char head[13] = {0, 0, 0, 0, 0, 0, 0, 0, 8, 2}; /* 8 bits, three colours */
    uLongf n = compressBound((uLong)HIGH * ROW);
    unsigned char *packed = malloc(n);
    FILE *f = packed ? fopen(path, "wb") : NULL;
    png_number(head, WIDE), png_number(head + 4, HIGH);
    int failed = !f || compress(packed, &n, p->v, (uLong)HIGH * ROW) != Z_OK;
    if (f) {
        fwrite("\x89PNG\r\n\x1a\n", 1, 8, f);
        png_chunk(f, "IHDR", head, sizeof head);
        if (!failed) png_chunk(f, "IDAT", packed, n);
        png_chunk(f, "IEND", head, 0);
        failed |= ferror(f);
        failed |= fclose(f);
    }
    free(packed);
    return failed ? fprintf(stderr, "%s: cannot be written\n", path), 1 : 0;
}

int curve_png(const char *path, const float *v, int64_t n, int64_t first) {
    plot p = {malloc((size_t)HIGH * ROW), (double)first, (double)(first + n), 0, 0};
    if (!p.v) return fprintf(stderr, "%s: no memory\n", path), 1;
    memset(p.v, 0xff, (size_t)HIGH * ROW);
    for (int i = 0; i < HIGH; i++) p.v[(size_t)i * ROW] = 0; /* rows as they are */
    for (int64_t i = 0; i < n; i++)
        if (isfinite(v[i])) p.y1 = fmax(p.y1, (double)v[i]), p.y0 = fmin(p.y0, (double)v[i]);
    if (!(p.y1 > p.y0)) p.y1 = p.y0 + 1;
    p.y1 += 0.05 * (p.y1 - p.y0);
    plot_axes(&p);
    plot_curve(&p, v, n, first);
    int failed = png_write(path, &p);
    free(p.v);
    return failed;
}
