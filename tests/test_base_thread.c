/* The pool: coverage of the range, nesting, several callers, resizing, fork. */
#include "base/err.h"
#include "base/thread.h"
#include "tap.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N = 100003 };

typedef struct probe {
    _Atomic unsigned char hit[N];
    _Atomic int calls, bad_worker, bad_grain, busy[1025];
    int64_t grain;
} probe;

static void probe_run(void *ctx, int64_t begin, int64_t end, int worker) {
    probe *p = ctx;
    p->calls++;
    if (worker < 0 || worker >= tni_threads() || p->busy[worker]++) p->bad_worker++;
    if (end - begin > p->grain && begin) p->bad_grain++;
    for (int64_t i = begin; i < end; i++) p->hit[i]++;
    p->busy[worker]--;
}

static int covered_once(int64_t n, int64_t grain, int *calls) {
    probe *p = calloc(1, sizeof *p);
    p->grain = grain;
    tni_parallel(n, grain, probe_run, p);
    int bad = p->bad_worker + p->bad_grain;
    for (int64_t i = 0; i < N; i++) bad += p->hit[i] != (i < n);
    if (calls) *calls = p->calls;
    free(p);
    return !bad;
}

static void test_ranges(int threads) {
    static const int64_t n[] = {0, 1, 2, 999, 1000, 1001, N}, grain[] = {1, 7, 1000, INT64_MAX};
    int calls;
    tni_set_threads(threads);
    is_i64(tni_threads(), threads, "%d threads", threads);
    for (int i = 0; i < 7; i++)
        for (int g = 0; g < 4; g++)
            ok(covered_once(n[i], grain[g], &calls),
               "%" PRId64 " by %" PRId64 " in %d calls, each element once", n[i], grain[g], calls);
    covered_once(1000, 1000, &calls);
    is_i64(calls, 1, "one grain runs inline");
    covered_once(1000, 0, NULL);
    covered_once(-5, 1, &calls);
    is_i64(calls, 0, "a negative range is empty");
}

static void count_add(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    *(_Atomic int64_t *)ctx += end - begin;
}

static void nested(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    for (int64_t i = begin; i < end; i++) tni_parallel(100, 3, count_add, ctx);
}

static void test_nested(void) {
    _Atomic int64_t sum = 0;
    tni_parallel(50, 1, nested, &sum);
    is_i64(sum, 5000, "nested calls run inline and do everything");
}

static void huge(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    *(_Atomic uint64_t *)ctx += (uint64_t)(end - begin);
}

static void test_huge(void) {
    _Atomic uint64_t sum = 0;
    tni_parallel(INT64_MAX, INT64_MAX / 5, huge, &sum);
    is_i64(sum, INT64_MAX, "the largest range does not overflow");
}

static void *caller(void *arg) {
    _Atomic int64_t sum = 0;
    for (int i = 0; i < 300; i++) tni_parallel(64, 1, count_add, &sum);
    *(int64_t *)arg = sum;
    return NULL;
}

static void test_callers(void) {
    pthread_t t[6];
    int64_t sums[6];
    for (int i = 0; i < 6; i++) pthread_create(&t[i], NULL, caller, &sums[i]);
    for (int i = 0; i < 6; i++) pthread_join(t[i], NULL);
    for (int i = 0; i < 6; i++) is_i64(sums[i], 300 * 64, "caller %d got all its work done", i);
}

/* Workers park after about 1 ms; the pause is longer, so each round wakes them. */
static void test_parked(void) {
    _Atomic int64_t sum = 0;
    for (int i = 0; i < 20; i++) {
        usleep(5000);
        tni_parallel(1000, 10, count_add, &sum);
    }
    is_i64(sum, 20000, "parked workers come back");
}

static void slow(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)end;
    ((_Atomic int *)ctx)[worker] = 1;
    usleep(begin == 0 ? 1000 : 20000);
}

static void test_shares(void) {
    _Atomic int seen[4] = {0};
    tni_set_threads(4);
    tni_parallel(8, 1, slow, seen);
    is_i64(seen[0] + seen[1] + seen[2] + seen[3], 4, "all four threads take part");
}

static void test_resize(void) {
    _Atomic int64_t sum = 0;
    for (int i = 0; i < 60; i++) {
        tni_set_threads(1 + i * 7 % 9);
        if (i % 5 == 0) tni_pool_shutdown();
        tni_parallel(100, 1, count_add, &sum);
    }
    is_i64(sum, 6000, "resizing and shutting down between jobs loses nothing");
    is_i64(tni_set_threads(-1), TN_EVALUE, "a negative count is refused");
    is_i64(tni_set_threads(1025), TN_EVALUE, "and one too large");
    ok(strstr(tni_error(), "1025"), "%s", tni_error());
}

static void test_fork(void) {
    _Atomic int64_t sum = 0;
    tni_set_threads(4);
    tni_parallel(100, 1, count_add, &sum);
    pid_t pid = fork();
    if (!pid) {
        sum = 0;
        tni_parallel(1000, 1, count_add, &sum);
        _exit(sum == 1000 ? 0 : 1);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    ok(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a forked child has its own workers");
    tni_parallel(100, 1, count_add, &sum);
    is_i64(sum, 200, "the parent goes on");
}

static int child_threads(const char *self, const char *value) {
    char cmd[4096];
    snprintf(cmd, sizeof cmd, "TENON_NUM_THREADS='%s' %s '%s' child", value, tap_runner(), self);
    int rc = system(cmd);
    return WIFEXITED(rc) ? WEXITSTATUS(rc) : -1;
}

int main(int argc, char **argv) {
    if (argc > 1) return tni_threads() & 255;
    is_i64(child_threads(argv[0], "3"), 3, "TENON_NUM_THREADS=3");
    ok(child_threads(argv[0], "0") >= 1 &&
           child_threads(argv[0], "4x") == child_threads(argv[0], ""),
       "a value that is no count is ignored");
    test_ranges(1);
    test_ranges(4);
    test_ranges(9);
    test_nested();
    test_huge();
    test_callers();
    test_parked();
    test_shares();
    test_resize();
    if (tap_runner()[0])
        skip("qemu-user cannot start threads in a forked child", "fork");
    else
        test_fork();
    tni_pool_shutdown();
    return tap_done();
}
