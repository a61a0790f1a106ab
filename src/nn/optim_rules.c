/* The update rules, each as mlx.optimizers has it: same formula, same order of rounding (so f16
 * parameters follow too), same names of state. A rule reads its numbers by the names of its enum.
 */
#include "base/err.h"
#include "nn/optim.h"
#include <math.h>

static const bool rules_no_flag[TNI_OPTIM_FLAGS];

/* ---- words ---- */

static tn_array *rules_times(double x, tn_array *a) { return tn_mul(tn_f32(x), a); }
/* keep * a + (1 - keep) * b */
static tn_array *rules_mix(double keep, tn_array *a, tn_array *b) {
    return tn_add(rules_times(keep, a), rules_times(1 - keep, b));
}
static tn_array *rules_lr(const tni_optim_step *u) { return tn_astype(u->lr, tn_dtype_of(u->g)); }
/* p - lr * a / b */
static tn_array *rules_move(const tni_optim_step *u, tn_array *a, tn_array *b) {
    return tn_sub(u->p, tn_div(tn_mul(rules_lr(u), a), b));
}
static tn_array *rules_zeros(const tn_optim *o, tn_array *p, int kind) {
    (void)o, (void)kind;
    return tn_zeros_like(p);
}
/* An option: its default when 0, 0 when below it. */
static double rules_or(double x, double standard) { return x == 0 ? standard : x < 0 ? 0 : x; }

/* ---- SGD ---- */

enum { SGD_MOMENTUM, SGD_DECAY, SGD_DAMPENING };

static tn_array *rules_sgd_init(const tn_optim *o, tn_array *p, int kind) {
    return o->number[SGD_MOMENTUM] > 0 ? rules_zeros(o, p, kind) : NULL;
}

static tn_array *rules_sgd(tni_optim_step *u) {
    const double *x = u->o->number;
    tn_array *g = u->g;
    if (x[SGD_DECAY] != 0) g = tn_add(g, rules_times(x[SGD_DECAY], u->p));
    tn_array *lr = tn_astype(u->lr, tn_dtype_of(g)), *move = g;
    if (x[SGD_MOMENTUM] > 0) {
        tn_array *fresh = x[SGD_DAMPENING] > 0 ? rules_times(1 - x[SGD_DAMPENING], g) : g;
        u->s[0] = tn_add(rules_times(x[SGD_MOMENTUM], u->s[0]), fresh);
        move = u->o->flag[0] ? tn_add(g, rules_times(x[SGD_MOMENTUM], u->s[0])) : u->s[0];
    }
    return tn_sub(u->p, tn_mul(lr, move));
}

/* ---- RMSprop, Adagrad, AdaDelta ---- */

enum { RMS_ALPHA, RMS_EPS };

static tn_array *rules_root(tn_array *v, double eps) { return tn_add(tn_sqrt(v), tn_f32(eps)); }

static tn_array *rules_rmsprop(tni_optim_step *u) {
    const double *x = u->o->number;
    u->s[0] = rules_mix(x[RMS_ALPHA], u->s[0], tn_square(u->g));
    return rules_move(u, u->g, rules_root(u->s[0], x[RMS_EPS]));
}

static tn_array *rules_adagrad(tni_optim_step *u) {
    u->s[0] = tn_add(u->s[0], tn_square(u->g));
    return rules_move(u, u->g, rules_root(u->s[0], u->o->number[RMS_EPS]));
}

static tn_array *rules_adadelta(tni_optim_step *u) {
    double rho = u->o->number[RMS_ALPHA];
    tn_array *eps = tn_f32(u->o->number[RMS_EPS]);
    tn_array *v = rules_mix(rho, u->s[0], tn_square(u->g));
    tn_array *d = tn_mul(tn_div(tn_sqrt(tn_add(u->s[1], eps)), tn_sqrt(tn_add(v, eps))), u->g);
    u->s[0] = v;
    u->s[1] = rules_mix(rho, u->s[1], tn_square(d));
    return tn_sub(u->p, tn_mul(rules_lr(u), d));
}

/* ---- Adam, AdamW, Adamax, Lion ---- */

enum { ADAM_BETA1, ADAM_BETA2, ADAM_EPS, ADAM_DECAY };

/* 1 - beta^step */
static tn_array *rules_warm(double beta, tn_array *step) {
    return tn_sub(tn_f32(1), tn_power(tn_f32(beta), step));
}

