/* Allocation contract: counters, overflow, alignment, fault injection. */
#include "base/alloc.h"
#include "base/vec.h"
#include "tap.h"
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_basics(void) {
    int64_t live = tni_alloc_live(), asked = tni_alloc_count();
    char *a = tni_alloc(0), *b = tni_alloc(0);
    ok(a && b && a != b, "size 0 gives unique pointers");
    unsigned char *z = tni_calloc(100, 3);
    int sum = 0;
    for (int i = 0; i < 300; i++) sum += z[i];
    is_i64(sum, 0, "calloc zeroes");
    char *d = tni_strdup("tenon"), *e = tni_strndup("tenon", 3);
    is_str(d, "tenon", "strdup");
    is_str(e, "ten", "strndup cuts and ends");
    is_i64(tni_alloc_live() - live, 5, "five blocks are live");
    d = tni_realloc(d, 1000);
    is_str(d, "tenon", "realloc keeps the content");
    is_i64(tni_alloc_live() - live, 5, "realloc of a block adds none");
    is_i64(tni_alloc_count() - asked, 6, "six requests counted");
    tni_free(a), tni_free(b), tni_free(z), tni_free(d), tni_free(e), tni_free(NULL);
    is_i64(tni_alloc_live(), live, "all returned");
}

static void test_overflow(void) {
    ok(!tni_calloc(SIZE_MAX / 2, 3), "calloc refuses an overflowing product");
    ok(!tni_alloc_array(SIZE_MAX / 2, 3), "alloc_array refuses an overflowing product");
    ok(!tni_alloc_array(SIZE_MAX, SIZE_MAX), "and the largest one");
    ok(!tni_alloc_aligned(SIZE_MAX), "aligned refuses SIZE_MAX");
    ok(!tni_alloc((size_t)PTRDIFF_MAX + 1), "more than PTRDIFF_MAX is refused");
}

static void test_aligned(void) {
    static const size_t sizes[] = {0, 1, 63, 4096, (2u << 20) - 1, 2u << 20, (2u << 20) + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *p = tni_alloc_aligned(sizes[i]);
        ok(p && (uintptr_t)p % 64 == 0, "%zu bytes are 64-byte aligned", sizes[i]);
        if (sizes[i]) p[0] = p[sizes[i] - 1] = 1;
        tni_free_aligned(p, sizes[i]);
    }
}

static void test_faults(void) {
    int64_t live = tni_alloc_live();
    tni_fail_alloc_at(2);
    void *a = tni_alloc(8), *b = tni_alloc(8), *c = tni_alloc(8);
    ok(a && !b && c, "exactly the second allocation fails");
    tni_fail_alloc_at(1);
    ok(!tni_realloc(a, 100), "realloc fails too");
    a = tni_realloc(a, 100);
    ok(a != NULL, "and the block was still valid");
    tni_fail_alloc_at(1);
    ok(!tni_alloc_aligned(64), "aligned fails too");
    tni_fail_alloc_at(1);
    ok(!tni_calloc(1, 1), "calloc fails too");
    tni_fail_alloc_at(1);
    tni_fail_alloc_at(0);
    void *d = tni_alloc(1);
    ok(d != NULL, "0 disarms");
    tni_free(a), tni_free(c), tni_free(d);
    is_i64(tni_alloc_live(), live, "failed requests are not live");
}

/* The environment is read at the first allocation, so a fresh process has to try it. */
static void test_environment(const char *self) {
    char cmd[4096];
    snprintf(cmd, sizeof cmd, "TN_FAIL_ALLOC=3 %s '%s' child", tap_runner(), self);
    int rc = system(cmd);
    ok(WIFEXITED(rc) && WEXITSTATUS(rc) == 3, "TN_FAIL_ALLOC=3 fails the third allocation");
    snprintf(cmd, sizeof cmd, "TN_FAIL_ALLOC=nonsense %s '%s' child", tap_runner(), self);
    rc = system(cmd);
    ok(WIFEXITED(rc) && WEXITSTATUS(rc) == 0, "a value that is no number is ignored");
}

static int child(void) {
    int failed = 0;
    for (int i = 1; i <= 10; i++) {
        void *p = tni_alloc(16);
        if (!p) failed = failed ? 99 : i;
        tni_free(p);
    }
    return failed;
}

static void test_vec(void) {
    TNI_VEC(int) v = {0};
    int bad = 0;
    for (int i = 0; i < 1000; i++) bad |= tni_vec_push(&v, i);
    for (int i = 0; i < 1000; i++) bad |= v.v[i] != i;
    is_i64(bad, 0, "a thousand pushes, in order");
    size_t cap = v.cap;
    tni_fail_alloc_at(1);
    is_i64(tni_vec_reserve(&v, cap + 1), TN_EMEMORY, "reserve reports no memory");
    ok(v.n == 1000 && v.cap == cap && v.v[999] == 999, "and nothing is lost");
    is_i64(tni_vec_reserve(&v, SIZE_MAX), TN_EMEMORY, "an overflowing size is refused");
    is_i64(tni_vec_reserve(&v, 5), 0, "room that is there is not made again");
    tni_vec_free(&v);
    ok(!v.v && !v.n && !v.cap, "free empties");
}

/* Records are reused, counted and made to fail like every other block. */
static void test_records(void) {
    int64_t live = tni_alloc_live(), asked = tni_alloc_count();
    char *p[300];
    int bad = 0;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 300; i++) {
            size_t size = (size_t)(1 + i * 3);
            p[i] = tni_record_alloc(size);
            if (!p[i]) return (void)ok(0, "no memory");
            memset(p[i], i, size);
        }
        for (int i = 0; i < 300; i++) bad += p[i][0] != (char)i || p[i][i * 3] != (char)i;
        for (int i = 0; i < 300; i++) tni_record_free(p[i], (size_t)(1 + i * 3));
    }
    is_i64(bad, 0, "records of 1 to 898 bytes keep their bytes");
    is_i64(tni_alloc_live(), live, "no record is live");
    is_i64(tni_alloc_count() - asked, 900, "every request counts");
    tni_fail_alloc_at(2);
    p[0] = tni_record_alloc(64), p[1] = tni_record_alloc(64);
    tni_fail_alloc_at(0);
    ok(p[0] && !p[1], "the second record fails");
    tni_record_free(p[0], 64);
    tni_record_free(NULL, 64);
}

int main(int argc, char **argv) {
    if (argc > 1) return child();
    test_basics();
    test_overflow();
    test_aligned();
    test_faults();
    test_environment(argv[0]);
    test_vec();
    test_records();
    return tap_done();
}
