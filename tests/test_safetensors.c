/* safetensors: files written by other programs (tests/data/st, made by
 * tests/py/reference/make_st.py), hostile headers, folders of shards, the writer. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* nftw */
#endif
#include "base/alloc.h"
#include "base/err.h"
#include "base/mmap.h"
#include "io/safetensors.h"
#include "tap.h"
#include <dirent.h>
#include <ftw.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char dir[] = "/tmp/tenon-st-XXXXXX";

static const char *in(const char *folder, const char *name) {
    static char path[4][1024];
    static int turn;
    char *p = path[turn++ & 3];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

static const char *at(const char *name) { return in(dir, name); }

static const char *golden(const char *name) {
    static char data[512];
    const char *root = getenv("TENON_TEST_SOURCE");
    snprintf(data, sizeof data, "%s/tests/data/st", root ? root : ".");
    return in(data, name);
}

static int files_in(const char *folder) {
    DIR *d = opendir(folder);
    int n = 0;
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n - 2;
}

static bool same_files(const char *a, const char *b) {
    char *x = NULL, *y = NULL;
    size_t n = 0, k = 1;
    bool same = !tni_file_read(a, 1 << 20, &x, &n) && !tni_file_read(b, 1 << 20, &y, &k) &&
                n == k && !memcmp(x, y, n);
    tni_free(x), tni_free(y);
    return same;
}

static bool said(const char *text) {
    bool yes = strstr(tni_error(), text) != NULL;
    if (!yes) diag("  said: %s\n#   want: %s", tni_error(), text);
    return yes;
}

/* ---- files of other programs ---- */

/* The rule by which make_st.py fills tensors. */
static bool content_is_right(const tni_st_tensor *t) {
    const uint8_t *p = t->data;
    for (size_t i = 0; i < t->bytes; i++)
        if (p[i] != (t->dtype == TNI_ST_BOOL ? i & 1 : (7 * i + strlen(t->name)) % 251))
            return false;
    return true;
}

/* All tensors, written again from the last to the first: the same file. */
static void check_rewrite(const char *name, const tni_st *s) {
    tni_st_tensor t[32];
    tni_st_pair meta[4];
    size_t n = tni_st_count(s), k = tni_st_metadata_count(s);
    for (size_t i = 0; i < n; i++) t[i] = *tni_st_at(s, n - 1 - i);
    for (size_t i = 0; i < k; i++) meta[i] = tni_st_metadata_at(s, k - 1 - i);
    is_i64(tni_st_write(at("again"), t, n, meta, k), 0, "%s can be written", name);
    ok(same_files(at("again"), golden(name)), "%s comes out as it was", name);
}

static void test_python(void) {
    static const struct {
        const char *name;
        size_t count, meta;
    } files[] = {{"dtypes.safetensors", 20, 1},
                 {"names.safetensors", 7, 1},
                 {"none.safetensors", 0, 0},
                 {"plain.safetensors", 2, 0},
                 {"mlx.safetensors", 3, 1}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *name = files[i].name;
        tni_st *s;
        if (!ok(!tni_st_open(golden(name), &s), "%s opens: %s", name, tni_error())) continue;
        ok(tni_st_count(s) == files[i].count && tni_st_metadata_count(s) == files[i].meta,
           "%s has what was put in", name);
        bool right = true;
        for (size_t k = 0; k < tni_st_count(s); k++)
            right &= content_is_right(tni_st_at(s, k)) &&
                     tni_st_find(s, tni_st_at(s, k)->name) == tni_st_at(s, k);
        ok(right, "%s: names and bytes", name);
        ok(!tni_st_find(s, "nobody") && !tni_st_at(s, files[i].count), "%s has no other", name);
        is_i64(tni_st_verify(s), 0, "%s is whole", name);
        if (strcmp(name, "mlx.safetensors")) check_rewrite(name, s);
        tni_st_free(s);
    }
}

static void test_dtypes(void) {
    tni_st *s;
    char name[40];
    if (!ok(!tni_st_open(golden("dtypes.safetensors"), &s), "opens")) return;
    for (int d = 0; d < TNI_ST_DTYPES; d++) {
        if (d == TNI_ST_F6_E2M3 || d == TNI_ST_F6_E3M2) continue; /* not to be had in Python */
        snprintf(name, sizeof name, "a tensor of %s", tni_st_dtype_name((tni_st_dtype)d));
        const tni_st_tensor *t = tni_st_find(s, name);
        ok(t && t->dtype == (tni_st_dtype)d && t->ndim == 2 && t->shape[0] == 2 &&
               t->shape[1] == 4 && t->bytes == (size_t)tni_st_dtype_bits((tni_st_dtype)d),
           "%s", name);
    }
    is_str(tni_st_metadata(s, "format"), "pt", "metadata");
    ok(!tni_st_metadata(s, "Format"), "no other key");
    tni_st_free(s);
    is_str(tni_st_dtype_name((tni_st_dtype)99), "?", "an unknown dtype has no name");
    is_i64(tni_st_dtype_bits((tni_st_dtype)-1), 0, "and no size");
}

static void test_names(void) {
    tni_st *s;
    if (!ok(!tni_st_open(golden("names.safetensors"), &s), "opens")) return;
    const tni_st_tensor *t = tni_st_find(s, "scalar");
    ok(t && t->ndim == 0 && t->bytes == 4, "a scalar");
    t = tni_st_find(s, "empty");
    ok(t && t->ndim == 3 && t->shape[1] == 0 && t->bytes == 0 && t->data, "an empty tensor");
    ok(tni_st_find(s, ""), "a name without letters");
    ok(tni_st_find(s, "quote \" back \\ slash /"), "quotes");
    ok(tni_st_find(s, "controls \b\f\n\r\t\x01\x1f\x7f"), "controls");
    t = tni_st_find(s, "\xc3\xbc \xe6\xbc\xa2 \xf0\x9f\x98\x80");
    ok(t && t->ndim == 8 && t->shape[0] == 2, "UTF-8, eight dimensions");
    is_str(tni_st_metadata(s, "k\xc3\xa9y \"1\""), "v\n\xc3\xa4l", "metadata are decoded too");
    tni_st_free(s);
}

/* ---- images in memory ---- */

static uint8_t image[4096];

/* Length, JSON, n bytes of data. */
static size_t image_of(const char *json, size_t length, size_t n) {
    for (int i = 0; i < 8; i++) image[i] = (uint8_t)((uint64_t)length >> 8 * i);
    memcpy(image + 8, json, length);
    memset(image + 8 + length, 1, n);
    return 8 + length + n;
}

/* From a block of exactly that size, for the sanitizers. */
static int open_copy(size_t n, tni_st **s, uint8_t **copy) {
    *copy = malloc(n ? n : 1);
    memcpy(*copy, image, n);
    return tni_st_open_mem(*copy, n, s);
}

/* For the protocol, which is lines of text. */
static const char *line(const char *json) {
    static char out[100];
    snprintf(out, sizeof out, "%s", json);
    for (char *p = out; *p; p++)
        if (*p < 0x20 || *p > 0x7e || *p == '#') *p = '?';
    return out;
}

static void refused(const char *json, size_t data, const char *why) {
    tni_st *s = (tni_st *)image;
    uint8_t *copy;
    int64_t live = tni_alloc_live();
    int code = open_copy(image_of(json, strlen(json), data), &s, &copy);
    ok(code == TN_EFORMAT && !s && said(why) && tni_alloc_live() == live, "refused: %s",
       line(json));
    tni_st_free(s);
    free(copy);
}

static void accepted(const char *json, size_t data, size_t count) {
    tni_st *s;
    uint8_t *copy;
    int code = open_copy(image_of(json, strlen(json), data), &s, &copy);
    if (ok(!code, "accepted: %s %s", line(json), code ? tni_error() : ""))
        is_i64(tni_st_count(s), count, "with %zu tensors", count);
    tni_st_free(s);
    free(copy);
}

#define U8(name, begin, end)                                                                       \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":[" #end "],\"data_offsets\":[" #begin "," #end "]}"
#define ONE(shape, begin, end)                                                                     \
    "{\"a\":{\"dtype\":\"U8\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}}"

static void test_ranges(void) {
    refused(ONE("[4]", "0", "4"), 3,
            "byte 9: tensor \"a\" ends at byte 4 of the data, but the file");
    refused(ONE("[4]", "0", "4"), 5, "byte 65: the last 1 bytes belong to no tensor");
    refused(ONE("[4]", "1", "5"), 5, "byte 61: 1 bytes before tensor \"a\" belong to no tensor");
    refused(ONE("[4]", "5", "1"), 9, "begins at 5, after its end 1");
    refused(ONE("[4]", "0", "3"), 3, "needs 4 bytes by its shape, but has [0, 3)");
    refused(ONE("[4]", "9223372036854775803", "9223372036854775807"), 4, "ends at byte 92233720");
    refused(ONE("[0]", "5", "5"), 4, "ends at byte 5");
    refused(ONE("[0]", "2", "2"), 4, "belong to no tensor");
    refused("{}", 1, "the last 1 bytes");
    refused("{" U8("a", 0, 4) "," U8("b", 0, 4) "}", 4, "tensors \"a\" and \"b\" overlap");
    refused("{\"b\":{\"dtype\":\"I8\",\"shape\":[3],\"data_offsets\":[2,5]}," U8("a", 0, 4) "}", 5,
            "overlap");
    refused("{" U8("a", 0, 2) ",\"b\":{\"dtype\":\"I8\",\"shape\":[3],\"data_offsets\":[3,6]}}", 6,
            "1 bytes before tensor \"b\"");
    refused("{" U8("a", 0, 4) ",\"b\":{\"dtype\":\"I8\",\"shape\":[0],\"data_offsets\":[2,2]}}", 4,
            "overlap");
    accepted("{" U8("a", 0, 4) ",\"b\":{\"dtype\":\"I8\",\"shape\":[0],\"data_offsets\":[4,4]}}", 4,
             2);
    accepted("{\"b\":{\"dtype\":\"I8\",\"shape\":[3],\"data_offsets\":[4,7]}," U8("a", 0, 4) "}", 7,
             2);
    accepted("{" U8("b", 0, 0) "," U8("a", 0, 0) "}", 0, 2);
    accepted("{}", 0, 0);
}

static void test_shapes(void) {
#define BIG "4294967296"
    refused(ONE("[" BIG "," BIG "]", "0", "4"), 4, "more than 2^63-1 elements");
    refused(ONE("[" BIG "," BIG ",0]", "0", "0"), 0, "more than 2^63-1 elements");
    refused(ONE("[0," BIG "," BIG "]", "0", "0"), 0, "more than 2^63-1 elements");
    refused(ONE("[9223372036854775807]", "0", "4"), 4, "more than 2^63-1 bits");
    refused(ONE("[9223372036854775808]", "0", "4"), 4, "an integer beyond 2^63-1");
    refused(ONE("[99999999999999999999999999]", "0", "4"), 4, "an integer beyond 2^63-1");
    refused(ONE("[-1]", "0", "4"), 4, "expected a non-negative integer, got '-', in tensor \"a\"");
    refused(ONE("[4.0]", "0", "4"), 4, "without a fraction");
    refused(ONE("[4e0]", "0", "4"), 4, "without a fraction or exponent");
    refused(ONE("[4E0]", "0", "4"), 4, "without a fraction or exponent");
    refused(ONE("[04]", "0", "4"), 4, "leading zero");
    refused(ONE("[\"4\"]", "0", "4"), 4, "expected a non-negative integer, got '\"'");
    refused(ONE("[null]", "0", "4"), 4, "expected a non-negative integer");
    refused(ONE("4", "0", "4"), 4, "expected '['");
    refused(ONE("[[4]]", "0", "4"), 4, "expected a non-negative integer, got '['");
    refused(ONE("[4,]", "0", "4"), 4, "expected a non-negative integer, got ']'");
    refused(ONE("[4 1]", "0", "4"), 4, "expected ',' or ']', got '1'");
    refused(ONE("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,4]", "0", "4"), 4, "more than 16 dimensions");
    accepted(ONE("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,4]", "0", "4"), 4, 1);
    accepted(ONE("[0," BIG "]", "0", "0"), 0, 1);
    accepted(ONE("[0,0,0]", "0", "0"), 0, 1);
    refused("{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2,
            "fill whole bytes");
    refused("{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}", 1,
            "fill whole bytes");
    accepted("{\"a\":{\"dtype\":\"F6_E2M3\",\"shape\":[2,2],\"data_offsets\":[0,3]}}", 3, 1);
}

static void test_fields(void) {
#define REST ",\"shape\":[4],\"data_offsets\":[0,4]}}"
    refused("{\"a\":{\"dtype\":\"Q9\"" REST, 4,
            "byte 22: tensor \"a\" has the dtype \"Q9\", which");
    refused("{\"a\":{\"dtype\":\"u8\"" REST, 4, "has the dtype \"u8\"");
    refused("{\"a\":{\"dtype\":8" REST, 4, "expected '\"', got '8'");
    refused("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\"" REST, 4, "two fields \"dtype\"");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[4]" REST, 4, "two fields \"shape\"");
    refused("{\"a\":{\"x\":1" REST, 4, "no field \"dtype\"");
    refused("{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,4]}}", 4, "no field \"shape\"");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[4]}}", 4, "no field \"data_offsets\"");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[]}}", 1, "0 data_offsets");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0]}}", 1, "1 data_offsets");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1,1]}}", 1, "more than two");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,-1]}}", 1, "got '-'");
    refused("{\"a\":[1]}", 4, "expected '{', got '['");
    refused("{\"a\":null}", 4, "expected '{', got 'n', in tensor \"a\"");
    refused("{" U8("a", 0, 4) "," U8("a", 0, 4) "}", 4, "tensor \"a\" occurs twice");
    refused("{" U8("a", 0, 0) "," U8("\\u0061", 0, 0) "}", 0, "tensor \"a\" occurs twice");
    accepted("{\"a\":{\"dtype\":\"U8\",\"more\":{\"x\":[1,-2.5e+3,true,null,\"\\n\"]}" REST, 4, 1);
    accepted(
        " \t\r\n{ \"a\" :\n{ \"dtype\" : \"U8\" , \"shape\" : [ 4 ] , \"data_offsets\" : [ 0 , "
        "4 ] } } \n",
        4, 1);
}

