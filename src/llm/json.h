/* JSON by jansson, with our errors. */
#ifndef TNI_LLM_JSON_H
#define TNI_LLM_JSON_H

#include <jansson.h>

/* *out is NULL after a failure: TN_EFORMAT with `name` and the line, or TN_EMEMORY. */
int tni_json_parse(const char *text, size_t n, size_t flags, const char *name, json_t **out);

#endif
