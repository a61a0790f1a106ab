/* Any bytes as lines of training examples; the first byte chooses the options. What is read must
 * be whole examples of the vocabulary's tokens, what is refused must leave nothing. */
#include "base/alloc.h"
#include "fuzz.h"
#include "llm/dataset.h"
#include "tenon/tenon.h"
#include "tiny_text.h"

static const tn_llm *fuzz_model(void) {
    static tn_llm *m;
    char dir[] = "/tmp/tenon-fuzz-XXXXXX";
    if (m) return m;
    tiny_make(dir);
    MUST(!tn_llm_open_tokenizer(dir, &m));
    tiny_remove(dir);
    return m;
}

static void fuzz_check(const tn_llm_data *d, int64_t most) {
    size_t at = 0;
    int64_t longest = 0;
    MUST(d->example.n);
    for (size_t i = 0; i < d->example.n; i++) {
        const tni_example *e = &d->example.v[i];
        MUST(e->at == at && e->n > 0 && e->n <= most && e->offset >= 0 && e->offset < e->n);
        at += (size_t)e->n;
        longest = e->n > longest ? e->n : longest;
    }
    MUST(at == d->ids.n && longest == d->longest);
    for (size_t i = 0; i < at; i++) MUST(d->ids.v[i] >= 0 && d->ids.v[i] < 10);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const tn_llm *m = fuzz_model();
    if (!size) return 0;
    tn_llm_data_opt o = {.size = sizeof o, .mask_prompt = *data & 1};
    if (*data & 2) o.max_tokens = 2 + (*data >> 2);
    tn_llm_data *d;
    int64_t live = tni_alloc_live();
    if (!tni_data_parse(m, "fuzz", (const char *)data + 1, size - 1, &o, &d))
        fuzz_check(d, o.max_tokens ? o.max_tokens : 2048);
    else
        MUST(!d && *tn_error());
    tn_llm_data_free(d);
    MUST(tni_alloc_live() == live);
    return 0;
}
