/* Paths in the folder of a test, which it makes and removes itself. */
#ifndef TESTS_FOLDER_H
#define TESTS_FOLDER_H

#include <stdio.h>

static char dir[64];

/* Four paths may be in use at once. */
static inline const char *in_dir(const char *name) {
    static char path[4][256];
    static int turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

#endif