static tn_array *rules_adam(tni_optim_step *u) {
    const double *x = u->o->number;
    u->s[0] = rules_mix(x[ADAM_BETA1], u->s[0], u->g);
    u->s[1] = rules_mix(x[ADAM_BETA2], u->s[1], tn_square(u->g));
    if (!u->o->flag[0]) return rules_move(u, u->s[0], rules_root(u->s[1], x[ADAM_EPS]));
    tn_dtype d = tn_dtype_of(u->g);
    tn_array *c1 = tn_astype(tn_div(rules_lr(u), rules_warm(x[ADAM_BETA1], u->step)), d);
    tn_array *c2 = tn_astype(tn_rsqrt(rules_warm(x[ADAM_BETA2], u->step)), d);
    tn_array *root = tn_add(tn_mul(tn_sqrt(u->s[1]), c2), tn_f32(x[ADAM_EPS]));
    return tn_sub(u->p, tn_div(tn_mul(c1, u->s[0]), root));
}

/* 1 - lr * decay */
static tn_array *rules_shrink(const tni_optim_step *u, double decay) {
    return tn_sub(tn_f32(1), tn_mul(rules_lr(u), tn_f32(decay)));
}

static tn_array *rules_adamw(tni_optim_step *u) {
    u->p = tn_mul(u->p, rules_shrink(u, u->o->number[ADAM_DECAY]));
    return rules_adam(u);
}

static tn_array *rules_adamax(tni_optim_step *u) {
    const double *x = u->o->number;
    u->s[0] = rules_mix(x[ADAM_BETA1], u->s[0], u->g);
    u->s[1] = tn_maximum(rules_times(x[ADAM_BETA2], u->s[1]), tn_abs(u->g));
    return rules_move(u, u->s[0], tn_add(u->s[1], tn_f32(x[ADAM_EPS])));
}

static tn_array *rules_lion(tni_optim_step *u) {
    const double *x = u->o->number;
    tn_array *c = rules_mix(x[ADAM_BETA1], u->s[0], u->g), *p = u->p;
    u->s[0] = rules_mix(x[ADAM_BETA2], u->s[0], u->g);
    if (x[ADAM_DECAY] > 0) p = tn_mul(rules_shrink(u, x[ADAM_DECAY]), p);
    return tn_sub(p, tn_mul(rules_lr(u), tn_sign(c)));
}

/* ---- Adafactor: the second moment of a matrix as the product of a column and a row ---- */

enum { FACTOR_EPS1, FACTOR_EPS2, FACTOR_CLIP, FACTOR_RATE, FACTOR_BETA1, FACTOR_DECAY };
enum { FACTOR_ROW, FACTOR_COLUMN, FACTOR_WHOLE, FACTOR_MEAN };
enum { FACTOR_UNSCALED, FACTOR_WARMUP, FACTOR_RELATIVE }; /* flags */

static tn_array *rules_adafactor_init(const tn_optim *o, tn_array *p, int kind) {
    tn_ints s = tn_shape(p);
    int64_t shape[TN_MAX_NDIM];
    for (int i = 0; i < s.n; i++) shape[i] = s.v[i];
    if (kind == FACTOR_MEAN) return o->number[FACTOR_BETA1] > 0 ? tn_zeros_like(p) : NULL;
    if ((kind == FACTOR_WHOLE) != (s.n < 2)) return NULL;
    if (kind == FACTOR_WHOLE) return tn_zeros_like(p);
    if (kind == FACTOR_COLUMN) shape[s.n - 2] = shape[s.n - 1];
    return tn_zeros((tn_ints){shape, s.n - 1}, tn_dtype_of(p));
}

static tn_array *rules_rms(tn_array *a) { return tn_sqrt(tn_mean(tn_square(a), TN_ALL, false)); }

static tn_array *rules_adafactor_lr(const tni_optim_step *u, tn_array *size) {
    const tn_optim *o = u->o;
    tn_array *lr = u->lr;
    if (o->flag[FACTOR_RELATIVE]) {
        tn_array *most = o->flag[FACTOR_WARMUP] ? rules_times(1e-6, u->step) : tn_f32(1e-2);
        lr = tn_minimum(most, tn_rsqrt(u->step));
    }
    lr = tn_astype(lr, tn_dtype_of(size));
    return o->flag[FACTOR_UNSCALED] ? lr
                                    : tn_mul(tn_maximum(tn_f32(o->number[FACTOR_EPS2]), size), lr);
}

/* keep * a + (1 - keep) * b, with an array to say how much */
static tn_array *rules_mix_by(tn_array *keep, tn_array *a, tn_array *b) {
    return tn_add(tn_mul(keep, a), tn_mul(tn_sub(tn_f32(1), keep), b));
}

