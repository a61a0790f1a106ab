/* JSON by jansson, with our errors. */
#ifndef TNI_LLM_JSON_H
#define TNI_LLM_JSON_H

#include "base/str.h"
#include <jansson.h>
#include <stdint.h>

/* *out is NULL after a failure: TN_EFORMAT with `name` and the line, or TN_EMEMORY. */
int tni_json_parse(const char *text, size_t n, size_t flags, const char *name, json_t **out);
/* The same for text that begins with that line of a file. */
int tni_json_parse_line(const char *text, size_t n, size_t flags, const char *name, int64_t line,
                        json_t **out);

/* Writes `v` behind what is in *out, of which nothing is said after a failure (TN_EMEMORY, with
 * `what`). A NULL value is no memory too. */
int tni_json_dump(const json_t *v, size_t flags, const char *what, tni_str *out);

#endif
