/* Tokenizers on vocabularies small enough to check by hand: merging, added tokens, text that came
 * from a message, streams, broken UTF-8, hostile sizes, memory that runs out. Agreement with the
 * tokenizers package is tests/py/test_tokenizer*.py. */
#include "base/alloc.h"
#include "base/err.h"
#include "llm/tokenizer.h"
#include "tap.h"
#include <time.h>

#define G   "\xc4\xa0"     /* the character of a space in GPT-2's alphabet */
#define E1  "\xc3\x83"     /* of byte C3 */
#define E2  "\xc2\xa9"     /* of byte A9, itself */
#define LOW "\xe2\x96\x81" /* SentencePiece's space */

static const char byte_level[] =
    "{\"added_tokens\":[{\"id\":16,\"content\":\"<s>\",\"special\":true},"
    "{\"id\":17,\"content\":\"[M]\",\"special\":true,\"lstrip\":true,\"rstrip\":true},"
    "{\"id\":18,\"content\":\"<ab>\",\"special\":false},"
    "{\"id\":19,\"content\":\"<s>ab\",\"special\":false}],"
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},"
    "\"decoder\":{\"type\":\"ByteLevel\"},"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"<\":3,\"s\":4,\">\":5,\"" G
    "\":6,\"" E1 "\":7,\"" E2 "\":8,\"aa\":9,\"aaaa\":10,\"ab\":11,\"" G "a\":12,\"" E1 E2
    "\":13,\"bc\":14,\"abc\":15},"
    "\"merges\":[\"a a\",\"aa aa\",\"a b\",\"" G " a\",\"" E1 " " E2 "\",\"b c\",\"a bc\"]}}";

static const char pieces[] =
    "{\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true},"
    "{\"id\":1,\"content\":\"<s>\",\"special\":true}],"
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":"
    "\"" LOW "\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" LOW "\"}]},"
    "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{"
    "\"String\":"
    "\"" LOW "\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},"
    "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
    "\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"special_tokens\":{\"<s>"
    "\":"
    "{\"id\":\"<s>\",\"ids\":[1],\"tokens\":[\"<s>\"]}}},"
    "\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true,"
    "\"vocab\":{\"<unk>\":0,\"<s>\":1,\"<0xC3>\":2,\"<0xA9>\":3,\"" LOW
    "\":4,\"h\":5,\"i\":6,\"" LOW "h\":7,\"hi\":8,\"<0xFF>\":9},\"merges\":[[\"" LOW
    "\",\"h\"],[\"h\",\"i\"]]}}";

static tni_tok *load(const char *json) {
    tni_tok *t = NULL;
    if (!ok(tni_tok_from_json(json, strlen(json), "test.json", &t) == 0, "loads: %s", tni_error()))
        exit(tap_done());
    return t;
}

/* The byte-level one with a part of its own; the last of equal keys counts. */
static tni_tok *load_with(const char *part) {
    char json[2048];
    snprintf(json, sizeof json, "%.*s,%s}", (int)strlen(byte_level) - 1, byte_level, part);
    return load(json);
}

/* "1 2 3" for the ids of n bytes, or the error. */
static const char *ids_of(const tni_tok *t, const char *s, size_t n, const char *literal,
                          int flags) {
    static char text[1024];
    uint8_t marks[256];
    tni_ids ids = {0};
    for (size_t i = 0; literal && i < n; i++) marks[i] = literal[i] == 'x';
    int status = tni_tok_encode_spans(t, s, n, literal ? marks : NULL, flags, &ids);
    int at = snprintf(text, sizeof text, "%s", status ? tni_error() : "");
    for (size_t i = 0; i < ids.n && at < 1000; i++)
        at += snprintf(text + at, sizeof text - (size_t)at, i ? " %d" : "%d", ids.v[i]);
    tni_free(ids.v);
    return text;
}

static const char *ids(const tni_tok *t, const char *s, int flags) {
    return ids_of(t, s, strlen(s), NULL, flags);
}

static void test_merges(const tni_tok *t) {
    is_str(ids(t, "", 0), "", "nothing");
    is_str(ids(t, "a", 0), "0", "a byte");
    is_str(ids(t, "aaa", 0), "9 0", "the leftmost of equal pairs");
    is_str(ids(t, "aaaaaaa", 0), "10 9 0", "pairs of pairs");
    is_str(ids(t, "abc", 0), "11 2", "the lower rank first, though a longer token exists");
    is_str(ids(t, "cabbc", 0), "2 11 14", "two merges of one word");
    is_str(ids(t, "a a", 0), "0 12", "words are cut before a space");
    is_str(ids(t, "\xc3\xa9", 0), "13", "two bytes of a character");
    is_str(ids(t, "\xa9\xc3\xc3\xa9", 0), "8 7 13", "stray bytes are words of their own");
    is_str(ids(t, "aXa", 0), "9", "bytes without a token vanish, as in tokenizers");
    is_str(ids_of(t, "a\0a", 3, NULL, 0), "0 0", "zero bytes are bytes");
}