/* The gradient over the root of its second moment. */
static tn_array *rules_adafactor_scaled(tni_optim_step *u, tn_array *beta2) {
    tn_array *square = tn_add(tn_square(u->g), tn_f32(u->o->number[FACTOR_EPS1])), **s = u->s;
    if (s[FACTOR_WHOLE]) {
        s[FACTOR_WHOLE] = rules_mix_by(beta2, s[FACTOR_WHOLE], square);
        return tn_mul(tn_rsqrt(s[FACTOR_WHOLE]), u->g);
    }
    s[FACTOR_ROW] = rules_mix_by(beta2, s[FACTOR_ROW], tn_mean(square, TN_AXES(-1), false));
    s[FACTOR_COLUMN] = rules_mix_by(beta2, s[FACTOR_COLUMN], tn_mean(square, TN_AXES(-2), false));
    tn_array *r = tn_rsqrt(tn_div(s[FACTOR_ROW], tn_mean(s[FACTOR_ROW], TN_AXES(-1), true)));
    tn_array *c = tn_rsqrt(s[FACTOR_COLUMN]);
    return tn_mul(tn_mul(tn_expand_dims(r, TN_AXES(-1)), tn_expand_dims(c, TN_AXES(-2))), u->g);
}

static tn_array *rules_adafactor(tni_optim_step *u) {
    const double *x = u->o->number;
    tn_array *size = rules_rms(u->p), *lr = rules_adafactor_lr(u, size);
    tn_array *fade = tn_power(u->step, tn_f32(x[FACTOR_RATE]));
    tn_array *beta2 = tn_sub(tn_f32(1), tn_astype(fade, tn_dtype_of(size)));
    tn_array *move = rules_adafactor_scaled(u, beta2), *p = u->p;
    move = tn_div(move, tn_maximum(tn_f32(1), tn_div(rules_rms(move), tn_f32(x[FACTOR_CLIP]))));
    move = tn_mul(lr, move);
    if (u->s[FACTOR_MEAN])
        move = u->s[FACTOR_MEAN] = rules_mix(x[FACTOR_BETA1], u->s[FACTOR_MEAN], move);
    if (x[FACTOR_DECAY] != 0) p = tn_add(p, tn_mul(p, rules_times(-x[FACTOR_DECAY], lr)));
    return tn_sub(p, move);
}

/* ---- Muon: momentum, made orthogonal ---- */

enum { MUON_MOMENTUM, MUON_DECAY, MUON_STEPS };

/* Newton-Schulz towards u v^T of x = u s v^T; the coefficients are those of Keller Jordan's
 * quintic, which trade exactness (s ends within about 0.7 to 1.2) for slope at 0. */
static tn_array *rules_orthogonal(tn_array *x, int steps) {
    const double a = 3.4445, b = -4.7750, c = 2.0315;
    bool turned = tn_dim(x, 0) > tn_dim(x, 1);
    if (turned) x = tn_transpose(x, TN_ALL);
    tn_array *norm = tn_sqrt(tn_sum(tn_square(x), TN_ALL, true));
    x = tn_div(x, tn_add(norm, tn_f32(1e-7)));
    for (int i = 0; i < steps; i++) {
        tn_array *square = tn_matmul(x, tn_transpose(x, TN_ALL));
        tn_array *poly = tn_addmm(rules_times(b, square), square, square, c, 1);
        x = tn_addmm(rules_times(a, x), poly, x, 1, 1);
    }
    return turned ? tn_transpose(x, TN_ALL) : x;
}

static tn_array *rules_muon(tni_optim_step *u) {
    const double *x = u->o->number;
    tn_array *g = u->g, *lr = rules_lr(u);
    tn_ints shape = tn_shape(u->p);
    if (x[MUON_DECAY] != 0) g = tn_add(g, rules_times(x[MUON_DECAY], u->p));
    u->s[0] = tn_add(rules_times(x[MUON_MOMENTUM], u->s[0]), rules_times(1 - x[MUON_MOMENTUM], g));
    tn_array *move = u->s[0];
    if (u->o->flag[0])
        move = tn_add(tn_mul(g, tn_f32(1 - x[MUON_MOMENTUM])),
                      tn_mul(u->s[0], tn_f32(x[MUON_MOMENTUM])));
    if (shape.n >= 2) {
        if (shape.n > 2) move = tn_reshape(move, TN_SHAPE(shape.v[0], -1));
        move = rules_orthogonal(move, (int)x[MUON_STEPS]);
        if (shape.n > 2) move = tn_reshape(move, shape);
        double tall = (double)shape.v[shape.n - 2] / (double)shape.v[shape.n - 1];
        lr = tn_mul(lr, tn_f32(sqrt(fmax(1, tall))));
    }
    return tn_sub(u->p, tn_mul(lr, move));
}

