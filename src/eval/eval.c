/* tn_eval, tn_async_eval and tn_commit. */
#include "base/alloc.h"
#include "base/err.h"
#include "eval/flat.h"
#include "eval/plan.h"
#include "eval/run.h"

static int eval_check(tn_list list, const char *what) {
    for (int i = 0; i < list.n; i++) {
        tn_array *a = list.v[i];
        if (!tni_alive(a))
            return tni_fail(TN_ESTATE,
                            "%s: array %d of the list is NULL or was freed (its scope has ended)",
                            what, i);
        if (tni_is_error(a)) return tni_fail(a->status, "%s", tn_array_error(a));
    }
    return 0;
}

/* Scheduled arrays: wait, and report one that failed. */
static int eval_wait(tn_list list) {
    for (int i = 0; i < list.n; i++) {
        tn_array *a = list.v[i];
        if (tni_state_of(a) == TNI_SCHEDULED) tni_event_wait(a->event);
        if (tni_is_error(a)) return tni_fail(a->status, "%s", tn_array_error(a));
    }
    return 0;
}

static bool eval_all_ready(tn_list list) {
    for (int i = 0; i < list.n; i++)
        if (tni_state_of(list.v[i]) == TNI_LAZY) return false;
    return true;
}

int tn_eval(tn_list list) {
    int status = eval_check(list, "eval");
    if (status) return status;
    if (list.n == 1 && !tni_recording && tni_single_fits(list.v[0]))
        return tni_run_single(list.v[0]);
    if (!eval_all_ready(list)) {
        tni_plan p;
        tni_plan_init(&p);
        status = tni_plan_make(&p, list, false);
        if (!status) status = tni_plan_run(&p);
        tni_plan_free(&p);
    }
    return status ? status : eval_wait(list);
}

int tn_commit(tn_array **slots, tn_list news, tn_list also) {
    int status = eval_check(news, "commit");
    if (!status) status = eval_check(also, "commit");
    if (status) return status;
    for (int i = 0; i < news.n; i++) {
        tni_array_retain(news.v[i]);
        tn_array *old = slots[i];
        slots[i] = news.v[i];
        tni_array_release(old);
    }
    if (!also.n) return tn_eval(news);
    tn_array **all = tni_alloc_array((size_t)(news.n + also.n), sizeof *all);
    if (!all) return tni_fail_memory((size_t)(news.n + also.n) * sizeof *all, "commit's list");
    for (int i = 0; i < news.n; i++) all[i] = news.v[i];
    for (int i = 0; i < also.n; i++) all[news.n + i] = also.v[i];
    status = tn_eval((tn_list){all, news.n + also.n});
    tni_free(all);
    return status;
}

/* ---- asynchronous ---- */

/* The arrays the plan will store: what callers can see change, retained until then. */
static int eval_hold(tni_plan *p) {
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) n += (size_t)p->order[i]->n_out;
    p->held = tni_alloc_array(n, sizeof *p->held);
    if (!p->held) return tni_fail_memory(n * sizeof *p->held, "an evaluation plan");
    for (size_t i = 0; i < p->n; i++) {
        tni_node *node = p->order[i];
        bool root = p->groups[node->group].root == node->index;
        for (int k = 0; k < node->n_out; k++) {
            tn_array *a = node->out[k];
            if (!a || tni_array_orphaned(a) || (!root && !tni_plan_stored(p, a))) continue;
            p->held[p->n_held++] = a;
        }
    }
    for (size_t i = 0; i < p->n_held; i++) {
        tn_array *a = p->held[i];
        /* The plan's own reference must not look like somebody else's need for it. */
        a->uses = TNI_TARGET;
        tni_array_retain(a);
        tni_event_retain(a->event = p->event);
        atomic_store_explicit(&a->state, TNI_SCHEDULED, memory_order_release);
    }
    return 0;
}

static void eval_worker(void *ud) {
    tni_plan *p = ud;
    int status = tni_plan_run(p);
    for (size_t i = 0; status && i < p->n_held; i++)
        if (tni_state_of(p->held[i]) == TNI_SCHEDULED)
            tni_array_poison(p->held[i], status, tni_error());
    if (status) tni_stream_poison(p->event->stream, status, tni_error());
    tni_event_signal(p->event);
    tni_plan_free(p);
    tni_free(p);
}

int tn_async_eval(tn_list list) {
    int status = eval_check(list, "async_eval");
    if (status || eval_all_ready(list)) return status;
    tni_plan *p = tni_alloc(sizeof *p);
    if (!p) return tni_fail_memory(sizeof *p, "an evaluation plan");
    tni_plan_init(p);
    status = tni_plan_make(p, list, true);
    if (!status) status = eval_hold(p);
    if (!status) return tni_stream_submit(p->event->stream, eval_worker, p);
    tni_plan_free(p);
    tni_free(p);
    return status;
}
