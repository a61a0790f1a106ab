/* The whole test framework: TAP on standard output, read by prove and meson.
 *     #include "tap.h"
 *     static void test_x(void) { ok(1 + 1 == 2, "sums"); is_i64(f(), 3, "f"); }
 *     int main(void) { test_x(); return tap_done(); }
 * A failed check prints where and what; the process goes on. */
#ifndef TAP_H
#define TAP_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int tap_count, tap_failed;

__attribute__((format(printf, 4, 5))) static inline int tap_ok(int pass, const char *file, int line,
                                                               const char *fmt, ...) {
    va_list ap;
    printf("%sok %d - ", pass ? "" : "not ", ++tap_count);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    if (!pass) {
        tap_failed++;
        printf("#   failed at %s:%d\n", file, line);
    }
    fflush(stdout);
    return pass;
}

static inline int tap_done(void) {
    printf("1..%d\n", tap_count);
    if (tap_failed) printf("# %d of %d failed\n", tap_failed, tap_count);
    return tap_failed != 0;
}

/* What has to stand before the name of a test program that is started again: the
 * emulator when the build is for another processor. */
static inline const char *tap_runner(void) {
    const char *r = getenv("TENON_TEST_RUN");
    return r ? r : "";
}

#define ok(cond, ...) tap_ok(!!(cond), __FILE__, __LINE__, __VA_ARGS__)
#define skip(why, ...)                                                                             \
    (printf("ok %d - ", ++tap_count), printf(__VA_ARGS__), printf(" # SKIP %s\n", why))
#define diag(...) (printf("# "), printf(__VA_ARGS__), printf("\n"))
#define is_i64(got, want, ...)                                                                     \
    do {                                                                                           \
        int64_t g_ = (int64_t)(got), w_ = (int64_t)(want);                                         \
        if (!ok(g_ == w_, __VA_ARGS__)) diag("  got %" PRId64 ", want %" PRId64, g_, w_);          \
    } while (0)
#define is_str(got, want, ...)                                                                     \
    do {                                                                                           \
        const char *g_ = (got), *w_ = (want);                                                      \
        if (!ok(g_ && w_ && !strcmp(g_, w_), __VA_ARGS__))                                         \
            diag("  got \"%s\"\n#   want \"%s\"", g_ ? g_ : "(null)", w_ ? w_ : "(null)");         \
    } while (0)

#endif
