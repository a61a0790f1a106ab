/* The worker pool. One word, pool_state, carries the whole protocol:
 *     generation (20 bits) | open (1 bit) | workers inside (11 bits)
 * A caller writes the job, then publishes a new generation with `open` set. A
 * worker goes in by adding one to the count of an open generation it has not seen,
 * takes chunk numbers until there are none, and subtracts one. The caller takes
 * chunks too, then clears `open` and waits for the count to reach zero. A worker
 * that wakes too late finds the job closed and costs nobody any time; the job's
 * fields are only written while nobody is inside. The same word is the futex
 * that idle workers sleep on. There are no locks to hold across fork(). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include "base/thread.h"
#include "base/err.h"
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    THREAD_MAX = 1024,
    THREAD_COUNT_MASK = 0x7ff,
    THREAD_OPEN = 0x800,
    THREAD_GENERATION = 0x1000, /* one step of it */
    THREAD_SPIN_NS = 1000000,
    THREAD_SPIN_CROWDED_NS = 20000, /* more threads than cores: spinning takes from others */
};

typedef struct thread_job {
    tni_range_fn fn;
    void *ctx;
    int64_t n, grain, chunks;
} thread_job;

static _Alignas(64) _Atomic uint32_t thread_state;
static _Alignas(64) _Atomic int64_t thread_next; /* next chunk number to hand out */
static _Alignas(64) _Atomic int thread_sleepers;
static _Alignas(64) thread_job thread_current;
static _Atomic bool thread_owned; /* who holds this may publish, start and stop */
static _Atomic bool thread_stop;
static _Atomic int thread_wanted; /* 0: not decided yet */
static _Atomic int64_t thread_spin_ns;
static int thread_running; /* workers alive; the owner's, as is the next */
static int thread_asked;   /* workers last tried for: failing is not repeated */
static pthread_t thread_ids[THREAD_MAX];
static _Thread_local bool thread_inside;

static inline void thread_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t thread_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* A cpu_set_t holds 1024 processors; on a larger machine the call fails with EINVAL. */
static int thread_cores(void) {
    cpu_set_t set;
    long n =
        sched_getaffinity(0, sizeof set, &set) ? sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
    return n < 1 ? 1 : n > THREAD_MAX ? THREAD_MAX : (int)n;
}

static int thread_default(void) {
    const char *s = getenv("TENON_NUM_THREADS");
    char *end = NULL;
    long n = s ? strtol(s, &end, 10) : 0;
    return s && end != s && !*end && n >= 1 && n <= THREAD_MAX ? (int)n : thread_cores();
}

int tni_threads(void) {
    int n = atomic_load_explicit(&thread_wanted, memory_order_relaxed);
    if (n) return n;
    int first = thread_default();
    return atomic_compare_exchange_strong(&thread_wanted, &n, first) ? first : n;
}

