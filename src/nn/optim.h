/* What an optimizer is made of: one row of rules, numbers, and slots. The rules (optim_rules.c) say
 * how a parameter and its state change; the object (optim.c) keeps the slots and assigns them. */
#ifndef TNI_NN_OPTIM_H
#define TNI_NN_OPTIM_H

#include "io/safetensors.h"
#include "tenon/nn.h"

enum { TNI_OPTIM_STATES = 4, TNI_OPTIM_NUMBERS = 6, TNI_OPTIM_FLAGS = 3 };

/* One parameter on its way through an update. */
typedef struct tni_optim_step {
    const tn_optim *o;
    tn_array *g, *p;               /* the gradient; the parameter before */
    tn_array *s[TNI_OPTIM_STATES]; /* state; NULL where the rule has none. Replaced */
    tn_array *lr;                  /* f32 */
    tn_array *step;                /* u64: this update's number, from 1 */
} tni_optim_step;

typedef struct tni_optim_rule {
    const char *name;                     /* "adamw" */
    const char *states[TNI_OPTIM_STATES]; /* "m", "v" as MLX calls them */
    /* The state at first; NULL: this parameter has none of that kind. */
    tn_array *(*init)(const tn_optim *o, tn_array *p, int kind);
    tn_array *(*apply)(tni_optim_step *u); /* the parameter after */
} tni_optim_rule;

struct tn_optim {
    const tni_optim_rule *rule; /* NULL: several parts */
    tn_params *params;
    double number[TNI_OPTIM_NUMBERS]; /* options; a rule says which */
    bool flag[TNI_OPTIM_FLAGS];
    tn_schedule schedule;
    void *schedule_ud;

    int n;            /* parameters of the tree when it was made */
    bool *mine;       /* n: those this optimizer updates */
    tn_array **state; /* n x TNI_OPTIM_STATES */
    tn_array *step;   /* u64 */
    tn_array *lr;     /* f32 */
    tn_array **sum;   /* n: gradients added up; NULL before tn_optim_accumulate */
    tn_array *added;  /* f32: how many */

    tn_optim **parts; /* of the several; owned */
    int n_parts;
    tn_array ***slots; /* the list tn_optim_slots gave last */
};

/* A new optimizer by `rule`, state and all, except for the numbers; `rate` is the head that all
 * options begin with. */
typedef struct tni_optim_rate {
    TN_OPTIM_RATE;
} tni_optim_rate;
tn_optim *tni_optim_new(tn_params *p, const tni_optim_rule *rule, const tni_optim_rate *rate,
                        const double *numbers, const bool *flags);

/* Every slot of the optimizer itself, without the parameters, under the name it has in a file
 * ("weight.m", "step", of the second of several "1.step"); stops at the first status not 0. */
typedef int (*tni_optim_visit)(const char *name, tn_array **slot, void *ud);
int tni_optim_each(tn_optim *o, tni_optim_visit visit, void *ud);
/* "adamw", of several "multi(muon,adamw)"; into text, NUL-terminated, cut when it is too long. */
void tni_optim_describe(const tn_optim *o, char *text, size_t n);

/* tn_train_load of a file that is open (train_file.c). */
int tni_train_load(const tni_st *file, const char *path, tn_params *p, tn_optim *o, int64_t *step,
                   char **text);

#endif
