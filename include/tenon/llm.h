/* Language models: load, tokenize, prompt, generate. No arrays in sight.
 *
 *     if (tn_llm_open("model.gguf", &m) || tn_llm_session_new(m, NULL, &s) ||
 *         tn_llm_chat(m, "[{\"role\": \"user\", \"content\": \"Hello\"}]", NULL, &ids, &n) ||
 *         tn_llm_prompt(s, ids, n, NULL, NULL))
 *         return fail(tn_error());
 *     while (!tn_llm_next(s, NULL, &token) && !tn_llm_is_end(m, token.id))
 *         if (!tn_llm_text(s, token.id, &text, &n)) fwrite(text, 1, n, stdout);
 *
 * Every function that returns int returns 0 or a negative TN_E... code, with a sentence in
 * tn_error() (tenon.h). A model may be used from several threads at once; a session by one
 * thread at a time. Objects: one _free each, NULL accepted; a model outlives its sessions. */
#ifndef TENON_LLM_H
#define TENON_LLM_H

#include "tenon/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tn_llm tn_llm;                 /* weights, tokenizer, chat template */
typedef struct tn_llm_session tn_llm_session; /* one sequence: its cache and its random state */

/* ---- Loading --------------------------------------------------------------------------------- */

/* path: a GGUF file (the first of its shards), or a Hugging Face folder with config.json,
 * *.safetensors and tokenizer.json. The files stay mapped while the model lives. */
TN_API int tn_llm_open(const char *path, tn_llm **out) TN_MUST_CHECK;
/* Only the tokenizer and the chat template, from the same paths or a tokenizer.json: for work on
 * text. */
TN_API int tn_llm_open_tokenizer(const char *path, tn_llm **out) TN_MUST_CHECK;
TN_API void tn_llm_free(tn_llm *m);

/* What was loaded. Strings live as long as the model. */
typedef struct tn_llm_info {
    const char *architecture; /* "llama", "gpt2" */
    const char *name;         /* as the file says, or "" */
    const char *format;       /* "GGUF", "safetensors" */
    const char *weights;      /* "Q4_1 210, F32 61, Q8_0 1": types and how many tensors */
    int64_t layers, hidden, heads, kv_heads, head_dim, ffn, vocab, context;
    int64_t parameters; /* numbers in the weights */
    int64_t bytes;      /* what they take in memory */
    int64_t adapter;    /* numbers in the adapter; 0: there is none */
    bool has_tokenizer, has_template;
} tn_llm_info;
TN_API tn_llm_info tn_llm_describe(const tn_llm *m);

/* ---- Adapters -------------------------------------------------------------------------------
 * LoRA: low-rank matrices a and b beside some of the model's, y = x w^T + scale (x a) b, kept apart
 * from the weights. Files are mlx-lm's: a folder with adapters.safetensors and
 * adapter_config.json, for folders and GGUF files of a model alike. Not while the model is in use
 * elsewhere. */

typedef struct tn_llm_lora_opt {
    size_t size;
    int64_t rank;     /* 0: 8 */
    double scale;     /* 0: 20 */
    double dropout;   /* of a's input while training */
    int64_t layers;   /* the last so many get adapters; 0: all */
    const char *keys; /* "self_attn.q_proj,self_attn.v_proj"; NULL: every matrix of a layer */
    uint64_t seed;    /* of a's values; b begins as zeros */
} tn_llm_lora_opt;
/* Gives the model a fresh adapter, which changes nothing until it is trained; opt may be NULL. */
TN_API int tn_llm_adapter_new(tn_llm *m, const tn_llm_lora_opt *opt) TN_MUST_CHECK;
/* The adapter of a folder in place of the one the model has. One that was made for a model of
 * other names or sizes: TN_EFORMAT, and the model stays as it was. */
TN_API int tn_llm_adapter_load(tn_llm *m, const char *dir) TN_MUST_CHECK;
/* Writes the adapter to a folder, made if need be; each file is replaced at once. TN_EVALUE when it
 * holds numbers that are not finite: what the folder held stays. */
TN_API int tn_llm_adapter_save(const tn_llm *m, const char *dir) TN_MUST_CHECK;
TN_API void tn_llm_adapter_drop(tn_llm *m);

typedef struct tn_llm_fuse_opt {
    size_t size;
    bool dequantize; /* merged matrices of an MLX-quantised folder become floats */
} tn_llm_fuse_opt;
/* Writes the model with its adapter merged into the weights to a folder, made if need be: from a
 * folder model.safetensors (each matrix in its own type; quantised ones quantised anew) and the
 * other files, from a GGUF file model.gguf (packed matrices that change become f16). One that is
 * there already is TN_EFILE. opt may be NULL. */
