/* Training: the loss of a batch, a step, and a run's state in one file. */
#include "llm/train.h"
#include "base/alloc.h"
#include "base/err.h"
#include "llm/json.h"
#include "llm/source.h"
#include "tenon/nn.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TRAIN_NAME = 192 };

/* A slot that the tree of parameters has for a while, and its array while the tree ends. */
typedef struct train_slot {
    tn_array **at, *kept;
} train_slot;

struct tn_llm_trainer {
    tn_llm *m;
    tn_llm_train_opt opt;
    tni_order plan;
    tn_params *params;
    train_slot *slot; /* of the adapter; n_slots of them are in the tree */
    int n_slots;
    tn_optim *optim;
    tn_compiled *step, *loss; /* a plan for each length of a batch */
    tni_layer_call *again;    /* of every layer, with opt.checkpoint */
    int64_t steps;
};

/* ---- the loss ---- */

/* in: ids [B, L], spans [B, 2], and a key when inputs are dropped. Cross-entropy of positions
 * offset..n of the shifted row, as mlx-lm counts: the one after the last token is among them. */
static int train_loss(tn_llm_trainer *t, tn_list in, bool train, tn_array **out) {
    int64_t batch = tn_dim(in.v[0], 0), tokens = tn_dim(in.v[0], 1) - 1, rows = batch * tokens;
    tn_array *ids = tn_slice_axis(in.v[0], 1, 0, tokens),
             *want = tn_slice_axis(in.v[0], 1, 1, tokens + 1);
    tni_pass p = {.batch = batch, .tokens = tokens, .all = true};
    if (train && in.n > 2) p.key = in.v[2];
    if (train) p.again = t->again;
    tn_array *scores = tni_llm_forward(t->m, &p, tn_reshape(ids, TN_SHAPE(rows)));
    tn_array *hit = tn_take_along_axis(scores, tn_reshape(want, TN_SHAPE(rows, 1)), 1);
    tn_array *ce = tn_sub(tn_logsumexp(scores, TN_AXES(1), false), tn_squeeze(hit, TN_AXES(1)));
    tn_array *at = tn_arange(1, (double)tokens + 1, 1, TN_I32);
    tn_array *mask = tn_logical_and(tn_greater_equal(at, tn_slice_axis(in.v[1], 1, 0, 1)),
                                    tn_less_equal(at, tn_slice_axis(in.v[1], 1, 1, 2)));
    mask = tn_astype(tn_reshape(mask, TN_SHAPE(rows)), TN_F32);
    out[1] = tn_sum(mask, TN_ALL, false);
    out[0] = tn_div(tn_sum(tn_mul(ce, mask), TN_ALL, false), out[1]);
    return 0;
}

static int train_loss_fn(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    return train_loss(ud, in, true, out);
}

static int train_score_fn(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    return train_loss(ud, in, false, out);
}

/* ---- a step ---- */

static int train_step_fn(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_llm_trainer *t = ud;
    int n = tn_params_trainable(t->params);
    tn_array **grads = tni_alloc_array((size_t)n, sizeof *grads);
    if (!grads) return tni_fail_memory((size_t)n * sizeof *grads, "gradients");
    int status = tn_nn_value_and_grad(t->params, train_loss_fn, t, in, n_out, out, grads);
    if (!status) status = tn_optim_update(t->optim, grads);
    tni_free(grads);
    return status;
}

static int train_run(tn_llm_trainer *t, tn_llm_loss *out) {
    tni_batch b;
    tn_array *got[2];
    uint32_t key[2] = {(uint32_t)t->opt.seed ^ (uint32_t)(t->opt.seed >> 32), (uint32_t)t->steps};
    int status = tni_order_batch(&t->plan, t->steps, &b);
    if (status) return status;
    tn_array *in[3] = {b.ids, b.spans, tn_array_new(key, TN_U32, TN_SHAPE(2))};
    status = tn_compiled_call(t->step, (tn_list){in, t->m->adapter.dropout > 0 ? 3 : 2}, got);
    if (status) return status;
    *out = (tn_llm_loss){(double)tn_item_f32(got[0]), (int64_t)tn_item_f32(got[1]), 1};
    return tni_source_verify(t->m->source);
}

int tn_llm_trainer_step(tn_llm_trainer *t, tn_llm_loss *out) {
    int status = 0;
    TN_SCOPE {
        status = train_run(t, out);
    }
    if (!status) t->steps++;
    return status;
}

int64_t tn_llm_trainer_steps(const tn_llm_trainer *t) { return t->steps; }

/* ---- the loss on other examples ---- */

static int train_loss_of(tn_llm_trainer *t, tni_order *p, int64_t i, double *sum,
                         tn_llm_loss *out) {
    int status = 0;
    TN_SCOPE {
        tni_batch b;
        tn_array *got[2];
        status = tni_order_batch(p, i, &b);
        if (status) break;
        status = tn_compiled_call(t->loss, TN_LIST(b.ids, b.spans), got);
        if (status) break;
        double tokens = (double)tn_item_f32(got[1]);
        *sum += (double)tn_item_f32(got[0]) * tokens;
        out->tokens += (int64_t)tokens, out->batches++;
    }
    return status;
}

