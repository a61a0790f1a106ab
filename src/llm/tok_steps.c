/* Normaliser, pre-tokenizer and post-processor objects of tokenizer.json. What is not known is
 * refused by name: ids that are nearly right are worse than none. */
#include "base/alloc.h"
#include "base/err.h"
#include "llm/tok_json.h"
#include <string.h>

enum { STEPS_DEPTH = 8 };

/* \w of Rust's regex, which the pre-tokenizer Whitespace is written in. */
#define STEPS_WORD "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\p{tok rust word}"

const char *const tni_tok_gpt2_pattern =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static bool steps_flag(const json_t *o, const char *key, bool fallback) {
    const json_t *v = json_object_get(o, key);
    return json_is_boolean(v) ? json_is_true(v) : fallback;
}

static int steps_unknown(const char *what, const json_t *o) {
    const char *type = json_string_value(json_object_get(o, "type"));
    return tni_fail(TN_EFORMAT, "%s \"%s\" is not supported", what, type ? type : "?");
}

static int steps_too_many(const char *what) {
    return tni_fail(TN_EFORMAT, "more than %d %s, or nested more than %d deep", TOK_MAX_STEPS, what,
                    STEPS_DEPTH);
}

/* Calls each for the items of o[key]. */
static int steps_sequence(tni_tok *t, const json_t *o, const char *key, int depth,
                          int (*each)(tni_tok *, const json_t *, int)) {
    const json_t *list = json_object_get(o, key);
    int status = 0;
    for (size_t i = 0; i < json_array_size(list) && !status; i++)
        status = each(t, json_array_get(list, i), depth + 1);
    return status;
}

/* An expression for the text itself. */
static int steps_literal(tni_bytes text, struct tok_regex **out) {
    tni_str s = {0};
    int status = 0;
    for (size_t i = 0; i < text.n && !status; i++) {
        char c = text.s[i];
        bool plain = (c & 0x80) || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                     (c >= 'A' && c <= 'Z') || (unsigned char)c < ' ';
        if (!plain) status = tni_str_putc(&s, '\\');
        if (!status) status = tni_str_putc(&s, c);
    }
    status =
        status ? tni_fail_memory(s.n, "a pattern") : tni_tok_regex_new(s.v ? s.v : "", s.n, out);
    tni_str_free(&s);
    return status;
}

/* {"Regex": p} as it is, {"String": p} as an expression for it. */
static int steps_pattern(const json_t *o, struct tok_regex **out) {
    const json_t *p = json_object_get(o, "pattern"), *v = json_object_get(p, "Regex");
    if (json_is_string(v))
        return tni_tok_regex_new(json_string_value(v), json_string_length(v), out);
    v = json_is_string(p) ? p : json_object_get(p, "String");
    if (!json_is_string(v))
        return tni_fail(TN_EFORMAT, "a pattern is neither {\"Regex\"} nor {\"String\"}");
    return steps_literal((tni_bytes){json_string_value(v), json_string_length(v)}, out);
}

static int steps_text(tni_tok *t, const json_t *o, const char *key, tni_bytes *out) {
    const json_t *v = json_object_get(o, key);
    if (!json_is_string(v))
        return tni_fail(TN_EFORMAT, "\"%s\" of a step is missing or not a string", key);
    out->n = json_string_length(v);
    out->s = tni_tok_own(t, json_string_value(v), out->n);
    return out->s ? 0 : TN_EMEMORY;
}

/* ---- normalisers ---- */

static int steps_norm_fill(tni_tok *t, const json_t *o, tok_norm *k) {
    k->left = steps_flag(o, "strip_left", false), k->right = steps_flag(o, "strip_right", false);
    if (k->kind == TOK_PREPEND) return steps_text(t, o, "prepend", &k->with);
    if (k->kind != TOK_REPLACE) return 0;
    int status = steps_text(t, o, "content", &k->with);
    return status ? status : steps_pattern(o, &k->regex);
}

int tni_tok_json_normalizer(tni_tok *t, const json_t *o, int depth) {
    static const char *const names[] = {"NFC",   "NFD",          "NFKC",    "NFKD",   "Lowercase",
                                        "Strip", "StripAccents", "Prepend", "Replace"};
    const char *type = json_string_value(json_object_get(o, "type"));
    if (!o || json_is_null(o)) return 0;
    if (depth > STEPS_DEPTH || t->n_norm == TOK_MAX_STEPS) return steps_too_many("normalizers");
    if (type && !strcmp(type, "Sequence"))
        return steps_sequence(t, o, "normalizers", depth, tni_tok_json_normalizer);
    for (size_t i = 0; type && i < sizeof names / sizeof *names; i++)
        if (!strcmp(type, names[i])) {
            tok_norm *k = &t->norm[t->n_norm++];
            k->kind = (tok_norm_kind)i;
            return steps_norm_fill(t, o, k);
        }
    return steps_unknown("the normalizer", o);
}

