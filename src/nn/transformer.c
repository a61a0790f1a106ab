/* Transformer layers and stacks of them. A stack that checkpoints hands each layer's parameters to
 * tn_checkpoint as arguments, which is what gradients are computed for, and puts them in their
 * slots while the layer runs. */
#include "base/alloc.h"
#include "base/err.h"
#include "nn/layer.h"
#include "nn/params.h"
#include <stdio.h>

/* ---- parts of a layer ---- */

static int transformer_options(tn_nn_transformer_opt *o, const tn_nn_transformer_opt *opt,
                               int64_t dims) {
    TNI_OPTIONS(*o, opt);
    o->size = sizeof *o;
    if (!o->mlp_dims) o->mlp_dims = 4 * dims;
    if (!o->activation) o->activation = tn_nn_relu;
    if (o->dropout >= 0 && o->dropout < 1) return 0;
    return tni_fail(TN_EVALUE, "transformer: dropout of %g; it must be in [0, 1)", o->dropout);
}

static void transformer_attention(tni_layer *b, tn_nn_multi_head_attention *l, const char *name,
                                  int64_t dims, int heads) {
    if (!b->status) b->status = tn_nn_multi_head_attention_init(l, b->p, name, dims, heads, NULL);
}

static void transformer_norm(tni_layer *b, tn_nn_layer_norm *l, const char *name, int64_t dims) {
    if (!b->status) b->status = tn_nn_layer_norm_init(l, b->p, name, dims, NULL);
}

static void transformer_mlp(tni_layer *b, tn_nn_linear *in, tn_nn_linear *out, int64_t dims,
                            const tn_nn_transformer_opt *o) {
    if (!b->status) b->status = tn_nn_linear_init(in, b->p, "linear1", dims, o->mlp_dims, true);
    if (!b->status) b->status = tn_nn_linear_init(out, b->p, "linear2", o->mlp_dims, dims, true);
}

/* One step x + f(x), a norm before f or after the sum. `memory`: what is looked at, NULL: x. */
static tn_array *transformer_look(const tn_nn_multi_head_attention *a, const tn_nn_layer_norm *ln,
                                  const tn_nn_transformer_opt *o, tn_array *x, tn_array *memory,
                                  const tn_sdpa_opt *look, bool training) {
    tn_array *y = o->norm_last ? x : tn_nn_layer_norm_call(ln, x), *from = memory ? memory : y;
    y = tn_nn_multi_head_attention_call(a, y, from, from, look);
    y = tn_add(x, tn_nn_dropout(y, o->dropout, training));
    return o->norm_last ? tn_nn_layer_norm_call(ln, y) : y;
}

static tn_array *transformer_think(const tn_nn_linear *in, const tn_nn_linear *out,
                                   const tn_nn_layer_norm *ln, const tn_nn_transformer_opt *o,
                                   tn_array *x, bool training) {
    tn_array *y = o->norm_last ? x : tn_nn_layer_norm_call(ln, x);
    y = o->activation(tn_nn_linear_call(in, y));
    y = tn_nn_linear_call(out, tn_nn_dropout(y, o->dropout, training));
    y = tn_add(x, y);
    return o->norm_last ? tn_nn_layer_norm_call(ln, y) : y;
}

/* ---- layers ---- */

int tn_nn_transformer_encoder_layer_init(tn_nn_transformer_encoder_layer *l, tn_params *p,
                                         const char *name, int64_t dims, int heads,
                                         const tn_nn_transformer_opt *opt) {
    *l = (tn_nn_transformer_encoder_layer){0};
    tni_layer b = tni_layer_begin(p, name, transformer_options(&l->opt, opt, dims));
    transformer_attention(&b, &l->attention, "attention", dims, heads);
    transformer_norm(&b, &l->ln1, "ln1", dims);
    transformer_norm(&b, &l->ln2, "ln2", dims);
    transformer_mlp(&b, &l->linear1, &l->linear2, dims, &l->opt);
    return tni_layer_end(&b);
}

