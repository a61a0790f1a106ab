/* Neural networks: parameters with names and optimizers; layers are in nn_layers.h, losses and
 * activations in nn_functions.h, both included at the end. Everything here is made of tenon.h's
 * functions; nothing is hidden from you, and all of it may be mixed with your own.
 *
 *     tn_params *p = tn_params_new();
 *     tn_array *w = NULL;
 *     if (tn_params_add(p, "w", &w, tn_zeros(TN_SHAPE(3), TN_F32))) return fail(tn_error());
 *     ...
 *     TN_SCOPE {
 *         tn_array *loss, *grad[1];
 *         if (tn_nn_value_and_grad(p, loss_fn, &model, TN_LIST(x, y), 1, &loss, grad)) ...
 *     }
 *     tn_params_free(p);
 *
 * Rules of tenon.h hold: functions that return arrays never return NULL, those that return int give
 * 0 or a negative TN_E... code with a sentence in tn_error(). A tree, and the slots in it, belong
 * to one thread at a time. */
#ifndef TENON_NN_H
#define TENON_NN_H

#include "tenon/tenon.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Parameters ------------------------------------------------------------------------------
 * A tree is an ordered list of slots (array variables of yours, in structs that you lay out) under
 * dotted names: "layers.0.attention.query_proj.weight". It owns what the slots hold. */

typedef struct tn_params tn_params;

TN_API tn_params *tn_params_new(void);    /* empty; NULL with tn_error() set */
TN_API void tn_params_free(tn_params *p); /* drops what the slots hold and sets them NULL */
/* Names that follow begin with this and a dot, until the matching pop. */
TN_API int tn_params_push(tn_params *p, const char *fmt, ...) TN_PRINTF(2, 3);
TN_API void tn_params_pop(tn_params *p);
/* The slot, whose content is not looked at, holds `init` from now on. It must stay where it is
 * until the tree is freed. A name that is taken or empty is TN_EVALUE. */
TN_API int tn_params_add(tn_params *p, const char *name, tn_array **slot, tn_array *init);
TN_API int tn_params_count(const tn_params *p);                  /* slots */
TN_API int64_t tn_params_size(const tn_params *p);               /* numbers in all of them */
TN_API const char *tn_params_name(const tn_params *p, int i);    /* "" when out of range */
TN_API tn_array **tn_params_slot(const tn_params *p, int i);     /* NULL when out of range */
TN_API int tn_params_find(const tn_params *p, const char *name); /* its number; -1: none */
TN_API tn_slots tn_params_slots(const tn_params *p); /* all, in order; until the tree changes */

/* Frozen parameters get no gradient. Every name that `pattern` fits, where '*' stands for any
 * text; how many it fitted. Statistics of layers are frozen for good. */
TN_API int tn_params_freeze(tn_params *p, const char *pattern, bool frozen);
TN_API bool tn_params_frozen(const tn_params *p, int i);
TN_API int tn_params_trainable(const tn_params *p); /* how many are not frozen */

/* A table of names, shapes, dtypes and counts; free with tn_free. NULL on failure. */
TN_API char *tn_params_summary(const tn_params *p);

/* A safetensors file of all slots under their names, written atomically: on failure the old file
 * stays. Loading puts every slot's array under its name there, of the same shape, in the file's
 * dtype, into it; all or none. `strict`: a name that only one of the two has is an error; without
 * it such names are passed over. */
TN_API int tn_params_save(const tn_params *p, const char *path) TN_MUST_CHECK;
TN_API int tn_params_load(tn_params *p, const char *path, bool strict) TN_MUST_CHECK;

/* Results of fn and the gradients of the first by the parameters that are not frozen, in order
 * (grads[tn_params_trainable(p)], floats). While fn runs, slots hold stand-ins; what fn assigns to
 * a slot stays there (running statistics). On failure every slot is as it was, and out and grads
 * are error arrays. */
TN_API int tn_nn_value_and_grad(tn_params *p, tn_fns fn, void *ud, tn_list in, int n_out,
                                tn_array **out, tn_array **grads);

