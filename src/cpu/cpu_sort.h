/* Sorting and scans. Contracts: ops/prims.h. */
#ifndef TNI_CPU_SORT_H
#define TNI_CPU_SORT_H

#include "core/backend.h"

int tni_cpu_sort(const tni_call *c);
int tni_cpu_argsort(const tni_call *c);
int tni_cpu_scan(const tni_call *c);

#endif
