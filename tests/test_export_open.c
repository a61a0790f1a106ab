/* Open traces of exported functions: right for sizes that were not traced, gradients too; functions
 * that cannot be open are refused with a sentence; damaged files and failing allocations. */
#include "exported.h"
#include "free_cases.h"
#include <math.h>

static tn_imported *import_open(tn_fns fn, void *ud, tn_array *a, tn_array *b, int n_out) {
    tn_exporter *e = tn_exporter_new(fn, ud, n_out);
    if (!e) return NULL;
    int status = tn_exporter_add_shapeless(e, TN_LIST(a), TN_LIST(b));
    if (!status) status = tn_exporter_save(e, path, NULL);
    tn_exporter_free(e);
    return status ? NULL : tn_import(path);
}

static void check_open(const char *name, tn_fns fn, tn_fns imported, tn_imported *f, void *ud,
                       tn_array *x, int n_out) {
    tn_array *want[2], *got[2];
    tn_random_seed(3);
    int status = fn(TN_LIST(x), want, n_out, ud);
    tn_random_seed(3);
    if (!status) status = f ? imported(TN_LIST(x), got, n_out, f) : 1;
    if (!status) status = tn_graph_check((tn_list){got, n_out});
    bool equal = !status;
    for (int k = 0; k < n_out && equal; k++) equal = same(want[k], got[k]);
    ok(equal, "%s for [%d,%d,%d]%s%s", name, (int)x->shape[0], (int)x->shape[1], (int)x->shape[2],
       status ? ": " : "", status ? tn_error() : "");
}

/* Every structural primitive is in a case or in its gradient. */
static void test_coverage(void) {
    bool seen[TNI_OP_COUNT] = {false};
    for (int k = 0; k < FREE_COUNT; k++)
        TN_SCOPE {
            tn_array *x = cube_of(2, 5, 4), *y[2];
            case_mark(free_cases[k].fn(x), seen);
            if (!free_grad(TN_LIST(x), y, 2, &k)) case_mark(y[1], seen);
        }
    for (int id = 0; id < TNI_OP_EW; id++) ok(seen[id], "%s is in a case", tni_prims[id].name);
}

static void test_open(void) {
    static const int64_t sizes[][2] = {{2, 6}, {3, 9}, {5, 7}, {1, 4}, {4, 1}, {7, 12}};
    for (int k = 0; k < FREE_COUNT; k++)
        TN_SCOPE {
            char name[64];
            tn_array *a = cube_of(2, 5, 4), *b = cube_of(3, 8, 4);
            bool pairs =
                !strcmp(free_cases[k].name, "gather") || !strcmp(free_cases[k].name, "scatter");
            tn_imported *f = import_open(free_fns, &k, a, b, 1);
            if (!f) diag("%s", tn_error());
            for (int s = 0; s < 6; s++) {
                tn_array *x = cube_of(sizes[s][0], sizes[s][1], 4);
                bool one = s == 4 && (!strcmp(free_cases[k].name, "places")); /* linspace of one */
                if (one || (pairs && sizes[s][0] < 2) ||
                    (s == 4 && !strcmp(free_cases[k].name, "conv_flat")) ||
                    (s == 4 && !strcmp(free_cases[k].name, "pool")))
                    continue;
                snprintf(name, sizeof name, "open %s", free_cases[k].name);
                check_open(name, free_fns, tn_imported_call, f, &k, x, 1);
            }
            tn_imported_free(f);
            tn_array *y[2];
            bool none = free_grad(TN_LIST(a), y, 2, &k);
            f = import_open(free_grad, &k, a, b, 2);
            snprintf(name, sizeof name, "gradient in open %s", free_cases[k].name);
            if (!f) diag("%s", tn_error());
            if (none)
                ok(!f, "%s has no gradient: %s", free_cases[k].name, tn_error());
            else if (!strcmp(free_cases[k].name, "conv_two"))
                ok(!f && says("a setting of conv", "not found"),
                   "padding that depends on a remainder");
            else
                check_open(name, free_grad, tn_imported_call, f, &k, cube_of(4, 11, 4), 2);
            tn_imported_free(f);
            f = import_open(free_loss_fns, &k, a, b, 1);
            snprintf(name, sizeof name, "gradient of open %s", free_cases[k].name);
            if (!none) check_open(name, free_grad, imported_grad, f, &k, cube_of(4, 11, 4), 2);
            tn_imported_free(f);
        }
}

