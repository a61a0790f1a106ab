/* Training examples from lines of JSON. What is wrong is said with file and line, and nothing is
 * skipped: a line that is not learned from in silence is one that nobody misses. */
#include "llm/dataset.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/mmap.h"
#include "llm/json.h"
#include <string.h>

enum { DATA_LINE = 16 << 20, DATA_TOKENS = 2048 };

/* One line while it is read. */
typedef struct data_line {
    const tn_llm *m;
    const char *name;
    int64_t number;
    const tn_llm_data_opt *opt;
    tn_llm_data *d;
} data_line;

/* The last error's sentence, with file and line before it. */
static int data_where(const data_line *l, int status) {
    if (status == TN_EMEMORY) return status;
    return tni_fail(status, "%s, line %lld: %s", l->name, (long long)l->number, tni_error());
}

static int data_bad(const data_line *l, const char *what) {
    return tni_fail(TN_EFORMAT, "%s, line %lld: %s", l->name, (long long)l->number, what);
}

/* ---- one example ---- */

static int data_add(const data_line *l, const int32_t *ids, size_t n, size_t offset) {
    tn_llm_data *d = l->d;
    size_t most = (size_t)l->opt->max_tokens, keep = n < most ? n : most;
    if (offset >= keep)
        return tni_fail(TN_EVALUE,
                        "%s, line %lld: nothing is left to learn: of %zu tokens %zu are the "
                        "prompt, and %zu are kept",
                        l->name, (long long)l->number, n, offset, keep);
    for (size_t i = 0; i < keep && l->m->vocab; i++)
        if (ids[i] >= l->m->vocab)
            return tni_fail(TN_EINDEX, "%s, line %lld: token %d; the model's vocabulary has %lld",
                            l->name, (long long)l->number, ids[i], (long long)l->m->vocab);
    tni_example e = {d->ids.n, (int32_t)keep, (int32_t)offset};
    if (tni_vec_reserve(&d->ids, d->ids.n + keep) || tni_vec_push(&d->example, e))
        return tni_fail_memory((d->ids.n + keep) * sizeof *ids, "training examples");
    memcpy(d->ids.v + d->ids.n, ids, keep * sizeof *ids);
    d->ids.n += keep;
    d->cut += keep < n;
    if ((int64_t)keep > d->longest) d->longest = (int64_t)keep;
    return 0;
}

/* The text's tokens and, unless it is there, the one that ends a text. */
static int data_text(const data_line *l, const json_t *text) {
    const char *end = l->m->eos ? l->m->eos : "";
    int32_t *ids, *grown, eos = *end ? tni_tok_id(l->m->tok, end, strlen(end)) : -1;
    size_t n;
    if (!json_string_length(text)) return data_bad(l, "\"text\" is empty");
    int status = tn_llm_tokenize(l->m, json_string_value(text), json_string_length(text),
                                 TN_TEXT_SPECIAL | TN_TEXT_BOS, &ids, &n);
    if (status) return data_where(l, status);
    if (eos >= 0 && (!n || ids[n - 1] != eos)) {
        if (!(grown = tni_realloc(ids, (n + 1) * sizeof *ids)))
            status = tni_fail_memory(n * sizeof *ids, "an example");
        else
            ids = grown, ids[n++] = eos;
    }
    if (!status) status = n ? data_add(l, ids, n, 0) : data_bad(l, "the text has no tokens");
    tni_free(ids);
    return status;
}

/* ---- chats ---- */

static int data_chat_ids(const data_line *l, const json_t *messages, const char *tools,
                         bool begin_answer, int32_t **ids, size_t *n) {
    tni_str text = {0};
    tn_llm_chat_opt opt = {
        .size = sizeof opt, .no_generation_prompt = !begin_answer, .tools = tools};
    *ids = NULL;
    int status = tni_json_dump(messages, JSON_COMPACT, "an example", &text);
    if (!status && (status = tn_llm_chat(l->m, text.v, &opt, ids, n))) data_where(l, status);
    tni_str_free(&text);
    return status;
}

/* How many tokens come before the last message's answer. */
static int data_chat_offset(const data_line *l, json_t *messages, const char *tools,
                            size_t *offset) {
    size_t last = json_array_size(messages) - 1;
    const char *role = json_string_value(json_object_get(json_array_get(messages, last), "role"));
    json_t *before = json_copy(messages);
    if (!before || json_array_remove(before, last))
        return json_decref(before), tni_fail_memory(last * 8, "an example");
    int32_t *ids;
    int status = data_chat_ids(l, before, tools, role && !strcmp(role, "assistant"), &ids, offset);
    tn_llm_ids_free(ids);
    json_decref(before);
    return status;
}

static int data_chat_check(const data_line *l, const json_t *messages) {
    if (!l->m->chat)
        return data_bad(l, "the model has no chat template; examples must be {\"text\": ...}");
    if (!json_is_array(messages)) return data_bad(l, "\"messages\" is not a list");
    if (!json_array_size(messages)) return data_bad(l, "\"messages\" is empty");
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        if (!json_is_object(message)) return data_bad(l, "a message is not an object");
        if (!json_is_string(json_object_get(message, "role")))
            return data_bad(l, "a message's \"role\" is missing or not a string");
    }
    return 0;
}

