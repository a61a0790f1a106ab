/* Stands in for libFuzzer: gives every file below the folders named to the target, so
 * that the corpus is replayed with any compiler. TAP: one line a file; a target that
 * survives passes, the sanitizers do the judging. A file may take ten seconds; after that
 * SIGALRM ends the program, and the last line printed names the file. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* nftw */
#endif
#include "base/alloc.h"
#include "base/mmap.h"
#include "tap.h"
#include <ftw.h>
#include <stdint.h>
#include <unistd.h>

enum { REPLAY_SECONDS = 10 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
    char *text;
    size_t n;
    (void)st, (void)ftw;
    if (kind != FTW_F) return 0;
    if (!ok(tni_file_read(path, (size_t)1 << 30, &text, &n) == 0, "reads %s", path)) return 0;
    /* A block of exactly the input's size, so that one byte too many is seen. */
    uint8_t *exact = tni_alloc(n);
    if (exact) memcpy(exact, text, n);
    tni_free(text);
    alarm(REPLAY_SECONDS);
    if (exact) LLVMFuzzerTestOneInput(exact, n); /* what is kept for reuse is made now */
    int64_t live = tni_alloc_live();
    if (exact) LLVMFuzzerTestOneInput(exact, n);
    alarm(0);
    is_i64(tni_alloc_live(), live, "%s: nothing is left behind", path);
    tni_free(exact);
    return 0;
}

int main(int argc, char **argv) {
    static const uint8_t none[1];
    LLVMFuzzerTestOneInput(none, 0);
    ok(1, "no bytes");
    for (int i = 1; i < argc; i++) nftw(argv[i], replay_file, 16, FTW_PHYS);
    return tap_done();
}