/* Functions that cannot be open, and how that is said. */
static int closed(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_array *x = in.v[0];
    int64_t t = tn_dim(x, 1);
    float v[64] = {0};
    (void)n_out;
    out[0] = x;
    switch (*(int *)ud) {
    case 0:
        out[0] = t > 6 ? tn_neg(x) : x;
        break;
    case 1:
        out[0] = t > 6 ? tn_neg(x) : tn_exp(x);
        break;
    case 2:
        out[0] = tn_add(tn_swapaxes(x, 1, 2), tn_array_new(v, TN_F32, TN_SHAPE(t)));
        break;
    case 3:
        out[0] = tn_mul(x, tn_f32(sqrt((double)t)));
        break;
    case 4:
        out[0] = tn_f32((double)t);
        break;
    case 5:
        out[0] = tn_slice_axis(x, 1, 0, (t * t * t) % 5 + 1);
        break;
    case 6:
        out[0] = t > 8 ? tn_error_array(TN_EVALUE, "too long") : x;
        break;
    default:
        out[0] = tn_add(tn_swapaxes(x, 1, 2), tn_arange(0, (double)(t * t), (double)t, TN_F32));
    }
    return 0;
}

static void test_closed(void) {
    static const char *const why[] = {"other things for other sizes",
                                      "other things for other sizes",
                                      "an array that add takes",
                                      "a number of mul",
                                      "result 0 depends",
                                      "the shape of slice",
                                      "too long",
                                      NULL};
    TN_SCOPE {
        tn_array *a = cube_of(2, 5, 4), *b = cube_of(3, 8, 4);
        for (int k = 0; k < 8; k++) {
            tn_imported *f = import_open(closed, &k, a, b, 1);
            ok(why[k] ? !f && says("export", why[k]) : f != NULL, "function %d: %s", k,
               f ? "is open" : tn_error());
            if (f) check_open("squares", closed, tn_imported_call, f, &k, cube_of(4, 7, 4), 1);
            tn_imported_free(f);
        }
        int k = 0;
        tn_exporter *e = tn_exporter_new(free_fns, &k, 1);
        is_i64(tn_exporter_add_shapeless(NULL, TN_LIST(a), TN_LIST(b)), TN_EVALUE, "no exporter");
        is_i64(tn_exporter_add_shapeless(e, TN_LIST(a), TN_LIST(a)), TN_EVALUE, "the same sizes");
        is_i64(tn_exporter_add_shapeless(e, TN_LIST(a), TN_LIST(a, b)), TN_EVALUE, "another count");
        is_i64(tn_exporter_add_shapeless(e, TN_LIST(a), TN_LIST(NULL)), TN_EVALUE,
               "a NULL argument");
        is_i64(tn_exporter_add_shapeless(e, TN_LIST(a), TN_LIST(tn_astype(b, TN_F16))), TN_ESHAPE,
               "another dtype");
        is_i64(tn_exporter_add_shapeless(e, TN_LIST(a), TN_LIST(tn_flatten(b, 0, 1))), TN_ESHAPE,
               "other axes");
        is_i64(tn_exporter_save(e, path, NULL), TN_EVALUE, "nothing was added");
        is_i64(tn_exporter_add_shapeless(e, TN_LIST(a), TN_LIST(b)), 0, "and then something");
        is_i64(tn_exporter_add(e, TN_LIST(a)), TN_EVALUE, "not the same sizes again");
        is_i64(tn_exporter_add(e, TN_LIST(b)), 0, "but others of their own");
        is_i64(tn_exporter_save(e, path, NULL), 0, "is saved");
        tn_exporter_free(e);
        tn_imported *f = tn_import(path);
        tn_array *y;
        tn_ints shape = tn_imported_argument(f, 0, 0, NULL);
        ok(shape.n == 3 && shape.v[0] == -1 && shape.v[1] == -2 && shape.v[2] == 4,
           "sizes are free");
        is_i64(tn_imported_call(TN_LIST(cube_of(9, 9, 5)), &y, 1, f), TN_ESHAPE, "not all of them");
        ok(says("(float32[9,9,5])", "the first takes (float32[-1,-2,4])"), "says so");
        tn_imported_free(f);
    }
}