static void test_metadata(void) {
    refused("{\"__metadata__\":{\"a\":1}}", 0, "expected '\"', got '1'");
    refused("{\"__metadata__\":[]}", 0, "expected '{', got '['");
    refused("{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}", 0, "the key \"a\" occurs twice");
    refused("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "__metadata__ occurs twice");
    refused("{\"__metadata__\":{\"a\":\"b\",}}", 0, "expected '\"', got '}'");
    refused("{\"__metadata__\":nul}", 0, "expected '{', got 'n'");
    refused("{\"__metadata__\":nulls}", 0, "expected ',' or '}', got 's'");
    accepted("{\"__metadata__\":{}}", 0, 0);
    accepted("{\"__metadata__\":null}", 0, 0);
    accepted("{\"__metadata__\": null ," U8("a", 0, 4) "}", 4, 1);
    accepted("{" U8("a", 0, 4) ",\"__metadata__\":{\"a\":\"b\",\"c\":\"\"}}", 4, 1);
}

static void test_json(void) {
    refused("", 0, "byte 8: expected '{', but the JSON text ends");
    refused("{", 0, "the JSON text ends");
    refused("{\"a", 0, "expected '\"' at a string's end");
    refused("{\"a\"", 0, "expected ':'");
    refused("{\"a\":", 0, "expected '{'");
    refused("[]", 0, "expected '{', got '['");
    refused("\"\"", 0, "expected '{'");
    refused("{}{}", 0, "expected the end of the JSON text, got '{'");
    refused("{},", 0, "expected the end of the JSON text");
    refused("{,}", 0, "byte 9: expected '\"', got ','");
    refused("{1:2}", 0, "expected '\"'");
    refused("{a:2}", 0, "expected '\"', got 'a'");
    refused("\xef\xbb\xbf{}", 0, "got byte 0xef");
    refused("// x\n{}", 0, "got '/'");
    refused("{" U8("a", 0, 4) " " U8("b", 0, 4) "}", 4, "expected ',' or '}', got '\"'");
    refused("{" U8("a", 0, 4) ",}", 4, "expected '\"', got '}'");
#define TEXT(s) "{\"__metadata__\":{\"k\":\"" s "\"}}"
    refused(TEXT("\xff"), 0, "expected UTF-8 in a string, got byte 0xff");
    refused(TEXT("\xc0\x80"), 0, "byte 30: expected UTF-8");
    refused(TEXT("\xed\xa0\x80"), 0, "expected UTF-8");
    refused(TEXT("\xf4\x90\x80\x80"), 0, "expected UTF-8");
    refused(TEXT("\xe2\x82"), 0, "expected UTF-8");
    refused(TEXT("a\nb"), 0, "an escape instead of a control character, got byte 0x0a");
    refused(TEXT("\\x41"), 0, "expected an escape");
    refused(TEXT("\\u12g4"), 0, "expected a hexadecimal digit of \\u, got 'g'");
    refused(TEXT("\\ud800"), 0, "unpaired surrogate \\ud800");
    refused(TEXT("\\udc00"), 0, "unpaired surrogate \\udc00");
    refused(TEXT("\\ud800\\u0041"), 0, "unpaired surrogate");
    refused(TEXT("\\u0000"), 0, "a string holds NUL");
    refused("{\"a\\u0000b\":1}", 0, "a string holds NUL");
    refused("{\"\\", 0, "expected an escape");
    refused("{\"\\u00", 0, "hexadecimal digit of \\u, but the JSON text ends");
    refused("{\"a\x1b[31m\":1}", 0, "got byte 0x1b");
    refused("{\"\\u001b[31m\":1}", 0, "in tensor \"?[31m\"");
}

static void test_escapes(void) {
    tni_st *s;
    uint8_t *copy;
    const char *json =
        TEXT("\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\u00E9\\u20ac\\ud83d\\ude00\\uDBFF\\uDFFF"
             "\xf0\x9f\x98\x80");
    if (!ok(!open_copy(image_of(json, strlen(json), 0), &s, &copy), "all escapes")) return;
    is_str(tni_st_metadata(s, "k"),
           "\"\\/"
           "\b\f\n\r\t\xc3\xa9\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf\xf0\x9f\x98\x80",
           "are decoded");
    tni_st_free(s);
    free(copy);
}

/* Values nobody asked for are checked as strictly, and only so deep. */
static void test_skipped(void) {
    static const char *const bad[] = {"",     "tru",     "nul",     "True",     "-",          "01",
                                      "1.",   ".5",      "1e",      "1e+",      "+1",         "NaN",
                                      "[1,]", "[1 2]",   "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "[",
                                      "{",    "\"\\q\"", "[}",      "{]"};
    static const char *const good[] = {"true",
                                       "false",
                                       "null",
                                       "0",
                                       "-0",
                                       "-1.5E-7",
                                       "[]",
                                       "{}",
                                       "[[],{}]",
                                       "\"x\"",
                                       "{\"a\":{\"b\":[{}]}}",
                                       "1e400"};
    char json[512], deep[200];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(json, sizeof json, "{\"a\":{\"x\":%s,\"dtype\":\"U8\"" REST, bad[i]);
        refused(json, 4, "expected");
    }
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        snprintf(json, sizeof json, "{\"a\":{\"x\":%s,\"dtype\":\"U8\"" REST, good[i]);
        accepted(json, 4, 1);
    }
    for (int depth = 64; depth <= 65; depth++) {
        memset(deep, '[', (size_t)depth);
        memset(deep + depth, ']', (size_t)depth);
        deep[2 * depth] = '\0';
        snprintf(json, sizeof json, "{\"a\":{\"x\":%s,\"dtype\":\"U8\"" REST, deep);
        if (depth == 64)
            accepted(json, 4, 1);
        else
            refused(json, 4, "nested deeper than 64 levels");
    }
}

