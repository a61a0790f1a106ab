/* Optimizers against their formulas written out for one number (and, where a rule looks at whole
 * matrices, for one matrix) in doubles; schedules, clipping, accumulation, several in one, misuse,
 * memory. Constants are rounded to f32 as weak scalars are. */
#include "base/alloc.h"
#include "tap.h"
#include "tenon/nn.h"
#include "values.h"
#include <math.h>

enum { ROWS = 3, COLUMNS = 4, NUMBERS = 5, STEPS = 10, ALL = ROWS * COLUMNS + NUMBERS };

static double f(double x) { return (double)(float)x; }

/* ---- a model of a matrix and a vector ---- */

typedef struct model {
    tn_params *p;
    tn_array *a, *b;
} model;

static double number(int i) { return sin(3.7 * i + 1) * 0.8; }
static double slope(int i, int step) { return sin(1.3 * i + 0.7 * step) * 0.5 + 0.05; }

static int model_init(model *m, tn_dtype d) {
    double v[ALL];
    for (int i = 0; i < ALL; i++) v[i] = number(i);
    *m = (model){tn_params_new(), NULL, NULL};
    if (!m->p) return TN_EMEMORY;
    int status = 0;
    TN_SCOPE {
        tn_array *a = tn_astype(tn_array_new(v, TN_F64, TN_SHAPE(ROWS, COLUMNS)), d);
        tn_array *b = tn_astype(tn_array_new(v + ROWS * COLUMNS, TN_F64, TN_SHAPE(NUMBERS)), d);
        status = tn_eval(TN_LIST(a, b));
        if (!status) status = tn_params_add(m->p, "a", &m->a, a);
        if (!status) status = tn_params_add(m->p, "b", &m->b, b);
    }
    return status;
}

static void gradients(int step, double scale, tn_dtype d, tn_array *g[2]) {
    double v[ALL];
    for (int i = 0; i < ALL; i++) v[i] = slope(i, step) * scale;
    g[0] = tn_astype(tn_array_new(v, TN_F64, TN_SHAPE(ROWS, COLUMNS)), d);
    g[1] = tn_astype(tn_array_new(v + ROWS * COLUMNS, TN_F64, TN_SHAPE(NUMBERS)), d);
}

static int model_step(tn_optim *o, int step, tn_dtype d) {
    int status = 0;
    TN_SCOPE {
        tn_array *g[2];
        gradients(step, 1, d, g);
        status = tn_optim_update(o, g);
        if (!status) status = tn_optim_eval(o, TN_LIST());
    }
    return status;
}

static void model_read(const model *m, double v[ALL]) {
    if (tn_read(m->a, TN_F64, v, sizeof(double) * ROWS * COLUMNS) ||
        tn_read(m->b, TN_F64, v + ROWS * COLUMNS, sizeof(double) * NUMBERS))
        diag("%s", tn_error());
}

static double worst_of(const double *got, const double *want, int n) {
    double worst = 0;
    for (int i = 0; i < n; i++) worst = fmax(worst, fabs(got[i] - want[i]) / (fabs(want[i]) + 1));
    return worst;
}

/* ---- rules of one number ---- */

typedef struct rule {
    const char *name;
    tn_optim *(*make)(tn_params *p);
    double (*next)(double p, double g, double s[2], int step); /* step from 1 */
    double within;
} rule;

#define LR f(0.05)

static tn_optim *make_sgd(tn_params *p) {
    return tn_optim_sgd(p, TN_OPT(tn_sgd_opt, .learning_rate = 0.05));
}
static double next_sgd(double p, double g, double s[2], int step) {
    (void)s, (void)step;
    return p - LR * g;
}
static tn_optim *make_sgd_all(tn_params *p) {
    return tn_optim_sgd(p, TN_OPT(tn_sgd_opt, .learning_rate = 0.05, .momentum = 0.9,
                                  .weight_decay = 0.01, .dampening = 0.25));
}
static double next_sgd_all(double p, double g, double s[2], int step) {
    (void)step;
    g += f(0.01) * p;
    s[0] = f(0.9) * s[0] + f(0.75) * g;
    return p - LR * s[0];
}
static tn_optim *make_nesterov(tn_params *p) {
    return tn_optim_sgd(
        p, TN_OPT(tn_sgd_opt, .learning_rate = 0.05, .momentum = 0.8, .nesterov = true));
}
static double next_nesterov(double p, double g, double s[2], int step) {
    (void)step;
    s[0] = f(0.8) * s[0] + g;
    return p - LR * (g + f(0.8) * s[0]);
}
static tn_optim *make_rmsprop(tn_params *p) {
    return tn_optim_rmsprop(
        p, TN_OPT(tn_rmsprop_opt, .learning_rate = 0.05, .alpha = 0.9, .eps = 1e-6));
}
static double next_rmsprop(double p, double g, double s[2], int step) {
    (void)step;
    s[0] = f(0.9) * s[0] + f(1 - 0.9) * g * g;
    return p - LR * g / (sqrt(s[0]) + f(1e-6));
}
static tn_optim *make_adagrad(tn_params *p) {
    return tn_optim_adagrad(p, TN_OPT(tn_adagrad_opt, .learning_rate = 0.05));
}
static double next_adagrad(double p, double g, double s[2], int step) {
    (void)step;
    s[0] += g * g;
    return p - LR * g / (sqrt(s[0]) + f(1e-8));
}
static tn_optim *make_adadelta(tn_params *p) {
    return tn_optim_adadelta(p, TN_OPT(tn_adadelta_opt, .learning_rate = 0.05));
}
static double next_adadelta(double p, double g, double s[2], int step) {
    (void)step;
    s[0] = f(0.9) * s[0] + f(1 - 0.9) * g * g;
    double d = sqrt(s[1] + f(1e-6)) / sqrt(s[0] + f(1e-6)) * g;
    s[1] = f(0.9) * s[1] + f(1 - 0.9) * d * d;
    return p - LR * d;
}

