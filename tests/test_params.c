/* Parameter trees: names, slots, gradients by what they hold, files. */
#include "base/alloc.h"
#include "tap.h"
#include "tenon/nn.h"
#include <math.h>
#include <stdio.h>
#include <unistd.h>

typedef struct model {
    tn_array *w, *b, *count;
    tn_array *leak; /* what a wrong function keeps */
    int mode;       /* of the function: what it does wrong, or 0 */
} model;

static tn_params *model_new(model *m) {
    *m = (model){0};
    tn_params *p = tn_params_new();
    if (!p) return NULL;
    float w[6] = {1, -2, 3, 0.5f, 4, -1};
    int status = 0;
    TN_SCOPE {
        status = tn_params_push(p, "layers.%d", 0);
        if (!status)
            status = tn_params_add(p, "weight", &m->w, tn_array_new(w, TN_F32, TN_SHAPE(2, 3)));
        if (!status) status = tn_params_add(p, "bias", &m->b, tn_ones(TN_SHAPE(2), TN_F32));
        tn_params_pop(p);
        if (!status) status = tn_params_add(p, "count", &m->count, tn_zeros(TN_SHAPE(), TN_F32));
    }
    if (!status) tn_params_freeze(p, "count", true);
    if (!status) return p;
    tn_params_free(p);
    return NULL;
}

/* sum of (w x + b)^2; counts its runs in a slot without gradient. */
static int loss(tn_list in, tn_array **out, int n_out, void *ud) {
    model *m = ud;
    tn_array *y = tn_add(tn_matmul(m->w, in.v[0]), m->b);
    out[0] = tn_sum(tn_mul(y, y), TN_ALL, false);
    if (n_out > 1) out[1] = y;
    int status = tn_assign(&m->count, tn_add(m->count, tn_sum(tn_mul(m->b, tn_f32(2)), TN_ALL, 0)));
    if (m->mode == 1) return TN_EVALUE;
    if (m->mode == 2) return tn_eval(TN_LIST(m->w));
    if (m->mode == 3) status = tn_assign(&m->w, tn_mul(m->w, tn_f32(0)));
    return status;
}

static void test_tree(void) {
    model m;
    tn_params *p = model_new(&m);
    is_i64(tn_params_count(p), 3, "three slots");
    is_i64(tn_params_size(p), 9, "nine numbers");
    is_i64(tn_params_trainable(p), 2, "two are trained");
    is_str(tn_params_name(p, 0), "layers.0.weight", "a pushed name");
    is_str(tn_params_name(p, 2), "count", "and one after the pop");
    is_str(tn_params_name(p, 3), "", "no name out of range");
    ok(!tn_params_slot(p, -1) && tn_params_slot(p, 1) == &m.b, "slots by number");
    is_i64(tn_params_find(p, "layers.0.bias"), 1, "found by name");
    is_i64(tn_params_find(p, "bias"), -1, "not by part of it");
    is_i64(tn_params_freeze(p, "*.b*s", true), 1, "a pattern");
    is_i64(tn_params_freeze(p, "layers", true), 0, "a pattern is of the whole name");
    is_i64(tn_params_freeze(p, "*", true), 3, "a star alone");
    ok(tn_params_frozen(p, 0) && !tn_params_trainable(p), "all frozen");
    is_i64(tn_params_slots(p).n, 3, "slots as a list");
    tn_array *other = NULL;
    TN_SCOPE {
        is_i64(tn_params_add(p, "count", &other, tn_f32(1)), TN_EVALUE, "a name twice");
        is_str(tn_error(), "params: there is a parameter count already", "says which");
        is_i64(tn_params_add(p, "", &other, tn_f32(1)), TN_EVALUE, "no name");
        tn_array *bad = tn_add(tn_zeros(TN_SHAPE(2), TN_F32), tn_zeros(TN_SHAPE(3), TN_F32));
        is_i64(tn_params_add(p, "bad", &other, bad), TN_ESHAPE, "an error array");
        ok(strstr(tn_error(), "bad: add"), "says which: %s", tn_error());
    }
    ok(!other && tn_params_count(p) == 3, "nothing was added");
    char *table = tn_params_summary(p);
    ok(table && strstr(table, "layers.0.weight  [2, 3]") && strstr(table, "frozen"), "a table");
    tn_free(table);
    tn_params_free(p);
    ok(!m.w && !m.b && !m.count, "slots are empty when the tree is gone");
    tn_params_free(NULL);
}

