/* Strings and UTF-8, the latter against a decoder written from the definition. */
#include "base/alloc.h"
#include "base/str.h"
#include "tap.h"

static void test_append(void) {
    tni_str s = {0};
    is_i64(tni_str_puts(&s, "one "), 0, "puts");
    tni_str_printf(&s, "%d %s", 2, "three");
    tni_str_putc(&s, '!');
    tni_str_append(&s, "a\0b", 3);
    is_i64(s.n, 15, "length counts NUL bytes");
    ok(!memcmp(s.v, "one 2 three!a\0b", 16), "every byte, and a NUL after them");
    is_str(s.v, "one 2 three!a", "text up to the NUL byte");
    s.n = 4;
    tni_str_append(&s, s.v, s.n);
    tni_str_append(&s, s.v, s.n);
    is_str(s.v, "one one one one ", "a string appended to itself while it grows");
    tni_str_free(&s);
    ok(!s.v && !s.n && !s.cap, "free empties");
    is_i64(tni_str_append(&s, NULL, 0), 0, "nothing appended to nothing");
    is_str(s.v, "", "is the empty string");
    tni_str_free(&s);
}

static void test_failures(void) {
    int64_t live = tni_alloc_live();
    for (int n = 1;; n++) {
        tni_str s = {0};
        tni_fail_alloc_at(n);
        int code = tni_str_puts(&s, "seven b");
        size_t before = s.n;
        if (!code) code = tni_str_printf(&s, "%0100d", 7);
        tni_fail_alloc_at(0);
        if (code) ok(code == TN_EMEMORY && s.n == before, "failure %d leaves the string", n);
        tni_str_free(&s);
        is_i64(tni_alloc_live(), live, "no leak with failure %d", n);
        if (!code) break;
    }
    tni_str s = {0};
    tni_str_putc(&s, 'a');
    is_i64(tni_str_append(&s, "x", SIZE_MAX - 1), TN_EMEMORY, "an overflowing length is refused");
    is_str(s.v, "a", "unchanged");
    tni_str_free(&s);
}

/* Every scalar value, encoded and decoded; every prefix asks for what is missing. */
static void test_utf8_round_trip(void) {
    int bad = 0, refused = 0;
    for (uint32_t c = 0; c < 0x110800; c++) {
        char b[4];
        uint32_t back = 0;
        int n = tni_utf8_encode(c, b);
        if (!n) {
            refused++;
            continue;
        }
        bad += tni_utf8_decode(b, (size_t)n, &back) != n || back != c;
        for (int k = 1; k < n; k++) bad += tni_utf8_decode(b, (size_t)k, &back) != k - n;
    }
    is_i64(bad, 0, "every scalar value comes back");
    is_i64(refused, 2048 + 0x800, "surrogates and values above U+10FFFF are refused");
}

/* What a byte string decodes to by the definition: the shortest form of a scalar. */
static int slow_decode(const uint8_t *b, size_t n) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    int len = b[0] < 0x80 ? 1 : b[0] >> 5 == 6 ? 2 : b[0] >> 4 == 14 ? 3 : b[0] >> 3 == 30 ? 4 : 0;
    if (!len || (size_t)len > n) return 0;
    uint32_t c = len == 1 ? b[0] : b[0] & (0xffu >> (len + 1));
    for (int i = 1; i < len; i++) {
        if (b[i] >> 6 != 2) return 0;
        c = c << 6 | (b[i] & 63);
    }
    return c < least[len] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : len;
}

static void test_utf8_pairs(void) {
    int bad = 0;
    for (int x = 0; x < 65536; x++)
        for (int t = 0; t < 4; t++) {
            static const uint8_t tails[4][2] = {
                {0x80, 0x80}, {0xbf, 0xbf}, {'a', 0x80}, {0x80, 'a'}};
            uint8_t b[4] = {(uint8_t)(x >> 8), (uint8_t)x, tails[t][0], tails[t][1]};
            uint32_t cp;
            bad += tni_utf8_decode((char *)b, 4, &cp) != slow_decode(b, 4);
        }
    is_i64(bad, 0, "all first byte pairs with four tails agree with the definition");
}

static void test_utf8_bad(void) {
    uint32_t cp = 0;
    is_i64(tni_utf8_decode("", 0, &cp), 0, "no bytes");
    is_i64(tni_utf8_decode("\xc0\x80", 2, &cp), 0, "overlong NUL");
    is_i64(tni_utf8_decode("\xe0\x80", 2, &cp), 0, "an overlong prefix is not waited for");
    is_i64(tni_utf8_decode("\xed\xa0\x80", 3, &cp), 0, "surrogate");
    is_i64(tni_utf8_decode("\xf4\x90\x80\x80", 4, &cp), 0, "above U+10FFFF");
    is_i64(tni_utf8_decode("\x80", 1, &cp), 0, "lone continuation");
    is_i64(tni_utf8_decode("\xf0\x9f", 2, &cp), -2, "half an emoji needs two bytes more");
}

int main(void) {
    test_append();
    test_failures();
    test_utf8_round_trip();
    test_utf8_pairs();
    test_utf8_bad();
    return tap_done();
}
