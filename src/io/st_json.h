/* A strict JSON reader for the headers of safetensors files: the caller asks for what must come
 * next, so nothing is built in memory and nothing recurses. Strings are decoded where they lie
 * (a decoded string is never longer than its source), which destroys the text behind the reader:
 * the buffer is the caller's own copy, and the strings live as long as it does. */
#ifndef TNI_IO_ST_JSON_H
#define TNI_IO_ST_JSON_H

#include "base/str.h"
#include "tenon/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TNI_JSON_DEPTH = 64 }; /* of values that are skipped */

typedef struct tni_json {
    const char *file; /* for messages */
    size_t base;      /* offset of `begin` in that file */
    char *begin, *at, *end;
    bool failed; /* tni_json_fail was called */
    bool fresh;  /* the container just entered has had no element yet */
} tni_json;

/* The buffer has n bytes, all of which may be changed. */
void tni_json_init(tni_json *j, const char *file, size_t base, char *text, size_t n);

int tni_json_enter(tni_json *j, char open); /* '{' or '[' */
/* Before each element of the container just entered: *more is false at its end, which is passed. */
int tni_json_more(tni_json *j, char close, bool *more);
int tni_json_string(tni_json *j, tni_bytes *s); /* NUL-terminated; \u0000 is refused */
int tni_json_key(tni_json *j, tni_bytes *key);  /* a string and its colon */
int tni_json_integer(tni_json *j, int64_t *v);  /* 0 to 2^63-1 without sign, point or exponent */
bool tni_json_null(tni_json *j);                /* whether null came next, which is passed */
int tni_json_skip(tni_json *j);                 /* any value, checked */
int tni_json_finish(tni_json *j);               /* only white space is left */

size_t tni_json_offset(const tni_json *j); /* of what comes next, in the file */
/* TN_EFORMAT: "FILE, byte OFFSET: ..." at the present place. */
int tni_json_fail(tni_json *j, const char *fmt, ...) TN_PRINTF(2, 3);

/* Text from a file made fit for a message: shortened, control characters as '?'. */
enum { TNI_SHOWN = 100 };
const char *tni_json_show(const char *s, char shown[TNI_SHOWN]);

#endif
