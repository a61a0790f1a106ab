/* Unicode as the `tokenizers` package sees it. Normal forms are utf8proc's, except that characters
 * which are newer than the package's tables stay as they are, and that marks are put in order by a
 * counting sort: utf8proc moves them one by one, which takes hours for a megabyte of them. */
#include "llm/tok_unicode.h"
#include "base/alloc.h"
#include "base/err.h"
#include <string.h>
#include <utf8proc.h>

enum { FORM_SHORT = 24, FORM_PARTS = 32 /* code points of one character; U+FDFA has 18 */ };

typedef struct unicode_class {
    const char *name, *members;
} unicode_class;

typedef struct unicode_range {
    int32_t first, last, step;
} unicode_range;

#define TOK_MORE(name, members)
#define TOK_UNKNOWN(first, last)
#define TOK_NO_MARK(first, last)
#define TOK_LOWER(first, last, step)

#undef TOK_MORE
#define TOK_MORE(name, members) {name, members},
static const unicode_class unicode_classes[] = {
#include "llm/tok_unicode.def"
};
#undef TOK_MORE
#define TOK_MORE(name, members)

#undef TOK_UNKNOWN
#define TOK_UNKNOWN(first, last) {first, last, 0},
static const unicode_range unicode_unknown[] = {
#include "llm/tok_unicode.def"
};
#undef TOK_UNKNOWN
#define TOK_UNKNOWN(first, last)

#undef TOK_NO_MARK
#define TOK_NO_MARK(first, last) {first, last, 0},
static const unicode_range unicode_no_mark[] = {
#include "llm/tok_unicode.def"
};
#undef TOK_NO_MARK
#define TOK_NO_MARK(first, last)

#undef TOK_LOWER
#define TOK_LOWER(first, last, step) {first, last, step},
static const unicode_range unicode_lower[] = {
#include "llm/tok_unicode.def"
};

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* The range that c lies in, of ranges in order; or NULL. */
static const unicode_range *unicode_find(const unicode_range *v, size_t n, int32_t c) {
    size_t low = 0, high = n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (c > v[mid].last)
            low = mid + 1;
        else
            high = mid;
    }
    return low < n && c >= v[low].first ? &v[low] : NULL;
}

const char *tni_tok_more(const char *name, size_t n) {
    for (size_t i = 0; i < COUNT(unicode_classes); i++)
        if (strlen(unicode_classes[i].name) == n && !memcmp(unicode_classes[i].name, name, n))
            return unicode_classes[i].members;
    return NULL;
}

int32_t tni_tok_lower(int32_t c) {
    const unicode_range *r = unicode_find(unicode_lower, COUNT(unicode_lower), c);
    return r ? c + r->step : utf8proc_tolower(c);
}

bool tni_tok_is_mark(int32_t c) {
    utf8proc_category_t k = utf8proc_category(c);
    return (k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC || k == UTF8PROC_CATEGORY_ME ||
            c == 0x1cf2 || c == 0x1cf3) && /* letters since Unicode 12 */
           !unicode_find(unicode_no_mark, COUNT(unicode_no_mark), c);
}

/* ---- normal forms ---- */

typedef struct form {
    utf8proc_option_t options;
    TNI_VEC(int32_t) chars;
    TNI_VEC(int32_t) sorted;
    tni_str *out;
} form;

static int form_memory(const form *f) {
    return tni_fail_memory(f->chars.n * sizeof *f->chars.v, "normalising text");
}

static int form_class(int32_t c) { return utf8proc_get_property(c)->combining_class; }

