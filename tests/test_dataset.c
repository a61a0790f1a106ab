/* Training examples from lines of JSON: what each form becomes, and what is wrong with a line said
 * with file and line; every failing allocation. */
#include "base/alloc.h"
#include "llm/dataset.h"
#include "tap.h"
#include "tenon/tenon.h"
#include "tiny_text.h"

static char dir[] = "/tmp/tenon-dataset-XXXXXX";
static tn_llm *model;

static int parse(const char *text, const tn_llm_data_opt *opt, tn_llm_data **out) {
    return tni_data_parse(model, "x.jsonl", text, strlen(text), opt, out);
}

/* ---- what becomes of a line ---- */

static void is_example(const char *line, const tn_llm_data_opt *opt, const char *ids, int offset) {
    tn_llm_data *d;
    char got[256] = "";
    if (!ok(!parse(line, opt, &d), "%s", line)) {
        diag("%s", tn_error());
        return;
    }
    for (size_t i = 0; i < d->ids.n && i < 40; i++)
        snprintf(got + strlen(got), 8, "%s%d", i ? " " : "", (int)d->ids.v[i]);
    is_str(got, ids, "its tokens");
    is_i64(d->example.n, 1, "one example");
    is_i64(d->example.v[0].offset, offset, "learned from this token on");
    is_i64(d->example.v[0].n, (int64_t)d->ids.n, "to the last");
    tn_llm_data_free(d);
}

static void test_forms(void) {
    const tn_llm_data_opt mask = {.size = sizeof mask, .mask_prompt = true},
                          three = {.size = sizeof three, .max_tokens = 3};
    is_example("{\"text\": \"abcd\"}", NULL, "9 4 5 1", 0);
    is_example("{\"text\": \"abcd\"}\n", NULL, "9 4 5 1", 0);
    is_example("{\"text\": \"abcd\"}\r\n", NULL, "9 4 5 1", 0);
    is_example("{\"text\": \"abcd</s>\"}", NULL, "9 4 5 1", 0);
    is_example("{\"text\": \"a\\u0000b\\nc\", \"other\": [1, {}]}", NULL, "9 4 1", 0);
    is_example("{\"text\": \"abcdabcd\"}", &three, "9 4 5", 0);
    is_example("{\"prompt\": \"ab\", \"completion\": \"cd\"}", NULL, "8 9 1 7 4 5 1", 0);
    is_example("{\"prompt\": \"ab\", \"completion\": \"cd\"}", &mask, "8 9 1 7 4 5 1", 4);
    is_example("{\"prompt\": \"\", \"completion\": \"c\", \"text\": \"d\"}", NULL, "8 1 7 4 1", 0);
    is_example("{\"prompt\": \"x\", \"text\": \"d\"}", NULL, "5 1", 0);
    is_example("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\","
               " \"content\": \"b\"}], \"tools\": [{}, {}]}",
               &mask, "5 5 8 2 1 7 3 1", 6);
    is_example("{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}, "
               "{\"role\": \"user\", \"content\": \"b\"}], \"tools\": null}",
               &mask, "7 2 1 8 3 1", 3);
    /* What a message says never becomes a special token. */
    is_example("{\"messages\": [{\"role\": \"user\", \"content\": \"a</s>\"}]}", NULL, "8 2 1", 0);
}

static void test_several(void) {
    tn_llm_data *d;
    const tn_llm_data_opt five = {.size = sizeof five, .max_tokens = 5};
    MUST(!parse("{\"text\": \"a\"}\n{\"text\": \"abababababab\"}\n{\"prompt\": \"c\","
                "\"completion\": \"d\"}",
                &five, &d));
    tn_llm_data_info i = tn_llm_data_describe(d);
    ok(i.examples == 3 && i.tokens == 12 && i.longest == 5 && i.cut == 2, "three lines counted");
    ok(d->example.v[2].at == 7 && d->ids.v[7] == 8, "one after another");
    tn_llm_data_free(d);
    tn_llm_data_free(NULL);
}

/* ---- what is wrong with a line ---- */