tn_array *tn_nn_transformer_encoder_layer_call(const tn_nn_transformer_encoder_layer *l,
                                               tn_array *x, const tn_sdpa_opt *look,
                                               bool training) {
    if (!l->opt.activation)
        return tn_error_array(TN_EVALUE, "transformer: the layer was not initialised");
    x = transformer_look(&l->attention, &l->ln1, &l->opt, x, NULL, look, training);
    return transformer_think(&l->linear1, &l->linear2, &l->ln2, &l->opt, x, training);
}

int tn_nn_transformer_decoder_layer_init(tn_nn_transformer_decoder_layer *l, tn_params *p,
                                         const char *name, int64_t dims, int heads,
                                         const tn_nn_transformer_opt *opt) {
    *l = (tn_nn_transformer_decoder_layer){0};
    tni_layer b = tni_layer_begin(p, name, transformer_options(&l->opt, opt, dims));
    transformer_attention(&b, &l->self_attention, "self_attention", dims, heads);
    transformer_attention(&b, &l->cross_attention, "cross_attention", dims, heads);
    transformer_norm(&b, &l->ln1, "ln1", dims);
    transformer_norm(&b, &l->ln2, "ln2", dims);
    transformer_norm(&b, &l->ln3, "ln3", dims);
    transformer_mlp(&b, &l->linear1, &l->linear2, dims, &l->opt);
    return tni_layer_end(&b);
}

tn_array *tn_nn_transformer_decoder_layer_call(const tn_nn_transformer_decoder_layer *l,
                                               tn_array *x, tn_array *memory,
                                               const tn_sdpa_opt *look,
                                               const tn_sdpa_opt *memory_look, bool training) {
    if (!l->opt.activation)
        return tn_error_array(TN_EVALUE, "transformer: the layer was not initialised");
    if (!memory) return tn_error_array(TN_EVALUE, "transformer: the decoder's memory is NULL");
    x = transformer_look(&l->self_attention, &l->ln1, &l->opt, x, NULL, look, training);
    x = transformer_look(&l->cross_attention, &l->ln2, &l->opt, x, memory, memory_look, training);
    return transformer_think(&l->linear1, &l->linear2, &l->ln3, &l->opt, x, training);
}

/* ---- a layer under a checkpoint ---- */

/* How a layer is called, apart from arrays; there is one record for each way it has been called in.
 * They live as long as the tree, since derivatives may be asked for at any time. */
typedef struct transformer_way {
    struct transformer_way *next;
    const void *layer;
    tn_params *p;
    int first, n; /* the layer's parameters in the tree */
    bool decoder, training;
    struct {
        bool causal, mask, sinks;
    } look[2];
} transformer_way;

/* x, memory, masks, sinks: in this order, those that are there. */
enum { TRANSFORMER_ARRAYS = 6 };

/* The layer run on the arrays of `in`, as `w` says. */
static tn_array *transformer_call(const transformer_way *w, tn_array *const *in) {
    tn_array *x = *in++, *memory = w->decoder ? *in++ : NULL;
    tn_sdpa_opt look[2];
    for (int k = 0; k < 2; k++) {
        look[k] = (tn_sdpa_opt){.size = sizeof *look, .causal = w->look[k].causal};
        if (w->look[k].mask) look[k].mask = *in++;
        if (w->look[k].sinks) look[k].sinks = *in++;
    }
    return w->decoder ? tn_nn_transformer_decoder_layer_call(w->layer, x, memory, &look[0],
                                                             &look[1], w->training)
                      : tn_nn_transformer_encoder_layer_call(w->layer, x, &look[0], w->training);
}

/* Slots hold the arguments for the time of the call: in[in.n - n] and those after it. */
static int transformer_again(tn_list in, tn_array **out, int n_out, void *ud) {
    const transformer_way *w = ud;
    tn_array **before = tni_alloc_array((size_t)w->n + 1, sizeof *before);
    (void)n_out;
    if (!before) return tni_fail_memory((size_t)w->n * sizeof *before, "a transformer layer");
    for (int i = 0; i < w->n; i++) {
        tn_array **slot = tn_params_slot(w->p, w->first + i);
        before[i] = *slot, *slot = in.v[in.n - w->n + i];
    }
    out[0] = transformer_call(w, in.v);
    for (int i = 0; i < w->n; i++) *tn_params_slot(w->p, w->first + i) = before[i];
    tni_free(before);
    return 0;
}