static void refused_bytes(size_t n, const char *why) {
    tni_st *s;
    uint8_t *copy;
    ok(open_copy(n, &s, &copy) == TN_EFORMAT && !s && said(why), "refused: %zu bytes, %s", n, why);
    free(copy);
}

static void test_lengths(void) {
    memset(image, 0, sizeof image);
    refused_bytes(0, "0 bytes are too few");
    refused_bytes(7, "7 bytes are too few");
    refused_bytes(8, "byte 8: expected '{'");
    size_t n = image_of("{}", 2, 0);
    refused_bytes(n - 1, "a header of 2 bytes is announced, the file has fewer");
    image_of("{}", 2, 0);
    memset(image, 0xff, 8);
    refused_bytes(10, "18446744073709551615 bytes is announced, at most 100000000");
    memcpy(image, "\x01\xe1\xf5\x05\0\0\0", 8); /* 100000001 */
    refused_bytes(10, "100000001 bytes is announced, at most 100000000");
    memcpy(image, "\x00\xe1\xf5\x05\0\0\0", 8);
    refused_bytes(10, "100000000 bytes is announced, the file has fewer");
    memcpy(image, "version https://git-lfs.github.com/spec/v1\n", 44);
    refused_bytes(44, "a Git LFS pointer");
    /* Every prefix of a real file, and it with one byte more. */
    char *text;
    if (!ok(!tni_file_read(golden("names.safetensors"), 1 << 20, &text, &n), "read")) return;
    memcpy(image, text, n);
    image[n] = 0;
    tni_free(text);
    tni_st *s;
    uint8_t *copy;
    int wrong = 0;
    for (size_t k = 0; k <= n + 1; k++) {
        wrong += (open_copy(k, &s, &copy) == 0) != (k == n);
        tni_st_free(s);
        free(copy);
    }
    is_i64(wrong, 0, "only the whole file opens");
}

