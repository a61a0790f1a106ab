/* Sampling on the host: a vocabulary of scores is small beside a forward pass. */
#include "base/threefry.h"
#include "llm/model.h"
#include <math.h>

/* Higher score first; equal scores by id, so that the order is one. */
static bool sample_before(tni_candidate a, tni_candidate b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

/* The k best in order, by insertion: k is at most a few dozen. */
void tni_top(const float *logits, int64_t n, int k, tni_candidate *best) {
    int have = 0;
    for (int64_t i = 0; i < n && k > 0; i++) {
        tni_candidate c = {logits[i], (int32_t)i};
        if (have == k && !sample_before(c, best[k - 1])) continue;
        int at = have < k ? have++ : k - 1;
        for (; at && sample_before(c, best[at - 1]); at--) best[at] = best[at - 1];
        best[at] = c;
    }
}

/* A max-heap, so that only as many candidates are ordered as the filters keep: building it is
 * linear, sorting a vocabulary would cost as much as a small model's forward pass. */
static void sample_sift(tni_candidate *c, int64_t n, int64_t i) {
    for (int64_t k; (k = 2 * i + 1) < n; i = k) {
        if (k + 1 < n && sample_before(c[k + 1], c[k])) k++;
        if (!sample_before(c[k], c[i])) return;
        tni_candidate t = c[i];
        c[i] = c[k], c[k] = t;
    }
}

static void sample_heap(tni_candidate *c, int64_t n) {
    for (int64_t i = n / 2; i-- > 0;) sample_sift(c, n, i);
}

/* Moves the best of the heap c[0..n) to c[n - 1]. */
static void sample_pop(tni_candidate *c, int64_t n) {
    tni_candidate t = c[0];
    c[0] = c[n - 1], c[n - 1] = t;
    sample_sift(c, n - 1, 0);
}

/* Uniform in [0, 1), 53 bits, one counter step a draw. */
static double sample_uniform(tni_rng *r) {
    tni_u32x2 bits = tni_threefry((tni_u32x2){(uint32_t)(r->seed >> 32), (uint32_t)r->seed},
                                  (tni_u32x2){(uint32_t)(r->count >> 32), (uint32_t)r->count});
    r->count++;
    return (double)(((uint64_t)bits.x << 32 | bits.y) >> 11) * 0x1p-53;
}

/* Divides positive scores of recent tokens by the penalty, multiplies negative ones; each once. */
static void sample_penalise(tni_candidate *c, const int32_t *recent, size_t n, float penalty) {
    for (size_t i = 0; i < n; i++) {
        bool seen = false;
        for (size_t k = 0; k < i && !seen; k++) seen = recent[k] == recent[i];
        float *x = &c[recent[i]].logit;
        if (!seen) *x = *x > 0 ? *x / penalty : *x * penalty;
    }
}

static double sample_weight(tni_candidate c, float top) { return exp((double)(c.logit - top)); }

/* Keeps what the filters allow at the end of c, best last; returns how many. */
static int64_t sample_filter(tni_candidate *c, int64_t n, const tn_llm_sampler *opt, float top) {
    double sum = 0, mass = 0;
    bool nucleus = opt->top_p > 0 && opt->top_p < 1;
    int64_t most = opt->top_k > 0 && opt->top_k < n ? opt->top_k : n, keep = 0;
    sample_heap(c, n);
    if (nucleus && most == n)
        for (int64_t i = 0; i < n; i++) sum += sample_weight(c[i], top);
    if (most < n) {
        for (; keep < most; keep++) sample_pop(c, n - keep);
        for (int64_t i = n - most; i < n; i++) sum += sample_weight(c[i], top);
    }
    for (keep = 0; keep < most; keep++) {
        if (most == n) sample_pop(c, n - keep); /* only as far as the nucleus reaches */
        double p = sample_weight(c[n - 1 - keep], top);
        if (keep && ((opt->min_p > 0 && p < (double)opt->min_p) ||
                     (nucleus && mass >= (double)opt->top_p * sum)))
            break;
        mass += p;
    }
    return keep;
}

/* A draw from c[0..n) in proportion to the weights. */
static int32_t sample_draw(const tni_candidate *c, int64_t n, float top, tni_rng *rng) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += sample_weight(c[i], top);
    double at = sample_uniform(rng) * sum;
    for (int64_t i = 0; i + 1 < n; i++)
        if ((at -= sample_weight(c[i], top)) < 0) return c[i].id;
    return c[n - 1].id;
}

int32_t tni_sample(const float *logits, int64_t n, const tn_llm_sampler *opt, const int32_t *recent,
                   size_t n_recent, tni_rng *rng, tni_candidate *c) {
    bool penalty = opt->repetition_penalty > 0 && opt->repetition_penalty != 1;
    bool greedy = !(opt->temperature > 0),
         ordered = opt->top_k > 0 || (opt->top_p > 0 && opt->top_p < 1) || opt->min_p > 0;
    int64_t best = 0;
    if (greedy && !penalty) {
        for (int64_t i = 1; i < n; i++)
            if (logits[i] > logits[best]) best = i;
        return (int32_t)best;
    }
    for (int64_t i = 0; i < n; i++) c[i] = (tni_candidate){logits[i], (int32_t)i};
    if (penalty) sample_penalise(c, recent, n_recent, opt->repetition_penalty);
    for (int64_t i = 1; i < n; i++)
        if (sample_before(c[i], c[best])) best = i;
    if (greedy) return c[best].id;
    for (int64_t i = 0; i < n; i++) c[i].logit /= opt->temperature;
    float top = c[best].logit;
    int64_t keep = ordered ? sample_filter(c, n, opt, top) : n;
    return sample_draw(c + n - keep, keep, top, rng);
}
