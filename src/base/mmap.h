/* A file mapped read-only. When it shrinks while it is mapped, what is gone reads as zeros
 * (guard.h), and tni_file_check says so: ask it after the last read. */
#ifndef TNI_BASE_MMAP_H
#define TNI_BASE_MMAP_H

#include "base/str.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tni_file {
    char *path;
    const uint8_t *data; /* NULL when size is 0 */
    size_t size;
    int fd, guard;
} tni_file;

int tni_file_map(const char *path, tni_file *f); /* regular files only; 0, TN_EFILE or TN_EMEMORY */
int tni_file_check(const tni_file *f);           /* TN_EFILE when the file is or was shorter */
/* Reads n bytes at `offset` through the descriptor: TN_EFILE when the file has become shorter. */
int tni_file_copy(const tni_file *f, size_t offset, void *to, size_t n);
/* Whole pages of data[0..n), which lie in the mapping, leave this process; read again, they come
 * from the file. For what was copied and is not needed soon. */
void tni_file_forget(const tni_file *f, const void *data, size_t n);
void tni_file_close(tni_file *f);

/* Reads a whole file of at most `limit` bytes into *out (NUL added, free with tni_free). */
int tni_file_read(const char *path, size_t limit, char **out, size_t *size);
/* Writes atomically: temporary file beside it, fsync, rename; on failure the old file stays. */
int tni_file_write(const char *path, const void *data, size_t size);
int tni_file_write_parts(const char *path, const tni_bytes *parts,
                         size_t n); /* one after another */
/* The same with each part asked for in its turn: what a call gives need last only until the next.
 * A call that fails ends the writing with its status. */
int tni_file_write_stream(const char *path, int (*part)(void *ud, size_t i, tni_bytes *out),
                          void *ud, size_t n);

/* Makes a folder, or takes one that is there (*made is false): TN_EFILE unless files can be made in
 * it. */
int tni_folder_make(const char *path, bool *made);

#endif
