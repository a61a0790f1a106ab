/* Where weights come from: a GGUF file or a folder of safetensors, behind one look-up. */
#ifndef TNI_LLM_SOURCE_H
#define TNI_LLM_SOURCE_H

#include "io/gguf.h"
#include "io/safetensors.h"
#include "tenon/tenon.h"
#include <jansson.h>

typedef struct tni_source {
    char *path;     /* as the user gave it, for messages */
    tni_gguf *gguf; /* one of the two */
    tni_st *st;
    json_t *config; /* config.json */
} tni_source;

/* One tensor as the file has it; rows x cols, cols innermost. */
typedef struct tni_weight {
    const char *name;
    int type; /* GGUF type id, or tni_st_dtype */
    int64_t rows, cols;
    int ndim;
    const void *data;
    size_t bytes;
} tni_weight;

int tni_source_open(const char *path, tni_source **out);
void tni_source_free(tni_source *s);
/* TN_EFILE when a file was cut since it was mapped, so that what was read may be zeros. */
int tni_source_verify(const tni_source *s);
bool tni_source_find(const tni_source *s, const char *name, tni_weight *w);
/* The tensor as an array of its own dtype (GGUF's packed types widened to f32), [rows, cols] or
 * [cols]. Mapped memory is used in place where its alignment allows. A handle of the current scope.
 */
tn_array *tni_source_array(const tni_source *s, const tni_weight *w);
/* "Q4_1 210, F32 61" into buf; numbers and bytes of all tensors. */
void tni_source_census(const tni_source *s, char *buf, size_t n, int64_t *numbers);

/* config.json or GGUF metadata, whichever the source has; false when absent or of another kind. */
bool tni_source_i64(const tni_source *s, const char *json_key, const char *gguf_key, int64_t *out);
bool tni_source_f64(const tni_source *s, const char *json_key, const char *gguf_key, double *out);

#endif