/* Headers of many tensors must be read in linear time: quadratic work on 100,000 would be minutes.
 */
static void test_many(void) {
    enum { MANY = 100000 };
    char *json = malloc((size_t)MANY * 96 + 16);
    size_t n = 8;
    struct timespec t0, t1;
    json[n++] = '{';
    for (int i = 0; i < MANY; i++) /* the data back to front */
        n += (size_t)sprintf(
            json + n, "%s\"t.%d.w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
            i ? "," : "", i, MANY - 1 - i, MANY - i);
    json[n++] = '}';
    for (int i = 0; i < 8; i++) json[i] = (char)((n - 8) >> 8 * i);
    json = realloc(json, n + MANY);
    memset(json + n, 3, MANY);
    tni_st *s;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    int code = tni_st_open_mem(json, n + MANY, &s);
    clock_gettime(CLOCK_MONOTONIC, &t1);
    double seconds = (double)(t1.tv_sec - t0.tv_sec) + 1e-9 * (double)(t1.tv_nsec - t0.tv_nsec);
    ok(!code && tni_st_count(s) == MANY && seconds < 10, "100,000 tensors in %.0f ms",
       1e3 * seconds);
    const tni_st_tensor *t = code ? NULL : tni_st_find(s, "t.99999.w");
    ok(t && t->data == json + n, "the last one is found");
    tni_st_free(s);
    free(json);
}

