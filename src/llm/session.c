/* Sessions: the key-value cache, chunked prompts, one token at a time. The caches are slots: each
 * step commits its new caches, whose memory is the old ones', written in place. */
#include "base/alloc.h"
#include "base/err.h"
#include "llm/model.h"
#include "llm/source.h"
#include <math.h>
#include <string.h>

enum { SESSION_RECENT = 64, SESSION_GROW = 256, SESSION_CHUNK = 512, SESSION_SCORE = 128 };

struct tn_llm_session {
    tn_llm *m;
    tni_kv *kv; /* slots of every layer; then room for the next step's arrays */
    int64_t capacity, length, limit, chunk;
    tn_dtype dtype;
    tn_array *logits; /* slot: [1, vocab] f32 */
    const float *scores;
    float norm; /* log(sum(exp(scores))) */
    tni_rng rng;
    int32_t recent[SESSION_RECENT];
    size_t n_recent;
    tni_candidate *work;
    tni_detok detok;
    tni_str text;
};

int tn_llm_session_new(tn_llm *m, const tn_llm_session_opt *opt, tn_llm_session **out) {
    *out = NULL;
    tn_llm_session *s = tni_calloc(1, sizeof *s);
    if (s) {
        s->m = m;
        s->kv = tni_calloc((size_t)m->layers, sizeof *s->kv);
        s->work = tni_alloc_array((size_t)m->vocab, sizeof *s->work);
    }
    if (!s || !s->kv || !s->work) {
        tn_llm_session_free(s);
        return tni_fail_memory((size_t)m->vocab * sizeof *s->work, "a session");
    }
    s->limit = opt && opt->context > 0 && opt->context < m->context ? opt->context : m->context;
    s->chunk = opt && opt->chunk > 0 ? opt->chunk : SESSION_CHUNK;
    s->dtype = opt && opt->cache_f16 ? TN_F16 : TN_F32;
    s->rng.seed = opt ? opt->seed : 0;
    *out = s;
    return 0;
}

void tn_llm_session_free(tn_llm_session *s) {
    if (!s) return;
    for (int64_t i = 0; s->kv && i < s->m->layers; i++) tn_drop(s->kv[i].k), tn_drop(s->kv[i].v);
    tn_drop(s->logits);
    tni_free(s->kv);
    tni_free(s->work);
    tni_detok_free(&s->detok);
    tni_str_free(&s->text);
    tni_free(s);
}

int64_t tn_llm_session_length(const tn_llm_session *s) { return s->length; }
const float *tn_llm_logits(const tn_llm_session *s) { return s->scores; }

/* ---- the cache ---- */

/* Room for `want` positions: at least a quarter more than before, so that growing copies little. */
static int64_t session_capacity(const tn_llm_session *s, int64_t want) {
    int64_t c = s->capacity + s->capacity / 4;
    c = c > want ? c : want;
    c = (c + SESSION_GROW - 1) / SESSION_GROW * SESSION_GROW;
    return c < s->limit ? c : s->limit;
}

static int session_grow_slot(tn_llm_session *s, tn_array **slot, int64_t rows, int64_t cols) {
    int status = 0;
    TN_SCOPE {
        tn_array *fresh = tn_zeros(TN_SHAPE(1, s->m->kv_heads, rows, cols), s->dtype);
        if (*slot)
            fresh = tn_slice_update(fresh, *slot, TN_INTS(0, 0, 0, 0), TN_ALL);
        else
            fresh = tn_slice_update(fresh, tn_scalar(0, s->dtype), TN_INTS(0, 0, 0, 0), TN_ALL);
        status = tn_commit(slot, TN_LIST(fresh), (tn_list){0});
    }
    return status;
}

static int session_reserve(tn_llm_session *s, int64_t want) {
    if (want > s->limit)
        return tni_fail(TN_EVALUE,
                        "the context is full: %lld positions are needed, the limit is %lld",
                        (long long)want, (long long)s->limit);
    if (want <= s->capacity) return 0;
    int64_t capacity = session_capacity(s, want);
    for (int64_t i = 0; i < s->m->layers; i++) {
        /* A failure midway leaves some layers larger than `capacity` says, which is harmless. */
        int status = session_grow_slot(s, &s->kv[i].k, s->m->head_dim, capacity);
        if (!status) status = session_grow_slot(s, &s->kv[i].v, capacity, s->m->head_dim);
        if (status) return status;
    }
    s->capacity = capacity;
    return 0;
}

/* ---- steps ---- */