TN_API int tn_llm_fuse(const tn_llm *m, const char *dir, const tn_llm_fuse_opt *opt) TN_MUST_CHECK;

/* ---- Text and tokens ------------------------------------------------------------------------ */

enum {
    TN_TEXT_SPECIAL = 1, /* special tokens written in the text are recognised */
    TN_TEXT_BOS = 2      /* the tokens that the model wants around a text (BOS, EOS) are added */
};
/* *ids is freed with tn_llm_ids_free. Text need not be valid UTF-8. */
TN_API int tn_llm_tokenize(const tn_llm *m, const char *text, size_t n, int flags, int32_t **ids,
                           size_t *n_ids) TN_MUST_CHECK;
TN_API void tn_llm_ids_free(int32_t *ids);
/* Text of ids; freed with tn_llm_text_free. Invalid UTF-8 becomes U+FFFD. */
TN_API int tn_llm_detokenize(const tn_llm *m, const int32_t *ids, size_t n, bool skip_special,
                             char **text, size_t *n_text) TN_MUST_CHECK;
TN_API void tn_llm_text_free(char *text);
TN_API bool tn_llm_is_end(const tn_llm *m, int32_t id); /* the model says that its turn is over */

typedef struct tn_llm_chat_opt {
    size_t size;
    bool no_generation_prompt; /* the template is not asked to begin the answer */
    const char *tools;         /* JSON list, or NULL */
    const char *extra;         /* JSON object of further template variables, or NULL */
} tn_llm_chat_opt;
/* messages: JSON list of {"role", "content"}. The template's text, freed with tn_llm_text_free. */
TN_API int tn_llm_render(const tn_llm *m, const char *messages, const tn_llm_chat_opt *opt,
                         char **text, size_t *n) TN_MUST_CHECK;
/* The same as tokens. What came from a message never becomes a special token. */
TN_API int tn_llm_chat(const tn_llm *m, const char *messages, const tn_llm_chat_opt *opt,
                       int32_t **ids, size_t *n) TN_MUST_CHECK;

/* ---- Training data -------------------------------------------------------------------------- */

typedef struct tn_llm_data tn_llm_data; /* examples as tokens; immutable */
typedef struct tn_llm_data_opt {
    size_t size;
    bool mask_prompt; /* only the answer is learned: what follows the prompt, or the last message */
    int64_t max_tokens; /* longer examples are cut; 0: 2048 */
} tn_llm_data_opt;
/* A .jsonl file, one JSON object a line: {"text"}, {"prompt", "completion"} or {"messages"} (the
 * last two through the chat template, "tools" handed on). An example in the wrong form, broken,
 * empty or over 16 MiB is TN_EFORMAT or TN_EVALUE, naming file and line. opt may be NULL. */
TN_API int tn_llm_data_open(const tn_llm *m, const char *path, const tn_llm_data_opt *opt,
                            tn_llm_data **out) TN_MUST_CHECK;
TN_API void tn_llm_data_free(tn_llm_data *d);
typedef struct tn_llm_data_info {
    int64_t examples, tokens, longest; /* as they are used */
    int64_t cut;                       /* examples that were longer than max_tokens */
} tn_llm_data_info;
TN_API tn_llm_data_info tn_llm_data_describe(const tn_llm_data *d);

/* ---- Training -------------------------------------------------------------------------------
 * Fits the model's adapter to examples, as mlx-lm does it: examples in order of length, `batch` of
 * them a step, batches in a random order that begins anew when all were seen; padded to 32 k + 1;
 * the mean cross-entropy of the answers' tokens and the one after each. The same settings give the
 * same bits, at any number of threads, in one run or several. */

typedef struct tn_llm_trainer tn_llm_trainer;
typedef struct tn_llm_train_opt {
    size_t size;
    int64_t batch;        /* examples a step; 0: 4 */
    double learning_rate; /* 0: 1e-5 */
    bool adamw;           /* else Adam */
    double weight_decay;  /* of AdamW; 0: 0.01 */
    bool checkpoint;      /* each layer is run again for its derivatives: less memory, more time */
    uint64_t seed;        /* of the order and of dropout */
} tn_llm_train_opt;
/* Until it is freed nothing else may change the adapter; model and data must outlive it. Without
 * an adapter TN_ESTATE, with fewer examples than a batch TN_EVALUE. opt may be NULL. */
TN_API int tn_llm_trainer_new(tn_llm *m, const tn_llm_data *data, const tn_llm_train_opt *opt,
                              tn_llm_trainer **out) TN_MUST_CHECK;
TN_API void tn_llm_trainer_free(tn_llm_trainer *t);           /* the adapter stays with the model */
TN_API int64_t tn_llm_trainer_steps(const tn_llm_trainer *t); /* done */

