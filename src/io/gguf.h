/* GGUF: the model files of llama.cpp, versions 2 and 3, little-endian. The file is mapped and
 * used where it lies; everything the header says is checked against the file's size before it is
 * used, so that a file that opens cannot lead outside itself. What tni_gguf_open returns is
 * immutable: any thread may read it. */
#ifndef TNI_IO_GGUF_H
#define TNI_IO_GGUF_H

#include "base/str.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Type ids as in the file. 4, 5, 31-33 and 36-38 were withdrawn by ggml. */
enum tni_gguf_type {
    TNI_GGUF_F32 = 0,
    TNI_GGUF_F16 = 1,
    TNI_GGUF_Q4_0 = 2,
    TNI_GGUF_Q4_1 = 3,
    TNI_GGUF_Q5_0 = 6,
    TNI_GGUF_Q5_1 = 7,
    TNI_GGUF_Q8_0 = 8,
    TNI_GGUF_Q8_1 = 9,
    TNI_GGUF_Q2_K = 10,
    TNI_GGUF_Q3_K = 11,
    TNI_GGUF_Q4_K = 12,
    TNI_GGUF_Q5_K = 13,
    TNI_GGUF_Q6_K = 14,
    TNI_GGUF_Q8_K = 15,
    TNI_GGUF_IQ2_XXS = 16,
    TNI_GGUF_IQ2_XS = 17,
    TNI_GGUF_IQ3_XXS = 18,
    TNI_GGUF_IQ1_S = 19,
    TNI_GGUF_IQ4_NL = 20,
    TNI_GGUF_IQ3_S = 21,
    TNI_GGUF_IQ2_S = 22,
    TNI_GGUF_IQ4_XS = 23,
    TNI_GGUF_I8 = 24,
    TNI_GGUF_I16 = 25,
    TNI_GGUF_I32 = 26,
    TNI_GGUF_I64 = 27,
    TNI_GGUF_F64 = 28,
    TNI_GGUF_IQ1_M = 29,
    TNI_GGUF_BF16 = 30,
    TNI_GGUF_TQ1_0 = 34,
    TNI_GGUF_TQ2_0 = 35,
    TNI_GGUF_MXFP4 = 39,
    TNI_GGUF_NVFP4 = 40,
    TNI_GGUF_Q1_0 = 41,
    TNI_GGUF_Q2_0 = 42,
    TNI_GGUF_TYPES = 43
};

typedef struct tni_gguf tni_gguf;

typedef struct tni_gguf_tensor {
    const char *name; /* NUL-terminated, lives as long as the file object */
    int type;         /* enum tni_gguf_type, always a known one */
    int ndim;         /* 0 to 4 */
    int64_t dims[4];  /* fastest first, the unused ones are 1 */
    const void *data; /* inside the mapping, aligned to general.alignment from the file's start */
    size_t bytes;
} tni_gguf_tensor;

/* On failure *out is NULL. The memory given to open_mem is borrowed until tni_gguf_free. */
int tni_gguf_open(const char *path, tni_gguf **out);
int tni_gguf_open_mem(const void *bytes, size_t n, tni_gguf **out);
void tni_gguf_free(tni_gguf *g); /* NULL accepted */
/* TN_EFILE when the file has been cut since it was mapped: what is gone reads as zeros, so this is
 * to be asked after tensor data was read. Metadata and names were copied when it was opened. */
int tni_gguf_verify(const tni_gguf *g);

/* The bytes of a tensor were copied: their pages may leave memory. Does nothing after open_mem. */
void tni_gguf_forget(const tni_gguf *g, const void *data, size_t bytes);

/* ---- metadata: false or NULL when the key is absent or of another kind ---- */

const char *tni_gguf_str(const tni_gguf *g, const char *key); /* NULL also for text with a NUL */
bool tni_gguf_i64(const tni_gguf *g, const char *key, int64_t *out); /* any integer that fits */
bool tni_gguf_f64(const tni_gguf *g, const char *key, double *out);  /* any number */
bool tni_gguf_bool(const tni_gguf *g, const char *key, bool *out);
bool tni_gguf_array_len(const tni_gguf *g, const char *key, size_t *n);
/* The first n elements, converted; TN_EFORMAT when the key is no array of that kind, has fewer
 * than n, or (i32) one does not fit. The strings point into the object. */
int tni_gguf_array_strings(const tni_gguf *g, const char *key, tni_bytes *out, size_t n);
int tni_gguf_array_i32(const tni_gguf *g, const char *key, int32_t *out, size_t n);
int tni_gguf_array_f32(const tni_gguf *g, const char *key, float *out, size_t n);

size_t tni_gguf_key_count(const tni_gguf *g);
const char *tni_gguf_key_at(const tni_gguf *g, size_t i); /* in file order */

/* ---- tensors ---- */

const tni_gguf_tensor *tni_gguf_tensor_find(const tni_gguf *g, const char *name); /* or NULL */
size_t tni_gguf_tensor_count(const tni_gguf *g);
const tni_gguf_tensor *tni_gguf_tensor_at(const tni_gguf *g, size_t i); /* in file order */

/* ---- writing ---- */

/* The bytes before the tensors' list: version, counts and keys, as they are in the file. */
tni_bytes tni_gguf_head(const tni_gguf *g);
/* Writes the model again, atomically, with with[i] in place of the tensor of that name: any type,
 * the same dims. One whose data is NULL is asked for by name when its turn comes: what a call gives
 * need last only until the next; one that fails ends the writing with its status. */
int tni_gguf_write_with(const tni_gguf *g, const char *path, const tni_gguf_tensor *with, size_t n,
                        int (*data)(void *ud, const char *name, const void **out), void *ud);

/* ---- types ---- */

const char *tni_gguf_type_name(int type); /* "Q4_K"; "?" for an unknown id */
/* Values and bytes of one block; false for an unknown id. */
bool tni_gguf_type_block(int type, size_t *values, size_t *bytes);
/* n values (a whole number of blocks) as float; src needs no alignment. Values are those of
 * ggml's own rules computed in f32, bit for bit. */
int tni_gguf_dequant(int type, const void *src, int64_t n, float *dst);

/* ---- MLX's affine layout: w = scale * q + bias, groups of 32 ---- */

/* Writes rows [row_begin, row_end) of a rows x cols matrix of Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0 as
 * 4-, 5- or 8-bit affine groups: q packed least significant bits first, one scale and bias a
 * group, f16 or f32. q, scales, biases and src point at row 0. cols is a multiple of 32. */
int tni_gguf_to_affine(int type, const void *src, int64_t rows, int64_t cols, int64_t row_begin,
                       int64_t row_end, void *q, void *scales, void *biases, bool f32_scales);
/* Whether f16 scales and biases would lose something: -8 d, -16 d or -128 d beyond f16's range. */
bool tni_gguf_affine_needs_f32(int type, const void *src, int64_t rows, int64_t cols);

#endif
