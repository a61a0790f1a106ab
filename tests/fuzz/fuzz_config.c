/* Any bytes as config.json, beside the weights of a tiny Llama and a tiny GPT-2: refused with a
 * sentence, or the model runs. */
#include "../tiny_model.h"
#include "base/alloc.h"
#include "fuzz.h"
#include "llm/load.h"
#include "tenon/llm.h"

static void fuzz_run(tn_llm *m) {
    const int32_t ids[3] = {1, 2, 3};
    tn_llm_session *s;
    tn_llm_token token;
    MUST(!tn_llm_session_new(m, NULL, &s));
    int status = tn_llm_prompt(s, ids, 3, NULL, NULL);
    for (int i = 0; i < 2 && !status; i++) status = tn_llm_next(s, NULL, &token);
    MUST(!status || *tn_error());
    tn_llm_session_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static tni_str file;
    if (!file.n) file = tiny_file();
    json_t *config = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(config)) return json_decref(config), 0;
    tn_llm *m = tni_calloc(1, sizeof *m);
    tni_source *s = m ? tni_calloc(1, sizeof *s) : NULL;
    MUST(s);
    m->source = s, s->config = config, s->path = tni_strdup("fuzz");
    MUST(s->path && !tni_st_open_mem(file.v, file.n, &s->st));
    int status = tni_llm_load_config(m);
    if (!status) status = tni_llm_load_weights(m);
    MUST(!status || *tn_error());
    if (!status) fuzz_run(m);
    tn_llm_free(m);
    return 0;
}
