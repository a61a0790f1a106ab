/* The instruction sets of this machine that the element-wise machines are built for. */
#ifndef TESTS_ISAS_H
#define TESTS_ISAS_H

#include "base/cpu.h"
#include "cpu/vm.h"

static const tni_vm_isa *isas[4];
static int n_isas;

static inline void find_isas(void) {
    const tni_cpu *c = tni_cpu_info();
    isas[n_isas++] = tni_vm_ref();
    (void)c;
#if defined(__x86_64__)
    if (c->avx2) isas[n_isas++] = tni_vm_avx2();
    if (c->avx512) isas[n_isas++] = tni_vm_avx512();
#elif defined(__aarch64__)
    isas[n_isas++] = tni_vm_neon();
#endif
}

#endif