static void transformer_looks(transformer_way *w, int k, const tn_sdpa_opt *look, tn_array **v,
                              int *n) {
    tn_sdpa_opt o;
    TNI_OPTIONS(o, look);
    w->look[k].causal = o.causal, w->look[k].mask = o.mask, w->look[k].sinks = o.sinks;
    if (o.mask) v[(*n)++] = o.mask;
    if (o.sinks) v[(*n)++] = o.sinks;
}

static bool transformer_same_way(const transformer_way *a, const transformer_way *b) {
    bool same = a->training == b->training;
    for (int k = 0; k < 2; k++)
        same = same && a->look[k].causal == b->look[k].causal &&
               a->look[k].mask == b->look[k].mask && a->look[k].sinks == b->look[k].sinks;
    return same;
}

/* The record that says the same as `w`; `list` begins with the one of the layer's making. */
static transformer_way *transformer_find(transformer_way *list, const transformer_way *w) {
    for (transformer_way *k = list->next; k; k = k->next)
        if (transformer_same_way(k, w)) return k;
    transformer_way *k = tni_params_block(w->p, 1, sizeof *k);
    if (!k) return NULL;
    *k = *w;
    k->next = list->next;
    list->next = k;
    return k;
}

static tn_array *transformer_checkpoint(transformer_way *list, tn_array *x, tn_array *memory,
                                        const tn_sdpa_opt *look, const tn_sdpa_opt *memory_look,
                                        bool training) {
    transformer_way w = *list;
    int n = 0;
    tn_array *out[1], **v = tni_alloc_array(TRANSFORMER_ARRAYS + (size_t)w.n, sizeof *v);
    transformer_way *way = NULL;
    if (v) {
        w.training = training;
        v[n++] = x;
        if (w.decoder) v[n++] = memory;
        transformer_looks(&w, 0, look, v, &n);
        transformer_looks(&w, 1, memory_look, v, &n);
        way = transformer_find(list, &w);
    }
    if (!way) {
        tni_free(v);
        int status = tni_fail_memory(sizeof w, "a transformer layer");
        return tn_error_array(status, "%s", tn_error());
    }
    for (int i = 0; i < w.n; i++) v[n++] = *tn_params_slot(w.p, w.first + i);
    (void)tn_checkpoint(transformer_again, way, (tn_list){v, n}, 1, out);
    tni_free(v);
    return out[0];
}

/* The record of a layer made since the tree had `first` parameters; NULL without memory. */
static void *transformer_record(tn_params *p, int first, const void *layer, bool decoder) {
    transformer_way *w = tni_params_block(p, 1, sizeof *w);
    if (w)
        *w = (transformer_way){.layer = layer,
                               .p = p,
                               .first = first,
                               .decoder = decoder,
                               .n = tn_params_count(p) - first};
    return w;
}

/* ---- stacks ---- */

/* Memory for the layers of a stack; 0 or why there is none. */
static int transformer_layers(tn_params *p, int n, size_t size, void **layers) {
    if (n < 0 || n > 1 << 20) return tni_fail(TN_EVALUE, "transformer: %d layers", n);
    *layers = tni_params_block(p, (size_t)n + 1, size);
    return *layers ? 0 : TN_EMEMORY;
}

/* Makes the layers of a stack, which are all of one kind. */
static void transformer_fill(tni_layer *b, void *layers, bool decoder, int n, int64_t dims,
                             int heads, const tn_nn_transformer_opt *opt) {
    for (int i = 0; i < n && !b->status; i++) {
        char name[32];
        int first = tn_params_count(b->p);
        snprintf(name, sizeof name, "layers.%d", i);
        tn_nn_transformer_encoder_layer *e = layers;
        tn_nn_transformer_decoder_layer *d = layers;
        b->status = decoder
                        ? tn_nn_transformer_decoder_layer_init(&d[i], b->p, name, dims, heads, opt)
                        : tn_nn_transformer_encoder_layer_init(&e[i], b->p, name, dims, heads, opt);
        if (b->status) return;
        void *layer = decoder ? (void *)&d[i] : &e[i];
        void *record = transformer_record(b->p, first, layer, decoder);
        *(decoder ? &d[i].again : &e[i].again) = record;
        if (!record) b->status = TN_EMEMORY;
    }
}