int tn_llm_trainer_loss(tn_llm_trainer *t, const tn_llm_data *data, int64_t batches,
                        tn_llm_loss *out, bool (*progress)(size_t, size_t, void *), void *ud) {
    tni_order p;
    double sum = 0;
    *out = (tn_llm_loss){0};
    int status = tni_order_make(t->m, data, t->opt.batch, t->opt.seed, &p);
    if (!status && (!batches || batches > p.n)) batches = p.n;
    for (int64_t i = 0; i < batches && !status; i++) {
        status = train_loss_of(t, &p, i, &sum, out);
        if (!status && progress && progress((size_t)i + 1, (size_t)batches, ud) && i + 1 < batches)
            status = tni_fail(TN_ECANCELLED, "the loss was stopped after %lld of %lld batches",
                              (long long)i + 1, (long long)batches);
    }
    out->loss = sum / (double)out->tokens;
    tni_order_free(&p);
    return status ? status : tni_source_verify(t->m->source);
}

/* ---- beginning and ending ---- */

/* Gives the slots to the tree of parameters; trainer_free gives them back. */
static int train_add(tn_llm_trainer *t, const char *stem, const char *end, tn_array **slot) {
    char name[TRAIN_NAME + 8];
    tn_array *old = *slot;
    snprintf(name, sizeof name, "%s.%s", stem, end);
    int status = tn_params_add(t->params, name, slot, old);
    if (status) return *slot = old, status;
    t->slot[t->n_slots++].at = slot;
    tn_drop(old);
    return 0;
}

static int train_add_pair(const tn_llm *m, int64_t layer, const tni_site *s, void *ud) {
    char name[TRAIN_NAME];
    if (!s->lora->a) return 0;
    tni_lora_name(m, layer, s->key, name, sizeof name);
    int status = train_add(ud, name, "lora_a", &s->lora->a);
    return status ? status : train_add(ud, name, "lora_b", &s->lora->b);
}

static int train_check(const tn_llm *m, const tn_llm_train_opt *o) {
    if (!m->adapter.rank) return tni_fail(TN_ESTATE, "training: the model has no adapter");
    if (o->batch < 1 || o->batch > 4096)
        return tni_fail(TN_EVALUE, "training: a batch of %lld; 1 to 4096 are possible",
                        (long long)o->batch);
    if (!(o->learning_rate > 0) || isinf(o->learning_rate))
        return tni_fail(TN_EVALUE, "training: the learning rate is %g", o->learning_rate);
    if (!(o->weight_decay >= 0) || isinf(o->weight_decay))
        return tni_fail(TN_EVALUE, "training: the weight decay is %g", o->weight_decay);
    return 0;
}

static int train_make_optim(tn_llm_trainer *t) {
    double rate = t->opt.learning_rate, decay = t->opt.weight_decay;
    t->optim = t->opt.adamw ? tn_optim_adamw(t->params, TN_OPT(tn_adamw_opt, .learning_rate = rate,
                                                               .weight_decay = decay))
                            : tn_optim_adam(t->params, TN_OPT(tn_adam_opt, .learning_rate = rate));
    return t->optim ? 0 : tni_error_code();
}

static int train_make(tn_llm_trainer *t, const tn_llm_data *data) {
    tn_llm *m = t->m;
    size_t most = (size_t)m->layers * TNI_LORA_SITES * 2;
    for (size_t i = 0; i < data->ids.n; i++)
        if (data->ids.v[i] >= m->vocab)
            return tni_fail(TN_EINDEX, "training: token %d; the model's vocabulary has %lld",
                            data->ids.v[i], (long long)m->vocab);
    int status = tni_order_make(m, data, t->opt.batch, t->opt.seed, &t->plan);
    if (status) return status;
    t->slot = tni_calloc(most, sizeof *t->slot);
    if (t->opt.checkpoint) t->again = tni_calloc((size_t)m->layers, sizeof *t->again);
    if (!t->slot || (t->opt.checkpoint && !t->again))
        return tni_fail_memory((size_t)m->layers * sizeof *t->again, "a trainer");
    if (!(t->params = tn_params_new())) return tni_error_code();
    status = tni_lora_each(m, train_add_pair, t);
    if (!status) status = train_make_optim(t);
    if (status) return status;
    tn_slots state = tn_optim_slots(t->optim), read = tn_params_slots(t->params);
    if (state.n >= 0)
        t->step =
            tn_compile(train_step_fn, t, 2, TN_OPT(tn_compile_opt, .state = state, .keep = true));
    if (t->step) t->loss = tn_compile(train_score_fn, t, 2, TN_OPT(tn_compile_opt, .state = read));
    return t->loss ? 0 : tni_error_code();
}