static void test_added(const tni_tok *t) {
    const int S = TNI_TOK_SPECIAL;
    is_str(ids(t, "a<s>b", S), "0 16 1", "a special token");
    is_str(ids(t, "a<s>b", 0), "0 3 4 5 1", "not recognised");
    is_str(ids(t, "<s>ab", S), "19", "the longest");
    is_str(ids(t, "<ab>", 0), "18", "an added token that is not special");
    is_str(ids(t, "a  [M] \n b", S), "0 17 1", "takes in the space beside it");
    is_str(ids(t, "<s", S), "3 4", "an unfinished one");
    ok(tni_tok_is_special(t, 16) && !tni_tok_is_special(t, 18) && !tni_tok_is_special(t, -1) &&
           !tni_tok_is_special(t, 99),
       "which are special");
    is_i64(tni_tok_id(t, "<s>", 3), 16, "by text");
    is_i64(tni_tok_id(t, "none", 4), -1, "by a text that is no token's");
    is_i64(tni_tok_vocab_size(t), 20, "all tokens");
}

static void test_literal(const tni_tok *t) {
    const int S = TNI_TOK_SPECIAL;
    is_str(ids_of(t, "<s><s>", 6, "...xxx", S), "16 3 4 5", "text of a message is only text");
    is_str(ids_of(t, "<s>", 3, "x..", S), "3 4 5", "its first byte alone");
    is_str(ids_of(t, "<s>", 3, "..x", S), "3 4 5", "its last byte alone");
    is_str(ids_of(t, "<s>ab", 5, "...xx", S), "16 11", "a shorter token that is not touched");
    is_str(ids_of(t, "<ab>", 4, "xxxx", S), "3 11 5", "no added token either");
    is_str(ids_of(t, "ab", 2, "x.", S), "11", "the border cuts no word");
    is_str(ids_of(t, "a  [M]  a", 9, ".x...... ", S), "0 6 17 0",
           "the template's spaces are taken in");
    is_str(ids_of(t, "a  [M]  a", 9, ".xx...xx.", S), "0 6 6 17 6 12",
           "those of a message are not");
}

static const char *text_of(const tni_tok *t, const int32_t *v, size_t n, bool skip) {
    static char text[256];
    tni_str s = {0};
    int status = tni_tok_decode(t, v, n, skip, &s);
    snprintf(text, sizeof text, "%s", status ? tni_error() : s.v ? s.v : "");
    tni_str_free(&s);
    return text;
}
#define TEXT(t, skip, ...)                                                                         \
    text_of(t, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / 4, skip)

/* The pieces of a stream, a bar after each. */
static const char *stream(const tni_tok *t, const int32_t *v, size_t n) {
    static char text[256];
    tni_str s = {0};
    tni_detok d = {0};
    int status = 0;
    for (size_t i = 0; i < n && !status; i++) {
        status = tni_detok_push(&d, t, v[i], &s);
        if (!status) status = tni_str_putc(&s, '|');
    }
    if (!status) status = tni_detok_finish(&d, &s);
    snprintf(text, sizeof text, "%s", status ? tni_error() : s.v ? s.v : "");
    tni_detok_free(&d);
    tni_str_free(&s);
    return text;
}
#define STREAM(t, ...)                                                                             \
    stream(t, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / 4)

static void test_decode(const tni_tok *t, const tni_tok *p) {
    is_str(TEXT(t, false, 16, 11, 12), "<s>ab a", "text with special tokens");
    is_str(TEXT(t, true, 16, 11, 18, 12), "ab<ab> a", "without");
    is_str(TEXT(t, false, 7, 8), "\xc3\xa9", "a character of two tokens");
    is_str(TEXT(t, false, 7, 0, 8),
           "\xef\xbf\xbd"
           "a"
           "\xef\xbf\xbd",
           "broken characters");
    ok(strstr(TEXT(t, false, 0, 20), "20"), "an id that is none: %s", tni_error());
    is_i64(tni_error_code(), TN_EINDEX, "its code");
    ok(strstr(TEXT(t, false, -1), "-1"), "a negative id");
    is_str(STREAM(t, 7, 8, 7, 0, 7),
           "|\xc3\xa9||\xef\xbf\xbd"
           "a||\xef\xbf\xbd",
           "a stream holds part of a character back");
    is_str(STREAM(t, 0, 77), tni_error(), "a stream with an id that is none");
    is_str(TEXT(p, false, 7, 6, 4, 2, 3), "hi \xc3\xa9",
           "one space at the beginning is taken away");
    is_str(TEXT(p, false, 2, 5, 9, 3), "\xef\xbf\xbdh\xef\xbf\xbd\xef\xbf\xbd",
           "bytes that are no text");
    is_str(STREAM(p, 4, 4, 7, 6, 2, 3), "| | h|i||\xc3\xa9|", "the same as a stream");
}

