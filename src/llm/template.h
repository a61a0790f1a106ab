/* Chat templates: an interpreter for the part of Jinja2 that models' templates use, with
 * the environment transformers gives them (ImmutableSandboxedEnvironment, trim_blocks,
 * lstrip_blocks, loop controls, the generation tag, its tojson and strftime_now).
 *
 * A parsed template never changes: any number of threads may render it at once. Every
 * string carries one mark per byte that says whether the byte came from a message or from
 * the template; the marks come out beside the text, so that a user's "<|im_start|>" is
 * never taken for the special token. */
#ifndef TNI_LLM_TEMPLATE_H
#define TNI_LLM_TEMPLATE_H

#include "base/str.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tni_template tni_template;

/* Copies text and name (used in messages only). TN_EFORMAT with name and line when the
 * text is not a template or uses what is not supported; TN_EMEMORY. */
int tni_template_parse(const char *text, size_t n, const char *name, tni_template **out);
void tni_template_free(tni_template *t); /* NULL accepted */

typedef struct tni_render_opt {
    const char *bos_token, *eos_token; /* NULL: the variable is not defined */
    bool add_generation_prompt;
    const char *tools_json; /* a JSON array, or NULL: tools is none */
    const char *extra_json; /* a JSON object whose members become variables, or NULL */
    int64_t now;            /* Unix time for strftime_now (local time zone); 0: the clock */
    size_t max_output;      /* bytes of text; 0: 64 MiB */
    uint64_t max_steps;     /* a bound on the work; 0: 100 million */
} tni_render_opt;

/* messages_json[0..n) is a JSON array of messages. Appends the text to *text and one byte
 * for each byte of it to *literal (which may be NULL): 1, it came from a message, tools or
 * extra; 0, from the template. Errors leave both as they were: TN_EVALUE (the template's
 * own raise_exception, with its words; an operation that its values do not allow; a limit),
 * TN_EFORMAT (the JSON), TN_EMEMORY. */
int tni_template_render(const tni_template *t, const char *messages_json, size_t n,
                        const tni_render_opt *opt, tni_str *text, tni_str *literal);

#endif
