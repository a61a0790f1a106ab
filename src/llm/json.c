/* The one place that parses JSON of models. */
#include "llm/json.h"
#include "base/err.h"
#include <stdbool.h>

/* Some of jansson's failures to allocate come without a code, a line or a text. */
static bool json_out_of_memory(const json_error_t *e) {
    return json_error_code(e) == json_error_out_of_memory || (e->line < 0 && !*e->text);
}

int tni_json_parse_line(const char *text, size_t n, size_t flags, const char *name, int64_t line,
                        json_t **out) {
    json_error_t e;
    /* Inside a string jansson takes a failed allocation for bad syntax: the second look tells. */
    *out = json_loadb(text, n, flags, &e);
    if (!*out && !json_out_of_memory(&e)) *out = json_loadb(text, n, flags, &e);
    if (*out) return 0;
    if (json_out_of_memory(&e)) return tni_fail_memory(n, name);
    return tni_fail(TN_EFORMAT, "%s, line %lld: %s", name, (long long)(line + e.line - 1), e.text);
}

int tni_json_parse(const char *text, size_t n, size_t flags, const char *name, json_t **out) {
    return tni_json_parse_line(text, n, flags, name, 1, out);
}

typedef struct json_sink {
    tni_str *out;
    bool failed;
} json_sink;

/* jansson 2.14 goes on after a key that could not be written: only the sink knows. */
static int json_append(const char *bytes, size_t n, void *ud) {
    json_sink *s = ud;
    s->failed = s->failed || tni_str_append(s->out, bytes, n);
    return s->failed ? -1 : 0;
}

int tni_json_dump(const json_t *v, size_t flags, const char *what, tni_str *out) {
    json_sink s = {.out = out};
    if (v && !json_dump_callback(v, json_append, &s, flags) && !s.failed) return 0;
    return tni_fail_memory(out->n + 64, what);
}
