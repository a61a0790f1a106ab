/* The allocator of base/alloc.h: malloc behind three counters. The fault counter
 * is armed once from TN_FAIL_ALLOC and later by tests; it counts down with relaxed
 * atomics because a test that needs an exact n-th allocation runs one thread. The other two are
 * kept by each thread for itself and added up when asked for: a shared counter would cost a
 * node of a graph a quarter of its price. */
#include "base/alloc.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALLOC_ALIGN = 64, ALLOC_HUGE = 2 << 20 };

/* Sanitizers must see every record come and go. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define ALLOC_DIRECT 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ALLOC_DIRECT 1
#endif
#ifndef ALLOC_DIRECT
#define ALLOC_DIRECT 0
#endif

enum { RECORD_STEP = 64, RECORD_CLASSES = 8, RECORD_KEEP = 256 };

typedef struct alloc_record {
    struct alloc_record *next;
} alloc_record;

/* What a thread counts, and the freed records that it keeps. Only the owner writes; a block
 * freed by another thread counts down there. */
typedef struct alloc_counts {
    _Atomic int64_t asked, live, stored; /* stored: taken from its own records */
    struct alloc_counts *next, **at;     /* in the list of threads that run */
    alloc_record *records[RECORD_CLASSES];
    int kept[RECORD_CLASSES];
} alloc_counts;

static _Atomic int64_t alloc_countdown;
static _Atomic bool alloc_env_read;
static pthread_mutex_t alloc_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t alloc_once = PTHREAD_ONCE_INIT;
static pthread_key_t alloc_key;
static alloc_counts *alloc_threads;
static int64_t alloc_asked_before, alloc_live_before,
    alloc_stored_before; /* of threads that have ended */
static _Thread_local alloc_counts alloc_mine;
static _Thread_local bool alloc_known;

static void alloc_thread_end(void *p) {
    alloc_counts *c = p;
    pthread_mutex_lock(&alloc_lock);
    alloc_asked_before += c->asked, alloc_live_before += c->live;
    alloc_stored_before += c->stored;
    c->asked = c->live = c->stored = 0;
    *c->at = c->next;
    if (c->next) c->next->at = c->at;
    pthread_mutex_unlock(&alloc_lock);
    for (int i = 0; i < RECORD_CLASSES; i++) {
        while (c->records[i]) {
            alloc_record *r = c->records[i];
            c->records[i] = r->next;
            free(r);
        }
        c->kept[i] = 0;
    }
    alloc_known = false; /* later destructors of the thread may still allocate and free */
}
static void alloc_make_key(void) { pthread_key_create(&alloc_key, alloc_thread_end); }

static __attribute__((noinline)) void alloc_enter(void) {
    pthread_once(&alloc_once, alloc_make_key);
    alloc_known = true;
    pthread_setspecific(alloc_key, &alloc_mine);
    pthread_mutex_lock(&alloc_lock);
    alloc_mine.next = alloc_threads, alloc_mine.at = &alloc_threads;
    if (alloc_threads) alloc_threads->at = &alloc_mine.next;
    alloc_threads = &alloc_mine;
    pthread_mutex_unlock(&alloc_lock);
}
static void alloc_bump(_Atomic int64_t *counter, int64_t by) {
    if (!alloc_known) alloc_enter();
    int64_t n = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, n + by, memory_order_relaxed);
}

static int64_t alloc_env_value(void) {
    const char *s = getenv("TN_FAIL_ALLOC");
    long long n = s ? strtoll(s, NULL, 10) : 0;
    return n > 0 ? n : 0;
}

/* The first caller arms the countdown; the exchange makes it exactly one of them. */
static void alloc_read_env(void) {
    if (atomic_exchange(&alloc_env_read, true)) return;
    int64_t n = alloc_env_value();
    if (n) atomic_store(&alloc_countdown, n);
}

static bool alloc_must_fail(void) {
    if (!atomic_load_explicit(&alloc_env_read, memory_order_relaxed)) alloc_read_env();
    alloc_bump(&alloc_mine.asked, 1);
    if (atomic_load_explicit(&alloc_countdown, memory_order_relaxed) <= 0) return false;
    return atomic_fetch_sub_explicit(&alloc_countdown, 1, memory_order_relaxed) == 1;
}

static void *alloc_counted(void *p) {
    if (p) alloc_bump(&alloc_mine.live, 1);
    return p;
}

void *tni_alloc(size_t size) {
    if (alloc_must_fail() || size > PTRDIFF_MAX) return NULL;
    return alloc_counted(malloc(size ? size : 1));
}

