/* Renders chat templates for tests/py/test_template.py: one JSON object a line in, one out.
 *     {"template": text, "messages": [...], "tools": [...], "extra": {...}, "bos": text,
 *      "eos": text, "generate": bool, "now": integer}
 *     {"text": text, "literal": "0110..."} or {"error": text, "code": integer} */
#include "base/alloc.h"
#include "base/err.h"
#include "llm/template.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *driver_dump(const json_t *request, const char *key) {
    const json_t *v = json_object_get(request, key);
    return v && !json_is_null(v) ? json_dumps(v, JSON_ENCODE_ANY) : NULL;
}

static json_t *driver_answer(int status, const tni_str *text, const tni_str *literal) {
    if (status) return json_pack("{s:s, s:i}", "error", tni_error(), "code", status);
    char *marks = calloc(text->n + 1, 1);
    for (size_t i = 0; marks && i < text->n; i++) marks[i] = (char)('0' + literal->v[i]);
    json_t *answer = json_pack("{s:s%, s:s}", "text", text->v ? text->v : "", text->n, "literal",
                               marks ? marks : "");
    free(marks);
    return answer;
}

static json_t *driver_run(const json_t *request) {
    const json_t *t = json_object_get(request, "template");
    char *messages = driver_dump(request, "messages"), *tools = driver_dump(request, "tools");
    char *extra = driver_dump(request, "extra");
    tni_template *parsed = NULL;
    tni_str text = {0}, literal = {0};
    tni_render_opt o = {.bos_token = json_string_value(json_object_get(request, "bos")),
                        .eos_token = json_string_value(json_object_get(request, "eos")),
                        .add_generation_prompt = json_is_true(json_object_get(request, "generate")),
                        .now = json_integer_value(json_object_get(request, "now")),
                        .tools_json = tools,
                        .extra_json = extra};
    int status =
        tni_template_parse(json_string_value(t), json_string_length(t), "template", &parsed);
    if (!status)
        status = tni_template_render(parsed, messages, strlen(messages), &o, &text, &literal);
    json_t *answer = driver_answer(status, &text, &literal);
    tni_template_free(parsed);
    tni_str_free(&text), tni_str_free(&literal);
    free(messages), free(tools), free(extra);
    return answer;
}

int main(void) {
    char *line = NULL;
    size_t cap = 0;
    while (getline(&line, &cap, stdin) > 0) {
        json_t *request = json_loads(line, JSON_ALLOW_NUL, NULL);
        json_t *answer = request ? driver_run(request) : NULL;
        char *out = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
        printf("%s\n", out ? out : "{\"error\": \"no answer\", \"code\": -99}");
        fflush(stdout);
        free(out);
        json_decref(answer), json_decref(request);
    }
    free(line);
    return tni_alloc_live() != 0;
}