int tn_nn_transformer_encoder_init(tn_nn_transformer_encoder *l, tn_params *p, const char *name,
                                   int n, int64_t dims, int heads,
                                   const tn_nn_transformer_opt *opt) {
    void *layers = NULL;
    int status = transformer_layers(p, n, sizeof *l->layers, &layers);
    *l = (tn_nn_transformer_encoder){.layers = layers, .n = status ? 0 : n};
    tni_layer b = tni_layer_begin(p, name, status);
    transformer_fill(&b, l->layers, false, n, dims, heads, opt);
    transformer_norm(&b, &l->ln, "ln", dims);
    return tni_layer_end(&b);
}

tn_array *tn_nn_transformer_encoder_call(const tn_nn_transformer_encoder *l, tn_array *x,
                                         const tn_sdpa_opt *look, bool training) {
    for (int i = 0; i < l->n; i++) {
        const tn_nn_transformer_encoder_layer *k = &l->layers[i];
        x = k->opt.checkpoint ? transformer_checkpoint(k->again, x, NULL, look, NULL, training)
                              : tn_nn_transformer_encoder_layer_call(k, x, look, training);
    }
    return tn_nn_layer_norm_call(&l->ln, x);
}

int tn_nn_transformer_decoder_init(tn_nn_transformer_decoder *l, tn_params *p, const char *name,
                                   int n, int64_t dims, int heads,
                                   const tn_nn_transformer_opt *opt) {
    void *layers = NULL;
    int status = transformer_layers(p, n, sizeof *l->layers, &layers);
    *l = (tn_nn_transformer_decoder){.layers = layers, .n = status ? 0 : n};
    tni_layer b = tni_layer_begin(p, name, status);
    transformer_fill(&b, l->layers, true, n, dims, heads, opt);
    transformer_norm(&b, &l->ln, "ln", dims);
    return tni_layer_end(&b);
}

tn_array *tn_nn_transformer_decoder_call(const tn_nn_transformer_decoder *l, tn_array *x,
                                         tn_array *memory, const tn_sdpa_opt *look,
                                         const tn_sdpa_opt *memory_look, bool training) {
    for (int i = 0; i < l->n; i++) {
        const tn_nn_transformer_decoder_layer *k = &l->layers[i];
        x = k->opt.checkpoint && memory
                ? transformer_checkpoint(k->again, x, memory, look, memory_look, training)
                : tn_nn_transformer_decoder_layer_call(k, x, memory, look, memory_look, training);
    }
    return tn_nn_layer_norm_call(&l->ln, x);
}

int tn_nn_transformer_init(tn_nn_transformer *l, tn_params *p, const char *name, int64_t dims,
                           int heads, int encoder_layers, int decoder_layers,
                           const tn_nn_transformer_opt *opt) {
    *l = (tn_nn_transformer){0};
    tni_layer b = tni_layer_begin(p, name, 0);
    if (!b.status)
        b.status = tn_nn_transformer_encoder_init(&l->encoder, p, "encoder", encoder_layers, dims,
                                                  heads, opt);
    if (!b.status)
        b.status = tn_nn_transformer_decoder_init(&l->decoder, p, "decoder", decoder_layers, dims,
                                                  heads, opt);
    return tni_layer_end(&b);
}

tn_array *tn_nn_transformer_call(const tn_nn_transformer *l, tn_array *source, tn_array *target,
                                 const tn_sdpa_opt *source_look, const tn_sdpa_opt *target_look,
                                 const tn_sdpa_opt *memory_look, bool training) {
    tn_array *memory = tn_nn_transformer_encoder_call(&l->encoder, source, source_look, training);
    return tn_nn_transformer_decoder_call(&l->decoder, target, memory, target_look, memory_look,
                                          training);
}
