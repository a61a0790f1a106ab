/* tenon fuse: a model with an adapter merged into its weights. */
#include "opt.h"
#include "tenon/llm.h"
#include "tenon/tenon.h"
#include <stdio.h>
#include <unistd.h>

static const char *fuse_model, *fuse_adapter, *fuse_save;
static bool fuse_dequantize;

static const opt fuse_opts[] = {
    {"--model", OPT_STR, &fuse_model, "PATH", "GGUF file or Hugging Face folder", 0, 0},
    {"--adapter", OPT_STR, &fuse_adapter, "DIR",
     "adapter to merge, as tenon finetune or mlx-lm wrote it", 0, 0},
    {"--save", OPT_STR, &fuse_save, "DIR",
     "folder to write: model.safetensors with the model's other files, or model.gguf", 0, 0},
    {"--dequantize", OPT_FLAG, &fuse_dequantize, NULL,
     "leave merged matrices of a quantised folder as floats; in a GGUF file they always become f16",
     0, 0},
    {NULL, OPT_FLAG, NULL, NULL, NULL, 0, 0},
};

/* What --model takes: the file in the folder, or the folder. */
static const char *fuse_target(const char *dir) {
    static char path[4096];
    snprintf(path, sizeof path, "%s/model.gguf", dir);
    return access(path, R_OK) ? dir : path;
}

static int fuse_run(void) {
    tn_llm *m = NULL;
    if (!fuse_model) return cmd_usage("fuse: --model is needed");
    if (!fuse_adapter) return cmd_usage("fuse: --adapter is needed");
    if (!fuse_save) return cmd_usage("fuse: --save is needed");
    int failed = tn_llm_open(fuse_model, &m);
    if (!failed) failed = tn_llm_adapter_load(m, fuse_adapter);
    if (!failed)
        failed = tn_llm_fuse(m, fuse_save, TN_OPT(tn_llm_fuse_opt, .dequantize = fuse_dequantize));
    if (failed)
        cmd_fail("%s", tn_error());
    else
        printf("%s: written; tenon generate --model %s uses it\n", fuse_save,
               fuse_target(fuse_save));
    tn_llm_free(m);
    return failed ? 1 : 0;
}

extern const command cmd_fuse;
const command cmd_fuse = {"fuse", "merge an adapter into its model", fuse_opts, fuse_run};
