/* Files: mapped, read whole, written atomically. A path that is not a regular
 * file is refused before it is opened for long (O_NONBLOCK: a FIFO without a
 * writer would otherwise hang the caller). */
#include "base/mmap.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/guard.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int mmap_fail(const char *path, const char *what) {
    return tni_fail(TN_EFILE, "%s: %s: %s", path, what, strerror(errno));
}

/* Opens a regular file; its size goes to *size. Returns the descriptor or TN_EFILE. */
static int mmap_open(const char *path, size_t *size) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return mmap_fail(path, "cannot open");
    if (fstat(fd, &st)) {
        mmap_fail(path, "cannot stat");
        close(fd);
        return TN_EFILE;
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return tni_fail(TN_EFILE, "%s: not a regular file", path);
    }
    *size = (size_t)st.st_size;
    return fd;
}

int tni_file_map(const char *path, tni_file *f) {
    *f = (tni_file){.fd = -1, .guard = -1};
    if (!(f->path = tni_strdup(path))) return tni_fail_memory(strlen(path) + 1, "a file name");
    int fd = mmap_open(path, &f->size);
    if (fd < 0) {
        tni_file_close(f);
        return fd;
    }
    f->fd = fd;
    if (!f->size) return 0;
    void *p = mmap(NULL, f->size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) {
        int code = errno == ENOMEM ? TN_EMEMORY : TN_EFILE;
        tni_fail(code, "%s: cannot map %zu bytes: %s", path, f->size, strerror(errno));
        tni_file_close(f);
        return code;
    }
    f->data = p;
    f->guard = tni_guard_add(p, f->size);
    return 0;
}

int tni_file_check(const tni_file *f) {
    struct stat st;
    if (fstat(f->fd, &st)) return mmap_fail(f->path, "cannot stat");
    if ((size_t)st.st_size >= f->size && !tni_guard_damaged(f->guard)) return 0;
    return tni_fail(TN_EFILE, "%s: the file shrank from %zu to %lld bytes while in use", f->path,
                    f->size, (long long)st.st_size);
}

int tni_file_copy(const tni_file *f, size_t offset, void *to, size_t n) {
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(f->fd, (char *)to + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return mmap_fail(f->path, "cannot read");
        if (got == 0)
            return tni_fail(TN_EFILE, "%s: the file ends at byte %zu while in use; %zu were mapped",
                            f->path, offset + done, f->size);
        done += (size_t)got;
    }
    return 0;
}

void tni_file_forget(const tni_file *f, const void *data, size_t n) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)data,
              end = (begin + n) & ~(page - 1);
    begin = (begin + page - 1) & ~(page - 1);
    if (f->data && begin < end) madvise((void *)begin, end - begin, MADV_DONTNEED);
}

void tni_file_close(tni_file *f) {
    if (f->path) tni_guard_remove(f->guard);
    if (f->data) munmap((void *)(uintptr_t)f->data, f->size);
    if (f->fd >= 0 && f->path) close(f->fd);
    tni_free(f->path);
    *f = (tni_file){.fd = -1, .guard = -1};
}

