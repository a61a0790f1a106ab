/* A run's losses: a table as CSV, and a picture of it as PNG. */
#ifndef CMD_CURVE_H
#define CMD_CURVE_H

#include <stddef.h>
#include <stdint.h>

typedef struct curve_row {
    int64_t step;
    double loss, valid; /* NaN: not taken at this step */
} curve_row;

typedef struct curve {
    curve_row *v;
    size_t n, cap;
} curve;

/* These give 0 or a negative status with tn_error(). A row of the same step is completed. */
int curve_add(curve *c, int64_t step, double loss, double valid);
int curve_write(const curve *c, const char *path);
int curve_draw(const curve *c, const char *path); /* nothing, with less than two losses */
/* The rows up to `step` of a file that curve_write wrote; a missing file has none. */
int curve_read(curve *c, const char *path, int64_t step);
void curve_free(curve *c);

#endif