/* A stable sort of v[0..n), all of classes 1 to 255: by counting when there are many. */
static int form_sort(form *f, int32_t *v, size_t n) {
    size_t first[256] = {0};
    if (n <= FORM_SHORT) {
        for (size_t i = 1; i < n; i++)
            for (size_t k = i; k && form_class(v[k - 1]) > form_class(v[k]); k--) {
                int32_t c = v[k];
                v[k] = v[k - 1], v[k - 1] = c;
            }
        return 0;
    }
    if (tni_vec_reserve(&f->sorted, n)) return form_memory(f);
    for (size_t i = 0; i < n; i++) first[form_class(v[i])]++;
    for (size_t k = 0, at = 0; k < 256; k++) {
        size_t count = first[k];
        first[k] = at, at += count;
    }
    for (size_t i = 0; i < n; i++) f->sorted.v[first[form_class(v[i])]++] = v[i];
    memcpy(v, f->sorted.v, n * sizeof *v);
    return 0;
}

static int form_order(form *f) {
    int status = 0;
    for (size_t i = 0, n; i < f->chars.n && !status; i += n ? n : 1) {
        for (n = 0; i + n < f->chars.n && form_class(f->chars.v[i + n]);) n++;
        if (n > 1) status = form_sort(f, f->chars.v + i, n);
    }
    return status;
}

/* What has been collected, put in order, composed and written. */
static int form_flush(form *f) {
    int status = form_order(f);
    if (status || !f->chars.n) return status;
    utf8proc_ssize_t n = (utf8proc_ssize_t)f->chars.n;
    if (f->options & UTF8PROC_COMPOSE) n = utf8proc_normalize_utf32(f->chars.v, n, f->options);
    for (utf8proc_ssize_t i = 0; i < n && !status; i++) {
        char to[4];
        size_t len = (size_t)tni_utf8_encode((uint32_t)f->chars.v[i], to);
        if (tni_str_append(f->out, to, len)) status = form_memory(f);
    }
    f->chars.n = 0;
    return status;
}

static int form_char(form *f, int32_t c, const char *s, size_t len) {
    int boundary = 0;
    if (unicode_find(unicode_unknown, COUNT(unicode_unknown), c)) { /* nothing combines across it */
        int status = form_flush(f);
        if (!status && tni_str_append(f->out, s, len)) status = form_memory(f);
        return status;
    }
    if (tni_vec_reserve(&f->chars, f->chars.n + FORM_PARTS)) return form_memory(f);
    utf8proc_ssize_t n =
        utf8proc_decompose_char(c, f->chars.v + f->chars.n, FORM_PARTS, f->options, &boundary);
    if (n < 0 || n > FORM_PARTS)
        return tni_fail(TN_EINTERNAL, "U+%04X cannot be normalised", (unsigned)c);
    f->chars.n += (size_t)n;
    return 0;
}

/* Stretches of ASCII are copied, but for the last character, which a mark may follow. */
int tni_tok_normal_form(tok_norm_kind kind, const char *s, size_t n, tni_str *out) {
    static const int options[] = {
        [TOK_NFC] = UTF8PROC_COMPOSE,
        [TOK_NFD] = UTF8PROC_DECOMPOSE,
        [TOK_NFKC] = UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [TOK_NFKD] = UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    form f = {.options = (utf8proc_option_t)(UTF8PROC_STABLE | options[kind]), .out = out};
    int status = 0;
    for (size_t i = 0; i < n && !status;) {
        size_t ascii = 0;
        uint32_t c = 0;
        while (i + ascii < n && (uint8_t)s[i + ascii] < 0x80) ascii++;
        if (ascii) {
            size_t copy = i + ascii < n ? ascii - 1 : ascii;
            status = form_flush(&f);
            if (!status && copy && tni_str_append(out, s + i, copy)) status = form_memory(&f);
            i += copy;
        }
        if (i == n || status) break;
        do {
            int len = tni_utf8_decode(s + i, n - i, &c);
            if (len <= 0) len = 1, c = 0xfffd; /* only UTF-8 comes here */
            status = form_char(&f, (int32_t)c, s + i, (size_t)len);
            i += (size_t)len;
        } while (!status && i < n && (uint8_t)s[i] >= 0x80);
    }
    if (!status) status = form_flush(&f);
    tni_vec_free(&f.chars);
    tni_vec_free(&f.sorted);
    return status;
}