/* ---- making ---- */

static int rules_bad(const char *name, const char *option, double value, const char *range) {
    return tni_fail(TN_EVALUE, "optim_%s: %s is %g; %s", name, option, value, range);
}

static int rules_check_rate(const char *name, const tni_optim_rate *rate) {
    if (rate && (rate->schedule || (rate->learning_rate > 0 && isfinite(rate->learning_rate))))
        return 0;
    return rules_bad(name, "learning_rate", rate ? rate->learning_rate : 0,
                     "a positive number, or a schedule, is needed");
}

static int rules_check_below_1(const char *name, const char *option, double value) {
    return value >= 0 && value < 1 ? 0 : rules_bad(name, option, value, "it must be below 1");
}
static int rules_check_eps(const char *name, double value) {
    return value > 0 ? 0 : rules_bad(name, "eps", value, "it must be above 0");
}

/* The head of an options struct. */
#define RULES_RATE(opt)                                                                            \
    (tni_optim_rate) { (opt).size, (opt).learning_rate, (opt).schedule, (opt).schedule_ud }

static tn_optim *rules_make(tn_params *p, const tni_optim_rule *rule, tni_optim_rate rate,
                            int status, const double *numbers, const bool *flags) {
    if (!status && !flags[FACTOR_RELATIVE]) status = rules_check_rate(rule->name, &rate);
    return status ? NULL : tni_optim_new(p, rule, &rate, numbers, flags);
}

tn_optim *tn_optim_sgd(tn_params *p, const tn_sgd_opt *opt) {
    static const tni_optim_rule rule = {"sgd", {"v"}, rules_sgd_init, rules_sgd};
    const tn_sgd_opt x = opt ? *opt : (tn_sgd_opt){0};
    const double numbers[TNI_OPTIM_NUMBERS] = {x.momentum, x.weight_decay, x.dampening};
    int status = 0;
    if (x.nesterov && (!(x.momentum > 0) || x.dampening != 0))
        status = tni_fail(TN_EVALUE,
                          "optim_sgd: nesterov needs a momentum (it is %g) and no dampening (%g)",
                          x.momentum, x.dampening);
    return rules_make(p, &rule, RULES_RATE(x), status, numbers,
                      (bool[TNI_OPTIM_FLAGS]){x.nesterov});
}

tn_optim *tn_optim_rmsprop(tn_params *p, const tn_rmsprop_opt *opt) {
    static const tni_optim_rule rule = {"rmsprop", {"v"}, rules_zeros, rules_rmsprop};
    const tn_rmsprop_opt x = opt ? *opt : (tn_rmsprop_opt){0};
    const double numbers[TNI_OPTIM_NUMBERS] = {rules_or(x.alpha, 0.99), rules_or(x.eps, 1e-8)};
    int status = rules_check_eps(rule.name, numbers[RMS_EPS]);
    return rules_make(p, &rule, RULES_RATE(x), status, numbers, rules_no_flag);
}

tn_optim *tn_optim_adagrad(tn_params *p, const tn_adagrad_opt *opt) {
    static const tni_optim_rule rule = {"adagrad", {"v"}, rules_zeros, rules_adagrad};
    const tn_adagrad_opt x = opt ? *opt : (tn_adagrad_opt){0};
    const double numbers[TNI_OPTIM_NUMBERS] = {0, rules_or(x.eps, 1e-8)};
    int status = rules_check_eps(rule.name, numbers[RMS_EPS]);
    return rules_make(p, &rule, RULES_RATE(x), status, numbers, rules_no_flag);
}

tn_optim *tn_optim_adadelta(tn_params *p, const tn_adadelta_opt *opt) {
    static const tni_optim_rule rule = {"adadelta", {"v", "u"}, rules_zeros, rules_adadelta};
    const tn_adadelta_opt x = opt ? *opt : (tn_adadelta_opt){0};
    const double numbers[TNI_OPTIM_NUMBERS] = {rules_or(x.rho, 0.9), rules_or(x.eps, 1e-6)};
    int status = rules_check_eps(rule.name, numbers[RMS_EPS]);
    return rules_make(p, &rule, RULES_RATE(x), status, numbers, rules_no_flag);
}

