/* The columns of a table, each brought to mean 0 and spread 1. Nothing runs before tn_eval, one
 * check there catches every failure, and the scope frees what was made inside it. */
#include <stdio.h>
#include <tenon/tenon.h>

int main(void) {
    const float table[4][3] = {{1, 10, 2}, {2, 20, 2}, {3, 30, 8}, {6, 60, 8}};
    TN_SCOPE {
        tn_array *x = tn_array_new(table, TN_F32, TN_SHAPE(4, 3));
        tn_array *mean = tn_mean(x, TN_AXES(0), true), *spread = tn_std(x, TN_AXES(0), true, 0);
        tn_array *scaled = tn_div(tn_sub(x, mean), spread); /* [1, 3] meets [4, 3] */
        if (tn_eval(TN_LIST(scaled))) return fprintf(stderr, "%s\n", tn_error()), 1;
        char text[256];
        tn_format(scaled, text, sizeof text);
        printf("%s\n", text);
        printf("sum of squares: %g\n", tn_item_f64(tn_sum(tn_square(scaled), TN_ALL, false)));
    }
    return 0;
}