static void moments(double g, double s[2]) {
    s[0] = f(0.9) * s[0] + f(1 - 0.9) * g;
    s[1] = f(0.999) * s[1] + f(1 - 0.999) * g * g;
}
static tn_optim *make_adam(tn_params *p) {
    return tn_optim_adam(p, TN_OPT(tn_adam_opt, .learning_rate = 0.05));
}
static double next_adam(double p, double g, double s[2], int step) {
    (void)step;
    moments(g, s);
    return p - LR * s[0] / (sqrt(s[1]) + f(1e-8));
}
static tn_optim *make_adam_warm(tn_params *p) {
    return tn_optim_adam(p, TN_OPT(tn_adam_opt, .learning_rate = 0.05, .bias_correction = true));
}
static double next_adam_warm(double p, double g, double s[2], int step) {
    moments(g, s);
    double c1 = LR / (1 - pow(f(0.9), step)), c2 = 1 / sqrt(1 - pow(f(0.999), step));
    return p - c1 * s[0] / (sqrt(s[1]) * c2 + f(1e-8));
}
static tn_optim *make_adamw(tn_params *p) {
    return tn_optim_adamw(p, TN_OPT(tn_adamw_opt, .learning_rate = 0.05, .bias_correction = true,
                                    .weight_decay = 0.1));
}
static double next_adamw(double p, double g, double s[2], int step) {
    return next_adam_warm(p * (1 - LR * f(0.1)), g, s, step);
}
static tn_optim *make_adamw_none(tn_params *p) { /* below 0: no decay at all */
    return tn_optim_adamw(p, TN_OPT(tn_adamw_opt, .learning_rate = 0.05, .weight_decay = -1));
}
static tn_optim *make_adamw_default(tn_params *p) {
    return tn_optim_adamw(p, TN_OPT(tn_adamw_opt, .learning_rate = 0.05));
}
static double next_adamw_default(double p, double g, double s[2], int step) {
    return next_adam(p * (1 - LR * f(0.01)), g, s, step);
}
static tn_optim *make_adamax(tn_params *p) {
    return tn_optim_adamax(p, TN_OPT(tn_adamax_opt, .learning_rate = 0.05, .eps = 1e-4));
}
static double next_adamax(double p, double g, double s[2], int step) {
    (void)step;
    s[0] = f(0.9) * s[0] + f(1 - 0.9) * g;
    s[1] = fmax(f(0.999) * s[1], fabs(g));
    return p - LR * s[0] / (s[1] + f(1e-4));
}
static tn_optim *make_lion(tn_params *p) {
    return tn_optim_lion(p, TN_OPT(tn_lion_opt, .learning_rate = 0.05, .weight_decay = 0.1));
}
static double next_lion(double p, double g, double s[2], int step) {
    (void)step;
    double c = f(0.9) * s[0] + f(1 - 0.9) * g;
    s[0] = f(0.99) * s[0] + f(1 - 0.99) * g;
    return (1 - LR * f(0.1)) * p - LR * ((c > 0) - (c < 0));
}

/* 1e-12 where all is f64; the corrections of Adam are f32, as the learning rate is. */
static const rule rules[] = {
    {"sgd", make_sgd, next_sgd, 1e-12},
    {"sgd with momentum, decay, dampening", make_sgd_all, next_sgd_all, 1e-12},
    {"sgd with nesterov", make_nesterov, next_nesterov, 1e-12},
    {"rmsprop", make_rmsprop, next_rmsprop, 1e-12},
    {"adagrad", make_adagrad, next_adagrad, 1e-12},
    {"adadelta", make_adadelta, next_adadelta, 1e-12},
    {"adam", make_adam, next_adam, 1e-12},
    {"adam with bias correction", make_adam_warm, next_adam_warm, 1e-5},
    {"adamw with bias correction", make_adamw, next_adamw, 1e-5},
    {"adamw without decay", make_adamw_none, next_adam, 1e-12},
    {"adamw", make_adamw_default, next_adamw_default, 1e-12},
    {"adamax", make_adamax, next_adamax, 1e-12},
    {"lion", make_lion, next_lion, 1e-12},
};

