/* Files: mapping, reading with a limit, atomic writing, and what is refused. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/mmap.h"
#include "tap.h"
#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/tenon-mmap-XXXXXX";

static const char *at(const char *name) {
    static char path[4][256];
    static int turn;
    char *p = path[turn++ & 3];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static int files_in_dir(void) {
    DIR *d = opendir(dir);
    int n = 0;
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n - 2;
}

static void test_map(void) {
    tni_file f;
    is_i64(tni_file_write(at("a"), "hello\0x", 7), 0, "write");
    is_i64(tni_file_map(at("a"), &f), 0, "map");
    ok(f.size == 7 && !memcmp(f.data, "hello\0x", 7), "content");
    is_i64(tni_file_check(&f), 0, "unchanged");
    is_i64(truncate(at("a"), 3), 0, "shrink it");
    is_i64(tni_file_check(&f), TN_EFILE, "noticed");
    ok(strstr(tni_error(), "from 7 to 3 bytes"), "and said: %s", tni_error());
    tni_file_close(&f);
    tni_file_close(&f);
    ok(!f.data && !f.path, "close may be repeated");
    is_i64(tni_file_write(at("empty"), NULL, 0), 0, "an empty file");
    is_i64(tni_file_map(at("empty"), &f), 0, "can be mapped");
    ok(!f.data && !f.size, "and has no data");
    tni_file_close(&f);
}

/* A mapping of three pages whose file loses the last two. */
static void test_cut(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *bytes = calloc(3, page);
    tni_file f, other;
    memset(bytes, 7, 3 * page);
    is_i64(tni_file_write(at("cut"), bytes, 3 * page), 0, "write three pages");
    is_i64(tni_file_write(at("other"), bytes, page), 0, "and another file");
    is_i64(tni_file_map(at("cut"), &f) + tni_file_map(at("other"), &other), 0, "map both");
    is_i64(truncate(at("cut"), (off_t)page), 0, "cut one");
    const volatile uint8_t *p = f.data;
    ok(p[0] == 7 && p[page] == 0 && p[3 * page - 1] == 0, "what is gone reads as zeros");
    is_i64(tni_file_check(&f), TN_EFILE, "the damage is known");
    is_i64(truncate(at("cut"), (off_t)(3 * page)), 0, "grow it again");
    is_i64(tni_file_check(&f), TN_EFILE, "and stays known: %s", tni_error());
    is_i64(tni_file_check(&other), 0, "the other file is whole");
    tni_file_close(&f);
    tni_file_close(&other);
    free(bytes);
}

static void test_refused(void) {
    tni_file f;
    char *text;
    is_i64(tni_file_map(at("none"), &f), TN_EFILE, "no such file");
    ok(strstr(tni_error(), "none: cannot open: No such file"), "names file and reason");
    ok(!f.path && !f.data, "leaves nothing");
    is_i64(tni_file_map(dir, &f), TN_EFILE, "a directory");
    is_i64(mkfifo(at("fifo"), 0600), 0, "a FIFO");
    is_i64(tni_file_map(at("fifo"), &f), TN_EFILE, "is refused without waiting for a writer");
    is_i64(tni_file_read("/dev/zero", 10, &text, NULL), TN_EFILE, "a device is refused");
    ok(!text, "no text");
}

static void test_read(void) {
    char *text = NULL;
    size_t n = 0;
    tni_file_write(at("b"), "12345", 5);
    is_i64(tni_file_read(at("b"), 5, &text, &n), 0, "a file as long as the limit");
    ok(n == 5 && text && !strcmp(text, "12345"), "NUL-terminated");
    tni_free(text);
    is_i64(tni_file_read(at("b"), 4, &text, &n), TN_EFILE, "a longer one");
    ok(!text && strstr(tni_error(), "5 bytes, the limit is 4"), "says both: %s", tni_error());
}