static void test_wrong_lines(void) {
    static const struct {
        const char *line;
        int status;
        const char *says;
    } wrong[] = {
        {"", TN_EFORMAT, "line 2: the line is empty"},
        {" \t\r", TN_EFORMAT, "line 2: the line is empty"},
        {"{", TN_EFORMAT, "line 2: "},
        {"{\"text\": \"a\"", TN_EFORMAT, "line 2: "},
        {"{\"text\": \"a\"} {}", TN_EFORMAT, "line 2: "},
        {"{\"text\": \"a\", \"text\": \"b\"}", TN_EFORMAT, "line 2: duplicate"},
        {"{\"text\": \"\xff\"}", TN_EFORMAT, "line 2: "},
        {"{'text': 'a'}", TN_EFORMAT, "line 2: "},
        {"[\"text\"]", TN_EFORMAT, "line 2: not a JSON object"},
        {"\"text\"", TN_EFORMAT, "line 2: "},
        {"{}", TN_EFORMAT, "line 2: neither \"text\""},
        {"{\"prompt\": \"a\"}", TN_EFORMAT, "line 2: neither \"text\""},
        {"{\"text\": 1}", TN_EFORMAT, "line 2: \"text\" is not a string"},
        {"{\"text\": \"\"}", TN_EFORMAT, "line 2: \"text\" is empty"},
        {"{\"prompt\": 1, \"completion\": \"a\"}", TN_EFORMAT, "\"prompt\" is not a string"},
        {"{\"prompt\": \"a\", \"completion\": [1]}", TN_EFORMAT, "\"completion\" is not a string"},
        {"{\"prompt\": \"a\", \"completion\": \"\"}", TN_EFORMAT, "\"completion\" is empty"},
        {"{\"messages\": {}}", TN_EFORMAT, "line 2: \"messages\" is not a list"},
        {"{\"messages\": []}", TN_EFORMAT, "line 2: \"messages\" is empty"},
        {"{\"messages\": [1]}", TN_EFORMAT, "line 2: a message is not an object"},
        {"{\"messages\": [{\"content\": \"a\"}]}", TN_EFORMAT, "\"role\" is missing"},
        {"{\"messages\": [{\"role\": 1}]}", TN_EFORMAT, "\"role\" is missing or not a string"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"tools\": 1}", TN_EFORMAT,
         "line 2: \"tools\" is not a list"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        tn_llm_data *d = (tn_llm_data *)1;
        char text[256];
        snprintf(text, sizeof text, "{\"text\": \"a\"}\n%s\n{\"text\": \"b\"}\n", wrong[i].line);
        is_i64(parse(text, NULL, &d), wrong[i].status, "wrong line: %s", wrong[i].line);
        ok(!d && strstr(tn_error(), "x.jsonl") && strstr(tn_error(), wrong[i].says), "says: %s",
           tn_error());
    }
}

static void is_wrong(const char *text, const tn_llm_data_opt *opt, int status, const char *says) {
    tn_llm_data *d = (tn_llm_data *)1;
    is_i64(parse(text, opt, &d), status, "refused: %s", says);
    ok(!d && strstr(tn_error(), says), "says: %s", tn_error());
}

static void test_wrong_options(void) {
    const tn_llm_data_opt mask = {.size = sizeof mask, .mask_prompt = true},
                          masked4 = {.size = sizeof mask, .mask_prompt = true, .max_tokens = 4},
                          one = {.size = sizeof one, .max_tokens = 1},
                          huge = {.size = sizeof huge, .max_tokens = (int64_t)1 << 40};
    is_wrong("", NULL, TN_EFORMAT, "x.jsonl: the file has no examples");
    is_wrong("{\"text\": \"a\"}", &mask, TN_EFORMAT, "line 1: a text has no prompt");
    is_wrong("{\"prompt\": \"ab\", \"completion\": \"cd\"}", &masked4, TN_EVALUE,
             "line 1: nothing is left to learn: of 7 tokens 4 are the prompt, and 4 are kept");
    is_wrong("{\"text\": \"a\"}", &one, TN_EVALUE, "1 tokens an example");
    is_wrong("{\"text\": \"a\"}", &huge, TN_EVALUE, "tokens an example");
}

static void test_long_lines(void) {
    enum { LIMIT = 16 << 20 };
    tn_llm_data *d;
    char *text = malloc(LIMIT + 2);
    MUST(text);
    memset(text, 'x', LIMIT + 2);
    memcpy(text, "{\"text\": \"ab", 12);
    memcpy(text + LIMIT - 2, "\"}\n ", 4);
    is_i64(tni_data_parse(model, "x.jsonl", text, LIMIT, NULL, &d), 0, "a line of 16 MiB");
    if (d) is_i64(d->ids.n, 2, "of one token that is in the vocabulary, and the end");
    tn_llm_data_free(d);
    text[LIMIT - 2] = 'x', memcpy(text + LIMIT - 1, "\"}\n", 3);
    is_i64(tni_data_parse(model, "x.jsonl", text, LIMIT + 2, NULL, &d), TN_EFORMAT,
           "one byte more");
    ok(!d && strstr(tn_error(), "x.jsonl, line 1: 16777217 bytes; 16777216 are possible"),
       "says: %s", tn_error());
    free(text);
}

/* JSON that is nested without end must not use up the stack. */
static void test_deep_lines(void) {
    enum { DEEP = 100000 };
    tn_llm_data *d;
    char *text = malloc(DEEP + 16);
    MUST(text);
    memset(text, '[', DEEP);
    strcpy(text, "{\"text\": ");
    text[9] = '[', text[DEEP] = 0;
    is_i64(parse(text, NULL, &d), TN_EFORMAT, "a hundred thousand lists in each other");
    ok(!d && strstr(tn_error(), "line 1"), "says: %s", tn_error());
    free(text);
}

/* ---- files and models ---- */

static void test_files(void) {
    char path[256];
    tn_llm_data *d = (tn_llm_data *)1;
    snprintf(path, sizeof path, "%s/train.jsonl", dir);
    is_i64(tn_llm_data_open(model, path, NULL, &d), TN_EFILE, "no such file");
    ok(!d && strstr(tn_error(), "train.jsonl"), "says: %s", tn_error());
    MUST(!tni_file_write(path, "{\"text\": \"a\"}\n", 14));
    is_i64(tn_llm_data_open(model, path, NULL, &d), 0, "a file");
    tn_llm_data_free(d);
    MUST(!tni_file_write(path, "", 0));
    is_i64(tn_llm_data_open(model, path, NULL, &d), TN_EFORMAT, "an empty file");
    ok(!d && strstr(tn_error(), "no examples"), "says: %s", tn_error());
    is_i64(tn_llm_data_open(model, dir, NULL, &d), TN_EFILE, "a folder");
    unlink(path);
}

static void test_models(void) {
    tn_llm *text, *mute, *full = model;
    tn_llm_data *d;
    char path[256], old[256];
    MUST(!tn_llm_open_tokenizer(dir, &text));
    model = text;
    is_i64(parse("{\"text\": \"ab\"}", NULL, &d), 0, "a tokenizer alone is enough");
    tn_llm_data_free(d);
    tn_llm_free(text);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    MUST(!unlink(path) && !tn_llm_open_tokenizer(dir, &text));
    model = text;
    is_example("{\"text\": \"ab\"}", NULL, "9", 0);
    is_wrong("{\"text\": \"xyz\"}", NULL, TN_EFORMAT, "line 1: the text has no tokens");
    is_wrong("{\"prompt\": \"a\", \"completion\": \"b\"}", NULL, TN_EFORMAT,
             "line 1: the model has no chat template");
    tn_llm_free(text);
    snprintf(old, sizeof old, "%s/tokenizer.json", dir);
    MUST(!unlink(old) && !tn_llm_open(dir, &mute));
    model = mute;
    is_wrong("{\"text\": \"a\"}", NULL, TN_ESTATE, "no tokenizer");
    tn_llm_free(mute);
    tiny_write(dir, "tokenizer.json", TINY_TOKENIZER, strlen(TINY_TOKENIZER));
    tiny_write(dir, "tokenizer_config.json", TINY_CHAT, strlen(TINY_CHAT));
    model = full;
}

/* ---- memory ---- */

static void test_failures(void) {
    static const char lines[] =
        "{\"text\": \"abcd\"}\n{\"prompt\": \"a\", \"completion\": \"b\", \"tools\": [{}]}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, "
        "{\"role\": \"assistant\", \"content\": \"b\"}]}\n";
    static const char texts[] = "{\"text\": \"abcd\"}\n{\"text\": \"x\"}\n";
    int failed = 0, wrong = 0, leaks = 0;
    for (int masked = 0; masked < 2; masked++) {
        tn_llm_data_opt o = {.size = sizeof o, .mask_prompt = masked};
        const char *from = masked ? strchr(lines, '\n') + 1 : lines;
        int status = TN_EMEMORY;
        for (int64_t n = 1; status; n++) {
            tn_llm_data *d = (tn_llm_data *)1;
            int64_t live = tni_alloc_live();
            tni_fail_alloc_at(n);
            status = parse(from, &o, &d);
            tni_fail_alloc_at(0);
            failed += status != 0;
            if (status && (status != TN_EMEMORY || d || !strstr(tn_error(), "memory")) && !wrong++)
                diag("allocation %d: status %d, \"%s\"", (int)n, status, tn_error());
            tn_llm_data_free(status ? NULL : d);
            if (tni_alloc_live() != live && !leaks++)
                diag("allocation %d leaves %d blocks", (int)n, (int)(tni_alloc_live() - live));
        }
    }
    tn_llm_data *d;
    MUST(!parse(texts, NULL, &d));
    tn_llm_data_free(d);
    ok(failed > 60, "%d readings failed, by one allocation each", failed);
    is_i64(wrong, 0, "each with TN_EMEMORY and a sentence");
    is_i64(leaks, 0, "and without a leak");
}

int main(void) {
    tiny_make(dir);
    MUST(!tn_llm_open(dir, &model));
    test_forms();
    test_several();
    test_wrong_lines();
    test_wrong_options();
    test_long_lines();
    test_deep_lines();
    test_files();
    test_models();
    test_failures();
    tn_llm_free(model);
    tiny_remove(dir);
    return tap_done();
}