static void test_rule(const rule *r) {
    model m;
    double want[ALL], got[ALL], s[ALL][2] = {{0}};
    int status = model_init(&m, TN_F64);
    tn_optim *o = status ? NULL : r->make(m.p);
    for (int i = 0; i < ALL; i++) want[i] = number(i);
    for (int step = 0; step < STEPS && o && !status; step++) {
        for (int i = 0; i < ALL; i++) want[i] = r->next(want[i], slope(i, step), s[i], step + 1);
        status = model_step(o, step, TN_F64);
    }
    if (ok(o && !status, "%s: ten steps%s%s", r->name, o && !status ? "" : ": ",
           o && !status ? "" : tn_error())) {
        model_read(&m, got);
        double worst = worst_of(got, want, ALL);
        ok(worst < r->within, "%s: follows its formula (%g)", r->name, worst);
        is_i64(tn_optim_steps(o), STEPS, "%s: counts its steps", r->name);
    }
    tn_optim_free(o);
    tn_params_free(m.p);
}

/* ---- rules of a matrix ---- */

static double rms(const double *v, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += v[i] * v[i];
    return sqrt(sum / n);
}

typedef struct factor {
    double rate, decay, beta1, clip; /* rate 0: relative steps */
    bool scaled, warm;
} factor;

/* One step of Adafactor on p [r, c]; a vector has r 0. */
static void next_adafactor(const factor *x, double *p, const double *g, double *row, double *col,
                           double *whole, double *mean, int r, int c, int step) {
    int n = r ? r * c : c;
    double u[ALL], size = rms(p, n), lr = x->rate;
    if (!lr) lr = fmin(x->warm ? 1e-6 * step : 1e-2, 1 / sqrt(step));
    if (x->scaled) lr *= fmax(1e-3, size);
    double fade = pow(step, -0.8), all = 0;
    for (int i = 0; i < n; i++) {
        double q = g[i] * g[i] + 1e-30;
        if (!r) whole[i] = (1 - fade) * whole[i] + fade * q;
    }
    for (int i = 0; i < r; i++) {
        double sum = 0;
        for (int j = 0; j < c; j++) sum += g[i * c + j] * g[i * c + j] + 1e-30;
        row[i] = (1 - fade) * row[i] + fade * sum / c;
        all += row[i] / r;
    }
    for (int j = 0; j < c && r; j++) {
        double sum = 0;
        for (int i = 0; i < r; i++) sum += g[i * c + j] * g[i * c + j] + 1e-30;
        col[j] = (1 - fade) * col[j] + fade * sum / r;
    }
    for (int i = 0; i < n; i++) u[i] = g[i] / sqrt(r ? row[i / c] / all * col[i % c] : whole[i]);
    double most = fmax(1, rms(u, n) / x->clip);
    for (int i = 0; i < n; i++) {
        double move = lr * u[i] / most;
        if (x->beta1 > 0) move = mean[i] = x->beta1 * mean[i] + (1 - x->beta1) * move;
        p[i] -= p[i] * x->decay * lr + move;
    }
}

static void test_adafactor(const char *name, const factor *x, const tn_adafactor_opt *opt) {
    model m;
    double want[ALL], got[ALL], g[ALL], row[ROWS] = {0}, col[COLUMNS] = {0}, whole[NUMBERS] = {0},
                                        mean[ALL] = {0};
    int status = model_init(&m, TN_F64), n = ROWS * COLUMNS;
    tn_optim *o = status ? NULL : tn_optim_adafactor(m.p, opt);
    for (int i = 0; i < ALL; i++) want[i] = number(i);
    for (int step = 0; step < STEPS && o && !status; step++) {
        for (int i = 0; i < ALL; i++) g[i] = slope(i, step);
        next_adafactor(x, want, g, row, col, NULL, mean, ROWS, COLUMNS, step + 1);
        next_adafactor(x, want + n, g + n, NULL, NULL, whole, mean + n, 0, NUMBERS, step + 1);
        status = model_step(o, step, TN_F64);
    }
    if (!ok(o && !status, "%s: ten steps", name)) diag("%s", tn_error());
    model_read(&m, got);
    double worst = worst_of(got, want, ALL);
    ok(worst < 2e-6, "%s: follows its formula (%g)", name, worst);
    tn_optim_free(o);
    tn_params_free(m.p);
}

/* [r, c] = a b with a [r, k], b [k, c] or, turned, [c, k] */
static void product(const double *a, const double *b, bool turned, int r, int k, int c, double *o) {
    for (int i = 0; i < r; i++)
        for (int j = 0; j < c; j++) {
            o[i * c + j] = 0;
            for (int l = 0; l < k; l++)
                o[i * c + j] += a[i * k + l] * b[turned ? j * k + l : l * c + j];
        }
}