static int session_check_ids(const tn_llm_session *s, const int32_t *ids, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->m->vocab)
            return tni_fail(TN_EINDEX, "token %zu is %d; the vocabulary has %lld", i, ids[i],
                            (long long)s->m->vocab);
    return 0;
}

static int session_commit(tn_llm_session *s, const tni_kv *next, tn_array *scores,
                          tn_array **slot) {
    int64_t n = 2 * s->m->layers;
    /* tni_kv is two array pointers, so a list of layers is a list of slots. */
    _Static_assert(sizeof(tni_kv) == 2 * sizeof(tn_array *), "tni_kv holds exactly its two slots");
    int status = tn_assign(slot, scores);
    if (!status) status = tn_commit(&s->kv[0].k, (tn_list){&next[0].k, (int)n}, TN_LIST(scores));
    return status;
}

/* Runs n tokens. On success the cache holds them and *slot their scores. */
static int session_step(tn_llm_session *s, const int32_t *ids, int64_t n, bool all,
                        tn_array **slot) {
    int status = session_reserve(s, s->length + n);
    if (status) return status;
    tni_kv *next = tni_alloc_array((size_t)s->m->layers, sizeof *next);
    if (!next) return tni_fail_memory((size_t)s->m->layers * sizeof *next, "a decoding step");
    s->scores = NULL;
    tn_scope *scope = tn_scope_begin();
    tni_pass pass = {
        .batch = 1, .tokens = n, .past = s->length, .kv = s->kv, .next = next, .all = all};
    tn_array *scores = tni_llm_forward(s->m, &pass, tn_array_new(ids, TN_I32, TN_SHAPE(n)));
    /* What is asked for outlives the scope; everything between dies while it is evaluated. */
    for (int64_t i = 0; i < s->m->layers; i++) tn_escape(next[i].k), tn_escape(next[i].v);
    tn_escape(scores);
    tn_scope_end(scope);
    status = session_commit(s, next, scores, slot);
    tni_free(next);
    if (!status) status = tni_source_verify(s->m->source); /* about 0.2 us a file */
    if (!status) s->length += n;
    return status;
}

static void session_remember(tn_llm_session *s, const int32_t *ids, size_t n) {
    for (size_t i = n > SESSION_RECENT ? n - SESSION_RECENT : 0; i < n; i++) {
        if (s->n_recent == SESSION_RECENT)
            memmove(s->recent, s->recent + 1, (--s->n_recent) * sizeof *s->recent);
        s->recent[s->n_recent++] = ids[i];
    }
}

/* Runs n tokens and reads the scores of the last. */
static int session_read(tn_llm_session *s, const int32_t *ids, int64_t n) {
    int status = session_step(s, ids, n, false, &s->logits);
    if (status) return status;
    tn_array *norm = tn_logsumexp(s->logits, TN_ALL, false);
    if ((status = tn_eval(TN_LIST(norm)))) return status;
    s->norm = tn_item_f32(norm);
    s->scores = tn_data_f32(s->logits);
    return s->scores ? 0 : tni_error_code();
}

static int session_run(tn_llm_session *s, const int32_t *ids, int64_t n) {
    int status = 0;
    TN_SCOPE {
        status = session_read(s, ids, n);
    }
    if (!status) session_remember(s, ids, (size_t)n);
    return status;
}

int tn_llm_prompt(tn_llm_session *s, const int32_t *ids, size_t n,
                  bool (*progress)(size_t, size_t, void *), void *ud) {
    int status = session_check_ids(s, ids, n);
    if (!status && s->length + (int64_t)n > s->limit)
        status = tni_fail(
            TN_EVALUE,
            "the prompt has %zu tokens; with %lld already there it passes the context of %lld", n,
            (long long)s->length, (long long)s->limit);
    for (size_t done = 0; done < n && !status;) {
        size_t part = n - done < (size_t)s->chunk ? n - done : (size_t)s->chunk;
        status = session_run(s, ids + done, (int64_t)part);
        done += part;
        if (!status && progress && progress(done, n, ud) && done < n)
            status =
                tni_fail(TN_ECANCELLED, "the prompt was stopped after %zu of %zu tokens", done, n);
    }
    return status;
}

static void session_report(const tn_llm_session *s, int32_t id, int n_top, tn_llm_token *out) {
    int64_t vocab = s->m->vocab;
    tni_candidate best[TN_LLM_MAX_LOGPROBS];
    if (n_top > TN_LLM_MAX_LOGPROBS) n_top = TN_LLM_MAX_LOGPROBS;
    if (n_top > vocab) n_top = (int)vocab;
    tni_top(s->scores, vocab, n_top, best);
    out->id = id, out->logprob = s->scores[id] - s->norm, out->n_top = n_top;
    for (int i = 0; i < n_top; i++)
        out->top[i].id = best[i].id, out->top[i].logprob = best[i].logit - s->norm;
}

