/* Any bytes as a checkpoint of training, for a fixed model and optimizer: what loads has the shapes
 * and dtypes of the model and saves again; what does not changes nothing. Bytes that begin like
 * JSON are a header up to the first NUL and data after it. */
#include "base/alloc.h"
#include "fuzz.h"
#include "nn/optim.h"
#include <string.h>

typedef struct fuzz_net {
    tn_params *p;
    tn_array *w, *b;
    tn_optim *o;
} fuzz_net;

static void fuzz_begin(fuzz_net *m) {
    *m = (fuzz_net){.p = tn_params_new()};
    TN_SCOPE {
        MUST(!tn_params_add(m->p, "w", &m->w, tn_ones(TN_SHAPE(2, 3), TN_F32)));
        MUST(!tn_params_add(m->p, "b", &m->b, tn_zeros(TN_SHAPE(), TN_F16)));
    }
    m->o = tn_optim_adam(m->p, TN_OPT(tn_adam_opt, .learning_rate = 1));
    MUST(m->o);
    tn_random_seed(5);
}

static void fuzz_file(const uint8_t *data, size_t size) {
    fuzz_net m;
    tni_st *s;
    char *text = NULL;
    int64_t step = -9;
    if (tni_st_open_mem(data, size, &s)) return;
    fuzz_begin(&m);
    tn_array *w = m.w, *b = m.b;
    int status = tni_train_load(s, "memory", m.p, m.o, &step, &text);
    if (status) {
        MUST(m.w == w && m.b == b && step == -9 && !text && tn_random_state() == 5);
        MUST(tn_optim_steps(m.o) == 0);
    } else {
        MUST(m.w != w && tn_dim(m.w, 1) == 3 && tn_dtype_of(m.b) == TN_F16);
        MUST(!tn_optim_eval(m.o, TN_LIST()));
    }
    tn_free(text);
    tn_optim_free(m.o);
    tn_params_free(m.p);
    tni_st_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size && data[0] == '{')
        fuzz_with_header(data, size, fuzz_file);
    else
        fuzz_file(data, size);
    return 0;
}