/* ROWS is below COLUMNS: nothing is transposed, and the rate is not raised. */
static void next_muon(double *p, const double *g, double *v) {
    enum { N = ROWS * COLUMNS };
    double x[N], a[ROWS * ROWS], b[ROWS * ROWS], y[N], norm = 0;
    for (int i = 0; i < N; i++) {
        double gi = g[i] + 0.01 * p[i];
        v[i] = 0.95 * v[i] + 0.05 * gi;
        x[i] = 0.05 * gi + 0.95 * v[i];
        norm += x[i] * x[i];
    }
    for (int i = 0; i < N; i++) x[i] /= sqrt(norm) + 1e-7;
    for (int step = 0; step < 5; step++) {
        product(x, x, true, ROWS, COLUMNS, ROWS, a);
        product(a, a, false, ROWS, ROWS, ROWS, b);
        for (int i = 0; i < ROWS * ROWS; i++) b[i] = -4.7750 * a[i] + 2.0315 * b[i];
        product(b, x, false, ROWS, ROWS, COLUMNS, y);
        for (int i = 0; i < N; i++) x[i] = 3.4445 * x[i] + y[i];
    }
    for (int i = 0; i < N; i++) p[i] -= LR * x[i];
}

static void test_muon(void) {
    model m;
    double want[ALL], got[ALL], g[ALL], v[ROWS * COLUMNS] = {0};
    int status = model_init(&m, TN_F64);
    if (tn_params_freeze(m.p, "b", true) != 1) diag("nothing was frozen");
    tn_optim *o = tn_optim_muon(m.p, TN_OPT(tn_muon_opt, .learning_rate = 0.05));
    for (int i = 0; i < ALL; i++) want[i] = number(i);
    for (int step = 0; step < STEPS && o && !status; step++) {
        for (int i = 0; i < ALL; i++) g[i] = slope(i, step);
        next_muon(want, g, v);
        status = model_step(o, step, TN_F64);
    }
    if (!ok(o && !status, "muon: ten steps, with a frozen vector")) diag("%s", tn_error());
    model_read(&m, got);
    double worst = worst_of(got, want, ROWS * COLUMNS);
    ok(worst < 1e-5, "muon: follows its formula (%g)", worst);
    ok(worst_of(got + ROWS * COLUMNS, want + ROWS * COLUMNS, NUMBERS) == 0,
       "muon: what is frozen stays");
    tn_optim_free(o);
    tn_params_free(m.p);
}

static void test_matrices(void) {
    test_adafactor("adafactor", &(factor){0, 0, 0, 1, true, false}, NULL);
    test_adafactor("adafactor: warming up, first moment, decay",
                   &(factor){0, 0.1, 0.9, 0.5, true, true},
                   TN_OPT(tn_adafactor_opt, .warmup_init = true, .beta1 = 0.9, .weight_decay = 0.1,
                          .clip_threshold = 0.5));
    test_adafactor("adafactor: a rate, not scaled", &(factor){0.05, 0, 0, 1, false, false},
                   TN_OPT(tn_adafactor_opt, .learning_rate = 0.05, .no_scale_parameter = true));
    test_muon();
}

/* ---- schedules ---- */

static void near(tn_array *a, double want, const char *what, int step) {
    double got = tn_item_f64(a);
    ok(fabs(got - want) <= 1e-6 * fabs(want) + 1e-12, "%s at %d: %g%s%s", what, step, got,
       tn_array_status(a) ? ": " : "", tn_array_error(a));
    is_i64(tn_dtype_of(a), TN_F32, "%s is float32", what);
}

static tn_array *joined(tn_array *step, void *ud) {
    (void)ud;
    tn_array *warm = tn_optim_linear_schedule(step, 0, 0.1, 10);
    tn_array *later = tn_optim_cosine_decay(tn_sub(step, tn_i32(10)), 0.1, 20, 0.01);
    return tn_optim_join_schedules(step, TN_LIST(warm, later), TN_INTS(10));
}
static double joined_number(int step) {
    return step < 10 ? 0.01 * step : 0.01 + 0.045 * (1 + cos(acos(-1) / 20 * fmin(20, step - 10)));
}

static void test_schedules(void) {
    static const int steps[] = {0, 1, 7, 10, 11, 29, 30, 1000};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        TN_SCOPE {
            int n = steps[i];
            tn_array *step = tn_scalar_i64(n, TN_U64);
            near(tn_optim_exponential_decay(step, 0.1, 0.9), 0.1 * pow(f(0.9), n), "exponential",
                 n);
            near(tn_optim_step_decay(step, 0.1, 0.5, 7), 0.1 * pow(0.5, n / 7), "by steps", n);
            near(tn_optim_cosine_decay(step, 0.1, 20, 0),
                 0.05 * (1 + cos(acos(-1) / 20 * fmin(20, n))), "cosine", n);
            near(tn_optim_linear_schedule(step, 1, 0.5, 20), 1 - 0.025 * fmin(20, n), "linear", n);
            near(joined(step, NULL), joined_number(n), "joined", n);
        }
    TN_SCOPE {
        tn_array *step = tn_scalar_i64(3, TN_U64);
        is_str(tn_array_error(tn_optim_step_decay(step, 1, 1, 0)),
               "optim_step_decay: the number of steps is 0; it must be above 0", "no steps");
        ok(tn_array_status(tn_optim_cosine_decay(step, 1, 0, 0)) == TN_EVALUE, "no steps");
        ok(tn_array_status(tn_optim_linear_schedule(step, 1, 0, -1)) == TN_EVALUE, "no steps");
        is_str(tn_array_error(tn_optim_join_schedules(step, TN_LIST(step), TN_INTS(1))),
               "optim_join_schedules: 1 rates with 1 boundaries; one more rate than boundaries is "
               "needed",
               "as many rates as boundaries");
    }
}

