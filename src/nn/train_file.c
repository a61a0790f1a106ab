/* Checkpoints of training: one safetensors file with all that a run needs to go on with the same
 * bits. Everything is read and compared before anything is assigned. */
#include "base/alloc.h"
#include "base/err.h"
#include "nn/optim.h"
#include "nn/params.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char train_format[] = "tenon-train-1";
enum { TRAIN_KEYS = 5, TRAIN_NAME = 256 };

static int train_no_memory(void) { return tni_fail_memory(sizeof(tn_params), "a checkpoint"); }

/* ---- an optimizer's slots as a tree, whose slots it borrows ---- */

static int train_view_add(const char *name, tn_array **slot, void *ud) {
    tn_params *view = ud;
    if (tni_vec_reserve(&view->slot, view->slot.n + 1) || tni_vec_reserve(&view->v, view->v.n + 1))
        return train_no_memory();
    char *own = tni_strdup(name);
    if (!own) return train_no_memory();
    view->v.v[view->v.n++] = (tni_param){.name = own};
    view->slot.v[view->slot.n++] = slot;
    return 0;
}

static void train_view_free(tn_params *view) {
    for (size_t i = 0; i < view->v.n; i++) tni_free(view->v.v[i].name);
    tni_vec_free(&view->v);
    tni_vec_free(&view->slot);
}

/* ---- saving ---- */

static int train_eval(tn_params *p, tn_optim *o) {
    if (o) return tn_optim_eval(o, TN_LIST());
    tn_slots s = tn_params_slots(p);
    tn_array **all = tni_alloc_array((size_t)s.n + 1, sizeof *all);
    if (!all) return train_no_memory();
    for (int i = 0; i < s.n; i++) all[i] = *s.v[i];
    int status = tn_eval((tn_list){all, s.n});
    tni_free(all);
    return status;
}

int tn_train_save(const char *path, tn_params *p, tn_optim *o, int64_t step, const char *text) {
    if (o && o->params != p)
        return tni_fail(TN_EVALUE, "train_save: the optimizer was made for other parameters");
    char name[TRAIN_NAME] = "", number[24], random[24];
    if (o) tni_optim_describe(o, name, sizeof name);
    snprintf(number, sizeof number, "%" PRId64, step);
    snprintf(random, sizeof random, "%016" PRIx64, tn_random_state());
    tni_st_pair meta[TRAIN_KEYS] = {{"format", train_format},
                                    {"step", number},
                                    {"random", random},
                                    {"optimizer", name},
                                    {"text", text}};
    tni_tensors t = {0};
    tn_params view = {0};
    int status = train_eval(p, o);
    if (!status) status = tni_tensors_add(&t, p, "params.");
    if (!status && o) status = tni_optim_each(o, train_view_add, &view);
    if (!status) status = tni_tensors_add(&t, &view, "optim.");
    if (!status)
        status = tni_st_write(path, t.v.v, t.v.n, meta, text ? TRAIN_KEYS : TRAIN_KEYS - 1);
    tni_tensors_free(&t);
    train_view_free(&view);
    return status;
}

/* ---- loading ---- */

static bool train_number(const char *text, int base, uint64_t *out) {
    char *end;
    if (!text || !*text || strlen(text) > 20 || text[strspn(text, "-0123456789abcdef")])
        return false;
    *out = *text == '-' ? (uint64_t)strtoll(text, &end, base) : strtoull(text, &end, base);
    return !*end;
}

static int train_check_head(const tni_st *file, const char *path, const tn_optim *o, uint64_t *step,
                            uint64_t *random) {
    const char *format = tni_st_metadata(file, "format"),
               *saved = tni_st_metadata(file, "optimizer");
    char name[TRAIN_NAME];
    if (!format || strncmp(format, train_format, sizeof train_format - 2) != 0)
        return tni_fail(TN_EFORMAT, "%s: no checkpoint of training", path);
    if (strcmp(format, train_format) != 0)
        return tni_fail(TN_EFORMAT, "%s: a checkpoint of form %.40s; this version reads %s", path,
                        format, train_format);
    if (!train_number(tni_st_metadata(file, "step"), 10, step) ||
        !train_number(tni_st_metadata(file, "random"), 16, random))
        return tni_fail(TN_EFORMAT, "%s: no step, or no random state, in the checkpoint", path);
    if (!o) return 0;
    tni_optim_describe(o, name, sizeof name);
    if (saved && !strcmp(saved, name)) return 0;
    return tni_fail(TN_EFORMAT, "%s: saved with %s%.100s, not with %s", path,
                    saved && *saved ? "" : "no optimizer", saved ? saved : "", name);
}

/* What has been read for the slots of a tree; dropped, or moved into them. */
typedef struct train_part {
    const tn_params *tree;
    tn_array **got;
} train_part;

static int train_read(train_part *part, const tni_st *file, const char *path, const char *prefix) {
    size_t n = part->tree->v.n;
    part->got = tni_calloc(n + 1, sizeof *part->got);
    if (!part->got) return train_no_memory();
    int status = tni_tensors_load(file, path, part->tree, prefix, true, part->got);
    for (size_t i = 0; i < n && !status; i++) {
        tn_dtype got = tn_dtype_of(part->got[i]), want = tn_dtype_of(*part->tree->slot.v[i]);
        if (got != want)
            status = tni_fail(TN_EDTYPE, "%s: %s%s is %s, not %s", path, prefix,
                              part->tree->v.v[i].name, tn_dtype_name(got), tn_dtype_name(want));
    }
    return status;
}

static void train_settle(train_part *part, bool take) {
    for (size_t i = 0; part->got && i < part->tree->v.n; i++) {
        if (take)
            tn_drop(*part->tree->slot.v[i]), *part->tree->slot.v[i] = part->got[i];
        else
            tn_drop(part->got[i]);
    }
    tni_free(part->got);
}

int tni_train_load(const tni_st *file, const char *path, tn_params *p, tn_optim *o, int64_t *step,
                   char **text) {
    uint64_t number = 0, random = 0;
    tn_params view = {0};
    train_part params = {p, NULL}, state = {&view, NULL};
    const char *saved = tni_st_metadata(file, "text");
    char *copy = NULL;
    int status = train_check_head(file, path, o, &number, &random);
    if (!status && o && tni_st_find(file, "optim.added")) status = tn_optim_accumulate(o);
    if (!status && o) status = tni_optim_each(o, train_view_add, &view);
    if (!status && p) status = train_read(&params, file, path, "params.");
    if (!status && o) status = train_read(&state, file, path, "optim.");
    if (!status && text && saved && !(copy = tni_strdup(saved))) status = train_no_memory();
    train_settle(&params, !status);
    train_settle(&state, !status);
    train_view_free(&view);
    if (status) return status;
    if (p) tn_random_seed(random);
    if (step) *step = (int64_t)number;
    if (text) *text = copy;
    return 0;
}

int tn_train_load(const char *path, tn_params *p, tn_optim *o, int64_t *step, char **text) {
    if (o && o->params != p)
        return tni_fail(TN_EVALUE, "train_load: the optimizer was made for other parameters");
    tni_st *file = NULL;
    int status = tni_st_open(path, &file);
    if (!status) status = tni_train_load(file, path, p, o, step, text);
    tni_st_free(file);
    return status;
}
