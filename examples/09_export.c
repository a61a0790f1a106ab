/* A function in a file: written with its weights by one program, called, differentiated and mapped
 * by another that has neither. Here both are one program; only the file goes between them. */
#include <stdio.h>
#include <tenon/tenon.h>

static void print(const char *what, tn_array *a) {
    char text[256];
    if (tn_format(a, text, sizeof text) < 0) snprintf(text, sizeof text, "%s", tn_error());
    printf("%s %s\n", what, text);
}

/* ---- the program that has the weights ---- */

typedef struct net {
    tn_array *w, *b;
} net;

static int score(tn_list in, tn_array **out, int n_out, void *ud) { /* [3] or [n, 3] */
    const net *m = ud;
    (void)n_out;
    out[0] = tn_sigmoid(tn_add(tn_matmul(in.v[0], m->w), m->b));
    return 0;
}

static int save(const char *path) {
    const float w[] = {1, -2, 0.5f};
    int status = 0;
    TN_SCOPE {
        net m = {tn_array_new(w, TN_F32, TN_SHAPE(3)), tn_f32(0.25)};
        tn_exporter *e = tn_exporter_new(score, &m, 1);
        if (!e) return 1;
        status = tn_exporter_add(e, TN_LIST(tn_zeros(TN_SHAPE(3), TN_F32)));
        if (!status) /* for any number of rows: two examples say what may vary */
            status = tn_exporter_add_shapeless(e, TN_LIST(tn_zeros(TN_SHAPE(2, 3), TN_F32)),
                                               TN_LIST(tn_zeros(TN_SHAPE(5, 3), TN_F32)));
        if (!status) status = tn_exporter_save(e, path, "score of three measurements");
        tn_exporter_free(e);
    }
    return status;
}

/* ---- the program that has the file ---- */

static int use(const char *path) {
    tn_imported *f = tn_import(path);
    if (!f) return 1;
    printf("%s: %d signatures\n", tn_imported_text(f), tn_imported_traces(f));
    TN_SCOPE {
        tn_array *x = tn_arange(0, 12, 1, TN_F32), *one = tn_slice_axis(x, 0, 0, 3), *y, *g;
        tn_list four = TN_LIST(tn_reshape(x, TN_SHAPE(4, 3)));
        if (tn_imported_call(TN_LIST(one), &y, 1, f)) break;
        print("one:", y);
        if (tn_imported_call(four, &y, 1, f)) break;
        print("four:", y);
        if (tn_value_and_grad_of(tn_imported_call, f, TN_LIST(one), NULL, 1, 1, &y, &g)) break;
        print("gradient:", g);
        if (tn_vmap(tn_imported_call, f, four, TN_AXES(0), 1, TN_ALL, &y)) break;
        print("one by one:", y);
        if (!tn_imported_call(TN_LIST(x), &y, 1, f)) break;
        printf("twelve: %s\n", tn_status_name(tn_array_status(y)));
        tn_imported_free(f);
        return 0;
    }
    tn_imported_free(f);
    return 1;
}

int main(int argc, char **argv) {
    const char *path = argc > 1 ? argv[1] : "09_export.tenon";
    int failed = save(path) || use(path);
    if (failed) fprintf(stderr, "%s\n", tn_error());
    if (argc < 2) remove(path);
    return failed;
}