/* ---- pre-tokenizers ---- */

static int steps_behavior(const json_t *o, tok_behavior *out) {
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const char *name = json_string_value(json_object_get(o, "behavior"));
    for (size_t i = 0; name && i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i])) return *out = (tok_behavior)i, 0;
    return tni_fail(TN_EFORMAT, "the split behavior \"%s\" is not known", name ? name : "?");
}

static int steps_regex(tok_pre *p, const char *pattern, tok_behavior behavior, bool invert) {
    p->behavior = behavior, p->invert = invert;
    return tni_tok_regex_new(pattern, strlen(pattern), &p->regex);
}

/* Metaspace marks spaces and, when it splits, cuts before each mark. */
static int steps_metaspace(tni_tok *t, const json_t *o, tok_pre *p) {
    static const char *const names[] = {"never", "first", "always"};
    const char *scheme = json_string_value(json_object_get(o, "prepend_scheme"));
    int status = steps_text(t, o, "replacement", &p->metaspace);
    if (status) return status;
    p->prepend = TOK_ALWAYS;
    for (int i = 0; scheme && i < 3; i++)
        if (!strcmp(scheme, names[i])) p->prepend = i;
    if (!steps_flag(o, "add_prefix_space", true)) p->prepend = TOK_NEVER;
    p->behavior = TOK_WITH_NEXT;
    return steps_flag(o, "split", true) ? steps_literal(p->metaspace, &p->regex) : 0;
}

static int steps_pre_fill(tni_tok *t, const json_t *o, const char *type, tok_pre *p) {
    if (!strcmp(type, "Split")) {
        p->invert = steps_flag(o, "invert", false);
        int status = steps_behavior(o, &p->behavior);
        return status ? status : steps_pattern(o, &p->regex);
    }
    if (!strcmp(type, "ByteLevel")) {
        p->prefix_space = steps_flag(o, "add_prefix_space", true);
        return steps_flag(o, "use_regex", true)
                   ? steps_regex(p, tni_tok_gpt2_pattern, TOK_ISOLATED, false)
                   : 0;
    }
    if (!strcmp(type, "Digits"))
        return steps_regex(
            p, "[\\p{N}\\p{tok digit}]",
            steps_flag(o, "individual_digits", false) ? TOK_ISOLATED : TOK_CONTIGUOUS, false);
    if (!strcmp(type, "Punctuation")) {
        tok_behavior b = TOK_ISOLATED;
        int status = json_object_get(o, "behavior") ? steps_behavior(o, &b) : 0;
        return status
                   ? status
                   : steps_regex(p, "(?![\\p{tok no punct}])[!-\\/:-@\\[-`{-~\\p{P}\\p{tok punct}]",
                                 b, false);
    }
    if (!strcmp(type, "Whitespace"))
        return steps_regex(p, "[" STEPS_WORD "]+|[^" STEPS_WORD "\\s]+", TOK_REMOVED, true);
    if (!strcmp(type, "WhitespaceSplit")) return steps_regex(p, "\\s", TOK_REMOVED, false);
    if (!strcmp(type, "Metaspace")) return steps_metaspace(t, o, p);
    return steps_unknown("the pre-tokenizer", o);
}

int tni_tok_json_pretokenizer(tni_tok *t, const json_t *o, int depth) {
    const char *type = json_string_value(json_object_get(o, "type"));
    if (!o || json_is_null(o)) return 0;
    if (depth > STEPS_DEPTH || t->n_pre == TOK_MAX_STEPS) return steps_too_many("pre-tokenizers");
    if (type && !strcmp(type, "Sequence"))
        return steps_sequence(t, o, "pretokenizers", depth, tni_tok_json_pretokenizer);
    if (!type) return steps_unknown("the pre-tokenizer", o);
    if (!strcmp(type, "ByteLevel")) t->byte_level = true;
    return steps_pre_fill(t, o, type, &t->pre[t->n_pre++]);
}

/* ---- decoders: of tokenizers that do not work on bytes ---- */

static int steps_replace_decoder(tni_tok *t, const json_t *o) {
    const json_t *from = json_object_get(json_object_get(o, "pattern"), "String");
    tok_decoder *d = &t->decoder;
    if (d->from.n || !json_string_length(from))
        return tni_fail(TN_EFORMAT, "the decoder \"Replace\" is supported once, with a \"String\"");
    int status = steps_text(t, json_object_get(o, "pattern"), "String", &d->from);
    return status ? status : steps_text(t, o, "content", &d->with);
}

