/* The buffer pool. Sizes are rounded to classes (four an octave, pages from 1 MiB on), so
 * that a freed block fits the next request of about its size; classes are looked up by
 * exact size, large blocks first-fit within 1/8. One mutex: an allocation costs about as
 * much as malloc's slow path, and data-sized work follows it. */
#include "core/buffer.h"
#include "base/alloc.h"
#include "base/err.h"
#include <pthread.h>

enum { POOL_CLASSES = 4 * 48, POOL_LARGE = 1 << 20, POOL_PAGE = 4096 };

typedef struct pool_block {
    struct pool_block *next;
    size_t size;
} pool_block;

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static pool_block *pool_free[POOL_CLASSES]; /* small, by class */
static pool_block *pool_large;              /* from POOL_LARGE on */
static size_t pool_active, pool_peak, pool_cache, pool_limit;
static size_t pool_cache_limit = (size_t)1 << 30;

/* Rounds up to 64, 80, 96, 112, 128, 160 ... and numbers the classes. */
static size_t pool_round(size_t n, int *class) {
    if (n >= POOL_LARGE) {
        *class = -1;
        return (n + POOL_PAGE - 1) & ~(size_t)(POOL_PAGE - 1);
    }
    if (n < 64) n = 64;
    int e = 63 - __builtin_clzll((unsigned long long)(n - 1) | 1); /* 2^e <= n-1 < 2^(e+1) */
    size_t step = (size_t)1 << (e - 2);
    size_t size = (n + step - 1) & ~(step - 1);
    *class = 4 * (e - 5) + (int)((size - ((size_t)1 << e)) / step) - 1;
    return size;
}

static void *pool_take(int class, size_t *size) {
    pool_block **at = class < 0 ? &pool_large : &pool_free[class];
    for (; *at; at = &(*at)->next) {
        pool_block *b = *at;
        if (class < 0 && (b->size < *size || b->size - *size > *size / 8)) continue;
        *at = b->next;
        *size = b->size;
        pool_cache -= b->size;
        return b;
    }
    return NULL;
}

/* Lets go of cached blocks until at most `keep` bytes are cached. Called with the lock. */
static void pool_trim(size_t keep) {
    while (pool_cache > keep && pool_large) {
        pool_block *b = pool_large;
        pool_large = b->next;
        pool_cache -= b->size;
        tni_free_aligned(b, b->size);
    }
    for (int c = POOL_CLASSES - 1; c >= 0 && pool_cache > keep; c--)
        while (pool_free[c] && pool_cache > keep) {
            pool_block *b = pool_free[c];
            pool_free[c] = b->next;
            pool_cache -= b->size;
            tni_free_aligned(b, b->size);
        }
}

static void pool_account(size_t size) {
    pool_active += size;
    if (pool_active > pool_peak) pool_peak = pool_active;
}

static void *pool_alloc(size_t bytes, size_t *size) {
    int class;
    *size = pool_round(bytes, &class);
    pthread_mutex_lock(&pool_lock);
    if (pool_limit && *size > pool_limit - (pool_active < pool_limit ? pool_active : pool_limit)) {
        size_t active = pool_active, limit = pool_limit;
        pthread_mutex_unlock(&pool_lock);
        tni_fail(TN_EMEMORY, "out of memory: %zu bytes asked for, %zu in use, limit %zu", bytes,
                 active, limit);
        return NULL;
    }
    void *p = pool_take(class, size);
    if (!p) {
        p = tni_alloc_aligned(*size);
        if (!p && pool_cache) {
            pool_trim(0);
            p = tni_alloc_aligned(*size);
        }
    }
    if (p) pool_account(*size);
    pthread_mutex_unlock(&pool_lock);
    if (!p) tni_fail_memory(bytes, "an array");
    return p;
}

static void pool_give(void *p, size_t size) {
    int class;
    pool_round(size, &class);
    pthread_mutex_lock(&pool_lock);
    pool_active -= size;
    if (size > pool_cache_limit) {
        tni_free_aligned(p, size);
    } else {
        if (pool_cache + size > pool_cache_limit) pool_trim(pool_cache_limit - size);
        pool_block *b = p, **at = class < 0 ? &pool_large : &pool_free[class];
        b->next = *at, b->size = size, *at = b;
        pool_cache += size;
    }
    pthread_mutex_unlock(&pool_lock);
}

tni_buffer *tni_buffer_new(size_t bytes) {
    tni_buffer *b = tni_record_alloc(sizeof *b);
    if (!b) {
        tni_fail_memory(sizeof *b, "a buffer record");
        return NULL;
    }
    *b = (tni_buffer){.refs = 1};
    b->data = pool_alloc(bytes, &b->size);
    if (b->data) return b;
    tni_record_free(b, sizeof *b);
    return NULL;
}

tni_buffer *tni_buffer_wrap(void *data, size_t bytes, void (*release)(void *), void *ud) {
    tni_buffer *b = tni_record_alloc(sizeof *b);
    if (!b) {
        tni_fail_memory(sizeof *b, "a buffer record");
        return NULL;
    }
    *b = (tni_buffer){
        .refs = 1, .data = data, .size = bytes, .release = release, .ud = ud, .borrowed = true};
    return b;
}

tni_buffer *tni_buffer_planned(uint64_t address, size_t bytes) {
    tni_buffer *b = tni_record_alloc(sizeof *b);
    if (!b) {
        tni_fail_memory(sizeof *b, "a buffer record");
        return NULL;
    }
    *b =
        (tni_buffer){.refs = 1, .data = (void *)(uintptr_t)address, .size = bytes, .planned = true};
    return b;
}

void tni_buffer_retain(tni_buffer *b) {
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
}

void tni_buffer_release(tni_buffer *b) {
    if (!b || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1) return;
    if (!b->borrowed && !b->planned)
        pool_give(b->data, b->size);
    else if (b->release)
        b->release(b->ud);
    tni_record_free(b, sizeof *b);
}

tn_memory tn_memory_stats(void) {
    pthread_mutex_lock(&pool_lock);
    tn_memory m = {pool_active, pool_peak, pool_cache, pool_limit};
    pthread_mutex_unlock(&pool_lock);
    return m;
}

void tn_memory_reset_peak(void) {
    pthread_mutex_lock(&pool_lock);
    pool_peak = pool_active;
    pthread_mutex_unlock(&pool_lock);
}

size_t tn_memory_set_limit(size_t bytes) {
    pthread_mutex_lock(&pool_lock);
    size_t old = pool_limit;
    pool_limit = bytes;
    pthread_mutex_unlock(&pool_lock);
    return old;
}

size_t tn_memory_set_cache_limit(size_t bytes) {
    pthread_mutex_lock(&pool_lock);
    size_t old = pool_cache_limit;
    pool_cache_limit = bytes;
    pool_trim(bytes);
    pthread_mutex_unlock(&pool_lock);
    return old;
}

void tn_memory_clear_cache(void) {
    pthread_mutex_lock(&pool_lock);
    pool_trim(0);
    pthread_mutex_unlock(&pool_lock);
}
