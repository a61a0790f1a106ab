/* tokenizer.json: vocabulary, merges, added tokens. */
#include "llm/tok_json.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/mmap.h"
#include "llm/json.h"
#include <string.h>

enum { JSON_LIMIT = 256 << 20 };

/* ---- vocabulary ---- */

/* Largest id of the model's vocabulary and the added tokens, and how many entries there are. */
static int json_largest(json_t *vocab, const json_t *added, int64_t *largest) {
    const char *key;
    json_t *v;
    size_t count = json_object_size(vocab) + json_array_size(added);
    *largest = -1;
    json_object_foreach(vocab, key, v) {
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return tni_fail(TN_EFORMAT, "the id of the token \"%.60s\" is not a number from 0 on",
                            key);
        if (json_integer_value(v) > *largest) *largest = json_integer_value(v);
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *id = json_object_get(json_array_get(added, i), "id");
        if (!json_is_integer(id) || json_integer_value(id) < 0)
            return tni_fail(TN_EFORMAT, "the id of added token %zu is not a number from 0 on", i);
        if (json_integer_value(id) > *largest) *largest = json_integer_value(id);
    }
    /* Some vocabularies have holes, but none is mostly holes. */
    if (*largest < 0 || (uint64_t)*largest > 4 * count + 4096)
        return tni_fail(TN_EFORMAT, "a vocabulary of %zu tokens with ids up to %lld", count,
                        (long long)*largest);
    return 0;
}

static int json_vocab(tni_tok *t, json_t *vocab, const json_t *added) {
    const char *key;
    json_t *v;
    int64_t largest;
    int status = json_largest(vocab, added, &largest);
    if (status) return status;
    size_t n = (size_t)largest + 1;
    tni_bytes *raw = tni_calloc(n, sizeof *raw);
    bool *is_added = tni_calloc(n, sizeof *is_added);
    if (!raw || !is_added) status = tni_fail_memory(n * sizeof *raw, "the vocabulary");
    if (!status) {
        json_object_foreach(vocab, key, v) {
            tni_bytes *slot = &raw[json_integer_value(v)];
            if (slot->s && !status)
                status =
                    tni_fail(TN_EFORMAT, "the tokens \"%.60s\" and \"%.60s\" have one id, %lld",
                             slot->s, key, (long long)json_integer_value(v));
            *slot = (tni_bytes){key, strlen(key)};
        }
    }
    for (size_t i = 0; i < json_array_size(added) && !status; i++) {
        const json_t *a = json_array_get(added, i), *content = json_object_get(a, "content");
        json_int_t id = json_integer_value(json_object_get(a, "id"));
        if (!json_is_string(content))
            status = tni_fail(TN_EFORMAT, "added token %zu has no content", i);
        else if (is_added[id] && strcmp(raw[id].s, json_string_value(content)) != 0)
            status =
                tni_fail(TN_EFORMAT, "the added tokens \"%.60s\" and \"%.60s\" have one id, %lld",
                         raw[id].s, json_string_value(content), (long long)id);
        else
            raw[id] = (tni_bytes){json_string_value(content), json_string_length(content)},
            is_added[id] = true;
    }
    for (size_t i = 0; i < n && !status; i++)
        if (!raw[i].s) raw[i] = (tni_bytes){"", 0};
    if (!status) status = tni_tok_set_tokens(t, raw, (int64_t)n, is_added);
    tni_free(raw);
    tni_free(is_added);
    return status;
}

static bool json_flag(const json_t *o, const char *key) {
    return json_is_true(json_object_get(o, key));
}

static int json_added(tni_tok *t, const json_t *added) {
    int status = 0;
    for (size_t i = 0; i < json_array_size(added) && !status; i++) {
        const json_t *a = json_array_get(added, i), *content = json_object_get(a, "content");
        status = tni_tok_add_added(
            t, (tok_added){.text = {json_string_value(content), json_string_length(content)},
                           .id = (int32_t)json_integer_value(json_object_get(a, "id")),
                           .special = json_flag(a, "special"),
                           .normalized = json_flag(a, "normalized"),
                           .lstrip = json_flag(a, "lstrip"),
                           .rstrip = json_flag(a, "rstrip"),
                           .single_word = json_flag(a, "single_word")});
    }
    return status;
}

/* ---- merges: "left right", or ["left", "right"] ---- */

