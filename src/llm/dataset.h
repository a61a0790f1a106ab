/* Examples to train on, as the trainer and the fuzzer see them. */
#ifndef TNI_LLM_DATASET_H
#define TNI_LLM_DATASET_H

#include "base/vec.h"
#include "llm/model.h"

typedef struct tni_example {
    size_t at;         /* of its first token */
    int32_t n, offset; /* tokens; those before `offset` are not learned */
} tni_example;

struct tn_llm_data {
    TNI_VEC(int32_t) ids; /* of all examples, one after another */
    TNI_VEC(tni_example) example;
    int64_t longest, cut, most; /* tokens; examples cut; the limit on tokens */
};

/* The lines of bytes[0..n); `name` is the file's, for messages. On failure *out is NULL. */
int tni_data_parse(const tn_llm *m, const char *name, const char *bytes, size_t n,
                   const tn_llm_data_opt *opt, tn_llm_data **out);

#endif