/* Data at odd addresses is handed out as it lies. */
static void test_unaligned(void) {
    tni_st *s;
    uint8_t *copy;
    const char *json = "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                       "\"b\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[1,9]}} ";
    if (!ok(!open_copy(image_of(json, strlen(json), 9), &s, &copy), "opens")) return;
    const tni_st_tensor *b = tni_st_find(s, "b");
    is_i64((const uint8_t *)b->data - (const uint8_t *)tni_st_find(s, "a")->data, 1, "as it lies");
    tni_st_free(s);
    free(copy);
}

/* ---- folders ---- */

static const char *folder(const char *name) {
    const char *path = at(name);
    ok(!mkdir(path, 0777), "folder %s", name);
    return path;
}

/* A file with the one-byte U8 tensors that are named, and its own name as metadata. */
static void put(const char *to, const char *file, const char *a, const char *b) {
    static const uint8_t byte[2] = {1, 2};
    tni_st_tensor t[2] = {{a, TNI_ST_U8, 1, {1}, byte, 1}, {b, TNI_ST_U8, 1, {1}, byte + 1, 1}};
    tni_st_pair meta = {"file", file};
    is_i64(tni_st_write(in(to, file), t, b ? 2 : 1, &meta, 1), 0, "put %s", file);
}

static void put_text(const char *to, const char *file, const char *text) {
    is_i64(tni_file_write(in(to, file), text, strlen(text)), 0, "put %s", file);
}

static void test_golden_shards(void) {
    tni_st *s;
    if (!ok(!tni_st_open_dir(golden("shards"), &s), "shards open: %s", tni_error())) return;
    is_i64(tni_st_count(s), 5, "all tensors");
    bool right = true;
    for (size_t i = 0; i < tni_st_count(s); i++) right &= content_is_right(tni_st_at(s, i));
    ok(right, "their bytes");
    ok(tni_st_find(s, "h.1.w") && tni_st_find(s, "ln")->dtype == TNI_ST_F32, "found by name");
    is_str(tni_st_metadata(s, "file"), "model-00001-of-00003.safetensors", "metadata of the first");
    is_i64(tni_st_verify(s), 0, "all whole");
    tni_st_free(s);
}

static void refused_dir(const char *d, int want, const char *why) {
    tni_st *s = (tni_st *)image;
    int64_t live = tni_alloc_live();
    int code = tni_st_open_dir(d, &s);
    ok(code == want && !s && said(why) && live == tni_alloc_live(), "refused: %s", why);
    tni_st_free(s);
}

static void test_list(void) {
    char d[256];
    snprintf(d, sizeof d, "%s", folder("list"));
    refused_dir(d, TN_EFILE, "there is no *.safetensors file");
    refused_dir(at("nowhere"), TN_EFILE, "nowhere: cannot open: No such file");
    put(d, "b.safetensors", "b", NULL);
    put(d, "a.safetensors", "a", NULL);
    put_text(d, ".hidden.safetensors", "x");
    put_text(d, "c.safetensors.part", "x");
    put_text(d, ".safetensors", "x");
    tni_st *s;
    if (!ok(!tni_st_open_dir(d, &s), "without an index all files: %s", tni_error())) return;
    is_str(tni_st_metadata(s, "file"), "a.safetensors", "sorted by name");
    ok(tni_st_count(s) == 2 && tni_st_find(s, "b"), "both");
    tni_st_free(s);
    put(d, "c.safetensors", "c", "a");
    refused_dir(d, TN_EFORMAT, "tensor \"a\" is also in ");
    put_text(d, "c.safetensors", "rubbish");
    refused_dir(d, TN_EFORMAT, "c.safetensors: 7 bytes are too few");
    put(d, "model.safetensors", "m", NULL);
    is_i64(tni_st_open_dir(d, &s), 0, "model.safetensors goes first");
    is_i64(tni_st_count(s), 1, "and is all");
    tni_st_free(s);
    unlink(in(d, "model.safetensors"));
    is_i64(symlink("missing", in(d, "model.safetensors")), 0, "a link to nowhere");
    refused_dir(d, TN_EFILE, "model.safetensors: cannot open");
    is_i64(symlink("a.safetensors", in(d, "link")) +
               rename(in(d, "link"), in(d, "model.safetensors")),
           0, "a link");
    is_i64(tni_st_open_dir(d, &s), 0, "is followed");
    ok(s && tni_st_find(s, "a"), "to the file");
    tni_st_free(s);
    unlink(in(d, "model.safetensors"));
    is_i64(mkdir(in(d, "model.safetensors"), 0777), 0, "a folder of that name");
    refused_dir(d, TN_EFILE, "not a regular file");
}

