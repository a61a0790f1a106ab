/* What the training examples read: files, plain or gzip, and the Fashion-MNIST pictures of Debian's
 * package dataset-fashion-mnist. Messages go to standard error. */
#ifndef EXAMPLES_DATA_H
#define EXAMPLES_DATA_H

#include <stddef.h>
#include <tenon/tenon.h>

#ifndef EXAMPLES_DATA /* the build says where it is */
#define EXAMPLES_DATA "examples/data"
#endif
#define FASHION_MNIST "/usr/share/datasets/fashion-mnist"

/* The whole file, unpacked, with a NUL after its n bytes; free() it. NULL when it cannot be read.
 */
char *data_read(const char *path, size_t *n);

typedef struct pictures {
    tn_array *pixels; /* u8 [n, 28, 28, 1] */
    tn_array *labels; /* u8 [n] */
} pictures;

/* "train" (60000) or "t10k" (10000) of the folder; 0, or 1 with a message. */
int pictures_open(pictures *p, const char *folder, const char *which);
void pictures_close(pictures *p);

/* A text as numbers of its letters (bytes, in order of value). */
typedef struct alphabet {
    int n;
    char letter[256];
    tn_array *text; /* u8 [length] */
} alphabet;
int alphabet_open(alphabet *a, const char *path); /* 0, or 1 with a message */
void alphabet_close(alphabet *a);

/* FOLDER/name, with the folder made; NULL when the folder is NULL. Valid until the next call. */
const char *folder_file(const char *folder, const char *name);

/* Value of the option in "--name VALUE"; `otherwise` when it is not there. */
const char *option_text(char **argv, const char *name, const char *otherwise);
double option_number(char **argv, const char *name, double otherwise);

#endif