static tn_optim *rules_make_adam(tn_params *p, const tni_optim_rule *rule, const tn_adam_opt *opt) {
    const tn_adam_opt x = opt ? *opt : (tn_adam_opt){0};
    const double numbers[TNI_OPTIM_NUMBERS] = {rules_or(x.beta1, 0.9), rules_or(x.beta2, 0.999),
                                               rules_or(x.eps, 1e-8),
                                               rules_or(x.weight_decay, 0.01)};
    int status = rules_check_below_1(rule->name, "beta1", numbers[ADAM_BETA1]);
    if (!status) status = rules_check_below_1(rule->name, "beta2", numbers[ADAM_BETA2]);
    return rules_make(p, rule, RULES_RATE(x), status, numbers,
                      (bool[TNI_OPTIM_FLAGS]){x.bias_correction});
}

tn_optim *tn_optim_adam(tn_params *p, const tn_adam_opt *opt) {
    static const tni_optim_rule rule = {"adam", {"m", "v"}, rules_zeros, rules_adam};
    return rules_make_adam(p, &rule, opt);
}

tn_optim *tn_optim_adamw(tn_params *p, const tn_adamw_opt *opt) {
    static const tni_optim_rule rule = {"adamw", {"m", "v"}, rules_zeros, rules_adamw};
    return rules_make_adam(p, &rule, opt);
}

tn_optim *tn_optim_adamax(tn_params *p, const tn_adamax_opt *opt) {
    static const tni_optim_rule rule = {"adamax", {"m", "v"}, rules_zeros, rules_adamax};
    return rules_make_adam(p, &rule, opt);
}

tn_optim *tn_optim_lion(tn_params *p, const tn_lion_opt *opt) {
    static const tni_optim_rule rule = {"lion", {"m"}, rules_zeros, rules_lion};
    const tn_lion_opt x = opt ? *opt : (tn_lion_opt){0};
    const double numbers[TNI_OPTIM_NUMBERS] = {rules_or(x.beta1, 0.9), rules_or(x.beta2, 0.99), 0,
                                               x.weight_decay};
    int status = rules_check_below_1(rule.name, "beta1", numbers[ADAM_BETA1]);
    if (!status) status = rules_check_below_1(rule.name, "beta2", numbers[ADAM_BETA2]);
    return rules_make(p, &rule, RULES_RATE(x), status, numbers, rules_no_flag);
}

tn_optim *tn_optim_adafactor(tn_params *p, const tn_adafactor_opt *opt) {
    static const tni_optim_rule rule = {
        "adafactor",
        {"exp_avg_sq_row", "exp_avg_sq_col", "exp_avg_sq", "exp_avg"},
        rules_adafactor_init,
        rules_adafactor};
    const tn_adafactor_opt x = opt ? *opt : (tn_adafactor_opt){0};
    const double numbers[TNI_OPTIM_NUMBERS] = {rules_or(x.eps1, 1e-30),
                                               rules_or(x.eps2, 1e-3),
                                               x.clip_threshold == 0 ? 1 : x.clip_threshold,
                                               x.decay_rate == 0 ? -0.8 : x.decay_rate,
                                               x.beta1,
                                               x.weight_decay};
    const bool flags[TNI_OPTIM_FLAGS] = {x.no_scale_parameter, x.warmup_init,
                                         x.learning_rate == 0 && !x.schedule};
    int status = numbers[FACTOR_CLIP] > 0 ? 0
                                          : rules_bad(rule.name, "clip_threshold",
                                                      numbers[FACTOR_CLIP], "it must be above 0");
    if (!status) status = rules_check_below_1(rule.name, "beta1", x.beta1);
    return rules_make(p, &rule, RULES_RATE(x), status, numbers, flags);
}

tn_optim *tn_optim_muon(tn_params *p, const tn_muon_opt *opt) {
    static const tni_optim_rule rule = {"muon", {"v"}, rules_zeros, rules_muon};
    const tn_muon_opt x = opt ? *opt : (tn_muon_opt){0};
    const double numbers[TNI_OPTIM_NUMBERS] = {
        rules_or(x.momentum, 0.95), rules_or(x.weight_decay, 0.01), x.ns_steps ? x.ns_steps : 5};
    int status = rules_check_below_1(rule.name, "momentum", numbers[MUON_MOMENTUM]);
    if (!status && x.ns_steps < 0)
        status = rules_bad(rule.name, "ns_steps", x.ns_steps, "it must be above 0");
    return rules_make(p, &rule, RULES_RATE(x), status, numbers,
                      (bool[TNI_OPTIM_FLAGS]){!x.no_nesterov});
}