static void test_index(void) {
    static const struct {
        const char *text, *why;
        int code;
    } bad[] = {
        {"", "byte 0: expected '{'", TN_EFORMAT},
        {"[]", "expected '{'", TN_EFORMAT},
        {"{}", "there is no weight_map", TN_EFORMAT},
        {"{\"weight_map\":{}}", "weight_map is empty", TN_EFORMAT},
        {"{\"weight_map\":[]}", "expected '{'", TN_EFORMAT},
        {"{\"weight_map\":{\"a\":1}}", "byte 19: expected '\"', got '1'", TN_EFORMAT},
        {"{\"weight_map\":{\"a\":\"1\",\"a\":\"1\"}}", "\"a\" occurs twice", TN_EFORMAT},
        {"{\"weight_map\":{\"a\":\"1\"},\"weight_map\":{}}", "weight_map occurs twice", TN_EFORMAT},
        {"{\"weight_map\":{\"a\":\"1\"}} x", "expected the end", TN_EFORMAT},
        {"{\"weight_map\":{\"a\":\"../1\"}}", "\"../1\" is not the name of a file", TN_EFORMAT},
        {"{\"weight_map\":{\"a\":\"..\"}}", "\"..\" is not the name of a file", TN_EFORMAT},
        {"{\"weight_map\":{\"a\":\".\"}}", "\".\" is not the name of a file", TN_EFORMAT},
        {"{\"weight_map\":{\"a\":\"\"}}", "\"\" is not the name of a file", TN_EFORMAT},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "is not the name of a file", TN_EFORMAT},
        {"{\"weight_map\":{\"a\":\"sub\\/1\"}}", "\"sub/1\" is not the name", TN_EFORMAT},
        {"{\"weight_map\":{\"a\":\"x\\\\1\"}}", "is not the name of a file", TN_EFORMAT},
        {"{\"weight_map\":{\"a\":\"\\u001b[2J\"}}", "\"?[2J\" is not the name", TN_EFORMAT},
        {"{\"weight_map\":{\"a\":\"none\"}}", "none: cannot open", TN_EFILE},
        {"{\"weight_map\":{\"a\":\"1\",\"b\":\"1\",\"c\":\"1\"}}",
         "byte 31: the tensor \"c\" is not in 1", TN_EFORMAT},
        {"{\"weight_map\":{\"a\":\"2\",\"b\":\"1\",\"c\":\"2\"}}",
         "byte 15: the tensor \"a\" is not in 2", TN_EFORMAT},
        {"{\"weight_map\":{\"a\":\"1\",\"b\":\"1\",\"c\":\"1\",\"z\":\"2\"}}", "the tensor \"c\"",
         TN_EFORMAT},
        {"{\"weight_map\":{\"a\":\"1\",\"b\":\"3\"}}", "tensor \"b\" is also in ", TN_EFORMAT},
    };
    char d[256];
    tni_st *s;
    snprintf(d, sizeof d, "%s", folder("index"));
    put(d, "1", "a", "b");
    put(d, "2", "c", NULL);
    put(d, "3", "b", NULL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_text(d, "model.safetensors.index.json", bad[i].text);
        refused_dir(d, bad[i].code, bad[i].why);
    }
    put_text(
        d, "model.safetensors.index.json",
        "{\"metadata\":{\"total_size\":3.0,\"x\":[{}]},\"weight_map\":{\"c\":\"2\",\"a\":\"1\"}}");
    if (!ok(!tni_st_open_dir(d, &s), "an index: %s", tni_error())) return;
    ok(tni_st_count(s) == 3 && tni_st_find(s, "b"), "tensors it does not mention are there too");
    is_str(tni_st_metadata(s, "file"), "1", "the first file is the first by name");
    tni_st_free(s);
    is_i64(truncate(in(d, "2"), 20), 0, "cut a shard");
    refused_dir(d, TN_EFORMAT, "/2, byte 0: not a safetensors file, or cut short");
}

static void test_open_file(void) {
    tni_st *s;
    is_i64(tni_st_open(at("nothing"), &s), TN_EFILE, "a missing file");
    ok(!s && said("nothing: cannot open"), "is named");
    is_i64(tni_st_open(dir, &s), TN_EFILE, "a folder");
    put(dir, "cut", "a", "b");
    is_i64(tni_st_open(at("cut"), &s), 0, "a file");
    is_i64(tni_st_verify(s), 0, "whole");
    is_i64(truncate(at("cut"), 10), 0, "is cut");
    is_i64(tni_st_verify(s), TN_EFILE, "which is noticed");
    ok(said("cut: the file shrank"), "with its name");
    ok(tni_st_find(s, "a") && tni_st_metadata(s, "file"), "names and metadata stay");
    tni_st_free(s);
    tni_st_free(NULL);
}

/* ---- the writer ---- */