static tn_array *wide(tn_array *step, void *ud) {
    (void)ud;
    return tn_broadcast_to(step, TN_SHAPE(2));
}

/* The rate of an update is that of the updates done before it. */
static void test_scheduled(void) {
    model m;
    int status = model_init(&m, TN_F64);
    double want[ALL], got[ALL];
    tn_optim *o = tn_optim_sgd(m.p, TN_OPT(tn_sgd_opt, .schedule = joined));
    for (int i = 0; i < ALL; i++) want[i] = number(i);
    for (int step = 0; step < 15 && o && !status; step++) {
        for (int i = 0; i < ALL; i++) want[i] -= joined_number(step) * slope(i, step);
        status = model_step(o, step, TN_F64);
        if (step == 4) ok(fabs(tn_optim_lr(o) - 0.04) < 1e-8, "the rate of the last update");
    }
    model_read(&m, got);
    double worst = worst_of(got, want, ALL);
    ok(!status && worst < 1e-7, "a schedule is followed (%g)", worst);
    tn_optim_free(o);
    ok(!tn_optim_sgd(m.p, TN_OPT(tn_sgd_opt, .schedule = wide)), "a schedule of two numbers");
    is_str(tn_error(), "optim_sgd: the schedule gave an array of 1 axes, not 0", "says so");
    o = tn_optim_adam(m.p, TN_OPT(tn_adam_opt, .learning_rate = 1));
    is_i64(tn_optim_set_lr(o, 0.25), 0, "another rate");
    ok(tn_optim_lr(o) == 0.25, "is what the next update takes");
    is_i64(tn_optim_set_lr(o, NAN), TN_EVALUE, "not a number");
    ok(tn_optim_lr(o) == 0.25, "changes nothing");
    tn_optim_free(o);
    tn_params_free(m.p);
}

/* ---- clipping ---- */

static void test_clipping(void) {
    const float x[3] = {3, 0, -4}, y[2] = {12, 0};
    for (int half = 0; half < 2; half++)
        TN_SCOPE {
            tn_dtype d = half ? TN_F16 : TN_F32;
            tn_array *g[2] = {tn_astype(tn_array_new(x, TN_F32, TN_SHAPE(3)), d),
                              tn_astype(tn_array_new(y, TN_F32, TN_SHAPE(2)), d)};
            tn_array *same[2] = {g[0], g[1]}, *all[2] = {g[0], g[1]};
            double within = half ? 1e-3 : 1e-6;
            ok(tn_item_f32(tn_nn_clip_grad_norm(g, 2, 6.5)) == 13, "the norm is 13");
            double *v = values(g[0]), *w = values(g[1]);
            ok(fabs(v[0] - 1.5) < within && fabs(v[2] + 2) < within && fabs(w[0] - 6) < within,
               "halved: %g %g %g", v[0], v[2], w[0]);
            ok(tn_dtype_of(g[0]) == d, "of the same dtype");
            free(v), free(w);
            ok(tn_item_f32(tn_nn_clip_grad_norm(same, 2, 14)) == 13, "small enough");
            v = values(same[0]);
            ok(v[0] == 3 && v[2] == -4, "stays");
            free(v);
            is_i64(tn_nn_clip_grad_value(all, 2, 3.5), 0, "by value");
            v = values(all[0]), w = values(all[1]);
            ok(v[0] == 3 && v[1] == 0 && v[2] == -3.5 && w[0] == 3.5, "bounded");
            free(v), free(w);
            is_str(tn_array_error(tn_nn_clip_grad_norm(all, 2, -1)),
                   "nn_clip_grad_norm: max_norm is -1; it must not be below 0", "a negative norm");
            ok(tn_array_status(all[1]) == TN_EVALUE, "makes the gradients errors");
            is_i64(tn_nn_clip_grad_value(same, 2, -1), TN_EVALUE, "a negative limit");
        }
    TN_SCOPE { /* 300^2 is no f16 */
        tn_array *g = tn_full(TN_SHAPE(4), tn_scalar(300, TN_F16));
        ok(tn_item_f32(tn_nn_clip_grad_norm(&g, 1, 1)) == 600, "squares of f16 do not overflow");
    }
}

/* ---- accumulation, several in one ---- */

