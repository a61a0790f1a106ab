/* What is left of a graph, in words. */
#ifndef TESTS_OP_NAMES_H
#define TESTS_OP_NAMES_H

#include "tenon/tenon.h"
#include <string.h>

/* Names of the graph's ops in order, as "neg add". */
static inline void op_names(tn_list list, char *names, size_t size) {
    char *text = tn_graph_print(list);
    size_t n = 0;
    for (const char *p = text ? text : ""; *p; p = strchr(p, '\n') + 1) {
        p = strstr(p, " = ") + 3;
        size_t len = strcspn(p, "(");
        if (n + len + 2 > size) break;
        if (n) names[n++] = ' ';
        memcpy(names + n, p, len);
        n += len;
    }
    names[n] = 0;
    tn_free(text);
}

#endif