/* ---- Optimizers ---------------------------------------------------------------------------------
 * MLX's, by name and by formula. An optimizer is made for a parameter tree, and updates those
 * parameters that are not frozen. A step of training:
 *
 *     tn_nn_value_and_grad(p, loss, NULL, TN_LIST(x, y), 1, &value, grads);
 *     tn_optim_update(o, grads);                  // slots hold the new values, lazily
 *     if (tn_optim_eval(o, TN_LIST(value))) ...   // all of it, old memory written in place
 *
 * Or the first two lines are a function given to tn_compile with tn_optim_slots(o) as its state.
 * In the options below 0 is the default that a comment states; where that is not 0, a number below
 * 0 stands for 0. Parameters are floats; their state has their dtype. */

typedef struct tn_optim tn_optim;

/* A learning rate as a function of the number of updates done (u64, without axes). */
typedef tn_array *(*tn_schedule)(tn_array *step, void *ud);

/* What every optimizer is asked: a rate, or a schedule (which must stay valid) in its place. */
#define TN_OPTIM_RATE                                                                              \
    size_t size;                                                                                   \
    double learning_rate;                                                                          \
    tn_schedule schedule;                                                                          \
    void *schedule_ud

typedef struct tn_sgd_opt {
    TN_OPTIM_RATE;
    double momentum, weight_decay, dampening;
    bool nesterov; /* with momentum and without dampening */
} tn_sgd_opt;
typedef struct tn_rmsprop_opt {
    TN_OPTIM_RATE;
    double alpha, eps; /* 0.99, 1e-8 */
} tn_rmsprop_opt;
typedef struct tn_adagrad_opt {
    TN_OPTIM_RATE;
    double eps; /* 1e-8 */
} tn_adagrad_opt;
typedef struct tn_adadelta_opt {
    TN_OPTIM_RATE;
    double rho, eps; /* 0.9, 1e-6 */
} tn_adadelta_opt;
typedef struct tn_adam_opt {
    TN_OPTIM_RATE;
    double beta1, beta2, eps; /* 0.9, 0.999, 1e-8 */
    bool bias_correction;     /* not Adamax */
    double weight_decay;      /* AdamW alone: 0.01 */
} tn_adam_opt;
typedef tn_adam_opt tn_adamw_opt, tn_adamax_opt;
typedef struct tn_lion_opt {
    TN_OPTIM_RATE;
    double beta1, beta2, weight_decay; /* 0.9, 0.99, 0 */
} tn_lion_opt;
typedef struct tn_adafactor_opt {
    TN_OPTIM_RATE;           /* neither: a step that follows from their number */
    double eps1, eps2;       /* 1e-30, 1e-3 */
    double clip_threshold;   /* 1 */
    double decay_rate;       /* -0.8 */
    double beta1;            /* 0: without a first moment */
    double weight_decay;     /* 0 */
    bool no_scale_parameter; /* the step is not scaled by the parameter's size */
    bool warmup_init;        /* without a rate: steps grow from 1e-6 */
} tn_adafactor_opt;
typedef struct tn_muon_opt {
    TN_OPTIM_RATE;
    double momentum, weight_decay; /* 0.95, 0.01 */
    int ns_steps;                  /* 5: of the Newton-Schulz iteration */
    bool no_nesterov;
} tn_muon_opt;

/* NULL with tn_error() set when an option is out of range, a parameter that is not frozen is no
 * float, or there is no memory. `p` must outlive the optimizer. */
TN_API tn_optim *tn_optim_sgd(tn_params *p, const tn_sgd_opt *opt);
TN_API tn_optim *tn_optim_rmsprop(tn_params *p, const tn_rmsprop_opt *opt);
TN_API tn_optim *tn_optim_adagrad(tn_params *p, const tn_adagrad_opt *opt);
TN_API tn_optim *tn_optim_adadelta(tn_params *p, const tn_adadelta_opt *opt);
TN_API tn_optim *tn_optim_adam(tn_params *p, const tn_adam_opt *opt);
TN_API tn_optim *tn_optim_adamw(tn_params *p, const tn_adamw_opt *opt);
TN_API tn_optim *tn_optim_adamax(tn_params *p, const tn_adamax_opt *opt);
TN_API tn_optim *tn_optim_lion(tn_params *p, const tn_lion_opt *opt);
TN_API tn_optim *tn_optim_adafactor(tn_params *p, const tn_adafactor_opt *opt);
TN_API tn_optim *tn_optim_muon(tn_params *p, const tn_muon_opt *opt);
/* Several optimizers of one tree, which belong to the result from then on (and are freed on
 * failure): parts[i] updates the parameters whose names match patterns[i] ('*': any text) and no
 * earlier one; the last part, whose pattern is not looked at, those left. */
