/* The progress line. On a terminal it is written over; elsewhere a line now and then, so that a
 * log stays readable. */
#include "progress.h"
#include "data.h"
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double progress_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void progress_begin(progress *p, int64_t first, int64_t steps, int64_t per_step, const char *unit) {
    *p = (progress){first, first, steps, per_step, unit, progress_now(), 0, NULL};
    if (steps > first) p->loss = calloc((size_t)(steps - first), sizeof *p->loss);
}

static void progress_show(progress *p, double now, bool terminal) {
    double spent = now - p->began, rate = (double)(p->step - p->first) / (spent > 0 ? spent : 1);
    int64_t n = p->step - p->first, from = n > 20 ? n - 20 : 0;
    double mean = 0;
    for (int64_t i = from; i < n; i++) mean += (double)p->loss[i] / (double)(n - from);
    int left = (int)((double)(p->steps - p->step) / rate + 0.5);
    fprintf(stderr, "%sstep %lld/%lld  loss %.4f  %.0f %s/s  %d:%02d left%s", terminal ? "\r" : "",
            (long long)p->step, (long long)p->steps, mean, rate * (double)p->per_step, p->unit,
            left / 60, left % 60, terminal ? "   " : "\n");
    p->shown = now;
}

int progress_step(progress *p, float loss) {
    bool terminal = isatty(2);
    double now = progress_now();
    if (!isfinite(loss)) {
        fprintf(stderr, "%sstep %lld: the loss is %g; a smaller --rate may help\n",
                terminal && p->shown > 0 ? "\n" : "", (long long)p->step + 1, (double)loss);
        return 1;
    }
    if (p->step >= p->steps || !p->loss) return 0;
    p->loss[p->step++ - p->first] = loss;
    if (now - p->shown >= (terminal ? 0.2 : 10) || p->step == p->steps)
        progress_show(p, now, terminal);
    return 0;
}

static int progress_csv(const progress *p, const char *path) {
    FILE *f = fopen(path, "w");
    if (f) fprintf(f, "step,loss\n");
    for (int64_t i = p->first; f && i < p->step; i++)
        fprintf(f, "%lld,%.6g\n", (long long)i + 1, (double)p->loss[i - p->first]);
    if (f && !ferror(f) && !fclose(f)) return 0;
    return fprintf(stderr, "%s: cannot be written\n", path), 1;
}

int progress_end(progress *p, const char *folder) {
    int failed = 0;
    if (p->step > p->first && isatty(2)) fprintf(stderr, "\n");
    if (folder && p->loss && p->step > p->first) {
        failed = progress_csv(p, folder_file(folder, "loss.csv"));
        failed |= curve_png(folder_file(folder, "loss.png"), p->loss, p->step - p->first, p->first);
    }
    free(p->loss);
    p->loss = NULL;
    return failed;
}
