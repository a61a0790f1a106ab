/* Scopes: a stack of handles a thread; a scope is the part of the stack above its base. The
 * root scope is the part below the first scope and is freed when the thread ends. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/vec.h"
#include "core/array.h"
#include <pthread.h>

enum { SCOPE_SPARES = 16 };

struct tn_scope {
    tn_scope *parent;
    size_t base;    /* handles below belong to the parents */
    unsigned nulls; /* scopes that could not be had between this one and its parent */
};

typedef struct scope_thread {
    TNI_VEC(tn_array *) handles;
    tn_scope *top;
    tn_scope *spare; /* freed records, so that a loop's scopes cost no malloc */
    int spares;
    unsigned nulls; /* scopes that could not be had, begun since `top` */
} scope_thread;

static _Thread_local scope_thread *scope_tls;
static pthread_key_t scope_key;
static pthread_once_t scope_once = PTHREAD_ONCE_INIT;
static tn_scope
    scope_null; /* stands for a scope that could not be had: its handles go to the parent */

static void scope_pop(scope_thread *t, size_t base) {
    while (t->handles.n > base) {
        tn_array *a = t->handles.v[--t->handles.n];
        atomic_fetch_sub_explicit(&a->scoped, 1, memory_order_relaxed);
        tni_array_release(a);
    }
}

static void scope_free_all(tn_scope *s) {
    while (s) {
        tn_scope *parent = s->parent;
        tni_free(s);
        s = parent;
    }
}

static void scope_thread_end(void *p) {
    scope_thread *t = p;
    scope_tls = t;
    scope_pop(t, 0);
    scope_free_all(t->top);
    scope_free_all(t->spare);
    tni_vec_free(&t->handles);
    tni_free(t);
    scope_tls = NULL;
}

/* The main thread's destructor does not run at exit; its root scope is freed here. */
__attribute__((destructor)) static void scope_process_end(void) {
    if (scope_tls) {
        scope_thread *t = scope_tls;
        pthread_setspecific(scope_key, NULL);
        scope_thread_end(t);
    }
}

static void scope_make_key(void) { pthread_key_create(&scope_key, scope_thread_end); }

static scope_thread *scope_get(void) {
    if (scope_tls) return scope_tls;
    pthread_once(&scope_once, scope_make_key);
    scope_thread *t = tni_calloc(1, sizeof *t);
    if (t && pthread_setspecific(scope_key, t)) tni_free(t), t = NULL;
    return scope_tls = t;
}

tn_array *tni_scope_own(tn_array *a) {
    if (a->flags & TNI_A_STATIC) return a;
    scope_thread *t = scope_get();
    if (!t || tni_vec_push(&t->handles, a)) {
        tni_array_release(a);
        tni_fail_memory(sizeof(void *), "a scope's handle");
        return tni_oom();
    }
    atomic_fetch_add_explicit(&a->scoped, 1, memory_order_relaxed);
    return a;
}

tn_array *tni_scope_again(tn_array *a) {
    tni_array_retain(a);
    return tni_scope_own(a);
}

tn_scope *tn_scope_begin(void) {
    scope_thread *t = scope_get();
    tn_scope *s = t ? t->spare : NULL;
    if (s)
        t->spare = s->parent, t->spares--;
    else if (t)
        s = tni_alloc(sizeof *s);
    if (!s) {
        if (t) t->nulls++;
        return &scope_null;
    }
    *s = (tn_scope){t->top, t->handles.n, t->nulls};
    t->nulls = 0;
    return t->top = s;
}

static bool scope_is_open(const scope_thread *t, const tn_scope *s) {
    for (const tn_scope *k = t ? t->top : NULL; k; k = k->parent)
        if (k == s) return true;
    return false;
}

static void scope_put_by(scope_thread *t, tn_scope *s) {
    if (t->spares == SCOPE_SPARES) {
        tni_free(s);
        return;
    }
    s->parent = t->spare;
    t->spare = s, t->spares++;
}

void tn_scope_end(tn_scope *s) {
    scope_thread *t = scope_tls;
    if (s == &scope_null && t && t->nulls) t->nulls--;
    if (!scope_is_open(t, s)) return; /* the null scope, one ended already, or another thread's */
    scope_pop(t, s->base);
    for (tn_scope *k = t->top;; k = t->top) {
        t->top = k->parent, t->nulls = k->nulls;
        bool last = k == s;
        scope_put_by(t, k);
        if (last) return;
    }
}

/* Moves the newest handle to `a` at or above `from` down to position `to` and tells whether
 * there was one: the handle that stood there takes its place. */
static bool scope_move(scope_thread *t, tn_array *a, size_t from, size_t to) {
    for (size_t i = t->handles.n; i-- > from;)
        if (t->handles.v[i] == a) {
            t->handles.v[i] = t->handles.v[to];
            t->handles.v[to] = a;
            return true;
        }
    return false;
}

tn_array *tn_escape(tn_array *a) {
    scope_thread *t = scope_tls;
    if (t && t->nulls) return a; /* what a null scope makes is its parent's already */
    if (t && t->top && tni_alive(a) && scope_move(t, a, t->top->base, t->top->base)) t->top->base++;
    return a;
}

int tn_scope_eval(tn_scope *s, tn_list list) {
    scope_thread *t = scope_tls;
    if (scope_is_open(t, s)) {
        while (t->top != s) tn_scope_end(t->top);
        t->nulls = 0;
        for (int i = 0; i < list.n; i++) tn_escape(list.v[i]);
    }
    tn_scope_end(s);
    return tn_eval(list);
}