/* Reads n bytes or up to the end of the file; the count read, or -1 with errno. */
static ssize_t mmap_read_all(int fd, char *to, size_t n) {
    size_t done = 0;
    while (done < n) {
        ssize_t got = read(fd, to + done, n - done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return -1;
        if (got == 0) break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

int tni_file_read(const char *path, size_t limit, char **out, size_t *size) {
    size_t n;
    *out = NULL;
    int code = 0, fd = mmap_open(path, &n);
    if (fd < 0) return fd;
    char *buf = NULL;
    ssize_t got = -1;
    if (n > limit)
        code = tni_fail(TN_EFILE, "%s: %zu bytes, the limit is %zu", path, n, limit);
    else if (!(buf = tni_alloc(n + 1)))
        code = tni_fail_memory(n + 1, path);
    else if ((got = mmap_read_all(fd, buf, n)) < 0)
        code = mmap_fail(path, "cannot read");
    close(fd);
    if (code) {
        tni_free(buf);
        return code;
    }
    buf[got] = '\0';
    *out = buf;
    if (size) *size = (size_t)got;
    return 0;
}

static int mmap_write_all(int fd, tni_bytes b) {
    for (size_t done = 0; done < b.n;) {
        ssize_t put = write(fd, b.s + done, b.n - done);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return -1;
        done += (size_t)put;
    }
    return 0;
}

/* The rename is durable only once the directory is synced; a file system that
 * cannot sync a directory (EINVAL) has nothing more to offer, so errors are dropped. */
static void mmap_sync_dir(char *path) {
    char *slash = strrchr(path, '/');
    if (slash == path) slash++;
    if (slash) *slash = '\0';
    int fd = open(slash ? path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd);
    close(fd);
}

/* A name no other writer uses: the process and a count; O_EXCL settles the rest. */
static char *mmap_temp_name(const char *path) {
    static atomic_uint serial;
    size_t cap = strlen(path) + 40;
    char *name = tni_alloc(cap);
    if (name) snprintf(name, cap, "%s.%ld.%u.tmp", path, (long)getpid(), serial++);
    return name;
}

/* A replaced file keeps its permission bits. */
static int mmap_mode_like(const char *path, int fd) {
    struct stat st;
    if (stat(path, &st)) return 0;
    return fchmod(fd, st.st_mode & 07777);
}

int tni_file_write(const char *path, const void *data, size_t size) {
    return tni_file_write_parts(path, &(tni_bytes){data, size}, 1);
}

static int mmap_part(void *ud, size_t i, tni_bytes *out) {
    *out = ((const tni_bytes *)ud)[i];
    return 0;
}

int tni_file_write_parts(const char *path, const tni_bytes *parts, size_t n) {
    return tni_file_write_stream(path, mmap_part, (void *)(uintptr_t)parts, n);
}

int tni_file_write_stream(const char *path, int (*part)(void *ud, size_t i, tni_bytes *out),
                          void *ud, size_t n) {
    char *temp = mmap_temp_name(path);
    if (!temp) return tni_fail_memory(strlen(path) + 40, "a temporary file name");
    int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666), code = 0;
    if (fd < 0) {
        code = mmap_fail(temp, "cannot create");
        tni_free(temp);
        return code;
    }
    if (mmap_mode_like(path, fd)) code = mmap_fail(temp, "cannot write");
    for (size_t i = 0; i < n && !code; i++) {
        tni_bytes b;
        code = part(ud, i, &b);
        if (!code && mmap_write_all(fd, b)) code = mmap_fail(temp, "cannot write");
    }
    if (!code && fsync(fd)) code = mmap_fail(temp, "cannot write");
    if (close(fd) && !code) code = mmap_fail(temp, "cannot close");
    if (!code && rename(temp, path)) code = mmap_fail(path, "cannot replace");
    if (code)
        unlink(temp);
    else
        mmap_sync_dir(temp);
    tni_free(temp);
    return code;
}

static int mmap_probe(const char *dir) {
    size_t n = strlen(dir) + 16;
    char *name = tni_alloc(n);
    if (!name) return tni_fail_memory(n, "a file name");
    snprintf(name, n, "%s/.tenon-XXXXXX", dir);
    int fd = mkstemp(name), code = 0;
    if (fd < 0) code = mmap_fail(dir, "files cannot be made in the folder");
    if (fd >= 0) close(fd), unlink(name);
    tni_free(name);
    return code;
}

int tni_folder_make(const char *path, bool *made) {
    struct stat st;
    *made = !mkdir(path, 0777);
    if (*made) return 0;
    if (errno != EEXIST) return mmap_fail(path, "the folder cannot be made");
    if (!stat(path, &st) && !S_ISDIR(st.st_mode))
        return tni_fail(TN_EFILE, "%s: is a file, and a folder is needed", path);
    return mmap_probe(path);
}