static void test_accumulation(void) {
    model m, n;
    double got[ALL], want[ALL];
    int status = model_init(&m, TN_F64);
    if (!status) status = model_init(&n, TN_F64);
    tn_optim *o = make_adam(m.p), *big = make_adam(n.p);
    for (int step = 0; step < 3 && !status; step++) {
        for (int part = 0; part < 4 && !status; part++)
            TN_SCOPE {
                tn_array *g[2];
                gradients(step, part * 0.5 + 0.25, TN_F64, g); /* four whose mean is 1 */
                status = tn_optim_add(o, g);
                if (!status && part == 3) status = tn_optim_update(o, NULL);
                if (!status) status = tn_optim_eval(o, TN_LIST());
            }
        if (!status) status = model_step(big, step, TN_F64);
    }
    if (!ok(!status, "three updates of four batches each")) diag("%s", tn_error());
    model_read(&m, got), model_read(&n, want);
    ok(worst_of(got, want, ALL) < 1e-14, "small batches = one big batch (%g)",
       worst_of(got, want, ALL));
    is_i64(tn_optim_steps(o), 3, "three steps");
    TN_SCOPE {
        is_i64(tn_optim_update(big, NULL), TN_ESTATE, "an update without gradients");
        is_str(tn_error(), "optim_adam: no gradients were given or added", "says so");
        is_i64(tn_optim_add(big, NULL), TN_EVALUE, "nothing to add");
    }
    tn_optim_free(o), tn_optim_free(big);
    tn_params_free(m.p), tn_params_free(n.p);
}

static void test_multi(void) {
    model m, one, two;
    double got[ALL], first[ALL], second[ALL];
    int status = model_init(&m, TN_F64) || model_init(&one, TN_F64) || model_init(&two, TN_F64);
    tn_optim *parts[2] = {make_lion(m.p), make_adam(m.p)};
    tn_optim *o = tn_optim_multi(m.p, 2, parts, (const char *const[]){"a*", NULL});
    tn_optim *lion = make_lion(one.p), *adam = make_adam(two.p);
    for (int step = 0; step < STEPS && o && !status; step++)
        status = model_step(o, step, TN_F64) || model_step(lion, step, TN_F64) ||
                 model_step(adam, step, TN_F64);
    if (!ok(o && !status, "lion for a, adam for the rest")) diag("%s", tn_error());
    model_read(&m, got), model_read(&one, first), model_read(&two, second);
    ok(!memcmp(got, first, sizeof(double) * ROWS * COLUMNS), "a as lion alone");
    ok(!memcmp(got + ROWS * COLUMNS, second + ROWS * COLUMNS, sizeof(double) * NUMBERS),
       "b as adam alone");
    is_i64(tn_optim_slots(o).n, 2 + 2 + 1 + 2 + 2, "slots: a, b; lion's; adam's two of b");
    is_i64(tn_optim_set_lr(o, 0.5), 0, "one rate for all");
    ok(tn_optim_lr(parts[0]) == 0.5 && tn_optim_lr(parts[1]) == 0.5, "set in the parts");
    is_i64(tn_optim_steps(o), STEPS, "steps of the first");
    tn_optim_free(o), tn_optim_free(lion), tn_optim_free(adam);
    tn_optim *wrong[2] = {make_lion(m.p), make_lion(one.p)};
    ok(!tn_optim_multi(m.p, 2, wrong, (const char *const[]){"a", NULL}), "of two trees");
    is_str(tn_error(), "optim_multi: part 1 was made for other parameters, or has parts",
           "says so");
    tn_optim *same[2] = {make_lion(m.p), NULL};
    same[1] = same[0];
    ok(!tn_optim_multi(m.p, 2, same, (const char *const[]){"a", NULL}), "one part twice");
    is_str(tn_error(), "optim_multi: parts 0 and 1 are the same", "says so");
    ok(!tn_optim_multi(m.p, 0, NULL, NULL), "no parts");
    tn_optim *absent[1] = {tn_optim_lion(m.p, NULL)};
    ok(!tn_optim_multi(m.p, 1, absent, (const char *const[]){NULL}), "a part that failed");
    ok(strstr(tn_error(), "optim_multi: part 0: optim_lion: learning_rate is 0"), "says why: %s",
       tn_error());
    tn_params_free(m.p), tn_params_free(one.p), tn_params_free(two.p);
}

/* ---- misuse ---- */

static void test_options(tn_params *p) {
    static const char *const said[] = {
        "optim_sgd: learning_rate is 0; a positive number, or a schedule, is needed",
        "optim_sgd: learning_rate is -1; a positive number, or a schedule, is needed",
        "optim_sgd: nesterov needs a momentum (it is 0) and no dampening (0)",
        "optim_adam: beta1 is 1; it must be below 1",
        "optim_adamw: beta2 is 2; it must be below 1",
        "optim_lion: beta1 is nan; it must be below 1",
        "optim_rmsprop: eps is 0; it must be above 0",
        "optim_adafactor: clip_threshold is -1; it must be above 0",
        "optim_muon: ns_steps is -2; it must be above 0",
        "optim_adagrad: learning_rate is inf; a positive number, or a schedule, is needed",
    };
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        tn_optim *o = NULL;
        switch (i) {
        case 0:
            o = tn_optim_sgd(p, NULL);
            break;
        case 1:
            o = tn_optim_sgd(p, TN_OPT(tn_sgd_opt, .learning_rate = -1));
            break;
        case 2:
            o = tn_optim_sgd(p, TN_OPT(tn_sgd_opt, .learning_rate = 1, .nesterov = true));
            break;
        case 3:
            o = tn_optim_adam(p, TN_OPT(tn_adam_opt, .learning_rate = 1, .beta1 = 1));
            break;
        case 4:
            o = tn_optim_adamw(p, TN_OPT(tn_adamw_opt, .learning_rate = 1, .beta2 = 2));
            break;
        case 5:
            o = tn_optim_lion(p, TN_OPT(tn_lion_opt, .learning_rate = 1, .beta1 = NAN));
            break;
        case 6:
            o = tn_optim_rmsprop(p, TN_OPT(tn_rmsprop_opt, .learning_rate = 1, .eps = -1));
            break;
        case 7:
            o = tn_optim_adafactor(p, TN_OPT(tn_adafactor_opt, .clip_threshold = -1));
            break;
        case 8:
            o = tn_optim_muon(p, TN_OPT(tn_muon_opt, .learning_rate = 1, .ns_steps = -2));
            break;
        default:
            o = tn_optim_adagrad(p, TN_OPT(tn_adagrad_opt, .learning_rate = INFINITY));
        }
        ok(!o, "refused: %s", said[i]);
        is_str(tn_error(), said[i], "says so");
    }
}