static void test_write_bytes(void) {
    static const uint8_t data[] = {1, 2, 3, 4, 5, 6, 7, 8};
    static const char want[] = "\x88\0\0\0\0\0\0\0{\"__metadata__\":{\"a\":\"\\\"\",\"b\":\"\"},"
                               "\"y\":{\"dtype\":\"U16\",\"shape\":[2],\"data_offsets\":[0,4]},"
                               "\"x\":{\"dtype\":\"U8\",\"shape\":[3,1],\"data_offsets\":[4,7]}}";
    tni_st_tensor t[] = {{"x", TNI_ST_U8, 2, {3, 1}, data + 4, 3},
                         {"y", TNI_ST_U16, 1, {2}, data, 4}};
    tni_st_pair meta[] = {{"b", ""}, {"a", "\""}};
    char *text;
    size_t n;
    is_i64(tni_st_write(at("w"), t, 2, meta, 2), 0, "write");
    if (!ok(!tni_file_read(at("w"), 1000, &text, &n), "read")) return;
    size_t k = sizeof want - 1;
    ok(n % 8 == 7 && !memcmp(text + n - 7, data, 7), "data, widest first");
    ok(n > k + 7 && !memcmp(text + 8, want + 8, k - 8), "the header");
    is_i64((uint8_t)text[0], n - 7 - 8, "its length");
    for (; k < n - 7; k++)
        if (text[k] != ' ') ok(0, "padded with spaces");
    tni_free(text);
    is_i64(tni_st_write(at("w"), NULL, 0, NULL, 0), 0, "nothing at all");
    ok(same_files(at("w"), golden("none.safetensors")), "as the reference writes it");
}

static void refuses_write(const tni_st_tensor *t, size_t n, const tni_st_pair *meta, size_t k,
                          const char *why) {
    int64_t live = tni_alloc_live();
    ok(tni_st_write(at("no"), t, n, meta, k) == TN_EVALUE && said(why) &&
           live == tni_alloc_live() && access(at("no"), F_OK),
       "not written: %s", why);
}

static void test_write_values(void) {
    static const uint8_t b[4];
    tni_st_pair bad_key = {"\xff", ""}, bad_value = {"k", "\xff"},
                twice[] = {{"k", ""}, {"k", "x"}};
    tni_st_tensor t[] = {{"a", TNI_ST_U8, 1, {4}, b, 4}, {"a", TNI_ST_U16, 1, {2}, b, 4}};
    refuses_write(t, 2, NULL, 0, "two tensors are called \"a\"");
    refuses_write(t, 1, &bad_key, 1, "a metadata key's name is not UTF-8");
    refuses_write(t, 1, &bad_value, 1, "the value of a metadata key is not UTF-8");
    refuses_write(t, 1, twice, 2, "two metadata keys are called \"k\"");
    const tni_st_tensor bad[] = {
        {"\xc3", TNI_ST_U8, 0, {0}, b, 1}, {"__metadata__", TNI_ST_U8, 0, {0}, b, 1},
        {"a", TNI_ST_U8, 1, {4}, b, 3},    {"a", TNI_ST_U8, 1, {4}, NULL, 4},
        {"a", TNI_ST_U8, 1, {-4}, b, 4},   {"a", TNI_ST_U8, 17, {1}, b, 1},
        {"a", TNI_ST_U8, -1, {1}, b, 1},   {"a", (tni_st_dtype)77, 1, {1}, b, 1},
        {"a", TNI_ST_F4, 1, {3}, b, 1},    {"a", TNI_ST_U8, 2, {INT64_MAX, 4}, b, 4}};
    static const char *const why[] = {"a tensor's name is not UTF-8",
                                      "\"__metadata__\" has a reserved name",
                                      "\"a\" has other bytes than its shape needs",
                                      "\"a\" has no data",
                                      "\"a\" has a negative dimension",
                                      "\"a\" has more than 16 dimensions",
                                      "\"a\" has more than 16 dimensions",
                                      "\"a\" has a dtype that is not known",
                                      "\"a\" does not fill whole bytes",
                                      "\"a\" has a shape with more than 2^63-1 elements"};
    for (size_t i = 0; i < sizeof why / sizeof *why; i++)
        refuses_write(&bad[i], 1, NULL, 0, why[i]);
    const int64_t part = INT64_MAX / 16; /* never read: the check comes before */
    tni_st_tensor huge[20];
    char names[20][4];
    for (int i = 0; i < 20; i++) {
        snprintf(names[i], sizeof names[i], "%c", 'a' + i);
        huge[i] = (tni_st_tensor){names[i], TNI_ST_U8, 1, {part}, b, (size_t)part};
    }
    refuses_write(huge, 20, NULL, 0, "more than 2^63-1 bytes");
}

/* What cannot be written leaves the old file and no temporary one. */
static void test_write_fails(void) {
    enum { N = 1 << 16 };
    uint8_t *data = calloc(N, 1);
    tni_st_tensor big = {"big", TNI_ST_U8, 1, {N}, data, N};
    char d[256];
    tni_st *s;
    snprintf(d, sizeof d, "%s", folder("full"));
    put(d, "f", "old", NULL);
    struct rlimit was, now;
    getrlimit(RLIMIT_FSIZE, &was);
    now = was, now.rlim_cur = N / 2;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &now);
    int code = tni_st_write(in(d, "f"), &big, 1, NULL, 0);
    setrlimit(RLIMIT_FSIZE, &was);
    signal(SIGXFSZ, handler);
    ok(code == TN_EFILE && said("cannot write: File too large"), "no room");
    is_i64(files_in(d), 1, "no temporary file is left");
    ok(!tni_st_open(in(d, "f"), &s) && tni_st_find(s, "old"), "the old file is whole");
    tni_st_free(s);
    is_i64(tni_st_write(in(d, "f/g"), &big, 1, NULL, 0), TN_EFILE, "a file is no folder");
    ok(said("cannot create"), "which is said");
    is_i64(tni_st_write(in(d, "nowhere/g"), &big, 1, NULL, 0), TN_EFILE, "a missing folder");
    is_i64(mkdir(in(d, "folder"), 0777), 0, "a folder");
    is_i64(tni_st_write(in(d, "folder"), &big, 1, NULL, 0), TN_EFILE, "in the place of the file");
    is_i64(files_in(d), 2, "no temporary file is left");
    chmod(d, 0555);
    if (access(d, W_OK)) {
        is_i64(tni_st_write(in(d, "g"), &big, 1, NULL, 0), TN_EFILE, "a read-only folder");
    } else {
        skip("this user may write everywhere", "a read-only folder");
    }
    chmod(d, 0777);
    /* The mapped file itself may be replaced by what is read from it. */
    if (ok(!tni_st_open(in(d, "f"), &s), "open")) {
        tni_st_tensor t[2] = {*tni_st_at(s, 0), big};
        is_i64(tni_st_write(in(d, "f"), t, 2, NULL, 0), 0, "replaced while it is read");
        is_i64(*(const uint8_t *)tni_st_at(s, 0)->data, 1, "the mapping is the old file still");
        tni_st_free(s);
    }
    is_i64(tni_st_open(in(d, "f"), &s), 0, "the new one");
    ok(s && tni_st_find(s, "big") && *(const uint8_t *)tni_st_find(s, "old")->data == 1,
       "has both");
    tni_st_free(s);
    free(data);
}