static void test_grad(void) {
    model m;
    tn_params *p = model_new(&m);
    float x[3] = {1, 2, -1}, gw[6], gb[2];
    TN_SCOPE {
        tn_array *w = m.w, *out[2], *grad[2];
        tn_list in = TN_LIST(tn_array_new(x, TN_F32, TN_SHAPE(3)));
        is_i64(tn_nn_value_and_grad(p, loss, &m, in, 2, out, grad), 0, "value and gradients");
        is_i64(tn_eval(TN_LIST(out[0], out[1], grad[0], grad[1], m.count)), 0, "evaluated");
        /* w x + b = (-6 + 1, 9.5 + 1); the sum of squares 25 + 110.25 */
        ok(tn_item_f32(out[0]) == 135.25f, "the value: %g", (double)tn_item_f32(out[0]));
        ok(!tn_read(grad[0], TN_F32, gw, sizeof gw) && !tn_read(grad[1], TN_F32, gb, sizeof gb),
           "read");
        ok(gw[0] == -10 && gw[1] == -20 && gw[2] == 10 && gw[3] == 21 && gw[5] == -21, "by w");
        ok(gb[0] == -10 && gb[1] == 21, "by b");
        ok(m.w == w, "the slot holds its array again");
        ok(tn_item_f32(m.count) == 4, "what the function assigned stays");
        m.mode = 3;
        is_i64(tn_nn_value_and_grad(p, loss, &m, in, 1, out, grad), 0, "assigning a parameter");
        ok(m.w != w && tn_item_f32(tn_sum(m.w, TN_ALL, false)) == 0, "stays too");
    }
    tn_params_free(p);
}

static void test_misuse(void) {
    model m;
    tn_params *p = model_new(&m);
    tn_array *w = m.w, *count = m.count, *out[1], *grad[2];
    TN_SCOPE {
        tn_list in = TN_LIST(tn_ones(TN_SHAPE(3), TN_F32));
        m.mode = 1;
        is_i64(tn_nn_value_and_grad(p, loss, &m, in, 1, out, grad), TN_EVALUE, "it failed");
        ok(m.w == w && m.count == count, "slots are as they were");
        is_i64(tn_array_status(grad[1]), TN_EVALUE, "gradients say so");
        m.mode = 2;
        is_i64(tn_nn_value_and_grad(p, loss, &m, in, 1, out, grad), TN_ESTATE, "evaluated inside");
        ok(m.w == w && m.count == count, "slots are as they were");
        m.mode = 0;
        in = TN_LIST(tn_ones(TN_SHAPE(4), TN_F32));
        is_i64(tn_nn_value_and_grad(p, loss, &m, in, 1, out, grad), TN_ESHAPE, "wrong shape");
        ok(m.w == w && m.count == count, "slots are as they were");
        is_i64(tn_nn_value_and_grad(p, NULL, &m, in, 1, out, grad), TN_EVALUE, "no function");
        tn_params_freeze(p, "*", true);
        is_i64(tn_nn_value_and_grad(p, loss, &m, in, 1, out, grad), TN_EVALUE, "all frozen");
    }
    tn_params_free(p);
}