static void thread_wake(int n) {
    syscall(SYS_futex, &thread_state, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

/* The kernel compares the word again, so a job published in between is not slept over;
 * the publisher looks at the sleepers after the word is changed. */
static void thread_sleep(uint32_t state) {
    atomic_fetch_add(&thread_sleepers, 1);
    if (!atomic_load(&thread_stop))
        syscall(SYS_futex, &thread_state, FUTEX_WAIT_PRIVATE, state, NULL, NULL, 0);
    atomic_fetch_sub(&thread_sleepers, 1);
}

static void thread_work(const thread_job *job, int worker) {
    int64_t c;
    while ((c = atomic_fetch_add_explicit(&thread_next, 1, memory_order_relaxed)) < job->chunks) {
        int64_t begin = c * job->grain, left = job->n - begin;
        job->fn(job->ctx, begin, begin + (left < job->grain ? left : job->grain), worker);
    }
}

static bool thread_is_new(uint32_t state, uint32_t seen) {
    return (state & THREAD_OPEN) && (state ^ seen) >= THREAD_GENERATION;
}

/* Spins, then sleeps, until a new job is open or the pool stops. */
static uint32_t thread_await(uint32_t seen) {
    int64_t until = thread_now_ns() + atomic_load_explicit(&thread_spin_ns, memory_order_relaxed);
    for (unsigned i = 1;; i++) {
        uint32_t s = atomic_load_explicit(&thread_state, memory_order_acquire);
        if (thread_is_new(s, seen) || atomic_load_explicit(&thread_stop, memory_order_relaxed))
            return s;
        thread_pause();
        if (i % 32 || thread_now_ns() < until) continue;
        thread_sleep(s);
        until = thread_now_ns() + atomic_load_explicit(&thread_spin_ns, memory_order_relaxed);
    }
}

static void *thread_main(void *arg) {
    int worker = (int)(intptr_t)arg;
    uint32_t seen = 0;
    thread_inside = true;
    while (!atomic_load(&thread_stop)) {
        uint32_t s = thread_await(seen);
        if (!thread_is_new(s, seen) || !atomic_compare_exchange_strong(&thread_state, &s, s + 1))
            continue;
        seen = s & ~(uint32_t)(THREAD_GENERATION - 1);
        thread_work(&thread_current, worker);
        atomic_fetch_sub_explicit(&thread_state, 1, memory_order_release);
    }
    return NULL;
}

static bool thread_try_own(void) {
    return !atomic_load_explicit(&thread_owned, memory_order_relaxed) &&
           !atomic_exchange_explicit(&thread_owned, true, memory_order_acquire);
}

static void thread_disown(void) {
    atomic_store_explicit(&thread_owned, false, memory_order_release);
}

/* In the child of a fork only the forking thread exists: forget the workers. */
static void thread_forked(void) {
    atomic_store(&thread_state, 0);
    atomic_store(&thread_sleepers, 0);
    atomic_store(&thread_stop, false);
    thread_running = thread_asked = 0;
    thread_inside = false;
    thread_disown();
}

static void thread_stop_all(void) {
    atomic_store(&thread_stop, true);
    atomic_fetch_add(&thread_state, THREAD_GENERATION);
    thread_wake(INT_MAX);
    while (thread_running > 0) pthread_join(thread_ids[--thread_running], NULL);
    thread_asked = 0;
    atomic_store(&thread_stop, false);
    atomic_store(&thread_state, 0);
}

static void thread_register(void) { pthread_atfork(NULL, NULL, thread_forked); }

/* Signals go to the program's own threads. Fewer workers than asked is no error. */
static void thread_start(int workers) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    sigset_t all, old;
    pthread_once(&once, thread_register);
    if (thread_running > workers) thread_stop_all();
    thread_asked = workers;
    atomic_store(&thread_spin_ns,
                 workers < thread_cores() ? THREAD_SPIN_NS : THREAD_SPIN_CROWDED_NS);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (thread_running < workers) {
        void *id = (void *)(intptr_t)(thread_running + 1);
        if (pthread_create(&thread_ids[thread_running], NULL, thread_main, id)) break;
        thread_running++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void thread_publish(void) {
    uint32_t s = atomic_load_explicit(&thread_state, memory_order_relaxed);
    uint32_t next = (s & ~(uint32_t)(THREAD_GENERATION - 1)) + THREAD_GENERATION;
    if (!next) next = THREAD_GENERATION; /* 0 is what a new worker has seen */
    atomic_store(&thread_state, next | THREAD_OPEN);
    int asleep = atomic_load(&thread_sleepers);
    int64_t useful = thread_current.chunks - 1;
    if (asleep) thread_wake(useful < asleep ? (int)useful : asleep);
}

static void thread_join(void) {
    atomic_fetch_and(&thread_state, ~(uint32_t)THREAD_OPEN);
    for (unsigned i = 1;
         atomic_load_explicit(&thread_state, memory_order_acquire) & THREAD_COUNT_MASK; i++) {
        thread_pause();
        if (i % 4096 == 0) sched_yield();
    }
}

void tni_parallel(int64_t n, int64_t grain, tni_range_fn fn, void *ctx) {
    if (n <= 0) return;
    if (grain < 1) grain = 1;
    int threads = n <= grain || thread_inside ? 1 : tni_threads();
    if (threads == 1 || !thread_try_own()) {
        fn(ctx, 0, n, 0);
        return;
    }
    if (thread_asked != threads - 1) thread_start(threads - 1);
    thread_current = (thread_job){fn, ctx, n, grain, n / grain + (n % grain != 0)};
    atomic_store_explicit(&thread_next, 0, memory_order_relaxed);
    thread_inside = true;
    thread_publish();
    thread_work(&thread_current, 0);
    thread_join();
    thread_inside = false;
    thread_disown();
}

int tni_set_threads(int n) {
    if (n < 0 || n > THREAD_MAX)
        return tni_fail(TN_EVALUE, "%d threads: 0 (the default) to %d are possible", n, THREAD_MAX);
    atomic_store(&thread_wanted, n ? n : thread_default());
    return 0;
}

void tni_pool_shutdown(void) {
    if (thread_inside) return;
    while (!thread_try_own()) sched_yield();
    thread_stop_all();
    thread_disown();
}

/* A worker must not outlive the code it runs, should the library be unloaded. At exit
 * another thread may be in the middle of a job; it is left alone then. */
__attribute__((destructor)) static void thread_unload(void) {
    if (thread_inside || !thread_try_own()) return;
    thread_stop_all();
    thread_disown();
}
