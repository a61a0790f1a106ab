/* A hash table from byte strings to 64-bit values; open addressing, keys are
 * borrowed (the caller keeps them alive). Insertions are O(1) amortised and the
 * hash is seeded per process, so that a hostile file cannot make it quadratic. */
#ifndef TNI_BASE_HASH_H
#define TNI_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tni_map {
    struct tni_map_slot *slots;
    size_t n, cap; /* cap is zero or a power of two */
} tni_map;

uint64_t tni_hash(const void *bytes, size_t n);
int tni_map_put(tni_map *m, const char *key, size_t len,
                int64_t value); /* replaces; 0 or TN_EMEMORY */
bool tni_map_get(const tni_map *m, const char *key, size_t len, int64_t *value);
void tni_map_free(tni_map *m);

#endif