static int json_merge(tni_tok *t, const json_t *m, int32_t rank) {
    const json_t *l = json_array_get(m, 0), *r = json_array_get(m, 1);
    if (json_is_string(l) && json_is_string(r))
        return tni_tok_add_merge(t, (tni_bytes){json_string_value(l), json_string_length(l)},
                                 (tni_bytes){json_string_value(r), json_string_length(r)}, rank);
    const char *s = json_string_value(m), *space = s ? strchr(s, ' ') : NULL;
    if (!space || strchr(space + 1, ' '))
        return tni_fail(TN_EFORMAT, "merge %d is not a pair of tokens", rank);
    return tni_tok_add_merge(t, (tni_bytes){s, (size_t)(space - s)},
                             (tni_bytes){space + 1, strlen(space + 1)}, rank);
}

static int json_merges(tni_tok *t, const json_t *list) {
    int status = tni_tok_reserve_merges(t, (int64_t)json_array_size(list));
    for (size_t i = 0; i < json_array_size(list) && !status; i++)
        status = json_merge(t, json_array_get(list, i), (int32_t)i);
    return status;
}

/* ---- the model ---- */

static int json_check_model(const json_t *model) {
    const char *type = json_string_value(json_object_get(model, "type"));
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    if (type ? strcmp(type, "BPE") != 0 : !json_object_get(model, "merges"))
        return tni_fail(TN_EFORMAT, "a tokenizer of type \"%s\" is not supported; \"BPE\" is",
                        type ? type : "?");
    for (int i = 0; i < 2; i++)
        if (json_string_length(json_object_get(model, affixes[i])))
            return tni_fail(TN_EFORMAT, "\"%s\" is not supported", affixes[i]);
    if (!json_is_object(json_object_get(model, "vocab")))
        return tni_fail(TN_EFORMAT, "the model has no vocabulary");
    return 0;
}

/* A vocabulary without some byte is possible only where an unknown token or nothing at all stands
 * for what is missing, as `tokenizers` has it. */
static int json_options(tni_tok *t, const json_t *model) {
    const json_t *unk = json_object_get(model, "unk_token");
    t->ignore_merges = json_flag(model, "ignore_merges");
    t->fuse_unk = json_flag(model, "fuse_unk");
    t->byte_fallback = json_flag(model, "byte_fallback");
    t->unk = -1;
    for (int b = 0; b < 256 && t->byte_level && t->byte_fallback; b++)
        if (t->byte_id[b] < 0)
            return tni_fail(TN_EFORMAT,
                            "\"byte_fallback\" of a byte-level tokenizer that lacks "
                            "byte 0x%02x is not supported",
                            (unsigned)b);
    if (!json_is_string(unk)) return 0;
    t->unk = tni_tok_id(t, json_string_value(unk), json_string_length(unk));
    if (t->unk < 0)
        return tni_fail(TN_EFORMAT, "the unknown token \"%.60s\" is not in the vocabulary",
                        json_string_value(unk));
    return 0;
}

static int json_build(tni_tok *t, const json_t *j) {
    const json_t *model = json_object_get(j, "model"), *added = json_object_get(j, "added_tokens"),
                 *decoder = json_object_get(j, "decoder");
    int status = json_check_model(model);
    if (!status) status = tni_tok_json_normalizer(t, json_object_get(j, "normalizer"), 0);
    if (!status) status = tni_tok_json_pretokenizer(t, json_object_get(j, "pre_tokenizer"), 0);
    if (!status) status = tni_tok_json_decoder(t, decoder, 0);
    if (!status && !t->byte_level && !json_is_object(decoder))
        status = tni_fail(TN_EFORMAT, "a tokenizer without a decoder is supported only when its "
                                      "pre-tokenizer is \"ByteLevel\"");
    if (!status) status = json_vocab(t, json_object_get(model, "vocab"), added);
    if (!status) status = json_merges(t, json_object_get(model, "merges"));
    if (!status) status = tni_tok_json_processor(t, json_object_get(j, "post_processor"), 0);
    if (!status) status = json_added(t, added);
    if (!status) status = json_options(t, model);
    return status ? status : tni_tok_finish(t);
}

int tni_tok_from_json(const char *text, size_t n, const char *name, tni_tok **out) {
    json_t *j;
    *out = NULL;
    int status = tni_json_parse(text, n, JSON_ALLOW_NUL, name, &j);
    if (status) return status;
    tni_tok *t = tni_calloc(1, sizeof *t);
    status = t ? json_build(t, j) : tni_fail_memory(sizeof *t, "a tokenizer");
    json_decref(j);
    if (!status) return *out = t, 0;
    tni_tok_free(t);
    return tni_fail(status, "%s: %s", name, tni_error());
}

int tni_tok_open(const char *path, tni_tok **out) {
    char *text;
    size_t n;
    *out = NULL;
    int status = tni_file_read(path, JSON_LIMIT, &text, &n);
    if (status) return status;
    status = tni_tok_from_json(text, n, path, out);
    tni_free(text);
    return status;
}
