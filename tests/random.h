/* Random numbers of tests, the same in every run: xorshift64* (Vigna, 2016). A test may set the
 * state, which is never 0. */
#ifndef TESTS_RANDOM_H
#define TESTS_RANDOM_H

#include <stdint.h>

static uint64_t rng_state = 1;

static inline uint64_t rnd(void) {
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return rng_state * 0x2545f4914f6cdd1dull;
}

/* From 0 to n - 1. */
static inline int64_t below(int64_t n) { return (int64_t)((rnd() >> 33) % (uint64_t)n); }

#endif