static void test_write(void) {
    struct stat st;
    char *text = NULL;
    int before = files_in_dir();
    is_i64(chmod(at("b"), 0640), 0, "a mode");
    is_i64(tni_file_write(at("b"), "new", 3), 0, "replace a file");
    ok(!stat(at("b"), &st) && (st.st_mode & 07777) == 0640, "its mode stays");
    is_i64(files_in_dir(), before, "no temporary file is left");
    is_i64(mkdir(at("d"), 0700), 0, "a directory in the way");
    is_i64(tni_file_write(at("d"), "new", 3), TN_EFILE, "cannot be replaced");
    is_i64(files_in_dir(), before + 1, "no temporary file is left then either");
    is_i64(tni_file_write(at("none/x"), "new", 3), TN_EFILE, "a directory that is not there");
    is_i64(tni_file_read(at("b"), 10, &text, NULL), 0, "read back");
    is_str(text, "new", "content");
    tni_free(text);
}

static int part_of_three(void *fail, size_t i, tni_bytes *out) {
    *out = (tni_bytes){"x", 1};
    return (int)i == *(int *)fail ? tni_fail(TN_ESTATE, "no part %d", (int)i) : 0;
}

static void test_stream(void) {
    static const tni_bytes parts[] = {{"ab", 2}, {NULL, 0}, {"c", 1}};
    char *text = NULL;
    int before = files_in_dir();
    is_i64(tni_file_write_parts(at("s"), parts, 3), 0, "parts");
    is_i64(tni_file_read(at("s"), 10, &text, NULL), 0, "read back");
    is_str(text, "abc", "one after another");
    tni_free(text);
    for (int fail = 0; fail < 3; fail++)
        is_i64(tni_file_write_stream(at("s"), part_of_three, &fail, 3), TN_ESTATE,
               "part %d cannot be had", fail);
    is_i64(tni_file_read(at("s"), 10, &text, NULL), 0, "the old file");
    is_str(text, "abc", "stays");
    tni_free(text);
    is_i64(files_in_dir(), before + 1, "no temporary file is left");
}

static void test_folder(void) {
    bool made;
    is_i64(tni_folder_make(at("new"), &made), 0, "a folder");
    ok(made, "is made");
    is_i64(tni_folder_make(at("new"), &made), 0, "once more");
    ok(!made, "it is there");
    is_i64(tni_folder_make(at("none/x"), &made), TN_EFILE, "in no folder");
    ok(strstr(tni_error(), "none/x: the folder cannot be made: No such"), "says: %s", tni_error());
    is_i64(tni_folder_make(at("b"), &made), TN_EFILE, "a file in its place");
    ok(strstr(tni_error(), "b: is a file"), "says: %s", tni_error());
    is_i64(tni_folder_make("/proc", &made), TN_EFILE, "nobody can write there");
    ok(strstr(tni_error(), "/proc: files cannot be made in the folder"), "says: %s", tni_error());
    ok(!rmdir(at("new")), "it is left empty");
}

static void test_failures(void) {
    int64_t live = tni_alloc_live();
    for (int n = 1; n < 6; n++) {
        bool made;
        tni_file f;
        char *text = NULL;
        tni_fail_alloc_at(n);
        int code = tni_file_map(at("b"), &f);
        if (!code) tni_file_close(&f);
        if (!code) code = tni_file_read(at("b"), 10, &text, NULL);
        if (!code) code = tni_file_write(at("c"), "x", 1);
        if (!code) code = tni_folder_make(dir, &made);
        tni_fail_alloc_at(0);
        tni_free(text);
        ok(code == (n < 5 ? TN_EMEMORY : 0), "allocation %d fails: %s", n, tni_status_name(code));
        is_i64(tni_alloc_live(), live, "no leak");
    }
}

int main(void) {
    if (!mkdtemp(dir)) return 1;
    test_map();
    test_cut();
    test_refused();
    test_read();
    test_write();
    test_stream();
    test_folder();
    test_failures();
    char cmd[64];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    is_i64(system(cmd), 0, "clean up");
    return tap_done();
}
