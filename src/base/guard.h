/* Mapped files that shrink. Reading a page beyond the new end raises SIGBUS, which would kill the
 * program that embeds us. The first guarded mapping installs a handler: a fault inside a guarded
 * mapping gets a page of zeros in its place and marks the mapping as damaged, so that the reader
 * goes on and finds the mark when it asks; any other SIGBUS goes to the handler that was there
 * before. A program that replaces the handler later only loses this protection. */
#ifndef TNI_BASE_GUARD_H
#define TNI_BASE_GUARD_H

#include <stdbool.h>
#include <stddef.h>

enum { TNI_GUARDS = 1024 }; /* mappings at a time; more are left unguarded */

/* A number for the two below, or -1 when all are taken. Thread-safe. */
int tni_guard_add(const void *begin, size_t size);
void tni_guard_remove(int guard);
bool tni_guard_damaged(int guard);

#endif