static void test_misuse(void) {
    model m;
    double before[ALL], after[ALL];
    int status = model_init(&m, TN_F64);
    tn_array *extra = NULL;
    test_options(m.p);
    tn_optim *o = make_adam(m.p);
    if (!status) status = model_step(o, 0, TN_F64);
    model_read(&m, before);
    TN_SCOPE {
        tn_array *g[3];
        gradients(0, 1, TN_F64, g);
        g[1] = tn_zeros(TN_SHAPE(2, 2), TN_F64);
        is_i64(tn_optim_update(o, g), TN_ESHAPE, "a gradient of another shape");
        is_str(tn_error(),
               "optim_adam: the gradient of \"b\" has 4 numbers in 2 axes, the parameter 5 in 1",
               "says whose");
        g[1] = tn_error_array(TN_EINDEX, "lost");
        is_i64(tn_optim_update(o, g), TN_EINDEX, "an error array");
        is_str(tn_error(), "lost", "speaks for itself");
        g[1] = NULL;
        is_i64(tn_optim_update(o, g), TN_EVALUE, "NULL");
        gradients(0, 1, TN_F64, g);
        status = tn_params_add(m.p, "c", &extra, tn_zeros(TN_SHAPE(1), TN_I32));
        g[2] = tn_zeros(TN_SHAPE(1), TN_I32);
        is_i64(tn_optim_update(o, g), TN_ESTATE, "a parameter that came later");
        ok(strstr(tn_error(), "\"c\" was frozen or absent"), "says which: %s", tn_error());
    }
    ok(!make_adam(m.p), "a parameter of integers");
    is_str(tn_error(), "optim_adam: parameter \"c\" is int32; only floats are trained: freeze it",
           "says which");
    tn_params_freeze(m.p, "c", true);
    model_read(&m, after);
    ok(!status && !memcmp(before, after, sizeof before), "parameters are what they were");
    is_i64(tn_optim_steps(o), 1, "and so is the step");
    is_i64(model_step(o, 1, TN_F64), 0, "with it frozen, updates go on");
    tn_optim_free(o);
    tn_optim_free(NULL);
    tn_params_free(m.p);
}

/* ---- a step of training that fails before its update ---- */

static int sum_loss(tn_list in, tn_array **out, int n_out, void *ud) {
    const model *m = ud;
    (void)n_out;
    if (in.n) return tn_array_status(out[0] = tn_matmul(m->a, in.v[0]));
    out[0] = tn_add(tn_sum(tn_square(m->a), TN_ALL, false), tn_sum(m->b, TN_ALL, false));
    return 0;
}

/* As a loop does that looks at the last status alone. */
static int blind_step(model *m, tn_optim *o, tn_list in, double max_norm) {
    tn_array *g[2], *y;
    (void)!tn_nn_value_and_grad(m->p, sum_loss, m, in, 1, &y, g);
    (void)tn_nn_clip_grad_norm(g, 2, max_norm);
    (void)!tn_nn_clip_grad_value(g, 2, 1);
    return tn_optim_update(o, g);
}

/* The slots of an optimizer hold what they held. */
static bool slots_same(tn_optim *o, tn_array *const *before) {
    tn_slots s = tn_optim_slots(o);
    for (int i = 0; i < s.n; i++)
        if (*s.v[i] != before[i]) return false;
    return s.n >= 0;
}