void *tni_calloc(size_t count, size_t size) {
    size_t bytes;
    if (alloc_must_fail() || __builtin_mul_overflow(count, size, &bytes) || bytes > PTRDIFF_MAX)
        return NULL;
    return alloc_counted(calloc(bytes ? bytes : 1, 1));
}

void *tni_alloc_array(size_t count, size_t size) {
    size_t bytes;
    return tni_alloc(__builtin_mul_overflow(count, size, &bytes) ? SIZE_MAX : bytes);
}

void *tni_realloc(void *p, size_t size) {
    if (alloc_must_fail() || size > PTRDIFF_MAX) return NULL;
    void *q = realloc(p, size ? size : 1);
    return p ? q : alloc_counted(q);
}

void tni_free(void *p) {
    if (!p) return;
    alloc_bump(&alloc_mine.live, -1);
    free(p);
}

void *tni_record_alloc(size_t size) {
    size_t class = (size - 1) / RECORD_STEP;
    if (alloc_must_fail()) return NULL;
    if (ALLOC_DIRECT || class >= RECORD_CLASSES) return alloc_counted(malloc(size));
    alloc_record *r = alloc_mine.records[class];
    if (!r) return alloc_counted(malloc((class + 1) * RECORD_STEP));
    alloc_mine.records[class] = r->next;
    alloc_mine.kept[class]--;
    alloc_bump(&alloc_mine.stored, 1);
    return alloc_counted(r);
}

void tni_record_free(void *p, size_t size) {
    size_t class = (size - 1) / RECORD_STEP;
    if (!p) return;
    alloc_bump(&alloc_mine.live, -1);
    if (ALLOC_DIRECT || class >= RECORD_CLASSES || alloc_mine.kept[class] == RECORD_KEEP) {
        free(p);
        return;
    }
    alloc_record *r = p;
    r->next = alloc_mine.records[class];
    alloc_mine.records[class] = r;
    alloc_mine.kept[class]++;
}

char *tni_strdup(const char *s) { return tni_strndup(s, strlen(s)); }

char *tni_strndup(const char *s, size_t n) {
    char *p = n < PTRDIFF_MAX ? tni_alloc(n + 1) : NULL;
    if (!p) return NULL;
    memcpy(p, s, n);
    p[n] = '\0';
    return p;
}

/* Large blocks start on a 2 MiB boundary, else the kernel cannot back their first
 * and last part with huge pages; the advice is allowed to be refused. */
void *tni_alloc_aligned(size_t size) {
    if (alloc_must_fail() || size > PTRDIFF_MAX - ALLOC_HUGE) return NULL;
    size_t align = size >= ALLOC_HUGE ? ALLOC_HUGE : ALLOC_ALIGN;
    void *p = NULL;
    if (posix_memalign(&p, align, size ? size : 1)) return NULL;
    if (size >= ALLOC_HUGE) madvise(p, size, MADV_HUGEPAGE);
    return alloc_counted(p);
}

void tni_free_aligned(void *p, size_t size) {
    (void)size;
    tni_free(p);
}

void tni_fail_alloc_at(int64_t n) {
    atomic_store(&alloc_env_read, true);
    atomic_store(&alloc_countdown, n > 0 ? n : 0);
}

int64_t tni_alloc_count(void) {
    pthread_mutex_lock(&alloc_lock);
    int64_t n = alloc_asked_before;
    for (alloc_counts *c = alloc_threads; c; c = c->next)
        n += atomic_load_explicit(&c->asked, memory_order_relaxed);
    pthread_mutex_unlock(&alloc_lock);
    return n;
}
bool tni_alloc_direct(void) { return ALLOC_DIRECT; }

int64_t tni_alloc_system(void) {
    int64_t asked = tni_alloc_count();
    pthread_mutex_lock(&alloc_lock);
    int64_t n = asked - alloc_stored_before;
    for (alloc_counts *c = alloc_threads; c; c = c->next)
        n -= atomic_load_explicit(&c->stored, memory_order_relaxed);
    pthread_mutex_unlock(&alloc_lock);
    return n;
}

int64_t tni_alloc_live(void) {
    pthread_mutex_lock(&alloc_lock);
    int64_t n = alloc_live_before;
    for (alloc_counts *c = alloc_threads; c; c = c->next)
        n += atomic_load_explicit(&c->live, memory_order_relaxed);
    pthread_mutex_unlock(&alloc_lock);
    return n;
}

void tni_alloc_idle(void) { alloc_bump(&alloc_mine.live, -1); }

bool tni_alloc_again(void) {
    if (alloc_must_fail()) return false;
    alloc_bump(&alloc_mine.stored, 1);
    alloc_bump(&alloc_mine.live, 1);
    return true;
}