static void test_files(void) {
    char path[] = "/tmp/tenon_params_XXXXXX";
    int fd = mkstemp(path);
    if (fd >= 0) close(fd);
    model m, n;
    tn_params *p = model_new(&m), *q = model_new(&n);
    tn_array *extra = NULL, *more = NULL;
    TN_SCOPE {
        is_i64(tn_assign(&m.w, tn_mul(m.w, tn_f32(3))), 0, "changed");
        is_i64(tn_params_save(p, path), 0, "saved");
        is_i64(tn_params_load(q, path, true), 0, "loaded");
        ok(tn_item_bool(tn_all(tn_equal(m.w, n.w), TN_ALL, false)), "the same");
        tn_array *w = n.w;
        is_i64(tn_params_add(p, "extra", &extra, tn_f32(1)), 0, "one more");
        is_i64(tn_params_load(p, path, true), TN_EFORMAT, "strict: one is missing");
        ok(strstr(tn_error(), "there is no parameter extra"), "says which: %s", tn_error());
        is_i64(tn_params_load(p, path, false), 0, "not strict");
        is_i64(tn_params_save(p, path), 0, "saved with it");
        is_i64(tn_params_load(q, path, true), TN_EFORMAT, "strict: one too many");
        ok(strstr(tn_error(), "extra is no parameter of this model"), "says which: %s", tn_error());
        is_i64(tn_assign(&m.w, tn_ones(TN_SHAPE(3, 2), TN_F32)), 0, "another shape");
        is_i64(tn_params_save(p, path), 0, "saved");
        is_i64(tn_params_load(q, path, false), TN_ESHAPE, "another shape is refused");
        ok(strstr(tn_error(), "layers.0.weight is [3, 2], but the parameter is [2, 3]"),
           "says it: %s", tn_error());
        ok(n.w == w, "nothing changed");
        is_i64(tn_params_load(q, "/nonexistent/file", true), TN_EFILE, "no file");
        is_i64(tn_params_add(q, "more", &more, tn_f32(0)), 0, "a scalar");
        is_i64(tn_params_save(q, "/nonexistent/file"), TN_EFILE, "no folder");
    }
    tn_params_free(p);
    tn_params_free(q);
    unlink(path);
}

/* One whole life; a status as soon as something fails. */
static int life(const char *path) {
    model m;
    tn_params *p = model_new(&m);
    if (!p) return TN_EMEMORY;
    int status = 0;
    TN_SCOPE {
        tn_array *out[1], *grad[2], *w = m.w;
        status =
            tn_nn_value_and_grad(p, loss, &m, TN_LIST(tn_ones(TN_SHAPE(3), TN_F32)), 1, out, grad);
        if (status && m.w != w) status = TN_EINTERNAL;
        if (!status) status = tn_eval(TN_LIST(out[0], grad[0], grad[1], m.count));
        if (!status) status = tn_params_save(p, path);
        if (!status) status = tn_params_load(p, path, true);
        char *table = status ? NULL : tn_params_summary(p);
        if (!status && !table) status = TN_EMEMORY;
        tn_free(table);
    }
    tn_params_free(p);
    return status;
}

/* Each allocation of a life fails once; the last status, and how many there were. */
static int fail_each(const char *path, int64_t *n) {
    int status = TN_EMEMORY;
    for (*n = 1; *n < 5000 && status == TN_EMEMORY; ++*n) {
        tni_fail_alloc_at(*n);
        status = life(path);
        tni_fail_alloc_at(0);
    }
    return status;
}

static void test_memory(void) {
    char path[] = "/tmp/tenon_params_XXXXXX";
    int fd = mkstemp(path);
    if (fd >= 0) close(fd);
    int64_t n, again;
    int status = fail_each(path, &n);
    ok(!status && n > 10, "each of %lld allocations failed cleanly (%s)", (long long)n,
       status ? tn_error() : "");
    int64_t live = tni_alloc_live(); /* threads have filled their stores of records by now */
    is_i64(fail_each(path, &again), 0, "and again");
    is_i64(tni_alloc_live(), live, "nothing leaks");
    unlink(path);
}

int main(void) {
    test_tree();
    test_grad();
    test_misuse();
    test_files();
    test_memory();
    return tap_done();
}