static void test_failed_step(void) {
    model m;
    tn_array *before[16], *odd;
    (void)!model_init(&m, TN_F32);
    tn_optim *o = make_adam(m.p);
    (void)!model_step(o, 0, TN_F32);
    tn_slots s = tn_optim_slots(o);
    for (int i = 0; i < s.n; i++) before[i] = *s.v[i];
    TN_SCOPE {
        odd = tn_ones(TN_SHAPE(7, 2), TN_F32);
        for (int i = 0; i < 2; i++) { /* and where clipping has something to say as well */
            is_i64(blind_step(&m, o, TN_LIST(odd), i ? NAN : 1), TN_ESHAPE, "a loss that fails");
            ok(strstr(tn_error(), "matmul") && strstr(tn_error(), "7"), "says: %s", tn_error());
        }
        tn_array *g[2] = {tn_f32(1), tn_error_array(TN_EINDEX, "the first")};
        is_str(tn_array_error(tn_nn_clip_grad_norm(g, 2, 1)), "the first", "an error is the norm");
        is_str(tn_array_error(g[0]), "the first", "and the gradients");
        g[0] = NULL, g[1] = odd;
        is_str(tn_array_error(tn_nn_clip_grad_norm(g, 2, 1)), "gradient 0 is NULL", "no gradient");
        g[0] = tn_f32(1), g[1] = tn_error_array(TN_EINDEX, "the first");
        (void)tn_error_array(TN_EVALUE, "another");
        is_i64(tn_nn_clip_grad_value(g, 2, 1), TN_EINDEX, "clipped by value");
        is_str(tn_error(), "the first", "it is said again");
    }
    ok(s.n < 16 && slots_same(o, before), "parameters and state are what they were");
    int64_t n = 1, live = tni_alloc_live();
    int status = TN_EMEMORY, wrong = 0;
    for (; status && n < 5000; n++)
        TN_SCOPE {
            tni_fail_alloc_at(n);
            status = blind_step(&m, o, TN_LIST(), 1);
            tni_fail_alloc_at(0);
            if (status) wrong += status != TN_EMEMORY || !slots_same(o, before) || !*tn_error();
        }
    ok(!status && n > 100 && !wrong, "%d allocations fail, %d of them not cleanly", (int)n, wrong);
    ok(!tn_optim_eval(o, TN_LIST()) && tn_optim_steps(o) == 2, "then it goes on");
    is_i64(tni_alloc_live(), live, "and nothing is lost");
    tn_optim_free(o);
    tn_params_free(m.p);
}

/* ---- memory ---- */

enum { LARGE = 1 << 18 };

/* One pass a parameter: nothing but the gradients is there beside what the slots hold. */
static void test_in_place(void) {
    tn_array *w = NULL;
    tn_params *p = tn_params_new();
    int status = 0;
    TN_SCOPE
        status = tn_params_add(p, "w", &w, tn_ones(TN_SHAPE(LARGE), TN_F32));
    tn_optim *o =
        tn_optim_adamw(p, TN_OPT(tn_adamw_opt, .learning_rate = 0.01, .bias_correction = true));
    for (int step = 0; step < 3 && !status; step++)
        TN_SCOPE {
            tn_array *g = tn_full(TN_SHAPE(LARGE), tn_f32(0.5 + step));
            status = tn_eval(TN_LIST(g));
            if (!status) status = tn_optim_update(o, &g);
            tn_memory_reset_peak();
            size_t before = tn_memory_stats().active;
            if (!status) status = tn_optim_eval(o, TN_LIST());
            size_t more = tn_memory_stats().peak - before;
            if (step) ok(more < LARGE, "step %d takes %zu bytes more", step, more);
        }
    ok(!status, "updates of a large parameter: %s", status ? tn_error() : "done");
    tn_optim_free(o);
    tn_params_free(p);
}

static tn_optim *make_two(tn_params *p) {
    tn_optim *parts[2] = {make_lion(p), make_adamw(p)};
    if (parts[0] && parts[1]) return tn_optim_multi(p, 2, parts, (const char *const[]){"a*", NULL});
    tn_optim_free(parts[0]), tn_optim_free(parts[1]);
    return NULL;
}

/* A failed update leaves every slot as it was; tried again it succeeds. */
static int without_memory(model *m, bool add) {
    tn_optim *o = make_two(m->p);
    if (!o) return TN_EMEMORY;
    tn_array *a = m->a, *b = m->b, *g[2];
    int status = 0;
    TN_SCOPE {
        gradients(0, 1, TN_F32, g);
        status = add ? tn_optim_add(o, g) : tn_optim_update(o, g);
        if (!status && add) status = tn_optim_update(o, NULL);
        if (status && (a != m->a || b != m->b)) ok(0, "a failed update changed parameters");
        if (!status) status = tn_optim_eval(o, TN_LIST());
    }
    tn_optim_free(o);
    return status;
}

static void test_allocations(void) {
    for (int add = 0; add < 2; add++) {
        int64_t live = tni_alloc_live(), n = 1;
        int status = TN_EMEMORY, wrong = 0;
        for (; status && n < 5000; n++) {
            model m;
            status = model_init(&m, TN_F32);
            if (!status) {
                tni_fail_alloc_at(n);
                status = without_memory(&m, add);
                tni_fail_alloc_at(0);
                if (status && status != TN_EMEMORY) wrong++;
            }
            tn_params_free(m.p);
        }
        ok(!status && n > 20 && !wrong, "%s: %d allocations fail, one after the other",
           add ? "adding" : "updating", (int)n);
        is_i64(tni_alloc_live(), live, "nothing is lost");
    }
}

int main(void) {
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) test_rule(&rules[i]);
    test_matrices();
    test_schedules();
    test_scheduled();
    test_clipping();
    test_accumulation();
    test_multi();
    test_misuse();
    test_failed_step();
    test_in_place();
    test_allocations();
    return tap_done();
}
