/* How a run of training is going: a line on standard error (step, loss, how fast, time left), and
 * at the end the curve of the loss as FOLDER/loss.csv and FOLDER/loss.png. */
#ifndef EXAMPLES_PROGRESS_H
#define EXAMPLES_PROGRESS_H

#include <stdint.h>

typedef struct progress {
    int64_t step, first, steps, per_step;
    const char *unit;
    double began, shown;
    float *loss; /* of every step, from the first */
} progress;

/* A run from step `first` up to `steps`, each of `per_step` "tokens" or what the unit is. */
void progress_begin(progress *p, int64_t first, int64_t steps, int64_t per_step, const char *unit);
/* After a step; 1 with a message where the loss is no number: the rest would be lost time. */
int progress_step(progress *p, float loss);
/* Writes the curve (folder NULL: none); 0, or 1 with a message. */
int progress_end(progress *p, const char *folder);

/* A picture of n numbers as a PNG file: each as a dot, and their running mean as a line. */
int curve_png(const char *path, const float *v, int64_t n, int64_t first);

#endif
