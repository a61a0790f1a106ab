/* Derivative columns as graphs: what multiplies a cotangent or a tangent. */
#ifndef TNI_OPS_GRAD_COLUMNS_H
#define TNI_OPS_GRAD_COLUMNS_H

#include "core/array.h"

/* Words of a column that are not factors: marks to compare with, never to be used as arrays. */
extern char tni_grad_marks[3];
#define TNI_GRAD_ONE  ((tn_array *)(void *)&tni_grad_marks[0])
#define TNI_GRAD_ZERO ((tn_array *)(void *)&tni_grad_marks[1])
#define TNI_GRAD_CONJ ((tn_array *)(void *)&tni_grad_marks[2])

typedef struct tni_grad_row {
    tn_dtype dtype;          /* that numbers of the column get */
    tn_array *a, *b, *c, *y; /* operands and result */
    tn_ints axes;            /* reductions: the reduced axes, all 0 or more */
} tni_grad_row;

/* The column of operand k of the element-wise row e (enum tni_ew), and of reduction `red`. */
tn_array *tni_grad_column(int e, int k, const tni_grad_row *r);
tn_array *tni_grad_red_column(int red, const tni_grad_row *r);

#endif