typedef struct tn_llm_loss {
    double loss;    /* mean over the tokens, in nats */
    int64_t tokens; /* counted in it */
    int64_t batches;
} tn_llm_loss;
/* One step; the loss is that before it. */
TN_API int tn_llm_trainer_step(tn_llm_trainer *t, tn_llm_loss *out) TN_MUST_CHECK;
/* The loss on other examples, over at most `batches` (0: all) of them, the same ones each time.
 * `progress` as for tn_llm_prompt. */
TN_API int tn_llm_trainer_loss(tn_llm_trainer *t, const tn_llm_data *data, int64_t batches,
                               tn_llm_loss *out,
                               bool (*progress)(size_t done, size_t total, void *ud),
                               void *ud) TN_MUST_CHECK;
/* One file, written at once, from which a trainer of the same settings goes on with the same bits.
 * Other settings or data: TN_EVALUE, which names the difference. */
TN_API int tn_llm_trainer_save(tn_llm_trainer *t, const char *path) TN_MUST_CHECK;
TN_API int tn_llm_trainer_load(tn_llm_trainer *t, const char *path) TN_MUST_CHECK;

/* ---- Sessions ------------------------------------------------------------------------------- */

typedef struct tn_llm_session_opt {
    size_t size;
    int64_t context; /* most positions; 0: the model's own limit */
    int64_t chunk;   /* tokens a prompt is run in at a time; 0: 512 */
    bool cache_f16;  /* keys and values kept in half precision: half the memory, answers to 1e-3 */
    uint64_t seed;   /* of sampling */
} tn_llm_session_opt;
/* An empty sequence for model m, which must outlive it. opt may be NULL. */
TN_API int tn_llm_session_new(tn_llm *m, const tn_llm_session_opt *opt,
                              tn_llm_session **out) TN_MUST_CHECK;
TN_API void tn_llm_session_free(tn_llm_session *s);
TN_API int64_t tn_llm_session_length(const tn_llm_session *s); /* positions in the cache */

/* Forgets everything after the first `length` positions. */
TN_API int tn_llm_session_rewind(tn_llm_session *s, int64_t length) TN_MUST_CHECK;

/* Appends ids to the sequence. `progress` (may be NULL) is called after each chunk with how many
 * are done; returning true stops with TN_ECANCELLED, what was done stays. Beyond the context:
 * TN_EVALUE. */
TN_API int tn_llm_prompt(tn_llm_session *s, const int32_t *ids, size_t n,
                         bool (*progress)(size_t done, size_t total, void *ud),
                         void *ud) TN_MUST_CHECK;

typedef struct tn_llm_sampler {
    size_t size;
    float temperature;        /* 0: the likeliest token */
    int top_k;                /* 0: off */
    float top_p;              /* 0 or 1: off */
    float min_p;              /* 0: off: drop tokens less likely than min_p times the best */
    float repetition_penalty; /* 0 or 1: off; over the last 64 tokens */
    int logprobs;             /* 0 to 20: how many best alternatives to report */
} tn_llm_sampler;

enum { TN_LLM_MAX_LOGPROBS = 20 };
typedef struct tn_llm_token {
    int32_t id;
    float logprob; /* natural logarithm, of the model's own distribution (before the sampler) */
    int n_top;
    struct {
        int32_t id;
        float logprob;
    } top[TN_LLM_MAX_LOGPROBS];
} tn_llm_token;
/* Samples the next token and appends it. Filters apply in the order penalty, temperature, top_k,
 * top_p, min_p. A prompt must have come before. */
TN_API int tn_llm_next(tn_llm_session *s, const tn_llm_sampler *opt,
                       tn_llm_token *out) TN_MUST_CHECK;

/* Bytes to text: holds back an unfinished UTF-8 character. *text is valid until the next call. */
TN_API int tn_llm_text(tn_llm_session *s, int32_t id, const char **text, size_t *n) TN_MUST_CHECK;
/* What is still held, as U+FFFD where it is no whole character. */
TN_API int tn_llm_text_end(tn_llm_session *s, const char **text, size_t *n) TN_MUST_CHECK;

/* Appends ids and gives the log-probability of each after the first; out has n - 1 numbers, and
 * best (may be NULL) the likeliest token at each of these places. */
TN_API int tn_llm_score(tn_llm_session *s, const int32_t *ids, size_t n, float *out,
                        int32_t *best) TN_MUST_CHECK;
/* The raw next-token scores, `vocab` numbers, valid until the session changes; NULL before a
 * prompt. */
TN_API const float *tn_llm_logits(const tn_llm_session *s);

#ifdef __cplusplus
}
#endif

#endif