static void test_pieces(const tni_tok *p) {
    is_str(ids(p, "hi", 0), "7 6", "a word gets a mark");
    is_str(ids(p, "hi hi", TNI_TOK_TEMPLATE), "1 7 6 7 6", "with the template's token in front");
    is_str(ids(p, "h\xc3\xa9", 0), "7 2 3", "a character's bytes");
    is_str(ids(p, "hxyz\xe2\x82\xac", 0), "7 0", "one unknown token for what has none");
    is_str(ids(p, "\xff", 0), "9", "a stray byte");
}

/* ---- GGUF ---- */

#define B(s)                                                                                       \
    { s, sizeof s - 1 }
static const tni_bytes gguf_tokens[] = {B("<|s|>"), B("a"),    B("b"), B(G),
                                        B("ab"),    B(G "ab"), B("1")};
static const int32_t gguf_types[] = {3, 1, 1, 1, 1, 1, 1};
static const tni_bytes gguf_merges[] = {B("a b"), B(G " ab")};

static tni_tok_source gguf_source(void) {
    return (tni_tok_source){.model = "gpt2",
                            .pre = "smollm",
                            .n_tokens = 7,
                            .tokens = gguf_tokens,
                            .types = gguf_types,
                            .n_merges = 2,
                            .merges = gguf_merges,
                            .bos = 0,
                            .eos = -1,
                            .unk = -1,
                            .add_bos = true};
}

static void refuse_gguf(tni_tok_source s, const char *what) {
    tni_tok *t;
    int status = tni_tok_from_gguf(&s, &t);
    ok(status == TN_EFORMAT && !t && strstr(tni_error(), what), "refused (%s): %s", what,
       tni_error());
}

static void test_gguf(void) {
    tni_tok *t;
    tni_tok_source s = gguf_source();
    ok(tni_tok_from_gguf(&s, &t) == 0, "from GGUF");
    is_str(ids(t, "<|s|>ab ab11", TNI_TOK_SPECIAL | TNI_TOK_TEMPLATE), "0 0 4 5 6 6", "its ids");
    is_str(TEXT(t, true, 0, 4, 5), "ab ab", "its text");
    tni_tok_free(t);
#define REFUSE(what, ...)                                                                          \
    do {                                                                                           \
        tni_tok_source r = gguf_source();                                                          \
        __VA_ARGS__;                                                                               \
        refuse_gguf(r, what);                                                                      \
    } while (0)
    static const tni_bytes odd[] = {B("ab"), B(" ")}, unknown[] = {B("a x"), B("a b")};
    REFUSE("bert", r.model = "bert");
    REFUSE("scores", r.model = "llama");
    REFUSE("tokenizer.ggml.model", r.model = NULL);
    REFUSE("\"odd\"", r.pre = "odd");
    REFUSE("0 tokens", r.n_tokens = 0);
    REFUSE("tokens", r.n_tokens = INT64_MAX);
    REFUSE("merges", r.n_merges = INT64_MAX);
    REFUSE("merge 0", r.merges = odd);
    REFUSE("\"x\"", r.merges = unknown);
    REFUSE("beyond", r.bos = 7);
    REFUSE("beyond", r.eos = INT32_MAX);
}

