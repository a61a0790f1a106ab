/* The nodes behind some arrays, each after those whose outputs it takes. Iterative: a chain of a
 * million nodes is an ordinary graph. */
#ifndef TNI_TRANS_NODES_H
#define TNI_TRANS_NODES_H

#include "base/vec.h"
#include "core/prim.h"

typedef struct tni_nodes {
    uint64_t epoch; /* their mark (tni_plan_epoch); nodes that have it already are leaves */
    TNI_VEC(tni_node *) order;
    int64_t n_slots; /* outputs of all; node->index is the slot of a node's first, -1: a leaf */
} tni_nodes;

/* Adds what is behind `root` and not yet there. Leaves: what is marked before, with index -1, and
 * tracers. 0, TN_EMEMORY, or TN_EVALUE: more than 2^31 outputs. */
int tni_nodes_add(tni_nodes *l, const tn_array *root);
void tni_nodes_free(tni_nodes *l);

#endif
