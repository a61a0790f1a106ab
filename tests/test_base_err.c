/* Error state: threads, quoting the last message, truncation, the status tables. */
#include "base/alloc.h"
#include "base/err.h"
#include "tap.h"
#include <pthread.h>

static void test_messages(void) {
    is_str(tni_error(), "", "nothing at the start");
    is_i64(tni_fail(TN_ESHAPE, "add: (%d) and (%d)", 2, 3), TN_ESHAPE, "fail returns its code");
    is_str(tni_error(), "add: (2) and (3)", "the sentence");
    tni_fail(TN_EFORMAT, "layer 3: %s", tni_error());
    is_str(tni_error(), "layer 3: add: (2) and (3)", "a message may quote the last one");
    is_i64(tni_error_code(), TN_EFORMAT, "the code");
    tni_error_clear();
    is_str(tni_error(), "", "cleared");
    is_i64(tni_error_code(), 0, "code cleared");
}

static void test_memory(void) {
    tni_fail_alloc_at(1);
    is_i64(tni_fail_memory(123456, "a buffer"), TN_EMEMORY, "no memory");
    is_str(tni_error(), "out of memory: 123456 bytes for a buffer", "says how much, for what");
    void *p = tni_alloc(1);
    ok(!p, "reporting allocated nothing");
    tni_free(p);
}

/* 1023 bytes fit. Three-byte characters do not divide it when one byte leads. */
static void test_truncation(void) {
    char text[4096] = "x";
    for (int i = 0; i < 1000; i++) memcpy(text + 1 + 3 * i, "\xe2\x82\xac", 4);
    tni_fail(TN_EVALUE, "%s", text);
    const char *e = tni_error();
    size_t n = strlen(e);
    is_i64(n, 1 + 3 * 340, "a cut message ends between characters");
    ok(!memcmp(e, text, n), "and is a prefix");
    memset(text, 'a', 2000);
    tni_fail(TN_EVALUE, "%s", text);
    is_i64(strlen(tni_error()), 1023, "plain text fills the buffer");
}

static void *other(void *arg) {
    int *fails = arg;
    *fails += tni_error()[0] != '\0';
    tni_fail(TN_EAXIS, "other");
    *fails += strcmp(tni_error(), "other") != 0;
    return NULL;
}

static void test_threads(void) {
    pthread_t t;
    int fails = 0;
    tni_fail(TN_EDTYPE, "mine");
    pthread_create(&t, NULL, other, &fails);
    pthread_join(t, NULL);
    is_i64(fails, 0, "the other thread has its own state");
    is_str(tni_error(), "mine", "and did not touch this one's");
}

static void test_tables(void) {
    is_str(tni_status_name(TN_ESHAPE), "TN_ESHAPE", "name");
    is_str(tni_status_text(TN_ESHAPE), "shapes do not fit", "text");
    is_str(tni_status_name(0), "TN_OK", "0 has a name");
    is_str(tni_status_name(-999), "unknown status", "an unknown code does too");
    is_str(tni_status_text(7), "unknown status", "and a text");
}

int main(void) {
    test_messages();
    test_memory();
    test_truncation();
    test_threads();
    test_tables();
    return tap_done();
}
