/* safetensors: an 8-byte header length (little-endian), a JSON header, the tensors' bytes. One
 * file or a folder of shards, mapped and used where it lies. What opens is checked: every tensor
 * lies inside its file, has exactly the bytes its shape and dtype need, and together they cover
 * the data with neither overlap nor hole. What tni_st_open* returns is immutable: any thread may
 * read it. */
#ifndef TNI_IO_SAFETENSORS_H
#define TNI_IO_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TNI_ST_MAX_DIMS = 16 };

/* X(name in the file, bits of an element), in the order of the reference implementation: it is
 * also the order (backwards) in which a writer lays out the data, widest first. Sub-byte
 * elements are packed. */
#define TNI_ST_DTYPE_MAP(X)                                                                        \
    X(BOOL, 8)                                                                                     \
    X(F4, 4)                                                                                       \
    X(F6_E2M3, 6)                                                                                  \
    X(F6_E3M2, 6)                                                                                  \
    X(U8, 8)                                                                                       \
    X(I8, 8)                                                                                       \
    X(F8_E5M2, 8)                                                                                  \
    X(F8_E4M3, 8)                                                                                  \
    X(F8_E8M0, 8)                                                                                  \
    X(F8_E4M3FNUZ, 8)                                                                              \
    X(F8_E5M2FNUZ, 8)                                                                              \
    X(I16, 16)                                                                                     \
    X(U16, 16)                                                                                     \
    X(F16, 16)                                                                                     \
    X(BF16, 16)                                                                                    \
    X(I32, 32)                                                                                     \
    X(U32, 32)                                                                                     \
    X(F32, 32)                                                                                     \
    X(C64, 64)                                                                                     \
    X(F64, 64)                                                                                     \
    X(I64, 64)                                                                                     \
    X(U64, 64)

typedef enum tni_st_dtype {
#define X(name, bits) TNI_ST_##name,
    TNI_ST_DTYPE_MAP(X)
#undef X
        TNI_ST_DTYPES
} tni_st_dtype;

typedef struct tni_st_tensor {
    const char *name; /* UTF-8 without NUL; lives as long as the object */
    tni_st_dtype dtype;
    int ndim;
    int64_t shape[TNI_ST_MAX_DIMS]; /* slowest first; the product of the non-zero ones fits */
    const void *data;               /* in the mapping; NOT aligned when another program wrote it so
                                       (mlx pads nothing): the caller copies where it matters */
    size_t bytes;
} tni_st_tensor;

typedef struct tni_st_pair {
    const char *key, *value; /* UTF-8 */
} tni_st_pair;

typedef struct tni_st tni_st;

/* On failure *out is NULL. Beyond the format's own limits, names and metadata with NUL and more
 * than 16 dimensions are refused (TN_EFORMAT). A file stays open while it is mapped. Memory given
 * to open_mem is borrowed until tni_st_free. */
int tni_st_open(const char *path, tni_st **out);
int tni_st_open_mem(const void *bytes, size_t n, tni_st **out);
/* A model's folder: model.safetensors; else the shards that model.safetensors.index.json names,
 * each tensor in the shard the index says; else all *.safetensors files, in order of name. */
int tni_st_open_dir(const char *dir, tni_st **out);
void tni_st_free(tni_st *s); /* NULL accepted */
/* TN_EFILE when a file has been cut since it was mapped. To be asked after data was read (what is
 * gone reads as zeros, base/guard.h); names, shapes and metadata were copied at opening. */
int tni_st_verify(const tni_st *s);

const tni_st_tensor *tni_st_find(const tni_st *s, const char *name); /* or NULL */
size_t tni_st_count(const tni_st *s);
const tni_st_tensor *tni_st_at(const tni_st *s, size_t i); /* in the headers' order */

/* __metadata__ of the first file; NULL when the key is absent. */
const char *tni_st_metadata(const tni_st *s, const char *key);
size_t tni_st_metadata_count(const tni_st *s);
tni_st_pair tni_st_metadata_at(const tni_st *s, size_t i);

const char *tni_st_dtype_name(tni_st_dtype d); /* "BF16"; "?" for an unknown one */
int tni_st_dtype_bits(tni_st_dtype d);         /* 0 for an unknown one */

/* The bytes that a tensor's dtype and shape need: NULL, or what is wrong ("has ..."). */
const char *tni_st_size(const tni_st_tensor *t, int64_t *bytes);

/* Writes a file atomically (the old one stays on any failure, no temporary is left). The bytes
 * depend only on what is given, not on its order: metadata by key, tensors by dtype (widest
 * first, so that each is aligned to its element) and then by name, as the reference
 * implementation writes them; the header is padded with spaces to a multiple of 8. */
int tni_st_write(const char *path, const tni_st_tensor *tensors, size_t n,
                 const tni_st_pair *metadata, size_t n_metadata);
/* The same for more than memory holds: a tensor whose data is NULL is asked for by name when its
 * turn comes. What a call gives need last only until the next; one that fails ends the writing
 * with its status. */
int tni_st_write_stream(const char *path, const tni_st_tensor *tensors, size_t n,
                        const tni_st_pair *metadata, size_t n_metadata,
                        int (*data)(void *ud, const char *name, const void **out), void *ud);

#endif
