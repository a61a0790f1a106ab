/* The one place that parses JSON of models. */
#include "llm/json.h"
#include "base/err.h"
#include <stdbool.h>

/* Some of jansson's failures to allocate come without a code, a line or a text. */
static bool json_out_of_memory(const json_error_t *e) {
    return json_error_code(e) == json_error_out_of_memory || (e->line < 0 && !*e->text);
}

int tni_json_parse(const char *text, size_t n, size_t flags, const char *name, json_t **out) {
    json_error_t e;
    /* Inside a string jansson takes a failed allocation for bad syntax: the second look tells. */
    *out = json_loadb(text, n, flags, &e);
    if (!*out && !json_out_of_memory(&e)) *out = json_loadb(text, n, flags, &e);
    if (*out) return 0;
    if (json_out_of_memory(&e)) return tni_fail_memory(n, name);
    return tni_fail(TN_EFORMAT, "%s, line %d: %s", name, e.line, e.text);
}
