/* The calling thread's last error: one code, one sentence. Functions that can
 * fail return `int` (0 or a negative TN_E... code) and leave the sentence here. */
#ifndef TNI_BASE_ERR_H
#define TNI_BASE_ERR_H

#include "tenon/status.h"
#include <stdarg.h>
#include <stddef.h>

/* Formats the message into the thread's buffer and returns `code`. The arguments
 * may point into the previous message (two buffers take turns). */
int tni_fail(int code, const char *fmt, ...) TN_PRINTF(2, 3);
int tni_vfail(int code, const char *fmt, va_list ap) TN_PRINTF(2, 0);
int tni_fail_memory(size_t bytes, const char *what); /* TN_EMEMORY, never allocates */
const char *tni_error(void); /* "" when none; valid until the next failure */
int tni_error_code(void);
void tni_error_clear(void);
const char *tni_status_name(int code); /* "TN_ESHAPE" */
const char *tni_status_text(int code); /* "shapes do not fit" */

/* For our own bugs only; off in release builds (NDEBUG). */
#include <assert.h>
#define tni_assert(cond) assert(cond)

#endif
