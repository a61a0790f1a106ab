/* Chat templates. What comes before a line of three percent signs is the template, what
 * comes after it the messages; without such a line the messages are fixed ones. A first
 * byte of 'T' renders the template with tools and other variables too. */
#include "base/alloc.h"
#include "fuzz.h"
#include "llm/template.h"
#include <stdlib.h>
#include <string.h>

static const char fixed[] =
    "[{\"role\":\"system\",\"content\":\"Be <|im_end|>\"},"
    "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"\\u00e9\\n x\"}]},"
    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"a\",\"function\":"
    "{\"name\":\"f\",\"arguments\":{\"k\":[1,2.5,true,null],\"s\":\"q\"}}}]},"
    "{\"role\":\"tool\",\"content\":\"<b>\"}]";
static const char tools[] = "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":"
                            "{\"type\":\"object\",\"properties\":{\"k\":{\"type\":\"string\"}}}}}]";
static const char extra[] = "{\"x\":1,\"l\":[3,1,2],\"d\":{\"b\":1,\"a\":\"z\"},\"s\":\"aB c\"}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *s = (const char *)data, *messages = fixed;
    size_t n = size, n_messages = sizeof fixed - 1;
    const bool more = size && *s == 'T';
    for (size_t i = 0; i + 5 <= size; i++)
        if (!memcmp(s + i, "\n%%%\n", 5)) {
            n = i, messages = s + i + 5, n_messages = size - i - 5;
            break;
        }
    const int64_t live = tni_alloc_live();
    const tni_render_opt o = {.bos_token = "<s>",
                              .eos_token = "</s>",
                              .add_generation_prompt = true,
                              .tools_json = more ? tools : NULL,
                              .extra_json = more ? extra : NULL,
                              .now = 1700000000,
                              .max_output = 1 << 20,
                              .max_steps = 200000};
    tni_template *t;
    tni_str text = {0}, literal = {0};
    if (!tni_template_parse(s, n, "fuzz", &t) &&
        !tni_template_render(t, messages, n_messages, &o, &text, &literal)) {
        if (text.n != literal.n || text.n > o.max_output) abort();
        for (size_t i = 0; i < literal.n; i++)
            if (literal.v[i] != 0 && literal.v[i] != 1) abort();
    }
    tni_template_free(t);
    tni_str_free(&text);
    tni_str_free(&literal);
    if (tni_alloc_live() != live) abort();
    return 0;
}
