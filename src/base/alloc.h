/* Every host allocation of the library goes through here, so that a test can
 * make any one of them fail (TN_FAIL_ALLOC=n in the environment fails the n-th,
 * counted from 1) and so that callers see one contract: NULL means "no memory",
 * never an abort. Thread-safe. Sizes are checked for overflow before use. */
#ifndef TNI_BASE_ALLOC_H
#define TNI_BASE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *tni_alloc(size_t size);                     /* uninitialised; size 0 gives a unique pointer */
void *tni_calloc(size_t count, size_t size);      /* zeroed; NULL when count*size overflows */
void *tni_alloc_array(size_t count, size_t size); /* as calloc, not zeroed */
void *tni_realloc(void *p, size_t size);          /* p may be NULL; on failure p stays valid */
void tni_free(void *p);                           /* NULL accepted */
char *tni_strdup(const char *s);
char *tni_strndup(const char *s, size_t n); /* copies n bytes and adds a NUL */

/* Small records that come and go by the million: each thread keeps some of those it frees for
 * its next ones. `size` is not 0, and the same when the record is freed. */
void *tni_record_alloc(size_t size);
void tni_record_free(void *p, size_t size); /* NULL accepted */

/* 64-byte aligned memory for array data; huge pages are asked for from 2 MiB on.
 * Free with tni_free_aligned. */
void *tni_alloc_aligned(size_t size);
void tni_free_aligned(void *p, size_t size);

/* Fault injection from tests: the n-th allocation from now fails once (0: off). */
void tni_fail_alloc_at(int64_t n);
int64_t tni_alloc_count(void);  /* allocations asked for since the process began */
int64_t tni_alloc_system(void); /* those that went to the system: no thread's store had a record */
bool tni_alloc_direct(void);    /* threads have no stores (built for a sanitizer) */
int64_t tni_alloc_live(void);   /* blocks handed out and not yet freed */
/* For a store of blocks: one that is idle does not count as live; one that is taken again counts as
 * asked for, and false says that this one shall fail. */
void tni_alloc_idle(void);
bool tni_alloc_again(void);

#endif
