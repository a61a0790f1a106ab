/* Arrays, expressions, one evaluation: the mean and spread of the columns of a table.
 * Nothing in the scope is freed by hand, and one check catches every failure. */
#include <stdio.h>
#include <tenon/tenon.h>

static void show(const char *name, tn_array *a) {
    char text[256];
    tn_format(a, text, sizeof text);
    printf("%s = %s\n", name, text);
}

int main(void) {
    const float table[4][3] = {{1, 10, 2}, {2, 20, 2}, {3, 30, 8}, {6, 60, 8}};
    TN_SCOPE {
        tn_array *x = tn_array_new(table, TN_F32, TN_SHAPE(4, 3));
        tn_array *mean = tn_mean(x, TN_AXES(0), true);
        tn_array *spread = tn_std(x, TN_AXES(0), true, 0);
        tn_array *scaled = tn_div(tn_sub(x, mean), spread); /* [1, 3] meets [4, 3] */
        if (tn_eval(TN_LIST(mean, scaled))) return fprintf(stderr, "%s\n", tn_error()), 1;
        show("mean", mean);
        show("scaled", scaled);
        printf("sum of squares = %g\n", tn_item_f64(tn_sum(tn_square(scaled), TN_ALL, false)));
    }
    return 0;
}
