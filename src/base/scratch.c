/* A few blocks a thread, the smallest that fits being taken. What is larger than SCRATCH_KEEP goes
 * back to the system at once, so that one large kernel does not hold its memory for ever. */
#include "base/scratch.h"
#include "base/alloc.h"
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

enum { SCRATCH_BLOCKS = 12, SCRATCH_KEEP = 64 << 20, SCRATCH_STEP = 4096 };

typedef struct scratch_block {
    void *p;
    size_t size;
    bool busy;
} scratch_block;

static _Thread_local scratch_block scratch_mine[SCRATCH_BLOCKS];
static _Thread_local bool scratch_known;
static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;

static void scratch_drop(scratch_block *b) {
    free(b->p); /* counted when it fell idle */
    *b = (scratch_block){NULL, 0, false};
}

static void scratch_thread_end(void *blocks) {
    scratch_block *b = blocks;
    for (int i = 0; i < SCRATCH_BLOCKS; i++) scratch_drop(&b[i]);
    scratch_known = false;
}

static void scratch_make_key(void) { pthread_key_create(&scratch_key, scratch_thread_end); }

static bool scratch_enter(void) {
    if (scratch_known) return true;
    pthread_once(&scratch_once, scratch_make_key);
    return scratch_known = !pthread_setspecific(scratch_key, scratch_mine);
}

/* The smallest idle block that is large enough; else an empty place, else the smallest idle one,
 * to be replaced; NULL: all are busy. */
static scratch_block *scratch_find(size_t size) {
    scratch_block *fits = NULL, *spare = NULL;
    for (scratch_block *b = scratch_mine; b < scratch_mine + SCRATCH_BLOCKS; b++) {
        if (b->busy) continue;
        if (b->size >= size && b->p && (!fits || b->size < fits->size)) fits = b;
        if (!spare || b->size < spare->size) spare = b;
    }
    return fits ? fits : spare;
}

void *tni_scratch_take(size_t size) {
    if (size > SCRATCH_KEEP || tni_alloc_direct() || !scratch_enter())
        return tni_alloc_aligned(size ? size : 1);
    size = (size + SCRATCH_STEP) / SCRATCH_STEP * SCRATCH_STEP;
    scratch_block *b = scratch_find(size);
    if (!b) return tni_alloc_aligned(size);
    if (b->size < size) {
        scratch_drop(b);
        if (!(b->p = tni_alloc_aligned(size))) return NULL;
        b->size = size;
    } else if (!tni_alloc_again()) {
        return NULL;
    }
    b->busy = true;
    return b->p;
}

void *tni_scratch_array(size_t count, size_t size) {
    size_t bytes;
    return tni_scratch_take(__builtin_mul_overflow(count, size, &bytes) ? SIZE_MAX / 2 : bytes);
}

void tni_scratch_give(void *p) {
    if (!p) return;
    for (scratch_block *b = scratch_mine; b < scratch_mine + SCRATCH_BLOCKS; b++)
        if (b->p == p) {
            b->busy = false;
            tni_alloc_idle();
            return;
        }
    tni_free_aligned(p, 0);
}
