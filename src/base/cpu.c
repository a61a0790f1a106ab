/* Processor features. A vector unit counts only when the operating system also
 * saves its registers (XGETBV), else the first use would fault. AMX is reported
 * where the processor has it; asking the kernel for its tile state is the user's. */
#include "base/cpu.h"
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tni_cpu cpu_info;

static const char *const cpu_isa_names[TNI_ISA_COUNT] = {
    [TNI_ISA_REF] = "ref",
    [TNI_ISA_NEON] = "neon",
    [TNI_ISA_AVX2] = "avx2",
    [TNI_ISA_AVX512] = "avx512",
};

#if defined(__x86_64__)
#include <cpuid.h>

enum { CPU_XCR0_AVX = 0x6, CPU_XCR0_AVX512 = 0xe6, CPU_XCR0_AMX = 0x60000 };

static uint64_t cpu_xgetbv(void) {
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static void cpu_read_name(char name[64]) {
    uint32_t r[12];
    if ((unsigned)__get_cpuid_max(0x80000000u, NULL) < 0x80000004u) return;
    for (unsigned i = 0; i < 3; i++)
        __get_cpuid(0x80000002u + i, &r[4 * i], &r[4 * i + 1], &r[4 * i + 2], &r[4 * i + 3]);
    memcpy(name, r, sizeof r);
    name[48] = '\0';
    size_t lead = strspn(name, " ");
    memmove(name, name + lead, 49 - lead);
}

/* Bits as in the Intel SDM, volume 2, CPUID leaves 1, 7.0 and 7.1. */
static void cpu_detect(tni_cpu *c) {
    uint32_t a, b, d, c1, b7, c7, d7, a71 = 0;
    if (!__get_cpuid(1, &a, &b, &c1, &d) || !(c1 >> 27 & 1)) return; /* no OSXSAVE */
    uint64_t xcr0 = cpu_xgetbv();
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7)) return;
    if (a >= 1) __get_cpuid_count(7, 1, &a71, &b, &a, &d);
    bool fma_f16c_avx = (c1 >> 12 & 1) && (c1 >> 29 & 1) && (c1 >> 28 & 1);
    bool ymm = (xcr0 & CPU_XCR0_AVX) == CPU_XCR0_AVX;
    bool zmm = (xcr0 & CPU_XCR0_AVX512) == CPU_XCR0_AVX512;
    uint32_t v3 = 1u << 5 | 1u << 3 | 1u << 8;                          /* AVX2, BMI1, BMI2 */
    uint32_t v4 = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31; /* F DQ CD BW VL */
    c->avx2 = ymm && fma_f16c_avx && (b7 & v3) == v3;
    c->avx512 = c->avx2 && zmm && (b7 & v4) == v4;
    c->vnni = c->avx512 && (c7 >> 11 & 1);
    c->vbmi = c->avx512 && (c7 >> 1 & 1);
    c->avx512_bf16 = c->avx512 && (a71 >> 5 & 1);
    c->amx_int8 = (xcr0 & CPU_XCR0_AMX) == CPU_XCR0_AMX && (d7 >> 25 & 1);
    cpu_read_name(c->name);
}

#elif defined(__aarch64__)
#include <sys/auxv.h>

/* Bits of AT_HWCAP and AT_HWCAP2, Linux arch/arm64/include/uapi/asm/hwcap.h. */
static void cpu_detect(tni_cpu *c) {
    unsigned long cap = getauxval(AT_HWCAP), cap2 = getauxval(AT_HWCAP2);
    bool half = (cap >> 9 & 1) && (cap >> 10 & 1); /* FPHP, ASIMDHP */
    c->dotprod = cap >> 20 & 1;
    c->neon = (cap >> 1 & 1) && half && c->dotprod;
    c->i8mm = c->neon && (cap2 >> 13 & 1);
    c->bf16 = c->neon && (cap2 >> 14 & 1);
    snprintf(c->name, sizeof c->name, "aarch64");
}

#else
static void cpu_detect(tni_cpu *c) { snprintf(c->name, sizeof c->name, "generic"); }
#endif

static enum tni_isa cpu_best(const tni_cpu *c) {
    if (c->avx512 && c->vnni && c->vbmi && c->avx512_bf16) return TNI_ISA_AVX512;
    if (c->avx2) return TNI_ISA_AVX2;
    return c->neon ? TNI_ISA_NEON : TNI_ISA_REF;
}

/* A level of the other architecture never equals or lies below the best one here,
 * but for NEON < AVX2 in the enum: x86 has no NEON kernels, hence the test. */
static bool cpu_may_lower(const tni_cpu *c, enum tni_isa to) {
    return to <= c->isa && (to != TNI_ISA_NEON || c->neon);
}

static void cpu_init(void) {
    cpu_detect(&cpu_info);
    cpu_info.isa = cpu_best(&cpu_info);
    const char *want = getenv("TENON_ISA");
    for (int i = 0; want && i < TNI_ISA_COUNT; i++)
        if (!strcmp(want, cpu_isa_names[i]) && cpu_may_lower(&cpu_info, (enum tni_isa)i)) {
            cpu_info.isa = (enum tni_isa)i;
            break;
        }
}

const tni_cpu *tni_cpu_info(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, cpu_init);
    return &cpu_info;
}

const char *tni_isa_name(enum tni_isa isa) {
    return (unsigned)isa < TNI_ISA_COUNT ? cpu_isa_names[isa] : "unknown";
}
