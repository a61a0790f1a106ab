/* The map against a plain list, hostile keys, failures; the hash's spread. */
#include "base/alloc.h"
#include "base/hash.h"
#include "tap.h"
#include "tenon/status.h"
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_map(void) {
    enum { N = 20000 };
    tni_map m = {0};
    int64_t v = -1;
    ok(!tni_map_get(&m, "x", 1, &v) && v == -1, "an empty map has nothing");
    char(*keys)[16] = tni_alloc(sizeof *keys * N);
    int bad = 0;
    for (int i = 0; i < N; i++) {
        snprintf(keys[i], sizeof keys[i], "key%d", i);
        bad |= tni_map_put(&m, keys[i], strlen(keys[i]), i);
    }
    for (int i = 0; i < N; i++) bad |= !tni_map_get(&m, keys[i], strlen(keys[i]), &v) || v != i;
    is_i64(bad, 0, "%d keys found", N);
    is_i64(m.n, N, "counted");
    ok(!tni_map_get(&m, "key", 3, &v), "a prefix of a key is another key");
    ok(tni_map_get(&m, "key7", 4, NULL), "the value need not be asked for");
    tni_map_put(&m, keys[7], 4, -7);
    ok(tni_map_get(&m, "key7", 4, &v) && v == -7 && m.n == N, "put replaces");
    tni_map_put(&m, "", 0, 5);
    ok(tni_map_get(&m, NULL, 0, &v) && v == 5, "the empty key");
    tni_map_put(&m, "a\0b", 3, 6);
    ok(!tni_map_get(&m, "a\0c", 3, &v) && tni_map_get(&m, "a\0b", 3, &v) && v == 6,
       "NUL bytes count");
    tni_map_free(&m);
    tni_free(keys);
}

static void test_failures(void) {
    static const char text[] = "abcdefghijklmnopqrstuvwxyz";
    int64_t live = tni_alloc_live();
    for (int n = 1; n < 10; n++) {
        tni_map m = {0};
        int put = 0, code = 0;
        tni_fail_alloc_at(n);
        for (; put < 26 && !code; put += !code) code = tni_map_put(&m, text + put, 1, put);
        tni_fail_alloc_at(0);
        int64_t v, bad = 0;
        for (int i = 0; i < put; i++) bad += !tni_map_get(&m, text + i, 1, &v) || v != i;
        ok(!bad && (code == 0 || code == TN_EMEMORY) && m.n == (size_t)put,
           "failure %d: old keys stay", n);
        tni_map_free(&m);
        is_i64(tni_alloc_live(), live, "no leak");
        if (!code) break;
    }
}

/* 65536 similar keys of every length into 256 buckets of low bits: each has about 256;
 * eight standard deviations (128) would not be chance. */
static void test_spread(void) {
    for (size_t len = 2; len <= 40; len += 19) {
        int count[256] = {0}, worst = 0;
        for (int i = 0; i < 65536; i++) {
            char key[40] = {0};
            key[len - 1] = (char)i;
            key[0] = (char)(i >> 8);
            count[tni_hash(key, len) & 255]++;
        }
        for (int i = 0; i < 256; i++)
            worst = abs(count[i] - 256) > worst ? abs(count[i] - 256) : worst;
        ok(worst < 128, "keys of %zu bytes spread (worst bucket is off by %d)", len, worst);
    }
    char zeros[64] = {0};
    int same = 0;
    for (size_t n = 1; n < 64; n++) same += tni_hash(zeros, n) == tni_hash(zeros, n - 1);
    is_i64(same, 0, "zero bytes of different lengths differ");
}

static uint64_t child_hash(const char *self) {
    char cmd[4096];
    unsigned long long h = 0;
    snprintf(cmd, sizeof cmd, "%s '%s' child", tap_runner(), self);
    FILE *p = popen(cmd, "r");
    if (p && fscanf(p, "%llx", &h) != 1) h = 0;
    if (p) pclose(p);
    return h;
}

int main(int argc, char **argv) {
    if (argc > 1) return printf("%llx\n", (unsigned long long)tni_hash("tenon", 5)), 0;
    test_map();
    test_failures();
    test_spread();
    ok(tni_hash("tenon", 5) == tni_hash("tenon", 5), "one process, one hash");
    uint64_t a = child_hash(argv[0]), b = child_hash(argv[0]);
    ok(a && b && a != b, "two processes, two seeds");
    return tap_done();
}