int tn_llm_trainer_new(tn_llm *m, const tn_llm_data *data, const tn_llm_train_opt *opt,
                       tn_llm_trainer **out) {
    *out = NULL;
    tn_llm_train_opt o = opt ? *opt : (tn_llm_train_opt){.size = sizeof o};
    if (!o.batch) o.batch = 4;
    if (o.learning_rate == 0) o.learning_rate = 1e-5;
    if (o.weight_decay == 0) o.weight_decay = 0.01;
    int status = train_check(m, &o);
    if (status) return status;
    tn_llm_trainer *t = tni_calloc(1, sizeof *t);
    if (!t) return tni_fail_memory(sizeof *t, "a trainer");
    t->m = m, t->opt = o;
    status = train_make(t, data);
    if (status)
        tn_llm_trainer_free(t);
    else
        *out = t;
    return status;
}

void tn_llm_trainer_free(tn_llm_trainer *t) {
    if (!t) return;
    tn_compiled_free(t->step), tn_compiled_free(t->loss);
    tn_optim_free(t->optim);
    for (int i = 0; i < t->n_slots; i++) t->slot[i].kept = tn_keep(*t->slot[i].at);
    tn_params_free(t->params);
    for (int i = 0; i < t->n_slots; i++) *t->slot[i].at = t->slot[i].kept;
    tni_order_free(&t->plan);
    tni_free(t->slot), tni_free(t->again);
    tni_free(t);
}

/* ---- a run's state ---- */

/* FNV-1a over 32-bit numbers (Fowler, Noll, Vo): tells data files apart, and is the same anywhere.
 */
static uint64_t train_mix(uint64_t h, int32_t x) {
    return (h ^ (uint32_t)x) * UINT64_C(1099511628211);
}

static uint64_t train_digest(const tn_llm_data *d) {
    uint64_t h = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < d->ids.n; i++) h = train_mix(h, d->ids.v[i]);
    for (size_t i = 0; i < d->example.n; i++)
        h = train_mix(train_mix(h, d->example.v[i].n), d->example.v[i].offset);
    return h;
}

/* What the bits of a run depend on. */
static json_t *train_settings(const tn_llm_trainer *t) {
    const tni_adapter *a = &t->m->adapter;
    const tn_llm_train_opt *o = &t->opt;
    char digest[32], seed[32];
    snprintf(digest, sizeof digest, "%016llx", (unsigned long long)train_digest(t->plan.d));
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)o->seed);
    return json_pack("{sssssIsIsfsfsssIsfsssfsbsssIss}", "model", t->m->arch->name, "weights",
                     t->m->weights, "layers", (json_int_t)a->layers, "rank", (json_int_t)a->rank,
                     "scale", a->scale, "dropout", a->dropout, "keys", a->keys ? a->keys : "all",
                     "batch", (json_int_t)o->batch, "learning rate", o->learning_rate, "optimizer",
                     o->adamw ? "adamw" : "adam", "weight decay", o->adamw ? o->weight_decay : 0.0,
                     "checkpointed layers", o->checkpoint, "seed", seed, "examples",
                     (json_int_t)t->plan.d->example.n, "data", digest);
}

int tn_llm_trainer_save(tn_llm_trainer *t, const char *path) {
    tni_str text = {0};
    json_t *o = train_settings(t);
    int status = tni_json_dump(o, JSON_COMPACT, "a training run's settings", &text);
    if (!status) status = tn_train_save(path, t->params, t->optim, t->steps, text.v);
    json_decref(o);
    tni_str_free(&text);
    return status;
}

static int train_differs(const char *path, const char *key, const json_t *then, const json_t *now) {
    tni_str a = {0}, b = {0};
    int status = then ? tni_json_dump(then, JSON_ENCODE_ANY, "a setting", &a) : 0;
    if (!status) status = tni_json_dump(now, JSON_ENCODE_ANY, "a setting", &b);
    if (!status)
        status = tni_fail(TN_EVALUE, "%s: the run was begun otherwise: \"%s\" was %.80s, now %.80s",
                          path, key, a.v ? a.v : "not there", b.v);
    tni_str_free(&a), tni_str_free(&b);
    return status;
}

static int train_same(const tn_llm_trainer *t, const char *path, const char *text) {
    json_t *then, *now = train_settings(t), *value;
    const char *key;
    int status = now ? tni_json_parse(text, strlen(text), 0, path, &then)
                     : tni_fail_memory(1024, "a training run's settings");
    if (status) return json_decref(now), status;
    json_object_foreach(now, key, value) {
        const json_t *old = json_object_get(then, key);
        if (!status && !json_equal(old, value)) status = train_differs(path, key, old, value);
    }
    json_decref(then), json_decref(now);
    return status;
}

int tn_llm_trainer_load(tn_llm_trainer *t, const char *path) {
    char *text = NULL;
    int64_t steps = 0;
    /* The settings first: a file of other shapes is explained better by them. */
    int status = tn_train_load(path, NULL, NULL, NULL, &text);
    if (!status) status = train_same(t, path, text ? text : "");
    tn_free(text);
    if (!status) status = tn_train_load(path, t->params, t->optim, &steps, NULL);
    if (!status && steps < 0)
        status = tni_fail(TN_EFORMAT, "%s: after %lld steps", path, (long long)steps);
    if (!status) t->steps = steps;
    return status;
}