static int session_check_sampler(const tn_llm_sampler *o) {
    if (isnan(o->temperature) || o->temperature < 0)
        return tni_fail(TN_EVALUE, "temperature is %g; it must be 0 or more",
                        (double)o->temperature);
    if (!(o->top_p >= 0 && o->top_p <= 1))
        return tni_fail(TN_EVALUE, "top_p is %g; it must be from 0 to 1", (double)o->top_p);
    if (!(o->min_p >= 0 && o->min_p <= 1))
        return tni_fail(TN_EVALUE, "min_p is %g; it must be from 0 to 1", (double)o->min_p);
    if (!(o->repetition_penalty >= 0) || isinf(o->repetition_penalty))
        return tni_fail(TN_EVALUE, "repetition_penalty is %g; it must be 0 or more",
                        (double)o->repetition_penalty);
    if (o->top_k < 0) return tni_fail(TN_EVALUE, "top_k is %d; it must be 0 or more", o->top_k);
    return 0;
}

int tn_llm_next(tn_llm_session *s, const tn_llm_sampler *opt, tn_llm_token *out) {
    static const tn_llm_sampler greedy = {.size = sizeof greedy};
    if (!opt) opt = &greedy;
    int status = session_check_sampler(opt);
    if (status) return status;
    if (!s->scores) return tni_fail(TN_ESTATE, "a prompt must come before the first token");
    int32_t id = tni_sample(s->scores, s->m->vocab, opt, s->recent, s->n_recent, &s->rng, s->work);
    session_report(s, id, opt->logprobs > 0 ? opt->logprobs : 0, out);
    /* The end of a turn need not be run: a further prompt would bring its own. */
    return tn_llm_is_end(s->m, id) ? 0 : session_run(s, &id, 1);
}

int tn_llm_session_rewind(tn_llm_session *s, int64_t length) {
    if (length < 0 || length > s->length)
        return tni_fail(TN_EVALUE, "rewind to %lld: the session has %lld positions",
                        (long long)length, (long long)s->length);
    s->length = length;
    s->scores = NULL;
    s->n_recent = 0;
    return 0;
}

/* ---- scoring ---- */

static int session_score_part(tn_llm_session *s, const int32_t *ids, int64_t n, int64_t scored,
                              float *out, int32_t *best) {
    tn_array *slot = NULL;
    int status = 0;
    TN_SCOPE {
        status = session_step(s, ids, n, true, &slot);
        if (status) break;
        tn_array *norm = tn_logsumexp(slot, TN_AXES(1), false),
                 *top = tn_argmax(slot, TN_AXES(1), false);
        status = tn_eval(TN_LIST(norm, top));
        const float *row = status ? NULL : tn_data_f32(slot);
        for (int64_t i = 0; row && i < scored; i++, row += s->m->vocab) {
            out[i] = row[ids[i + 1]] - tn_data_f32(norm)[i];
            if (best) best[i] = ((const int32_t *)tn_data(top))[i]; /* u32, below vocab */
        }
        if (!status && !row) status = tni_error_code();
    }
    tn_drop(slot);
    return status;
}

int tn_llm_score(tn_llm_session *s, const int32_t *ids, size_t n, float *out, int32_t *best) {
    int status = session_check_ids(s, ids, n);
    for (size_t at = 0; at < n && !status;) {
        /* A part's scores are a [tokens, vocab] matrix, so parts are kept small. */
        size_t part = n - at < SESSION_SCORE ? n - at : SESSION_SCORE,
               scored = at + part < n ? part : part - 1;
        status = session_score_part(s, ids + at, (int64_t)part, (int64_t)scored, out + at,
                                    best ? best + at : NULL);
        at += part;
    }
    if (!status) session_remember(s, ids, n);
    return status;
}

/* ---- text ---- */

int tn_llm_text(tn_llm_session *s, int32_t id, const char **text, size_t *n) {
    s->text.n = 0;
    int status = s->m->tok ? tni_detok_push(&s->detok, s->m->tok, id, &s->text)
                           : tni_fail(TN_ESTATE, "the model has no tokenizer");
    *text = s->text.v ? s->text.v : "", *n = s->text.n;
    return status;
}

int tn_llm_text_end(tn_llm_session *s, const char **text, size_t *n) {
    s->text.n = 0;
    int status = tni_detok_finish(&s->detok, &s->text);
    *text = s->text.v ? s->text.v : "", *n = s->text.n;
    return status;
}