TN_API tn_optim *tn_optim_multi(tn_params *p, int n, tn_optim *const *parts,
                                const char *const *patterns);
TN_API void tn_optim_free(tn_optim *o);

/* grads[k] for the k-th parameter that is not frozen, as tn_nn_value_and_grad gives them; NULL: the
 * mean of what tn_optim_add took since the last update. New values and state are assigned lazily,
 * all of them or, on failure, none. */
TN_API int tn_optim_update(tn_optim *o, tn_array *const *grads) TN_MUST_CHECK;
/* Takes the gradients of one of several small batches, whose mean is then that of a big one. */
TN_API int tn_optim_add(tn_optim *o, tn_array *const *grads) TN_MUST_CHECK;
/* Makes room for what tn_optim_add sums up: before tn_optim_slots when a compiled function adds. */
TN_API int tn_optim_accumulate(tn_optim *o) TN_MUST_CHECK;
/* Evaluates the slots and `also` together. */
TN_API int tn_optim_eval(tn_optim *o, tn_list also) TN_MUST_CHECK;
/* Parameters, frozen ones too, state, step, learning rate: valid until the optimizer is freed, a
 * parameter is added, or tn_optim_accumulate. n is -1 when there is no memory. */
TN_API tn_slots tn_optim_slots(tn_optim *o);
/* The learning rate of the next update (of every part); without effect under a schedule. */
TN_API int tn_optim_set_lr(tn_optim *o, double rate) TN_MUST_CHECK;
TN_API double tn_optim_lr(tn_optim *o);     /* that of the last update; NaN with tn_error() set */
TN_API int64_t tn_optim_steps(tn_optim *o); /* updates done; -1 with tn_error() set */

/* Schedules: f32 without axes, of the number of updates done. */
TN_API tn_array *tn_optim_exponential_decay(tn_array *step, double init, double decay_rate);
TN_API tn_array *tn_optim_step_decay(tn_array *step, double init, double decay_rate, int64_t every);
TN_API tn_array *tn_optim_cosine_decay(tn_array *step, double init, int64_t steps, double end);
TN_API tn_array *tn_optim_linear_schedule(tn_array *step, double init, double end, int64_t steps);
/* rates.v[i] until step boundaries.v[i], then the next; one rate more than boundaries. A rate that
 * counts from its boundary b is one of tn_sub(step, tn_i32(b)). */
TN_API tn_array *tn_optim_join_schedules(tn_array *step, tn_list rates, tn_ints boundaries);

/* Scales all gradients, in place of the handles given, so that their common norm is at most
 * max_norm; returns the norm they had (f32; f16 and bf16 are summed in f32). Of gradients that
 * failed, the first error is what all of them and the norm become, and tn_optim_update returns. */
TN_API tn_array *tn_nn_clip_grad_norm(tn_array **grads, int n, double max_norm);
/* Keeps every number of the gradients between -limit and limit. */
TN_API int tn_nn_clip_grad_value(tn_array **grads, int n, double limit) TN_MUST_CHECK;

/* ---- Checkpoints of training --------------------------------------------------------------------
 * One safetensors file: parameters ("params.<name>"), the optimizer's state as MLX calls it
 * ("optim.<name>.m", "optim.step"), this thread's random state, a step and a (UTF-8) text of yours.
 * A run that loads it goes on with the same bits as the one that saved it. */

/* Evaluates what it saves. Atomic: on any failure the file at `path` is the old one. `o` and `text`
 * may be NULL. */
TN_API int tn_train_save(const char *path, tn_params *p, tn_optim *o, int64_t step,
                         const char *text) TN_MUST_CHECK;
/* Everything or, on failure, nothing is changed; a file of another model or optimizer is
 * TN_EFORMAT, TN_ESHAPE or TN_EDTYPE. `o`, `step` and `text` (free with tn_free) may be NULL;
 * without `p` and `o` only step and text are read. */
TN_API int tn_train_load(const char *path, tn_params *p, tn_optim *o, int64_t *step,
                         char **text) TN_MUST_CHECK;

#ifdef __cplusplus
}
#endif

#include "tenon/nn_functions.h"
#include "tenon/nn_layers.h"

#endif
