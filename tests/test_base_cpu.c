/* Processor features are consistent and TENON_ISA only lowers; f16 and bf16 bits. */
#include "base/cpu.h"
#include "base/half.h"
#include "tap.h"
#include <math.h>
#include <stdlib.h>
#include <sys/wait.h>

static int child_isa(const char *self, const char *value) {
    char cmd[4096];
    snprintf(cmd, sizeof cmd, "TENON_ISA=%s %s '%s' child", value, tap_runner(), self);
    int rc = system(cmd);
    return WIFEXITED(rc) ? WEXITSTATUS(rc) : -1;
}

static void test_cpu(const char *self) {
    const tni_cpu *c = tni_cpu_info();
    diag("%s: %s", c->name, tni_isa_name(c->isa));
    ok(c->name[0], "the processor has a name");
    ok(!c->avx512 || c->avx2, "AVX-512 implies AVX2");
    ok(c->isa != TNI_ISA_AVX512 || (c->avx512 && c->vnni && c->vbmi && c->avx512_bf16),
       "the avx512 level has all its parts");
    ok(c->isa != TNI_ISA_NEON || (c->neon && c->dotprod), "the neon level has the dot product");
    is_i64(child_isa(self, "ref"), TNI_ISA_REF, "TENON_ISA=ref lowers");
    is_i64(child_isa(self, "bogus"), child_isa(self, ""), "an unknown level is ignored");
    int got = child_isa(self, "avx2"), best = child_isa(self, "");
    ok(got == (best >= TNI_ISA_AVX2 ? TNI_ISA_AVX2 : best), "avx2 where there is AVX2");
    got = child_isa(self, "neon");
    ok(got == best || c->neon, "neon is nothing to an x86 processor");
    is_str(tni_isa_name((enum tni_isa)99), "unknown", "no such level");
}

static void test_f16(void) {
    int bad = 0;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = tni_f16_to_f32((uint16_t)h);
        uint16_t back = tni_f32_to_f16(f);
        bool nan = (h & 0x7c00) == 0x7c00 && (h & 0x3ff);
        bad += nan ? !isnan(f) || (back & 0x7e00) != 0x7e00 : back != h;
    }
    is_i64(bad, 0, "every f16 comes back, NaN as a quiet NaN");
    is_i64(tni_f32_to_f16(65519.0f), 0x7bff, "65519 rounds to the largest");
    is_i64(tni_f32_to_f16(65520.0f), 0x7c00, "65520 to infinity");
    is_i64(tni_f32_to_f16(0x1p-25f), 0, "half the least subnormal ties to zero");
    is_i64(tni_f32_to_f16(0x1.000002p-25f), 1, "a little more does not");
    is_i64(tni_f32_to_f16(1.0f + 0x1p-11f), 0x3c00, "tie to even, down");
    is_i64(tni_f32_to_f16(1.0f + 0x3p-11f), 0x3c02, "tie to even, up");
    is_i64(tni_f32_to_f16(-0.0f), 0x8000, "negative zero");
}

/* Between neighbours a and b every value goes to the nearer: the midpoint decides. */
static void test_f16_rounding(void) {
    int bad = 0;
    for (uint16_t h = 0; h < 0x7bff; h++) {
        float a = tni_f16_to_f32(h), b = tni_f16_to_f32((uint16_t)(h + 1)), mid = (a + b) / 2;
        bad += tni_f32_to_f16(nextafterf(mid, a)) != h ||
               tni_f32_to_f16(nextafterf(mid, b)) != h + 1 ||
               tni_f32_to_f16(mid) != (h & 1 ? h + 1 : h);
    }
    is_i64(bad, 0, "all midpoints and their neighbours round right");
}

static void test_bf16(void) {
    int bad = 0;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = tni_bf16_to_f32((uint16_t)h);
        bool nan = (h & 0x7f80) == 0x7f80 && (h & 0x7f);
        bad += nan ? (tni_f32_to_bf16(f) & 0x7fc0) != 0x7fc0 : tni_f32_to_bf16(f) != h;
    }
    is_i64(bad, 0, "every bf16 comes back");
    is_i64(tni_f32_to_bf16(tni_bits_f32(0x3f808000)), 0x3f80, "tie to even, down");
    is_i64(tni_f32_to_bf16(tni_bits_f32(0x3f818000)), 0x3f82, "tie to even, up");
    is_i64(tni_f32_to_bf16(tni_bits_f32(0x7f7fffff)), 0x7f80,
           "the largest float rounds to infinity");
    is_i64(tni_f32_to_bf16(tni_bits_f32(0x7f800001)), 0x7fc0, "a NaN with low bits only stays one");
}

int main(int argc, char **argv) {
    if (argc > 1) return (int)tni_cpu_info()->isa;
    test_cpu(argv[0]);
    test_f16();
    test_f16_rounding();
    test_bf16();
    return tap_done();
}