static int steps_metaspace_decoder(tni_tok *t, const json_t *o) {
    tok_decoder *d = &t->decoder;
    const char *scheme = json_string_value(json_object_get(o, "prepend_scheme"));
    if (d->from.n) return tni_fail(TN_EFORMAT, "two decoders that replace are not supported");
    d->metaspace = steps_flag(o, "add_prefix_space", true) && !(scheme && !strcmp(scheme, "never"));
    d->with = (tni_bytes){" ", 1};
    return steps_text(t, o, "replacement", &d->from);
}

static int steps_strip_decoder(tni_tok *t, const json_t *o) {
    tok_decoder *d = &t->decoder;
    json_int_t begin = json_integer_value(json_object_get(o, "start")),
               end = json_integer_value(json_object_get(o, "stop"));
    uint32_t c;
    int status = steps_text(t, o, "content", &d->strip);
    if (status) return status;
    if (begin < 0 || end < 0 || begin > 1000 || end > 1000 || !d->strip.n ||
        tni_utf8_decode(d->strip.s, d->strip.n, &c) != (int)d->strip.n)
        return tni_fail(TN_EFORMAT, "the decoder \"Strip\" takes one character up to 1000 times");
    d->strip_begin = (int)begin, d->strip_end = (int)end;
    return 0;
}

int tni_tok_json_decoder(tni_tok *t, const json_t *o, int depth) {
    const char *type = json_string_value(json_object_get(o, "type"));
    if (!o || json_is_null(o) || (type && (!strcmp(type, "ByteLevel") || !strcmp(type, "Fuse"))))
        return 0;
    if (depth > STEPS_DEPTH) return steps_too_many("decoders");
    if (type && !strcmp(type, "Sequence"))
        return steps_sequence(t, o, "decoders", depth, tni_tok_json_decoder);
    if (t->byte_level || !type) return steps_unknown("the decoder", o);
    if (!strcmp(type, "ByteFallback")) return t->decoder.byte_fallback = true, 0;
    if (!strcmp(type, "Replace")) return steps_replace_decoder(t, o);
    if (!strcmp(type, "Metaspace")) return steps_metaspace_decoder(t, o);
    if (!strcmp(type, "Strip")) return steps_strip_decoder(t, o);
    return steps_unknown("the decoder", o);
}

/* ---- post-processors: only what a single text gets before and after itself ---- */

static int steps_push(tni_tok *t, tni_ids *to, const json_t *id) {
    json_int_t v = json_is_integer(id) ? json_integer_value(id) : -1;
    if (v < 0 || v >= t->n_tokens)
        return tni_fail(TN_EFORMAT,
                        "the post-processor has the token id %lld; the vocabulary has "
                        "%lld",
                        (long long)v, (long long)t->n_tokens);
    return tni_tok_push_id(to, (int32_t)v);
}

static int steps_template(tni_tok *t, const json_t *o) {
    const json_t *single = json_object_get(o, "single"),
                 *specials = json_object_get(o, "special_tokens");
    tni_ids *to = &t->before;
    int status = 0;
    for (size_t i = 0; i < json_array_size(single) && !status; i++) {
        const json_t *piece = json_array_get(single, i);
        const char *name =
            json_string_value(json_object_get(json_object_get(piece, "SpecialToken"), "id"));
        if (json_object_get(piece, "Sequence")) to = &t->after;
        const json_t *ids = name ? json_object_get(json_object_get(specials, name), "ids") : NULL;
        for (size_t k = 0; k < json_array_size(ids) && !status; k++)
            status = steps_push(t, to, json_array_get(ids, k));
    }
    return status;
}

int tni_tok_json_processor(tni_tok *t, const json_t *o, int depth) {
    const char *type = json_string_value(json_object_get(o, "type"));
    if (!o || json_is_null(o) || (type && !strcmp(type, "ByteLevel"))) return 0;
    if (depth > STEPS_DEPTH) return steps_too_many("post-processors");
    if (type && !strcmp(type, "Sequence"))
        return steps_sequence(t, o, "processors", depth, tni_tok_json_processor);
    if (type && !strcmp(type, "TemplateProcessing")) return steps_template(t, o);
    if (type && (!strcmp(type, "RobertaProcessing") || !strcmp(type, "BertProcessing"))) {
        int status = steps_push(t, &t->before, json_array_get(json_object_get(o, "cls"), 1));
        return status ? status
                      : steps_push(t, &t->after, json_array_get(json_object_get(o, "sep"), 1));
    }
    return steps_unknown("the post-processor", o);
}
