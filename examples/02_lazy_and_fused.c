/* Lazy and fused: calling an op only notes it down; tn_eval turns the whole expression into
 * one pass over memory. Seen here by looking at the graph before it runs, and at the bytes
 * that were in use: a chain of seven ops over 4 MB needs its input and its result, and no
 * memory for anything in between. */
#include <stdio.h>
#include <tenon/tenon.h>

enum { N = 1 << 20 };

/* The chain; `step` is called on every value on the way. */
static tn_array *chain(tn_array *x, tn_array *(*step)(tn_array *)) {
    tn_array *a = step(tn_tanh(step(tn_mul(x, tn_f32(0.5)))));
    a = step(tn_mul(step(tn_add(a, tn_f32(1))), x));
    return step(tn_add(step(tn_tanh(step(tn_add(a, tn_f32(1))))), tn_f32(1)));
}

static tn_array *lazily(tn_array *a) { return a; }

/* Computed here and now: by itself. A failure makes every later value an error array. */
static tn_array *at_once(tn_array *a) {
    int failed = tn_eval(TN_LIST(a));
    return failed ? tn_error_array(failed, "%s", tn_error()) : a;
}

static int measure(const char *how, tn_array *x, tn_array *(*step)(tn_array *)) {
    TN_SCOPE {
        tn_memory_reset_peak();
        size_t before = tn_memory_stats().active;
        tn_array *y = chain(x, step);
        if (tn_eval(TN_LIST(y))) return fprintf(stderr, "%s: %s\n", how, tn_error()), 1;
        size_t more = tn_memory_stats().peak - before;
        double mean = tn_item_f64(tn_mean(y, TN_ALL, false));
        printf("%-10s %2zu MB more, mean %.6f\n", how, more >> 20, mean);
    }
    return 0;
}

int main(void) {
    TN_SCOPE { /* few elements, so that they can be shown */
        tn_array *y = chain(tn_arange(0, 4, 1, TN_F32), lazily);
        printf("before: %s\n", tn_is_evaluated(y) ? "computed" : "not computed");
        char *graph = tn_graph_print(TN_LIST(y));
        printf("%s", graph ? graph : tn_error());
        tn_free(graph);
        char text[128];
        tn_format(y, text, sizeof text); /* reading computes */
        printf("after: %s, %s\n\n", tn_is_evaluated(y) ? "computed" : "not computed", text);
    }
    TN_SCOPE {
        tn_array *x = tn_linspace(-3, 3, N, TN_F32);
        if (tn_eval(TN_LIST(x))) return fprintf(stderr, "%s\n", tn_error()), 1;
        return measure("lazily", x, lazily) || measure("one by one", x, at_once);
    }
}
