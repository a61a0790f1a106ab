/* What fuzzers share: the entry, an assertion that holds in every build, bytes as a safetensors
 * file whose header needs no length. */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(x)                                                                                    \
    do {                                                                                           \
        if (!(x)) abort();                                                                         \
    } while (0)

/* Bytes up to the first NUL as a header, what follows it as data: a mutation that changes the
 * header's length seldom hits the number in front. */
static inline void fuzz_with_header(const uint8_t *data, size_t size,
                                    void (*file)(const uint8_t *data, size_t size)) {
    const uint8_t *nul = memchr(data, 0, size);
    size_t n = nul ? (size_t)(nul - data) : size, rest = nul ? size - n - 1 : 0;
    uint8_t *bytes = malloc(8 + n + rest);
    MUST(bytes);
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)((uint64_t)n >> 8 * i);
    memcpy(bytes + 8, data, n);
    if (rest) memcpy(bytes + 8 + n, nul + 1, rest);
    file(bytes, 8 + n + rest);
    free(bytes);
}

#endif
