/* What all layers share: names, slots and first values of parameters, options. */
#include "nn/layer.h"
#include "base/err.h"
#include <string.h>

tni_layer tni_layer_begin(tn_params *p, const char *name, int status) {
    tni_layer b = {p, tn_scope_begin(), status, false};
    if (b.status || !name || !*name) return b;
    b.status = tn_params_push(p, "%s", name);
    b.pushed = !b.status;
    return b;
}

void tni_layer_add(tni_layer *b, const char *name, tn_array **slot, tn_array *init) {
    *slot = NULL;
    if (!b->status) b->status = tn_params_add(b->p, name, slot, init);
}

int tni_layer_end(tni_layer *b) {
    if (b->pushed) tn_params_pop(b->p);
    tn_scope_end(b->scope);
    return b->status;
}

int tni_layer_size(const char *layer, const char *what, int64_t n) {
    return n > 0 ? 0 : tni_fail(TN_EVALUE, "%s: %lld %s; 1 at least", layer, (long long)n, what);
}

tn_array *tni_layer_uniform(double limit, tn_ints shape) {
    return tn_random_uniform(tn_f32(-limit), tn_f32(limit), shape, TN_F32, NULL);
}

void tni_layer_options(void *to, size_t size, const void *opt, size_t given) {
    memset(to, 0, size);
    if (opt) memcpy(to, opt, given < size ? given : size);
}

bool tni_layer_is_float(tn_dtype d) {
    return d == TN_F16 || d == TN_BF16 || d == TN_F32 || d == TN_F64;
}