/* ---- long words, memory ---- */

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A megabyte in one word or one run of marks; quadratic work would take minutes. */
static void test_long(const tni_tok *t) {
    enum { N = 1 << 20 };
    char *text = malloc(N);
    tni_ids v = {0};
    double begin = seconds();
    memset(text, 'a', N);
    ok(tni_tok_encode(t, text, N, 0, &v) == 0, "one word of a megabyte");
    is_i64(v.n, N / 4, "its ids");
    tni_tok *n = load_with("\"normalizer\":{\"type\":\"NFC\"}");
    for (size_t i = 0; i < N; i += 4)
        memcpy(text + i, i < N / 2 ? "\xcc\x81\xcc\x81" : "\xcc\xa7\xcc\xb4", 4);
    ok(tni_tok_encode(n, text, N, 0, &v) == 0, "a megabyte of marks in the wrong order");
    memset(text, ' ', N);
    ok(tni_tok_encode(t, text, N, 0, &v) == 0, "a megabyte of spaces");
    for (size_t i = 0; i < N; i++) text[i] = "<s"[i % 2];
    ok(tni_tok_encode(t, text, N, TNI_TOK_SPECIAL, &v) == 0, "a megabyte of beginnings");
    memset(text, 0xc3, N);
    ok(tni_tok_encode(t, text, N, 0, &v) == 0, "a megabyte that is no UTF-8");
    ok(seconds() - begin < 60, "%.1f s", seconds() - begin);
    memset(text, 'a', N);
    tni_tok *g = load_with("\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
                           "\"Split\",\"pattern\":{\"Regex\":\"(?:(?=(a))[ab])+\"},\"behavior\":"
                           "\"Isolated\"},{\"type\":\"ByteLevel\",\"use_regex\":false,"
                           "\"add_prefix_space\":false}]}");
    v.n = 0;
    ok(tni_tok_encode(g, text, N, 0, &v) == 0 && v.n == N / 4, "a group a million times: %s",
       tni_error());
    tni_tok_free(g);
    tni_tok_free(n);
    tni_free(v.v);
    free(text);
}

static int everything(const char *json) {
    tni_tok *t = NULL;
    tni_ids v = {0};
    tni_str s = {0};
    tni_detok d = {0};
    static const char text[] = "hi [M] \xc3\xa9"
                               "a<s>bc aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\xff";
    const uint8_t marks[sizeof text] = {0};
    int status = json ? tni_tok_from_json(json, strlen(json), "t", &t) : 0;
    tni_tok_source source = gguf_source();
    if (!json) status = tni_tok_from_gguf(&source, &t);
    if (!status) status = tni_tok_encode(t, text, sizeof text, TNI_TOK_SPECIAL, &v);
    if (!status) status = tni_tok_encode_spans(t, text, sizeof text, marks, TNI_TOK_TEMPLATE, &v);
    if (!status) status = tni_tok_decode(t, v.v, v.n, false, &s);
    for (size_t i = 0; i < v.n && !status; i++) status = tni_detok_push(&d, t, v.v[i], &s);
    if (!status) status = tni_detok_finish(&d, &s);
    if (status && !t && v.n) status = 1;
    tni_tok_free(t);
    tni_free(v.v);
    tni_str_free(&s);
    return status;
}

/* Each allocation of a clean run fails once. Without PCRE2's machine code matching is only slower,
 * so that a run may succeed all the same. */
static void test_memory(const char *json, const char *name) {
    int64_t live = tni_alloc_live(), count = tni_alloc_count();
    int odd = 0, failed = 0;
    ok(everything(json) == 0, "%s", name);
    count = tni_alloc_count() - count;
    for (int64_t n = 1; n <= count; n++) {
        tni_fail_alloc_at(n);
        int status = everything(json);
        failed += status != 0;
        odd += status && status != TN_EMEMORY;
        if (odd == 1) diag("allocation %d: %s", (int)n, tni_error());
    }
    tni_fail_alloc_at(0);
    ok(failed > 20 && failed + 20 > count, "%d of %d failures are seen", failed, (int)count);
    is_i64(odd, 0, "every failure says that memory is out");
    is_i64(tni_alloc_live(), live, "nothing is left behind");
}

static void test_bad_json(void) {
    tni_tok *t;
    char deep[5000];
    memset(deep, '[', sizeof deep);
    ok(tni_tok_from_json(deep, sizeof deep, "deep.json", &t) == TN_EFORMAT && !t &&
           strstr(tni_error(), "deep.json"),
       "deeply nested: %s", tni_error());
    ok(tni_tok_open("/nonexistent/tokenizer.json", &t) == TN_EFILE && !t, "no file: %s",
       tni_error());
    for (size_t n = 0; n < sizeof byte_level - 1; n += 7)
        if (tni_tok_from_json(byte_level, n, "cut", &t) != TN_EFORMAT) ok(0, "cut at %zu", n);
    ok(1, "every beginning of a file is refused");
}

int main(void) {
    tni_tok *t = load(byte_level), *p = load(pieces);
    test_merges(t);
    test_added(t);
    test_literal(t);
    test_decode(t, p);
    test_pieces(p);
    test_gguf();
    test_bad_json();
    test_long(t);
    tni_tok_free(t);
    tni_tok_free(p);
    test_memory(byte_level, "byte-level");
    test_memory(pieces, "pieces");
    test_memory(NULL, "GGUF");
    return tap_done();
}