/* Two arguments whose sizes agree: they must in every call. */
static int products(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)ud, (void)n_out;
    out[0] = tn_add(tn_matmul(in.v[0], in.v[1]), in.v[2]);
    return 0;
}

static void test_equal_sizes(void) {
    tn_array *want, *y;
#define MATRIX(n, m) tn_random_normal(TN_SHAPE(n, m), TN_F32, tn_random_key(1))
    TN_SCOPE {
        tn_exporter *e = tn_exporter_new(products, NULL, 1);
        tn_array *number = tn_f32(3);
        int status = tn_exporter_add_shapeless(e, TN_LIST(MATRIX(2, 3), MATRIX(3, 5), number),
                                               TN_LIST(MATRIX(4, 9), MATRIX(9, 8), number));
        if (!status) status = tn_exporter_save(e, path, NULL);
        tn_exporter_free(e);
        tn_imported *f = status ? NULL : tn_import(path);
        tn_list in = TN_LIST(MATRIX(7, 6), MATRIX(6, 1), number);
        status = f ? tn_imported_call(in, &y, 1, f) : 1;
        products(in, &want, 1, NULL);
        ok(!status && same(want, y), "sizes that agree%s%s", status ? ": " : "", tn_error());
        is_i64(tn_imported_call(TN_LIST(MATRIX(7, 6), MATRIX(7, 1), number), &y, 1, f), TN_ESHAPE,
               "must agree");
        ok(says("no trace takes", "[-1,-2], float32[-2,-3]"), "says so");
        tn_imported_free(f);
    }
}

/* ---- damage, memory ---- */

static void test_damage_of_open(void) {
    size_t n = 0;
    int k = 0, silent = 0;
    for (; strcmp(free_cases[k].name, "attention"); k++) continue;
    TN_SCOPE {
        tn_imported_free(import_open(free_grad, &k, cube_of(2, 5, 4), cube_of(3, 8, 4), 2));
    }
    char *bytes = contents(path, &n);
    ok(try_bytes(bytes, n) == 1, "an open file of %d bytes", (int)n);
    int refused = try_mended(bytes, n, &silent);
    ok(!silent && refused > 1000, "changed, %d are refused, others run", refused);
    tni_free(bytes);
}

static int open_trip(tn_array *x, tn_array **y) {
    int k = 4; /* means: numbers that are inverses */
    tn_imported *f = import_open(free_grad, &k, cube_of(2, 3, 2), cube_of(3, 4, 2), 2);
    if (!f) return tni_error_code();
    int status = tn_imported_call(TN_LIST(x), y, 2, f);
    if (!status) status = tn_eval(TN_LIST(y[0], y[1]));
    tn_imported_free(f);
    return status;
}

static int open_fails_at(int n, tn_array *x, int64_t *left) {
    tn_array *y[2];
    int status = 0;
    *left = -tni_alloc_live();
    TN_SCOPE {
        tni_fail_alloc_at(n);
        status = open_trip(x, y);
        tni_fail_alloc_at(0);
    }
    *left += tni_alloc_live();
    return status;
}

static void test_memory_of_open(void) {
    TN_SCOPE {
        tn_array *x = cube_of(5, 6, 2), *y[2];
        ok(!tn_eval(TN_LIST(x)) && !open_trip(x, y), "open, with memory");
        int n = 1, wrong = 0, refused = 0;
        int64_t left, all = -tni_alloc_count();
        all += open_trip(x, y) ? 0 : tni_alloc_count();
        for (; n <= all; n += n < 100 ? 1 : 7) {
            int status = open_fails_at(n, x, &left); /* 0: there was another way */
            refused += status != 0;
            wrong += status && (status != TN_EMEMORY || !*tn_error());
            if (left) (void)open_fails_at(n, x, &left); /* not what is kept for reuse */
            wrong += left != 0;
            if (left) diag("allocation %d: %d blocks left", n, (int)left);
        }
        ok(!wrong && refused > 150, "open, %d of %d allocations fail", refused, (int)all);
    }
}

int main(void) {
    if (!begin()) return 1;
    test_coverage();
    test_open();
    test_closed();
    test_equal_sizes();
    test_damage_of_open();
    test_memory_of_open();
    return end();
}