/* ---- data asked for in its turn ---- */

typedef struct feed {
    char asked[8];
    int n, fail; /* the call that fails; 0: none */
    uint8_t now[4];
} feed;

static int feed_data(void *ud, const char *name, const void **out) {
    feed *f = ud;
    f->asked[f->n++] = *name;
    memset(f->now, *name, sizeof f->now); /* what the last call gave is gone */
    *out = f->now;
    return f->n == f->fail ? tni_fail(TN_ESTATE, "no data of %s", name) : 0;
}

static void test_write_stream(void) {
    tni_st_tensor whole[] = {{"a", TNI_ST_U8, 1, {4}, "aaaa", 4},
                             {"b", TNI_ST_U16, 1, {2}, "bbbb", 4},
                             {"c", TNI_ST_U8, 1, {4}, "here", 4},
                             {"d", TNI_ST_U8, 1, {0}, NULL, 0}};
    tni_st_tensor later[4];
    memcpy(later, whole, sizeof later);
    later[0].data = later[1].data = NULL;
    feed f = {.fail = 0};
    is_i64(tni_st_write(at("whole"), whole, 4, NULL, 0), 0, "data given");
    is_i64(tni_st_write_stream(at("later"), later, 4, NULL, 0, feed_data, &f), 0, "asked for");
    ok(same_files(at("whole"), at("later")), "the same bytes");
    is_str(f.asked, "ba", "in the file's order, and none that is there or empty");
    int before = files_in(dir);
    for (int k = 1; k < 3; k++) {
        feed g = {.fail = k};
        is_i64(tni_st_write_stream(at("later"), later, 4, NULL, 0, feed_data, &g), TN_ESTATE,
               "call %d fails", k);
        ok(said("no data of"), "with its own sentence");
    }
    is_i64(files_in(dir), before, "no temporary file is left");
    ok(same_files(at("whole"), at("later")), "the old file is whole");
}

/* ---- no memory ---- */

typedef int (*attempt)(void);

static int try_open(void) {
    tni_st *s;
    int code = tni_st_open(golden("dtypes.safetensors"), &s);
    tni_st_free(s);
    return code;
}

static int try_mem(void) {
    tni_st *s;
    int code = tni_st_open_mem(image, image_of(TEXT("x"), strlen(TEXT("x")), 0), &s);
    tni_st_free(s);
    return code;
}

static int try_index(void) {
    tni_st *s;
    int code = tni_st_open_dir(golden("shards"), &s);
    tni_st_free(s);
    return code;
}

static int try_list(void) {
    tni_st *s;
    int code = tni_st_open_dir(at("list2"), &s);
    tni_st_free(s);
    return code;
}

static int try_write(void) {
    static const uint8_t b[4];
    tni_st_tensor t[] = {{"a", TNI_ST_U8, 1, {4}, b, 4}, {"b", TNI_ST_U16, 1, {2}, b, 4}};
    tni_st_pair meta = {"k", "v"};
    return tni_st_write(at("list2/w"), t, 2, &meta, 1);
}

static void without_memory(const char *what, attempt f) {
    int64_t live = tni_alloc_live(), n = 0;
    int code = TN_EMEMORY, wrong = 0;
    while (code == TN_EMEMORY && n < 10000) {
        tni_fail_alloc_at(++n);
        code = f();
        tni_fail_alloc_at(0);
        wrong += tni_alloc_live() != live || (code && !strstr(tni_error(), "out of memory"));
    }
    ok(!code && !wrong && n > 3, "%s: each of %lld allocations may fail (%d, %d wrong)", what,
       (long long)n - 1, code, wrong);
}

static void test_memory(void) {
    const char *d = folder("list2");
    put(d, "a.safetensors", "a", NULL);
    put(d, "b.safetensors", "b", NULL);
    without_memory("a file", try_open);
    without_memory("memory", try_mem);
    without_memory("an index", try_index);
    without_memory("a list", try_list);
    without_memory("writing", try_write);
    is_i64(files_in(at("list2")), 3, "no temporary file is left");
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
    (void)st, (void)kind, (void)ftw;
    return remove(path);
}

int main(void) {
    if (!ok(mkdtemp(dir) != NULL, "a folder")) return tap_done();
    test_python();
    test_dtypes();
    test_names();
    test_ranges();
    test_shapes();
    test_fields();
    test_metadata();
    test_json();
    test_escapes();
    test_skipped();
    test_lengths();
    test_many();
    test_unaligned();
    test_golden_shards();
    test_list();
    test_index();
    test_open_file();
    test_write_bytes();
    test_write_values();
    test_write_fails();
    test_write_stream();
    test_memory();
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    is_i64(tni_alloc_live(), 0, "nothing is left behind");
    return tap_done();
}