static int data_chat(const data_line *l, json_t *messages, const json_t *tools) {
    tni_str tool_text = {0};
    int32_t *ids = NULL;
    size_t n = 0, offset = 0;
    int status = data_chat_check(l, messages);
    if (!status && tools && !json_is_null(tools))
        status = json_is_array(tools) ? tni_json_dump(tools, JSON_COMPACT, "an example", &tool_text)
                                      : data_bad(l, "\"tools\" is not a list");
    if (!status) status = data_chat_ids(l, messages, tool_text.v, false, &ids, &n);
    if (!status && l->opt->mask_prompt)
        status = data_chat_offset(l, messages, tool_text.v, &offset);
    if (!status) status = n ? data_add(l, ids, n, offset) : data_bad(l, "the chat has no tokens");
    tn_llm_ids_free(ids);
    tni_str_free(&tool_text);
    return status;
}

static int data_pair(const data_line *l, json_t *prompt, json_t *completion, const json_t *tools) {
    if (!json_is_string(prompt)) return data_bad(l, "\"prompt\" is not a string");
    if (!json_is_string(completion)) return data_bad(l, "\"completion\" is not a string");
    if (!json_string_length(completion)) return data_bad(l, "\"completion\" is empty");
    json_t *messages = json_pack("[{sssO}{sssO}]", "role", "user", "content", prompt, "role",
                                 "assistant", "content", completion);
    if (!messages) return tni_fail_memory(64, "an example");
    int status = data_chat(l, messages, tools);
    json_decref(messages);
    return status;
}

/* ---- lines ---- */

/* A pair goes before a chat, and that before a text, as in mlx-lm. */
static int data_object(const data_line *l, const json_t *o) {
    json_t *prompt = json_object_get(o, "prompt"), *text = json_object_get(o, "text"),
           *completion = json_object_get(o, "completion"),
           *messages = json_object_get(o, "messages");
    const json_t *tools = json_object_get(o, "tools");
    if (!json_is_object(o)) return data_bad(l, "not a JSON object");
    if (prompt && completion) return data_pair(l, prompt, completion, tools);
    if (messages) return data_chat(l, messages, tools);
    if (!text)
        return data_bad(l, "neither \"text\", nor \"prompt\" and \"completion\", nor "
                           "\"messages\" is there");
    if (!json_is_string(text)) return data_bad(l, "\"text\" is not a string");
    if (l->opt->mask_prompt) return data_bad(l, "a text has no prompt that could be masked");
    return data_text(l, text);
}

static int data_read_line(const data_line *l, const char *s, size_t n) {
    json_t *o;
    if (n && s[n - 1] == '\r') n--;
    size_t blank = 0;
    while (blank < n && (s[blank] == ' ' || s[blank] == '\t')) blank++;
    if (blank == n) return data_bad(l, "the line is empty");
    if (n > DATA_LINE)
        return tni_fail(TN_EFORMAT, "%s, line %lld: %zu bytes; %d are possible", l->name,
                        (long long)l->number, n, DATA_LINE);
    int status =
        tni_json_parse_line(s, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, l->name, l->number, &o);
    if (status) return status;
    status = data_object(l, o);
    json_decref(o);
    return status;
}

static int data_read(data_line *l, const char *s, size_t n) {
    int status = 0;
    for (size_t at = 0; at < n && !status;) {
        const char *end = memchr(s + at, '\n', n - at);
        size_t len = end ? (size_t)(end - s) - at : n - at;
        l->number++;
        status = data_read_line(l, s + at, len);
        at += len + 1;
    }
    if (!status && !l->d->example.n)
        status = tni_fail(TN_EFORMAT, "%s: the file has no examples", l->name);
    return status;
}

int tni_data_parse(const tn_llm *m, const char *name, const char *bytes, size_t n,
                   const tn_llm_data_opt *opt, tn_llm_data **out) {
    tn_llm_data_opt o = opt ? *opt : (tn_llm_data_opt){.size = sizeof o};
    *out = NULL;
    if (!o.max_tokens) o.max_tokens = DATA_TOKENS;
    if (!m->tok) return tni_fail(TN_ESTATE, "the model has no tokenizer");
    if (o.max_tokens < 2 || o.max_tokens > INT32_MAX)
        return tni_fail(TN_EVALUE, "%lld tokens an example; 2 to %d are possible",
                        (long long)o.max_tokens, INT32_MAX);
    data_line l = {.m = m, .name = name, .opt = &o, .d = tni_calloc(1, sizeof *l.d)};
    if (l.d) l.d->most = o.max_tokens;
    int status = l.d ? data_read(&l, bytes, n) : tni_fail_memory(sizeof *l.d, "training data");
    if (status)
        tn_llm_data_free(l.d);
    else
        *out = l.d;
    return status;
}

int tn_llm_data_open(const tn_llm *m, const char *path, const tn_llm_data_opt *opt,
                     tn_llm_data **out) {
    tni_file f;
    *out = NULL;
    int status = tni_file_map(path, &f);
    if (status) return status;
    status = tni_data_parse(m, path, (const char *)f.data, f.size, opt, out);
    if (tni_file_check(&f)) {
        tn_llm_data_free(*out);
        *out = NULL, status = tni_error_code();
    }
    tni_file_close(&f);
    return status;
}

void tn_llm_data_free(tn_llm_data *d) {
    if (!d) return;
    tni_vec_free(&d->ids);
    tni_vec_free(&d->example);
    tni_free(d);
}

tn_llm_data_info tn_llm_data_describe(const tn_llm_data *d) {
    return (tn_llm_data_info){.examples = (int64_t)d->example.n,
                              .tokens = (int64_t)d->ids.n,
                              .longest = d->longest,
                              .cut = d->cut};
}
