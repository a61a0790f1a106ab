/* Any bytes as a tokenizer.json, and what follows a line of "====" as further text; or, after a
 * "#", lines as what GGUF says. A tokenizer
 * that loads must encode any text, valid UTF-8 or not, to ids of its vocabulary, decode them to
 * UTF-8, and give the same text token by token. */
#include "base/alloc.h"
#include "fuzz.h"
#include "llm/tokenizer.h"
#include <stdlib.h>
#include <string.h>

enum { FUZZ_TEXT = 4096 };

static void fuzz_valid(const tni_str *s, size_t from) {
    uint32_t c;
    for (size_t i = from; i < s->n;) {
        int n = tni_utf8_decode(s->v + i, s->n - i, &c);
        if (n <= 0) abort();
        i += (size_t)n;
    }
}

/* Whole and as a stream; these may differ in what is stripped at the end and in broken characters.
 */
static void fuzz_decode(const tni_tok *t, const tni_ids *ids) {
    tni_str whole = {0}, stream = {0};
    tni_detok d = {0};
    int status = tni_tok_decode(t, ids->v, ids->n, false, &whole);
    if (status && status != TN_EMEMORY) abort();
    fuzz_valid(&whole, 0);
    for (size_t i = 0; i < ids->n; i++) {
        size_t before = stream.n;
        if (tni_detok_push(&d, t, ids->v[i], &stream)) abort();
        fuzz_valid(&stream, before);
    }
    if (tni_detok_finish(&d, &stream)) abort();
    fuzz_valid(&stream, 0);
    tni_str_free(&whole);
    tni_str_free(&stream);
}

static void fuzz_encode(const tni_tok *t, const char *text, size_t n, int flags,
                        const uint8_t *literal) {
    tni_ids ids = {0};
    if (!tni_tok_encode_spans(t, text, n, literal, flags, &ids)) {
        for (size_t i = 0; i < ids.n; i++) {
            const char *s;
            size_t len;
            if (!tni_tok_token_bytes(t, ids.v[i], &s, &len)) abort();
        }
        fuzz_decode(t, &ids);
    }
    tni_free(ids.v);
}

static void fuzz_texts(const tni_tok *t, const char *more, size_t n) {
    static const char *const texts[] = {
        "", " ", "Hello, world! 123 it's\n\n  \xc3\xa9\xe2\x80\x8d<s>[MASK] </s>x",
        "e\xcc\x81\xcc\xa7\xff\xfe\xe2\x82 \xf0\x9f\x91\xa9\xe6\x97\xa5\xe6\x9c\xac "
        "aaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        fuzz_encode(t, texts[i], strlen(texts[i]), TNI_TOK_SPECIAL | TNI_TOK_TEMPLATE, NULL);
    if (n > FUZZ_TEXT) n = FUZZ_TEXT;
    char *exact = tni_alloc(n);
    uint8_t *literal = tni_calloc(n, 1);
    if (exact && literal) {
        memcpy(exact, more, n);
        for (size_t i = 0; i < n; i++) literal[i] = i % 16 > 7;
        fuzz_encode(t, exact, n, 0, NULL);
        fuzz_encode(t, exact, n, TNI_TOK_SPECIAL, literal);
    }
    tni_free(exact);
    tni_free(literal);
}

static void fuzz_questions(tni_tok *t) {
    for (int64_t i = 0; i < tni_tok_vocab_size(t); i++) {
        const char *s;
        size_t n;
        if (!tni_tok_token_bytes(t, (int32_t)i, &s, &n)) abort();
        if (n && tni_tok_id(t, s, n) >= tni_tok_vocab_size(t)) abort();
    }
    tni_tok_free(t);
}

/* "#", a letter for the kind, the pre-tokenizer's name; then lines: a type's digit and a token, or
 * a space and a merge; scores fall from line to line, in steps. */
static void fuzz_gguf(const char *s, size_t n) {
    enum { LINES = 512 };
    tni_bytes tokens[LINES], merges[LINES];
    int32_t types[LINES];
    float scores[LINES];
    char pre[16] = {0};
    tni_tok_source src = {.model = s[1] == 'l'   ? "llama"
                                   : s[1] == 'm' ? "gemma4"
                                                 : "gpt2",
                          .pre = pre,
                          .tokens = tokens,
                          .types = types,
                          .scores = scores,
                          .merges = merges,
                          .bos = s[1] & 3,
                          .eos = -1,
                          .unk = 0,
                          .add_bos = -1,
                          .add_eos = s[1] & 1,
                          .add_space_prefix = (s[1] >> 2) % 3 - 1};
    for (size_t at = 2, len; at < n; at += len + 1) {
        const char *end = memchr(s + at, '\n', n - at), *line = s + at;
        len = end ? (size_t)(end - line) : n - at;
        if (at == 2) {
            memcpy(pre, line, len < sizeof pre - 1 ? len : sizeof pre - 1);
        } else if (len && *line == ' ' && src.n_merges < LINES) {
            merges[src.n_merges++] = (tni_bytes){line + 1, len - 1};
        } else if (len && src.n_tokens < LINES) {
            scores[src.n_tokens] = -(float)(src.n_tokens / 3);
            types[src.n_tokens] = *line - '0';
            tokens[src.n_tokens++] = (tni_bytes){line + 1, len - 1};
        }
    }
    tni_tok *t;
    if (tni_tok_from_gguf(&src, &t)) return;
    fuzz_texts(t, s, n);
    fuzz_questions(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data;
    size_t json = size;
    if (size > 2 && *text == '#') return fuzz_gguf(text, size), 0;
    for (size_t i = 0; i + 6 <= size; i++)
        if (!memcmp(text + i, "\n====\n", 6)) {
            json = i;
            break;
        }
    tni_tok *t;
    if (tni_tok_from_json(text, json, "fuzz", &t)) return 0;
    fuzz_texts(t, text + json, size - json);
    fuzz_questions(t);
    return 0;
}
