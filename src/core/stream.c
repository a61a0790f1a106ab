/* Streams: one queue and one worker thread each, started with the first job. */
#include "core/stream.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/vec.h"
#include <pthread.h>
#include <stdio.h>

typedef struct stream_job {
    void (*fn)(void *ud);
    void *ud;
} stream_job;

struct tn_stream {
    pthread_mutex_t lock;
    pthread_cond_t wake, idle;
    TNI_VEC(stream_job) jobs; /* from `head` on */
    size_t head;
    bool running, stop, started;
    pthread_t worker;
    int status; /* earliest failure not yet reported */
    char message[512];
};

static tn_stream stream_default = {.lock = PTHREAD_MUTEX_INITIALIZER,
                                   .wake = PTHREAD_COND_INITIALIZER,
                                   .idle = PTHREAD_COND_INITIALIZER};
static _Thread_local tn_stream *stream_tls;     /* current */
static _Thread_local tn_stream *stream_serving; /* on a worker: its own stream */

tn_stream *tni_stream_current(void) { return stream_tls ? stream_tls : &stream_default; }

tn_stream *tn_use(tn_stream *s) {
    tn_stream *old = tni_stream_current();
    stream_tls = s;
    return old;
}

tn_stream *tn_stream_new(void) {
    tn_stream *s = tni_calloc(1, sizeof *s);
    if (!s) {
        tni_fail_memory(sizeof *s, "a stream");
        return NULL;
    }
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    pthread_cond_init(&s->idle, NULL);
    return s;
}

static void *stream_main(void *p) {
    tn_stream *s = stream_serving = stream_tls = p;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (s->head == s->jobs.n && !s->stop) pthread_cond_wait(&s->wake, &s->lock);
        if (s->head == s->jobs.n) break;
        stream_job job = s->jobs.v[s->head++];
        if (s->head == s->jobs.n) s->head = s->jobs.n = 0;
        s->running = true;
        pthread_mutex_unlock(&s->lock);
        job.fn(job.ud);
        pthread_mutex_lock(&s->lock);
        s->running = false;
        if (s->head == s->jobs.n) pthread_cond_broadcast(&s->idle);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void stream_stop(tn_stream *s) {
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_broadcast(&s->wake);
    bool started = s->started;
    s->started = false;
    pthread_mutex_unlock(&s->lock);
    if (started) pthread_join(s->worker, NULL);
    tni_vec_free(&s->jobs);
    s->head = 0, s->stop = false;
}

__attribute__((destructor)) static void stream_process_end(void) { stream_stop(&stream_default); }

void tn_stream_free(tn_stream *s) {
    if (!s || s == &stream_default) return;
    stream_stop(s);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->wake);
    pthread_cond_destroy(&s->idle);
    if (stream_tls == s) stream_tls = NULL;
    tni_free(s);
}

/* Waits, with the lock held, until nothing is queued or running. */
static void stream_drain(tn_stream *s) {
    while (stream_serving != s && (s->running || s->head != s->jobs.n))
        pthread_cond_wait(&s->idle, &s->lock);
}

int tni_stream_submit(tn_stream *s, void (*fn)(void *), void *ud) {
    pthread_mutex_lock(&s->lock);
    if (!s->started && pthread_create(&s->worker, NULL, stream_main, s)) {
        pthread_mutex_unlock(&s->lock);
        fn(ud); /* no thread to be had: the caller does the work */
        return 0;
    }
    s->started = true;
    int failed = tni_vec_push(&s->jobs, ((stream_job){fn, ud}));
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    if (failed) { /* no memory to queue it: in its order, on this thread */
        pthread_mutex_lock(&s->lock);
        stream_drain(s);
        pthread_mutex_unlock(&s->lock);
        fn(ud);
    }
    return 0;
}

int tn_wait(tn_stream *s) {
    if (!s) s = tni_stream_current();
    pthread_mutex_lock(&s->lock);
    stream_drain(s);
    int status = s->status;
    if (status) tni_fail(status, "%s", s->message);
    s->status = 0;
    pthread_mutex_unlock(&s->lock);
    return status;
}

void tni_stream_poison(tn_stream *s, int status, const char *message) {
    pthread_mutex_lock(&s->lock);
    if (!s->status) {
        s->status = status;
        snprintf(s->message, sizeof s->message, "%s", message);
    }
    pthread_mutex_unlock(&s->lock);
}

/* ---- events ---- */

static pthread_mutex_t event_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t event_cond = PTHREAD_COND_INITIALIZER;

tni_event *tni_event_new(tn_stream *s) {
    tni_event *e = tni_alloc(sizeof *e);
    if (!e) {
        tni_fail_memory(sizeof *e, "an event");
        return NULL;
    }
    atomic_init(&e->refs, 1);
    atomic_init(&e->done, 0);
    e->stream = s;
    return e;
}

void tni_event_retain(tni_event *e) {
    atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
}

void tni_event_release(tni_event *e) {
    if (e && atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) == 1) tni_free(e);
}

void tni_event_signal(tni_event *e) {
    pthread_mutex_lock(&event_lock);
    atomic_store_explicit(&e->done, 1, memory_order_release);
    pthread_cond_broadcast(&event_cond);
    pthread_mutex_unlock(&event_lock);
}

void tni_event_wait(tni_event *e) {
    if (atomic_load_explicit(&e->done, memory_order_acquire) || e->stream == stream_serving) return;
    pthread_mutex_lock(&event_lock);
    while (!atomic_load_explicit(&e->done, memory_order_acquire))
        pthread_cond_wait(&event_cond, &event_lock);
    pthread_mutex_unlock(&event_lock);
}
