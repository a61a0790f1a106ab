/* What the Unicode tables of the `tokenizers` package have and PCRE2's and utf8proc's have not, or
 * the other way round: see tests/py/reference/make_tok_unicode.py. */
#ifndef TNI_LLM_TOK_UNICODE_H
#define TNI_LLM_TOK_UNICODE_H

#include "llm/tok.h"

/* Further members of a class, as PCRE2 writes them: of the property L, N, Han …; of "word" (\w),
 * "rust word" (the same to Rust's regex), "digit", "punct", "no punct". NULL: none. */
const char *tni_tok_more(const char *name, size_t n);
int32_t tni_tok_lower(int32_t c); /* of one character; U+0130 has two and stays */
bool tni_tok_is_mark(int32_t c);  /* what StripAccents takes away */

/* A normal form of UTF-8 text, appended to `out`; linear in n, whatever marks it has. */
int tni_tok_normal_form(tok_norm_kind kind, const char *s, size_t n, tni_str *out);

#endif
