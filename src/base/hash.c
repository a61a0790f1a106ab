/* Byte-string hash table. The hash multiplies 64x64 to 128 bits and folds the
 * halves, 16 bytes a step (the mixing step of wyhash, Wang Yi 2019, public
 * domain idea), keyed by 128 random bits drawn once a process: who writes a
 * vocabulary file cannot know them, so cannot aim at one bucket. */
#include "base/hash.h"
#include "base/alloc.h"
#include "tenon/status.h"
#include <stdatomic.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

struct tni_map_slot {
    const char *key; /* NULL: free */
    size_t len;
    uint64_t hash;
    int64_t value;
};

static _Atomic uint64_t hash_key[2]; /* zero until drawn; a drawn word is odd */

static uint64_t hash_mix(uint64_t a, uint64_t b) {
    __extension__ unsigned __int128 p = (unsigned __int128)a * b;
    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

/* Without getrandom (old kernels, filters) the clock and a randomised address
 * still differ from run to run. */
static uint64_t hash_entropy(int which) {
    uint64_t r;
    if (getrandom(&r, sizeof r, GRND_NONBLOCK) == (ssize_t)sizeof r) return r;
    struct timespec t = {0};
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t mix =
        hash_mix((uint64_t)t.tv_nsec + (uint64_t)t.tv_sec * 1000000007u, 0x9e3779b97f4a7c15u);
    return hash_mix(mix ^ (uint64_t)(uintptr_t)&r, 0xd1b54a32d192ed03u + (unsigned)which);
}

/* Threads may race to draw; the first store wins and all use it. */
static uint64_t hash_seed(int which) {
    uint64_t k = atomic_load_explicit(&hash_key[which], memory_order_relaxed);
    if (k) return k;
    uint64_t drawn = hash_entropy(which) | 1;
    return atomic_compare_exchange_strong(&hash_key[which], &k, drawn) ? drawn : k;
}

static uint64_t hash_load(const uint8_t *p, size_t n) {
    uint64_t v = 0;
    memcpy(&v, p, n);
    return v;
}

uint64_t tni_hash(const void *bytes, size_t n) {
    const uint8_t *p = bytes;
    uint64_t k0 = hash_seed(0), k1 = hash_seed(1), h = k0 ^ n * 0x9e3779b97f4a7c15u;
    for (; n > 16; p += 16, n -= 16) h = hash_mix(hash_load(p, 8) ^ k1, hash_load(p + 8, 8) ^ h);
    size_t low = n < 8 ? n : 8;
    uint64_t a = low ? hash_load(p, low) : 0, b = n > 8 ? hash_load(p + 8, n - 8) : 0;
    return hash_mix(hash_mix(a ^ k1, b ^ h), k0 ^ 0x2d358dccaa6c78a5u);
}

/* The slot of the key, or the free slot where it belongs; cap > n, so one is free. */
static struct tni_map_slot *hash_find(const tni_map *m, const char *key, size_t len, uint64_t h) {
    for (size_t i = (size_t)h & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
        struct tni_map_slot *s = &m->slots[i];
        if (!s->key || (s->hash == h && s->len == len && !memcmp(s->key, key, len))) return s;
    }
}

static int hash_rehash(tni_map *m, size_t cap) {
    tni_map to = {tni_calloc(cap, sizeof *to.slots), m->n, cap};
    if (!to.slots) return TN_EMEMORY;
    for (size_t i = 0; i < m->cap; i++) {
        struct tni_map_slot *s = &m->slots[i];
        if (s->key) *hash_find(&to, s->key, s->len, s->hash) = *s;
    }
    tni_free(m->slots);
    *m = to;
    return 0;
}

int tni_map_put(tni_map *m, const char *key, size_t len, int64_t value) {
    if (m->n >= m->cap / 8 * 5) { /* 5/8 full: about 1.4 probes a hit */
        if (m->cap > SIZE_MAX / 2) return TN_EMEMORY;
        if (hash_rehash(m, m->cap ? m->cap * 2 : 16)) return TN_EMEMORY;
    }
    uint64_t h = tni_hash(key, len);
    struct tni_map_slot *s = hash_find(m, key, len, h);
    if (!s->key) {
        *s = (struct tni_map_slot){len ? key : "", len, h, 0};
        m->n++;
    }
    s->value = value;
    return 0;
}

bool tni_map_get(const tni_map *m, const char *key, size_t len, int64_t *value) {
    if (!m->n) return false;
    const struct tni_map_slot *s = hash_find(m, len ? key : "", len, tni_hash(key, len));
    if (s->key && value) *value = s->value;
    return s->key != NULL;
}

void tni_map_free(tni_map *m) {
    tni_free(m->slots);
    *m = (tni_map){0};
}
