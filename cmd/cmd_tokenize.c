/* tenon tokenize and tenon render: text to tokens and back, and a chat template's text. */
#include "opt.h"
#include "tenon/llm.h"
#include "tenon/tenon.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *tok_model, *tok_messages;
static bool tok_decode, tok_no_special, tok_no_generation;

static const opt tok_opts[] = {
    {"--model", OPT_STR, &tok_model, "PATH", "GGUF file, Hugging Face folder or tokenizer.json", 0,
     0},
    {"--decode", OPT_FLAG, &tok_decode, NULL, "the other way: ids to text", 0, 0},
    {"--no-special", OPT_FLAG, &tok_no_special, NULL,
     "special tokens in the text are plain text; with --decode: leave them out", 0, 0},
    {NULL, OPT_FLAG, NULL, NULL, NULL, 0, 0},
};

static const opt ren_opts[] = {
    {"--model", OPT_STR, &tok_model, "PATH", "GGUF file or Hugging Face folder", 0, 0},
    {"--messages", OPT_STR, &tok_messages, "FILE",
     "JSON list of {\"role\", \"content\"}; - reads standard input", 0, 0},
    {"--no-generation-prompt", OPT_FLAG, &tok_no_generation, NULL, "do not begin the answer", 0, 0},
    {NULL, OPT_FLAG, NULL, NULL, NULL, 0, 0},
};

static int tok_encode(const tn_llm *m, const char *text, size_t n) {
    int32_t *ids;
    size_t n_ids;
    if (tn_llm_tokenize(m, text, n, tok_no_special ? 0 : TN_TEXT_SPECIAL, &ids, &n_ids))
        return cmd_fail("%s", tn_error());
    for (size_t i = 0; i < n_ids; i++) printf(i ? " %d" : "%d", ids[i]);
    putchar('\n');
    tn_llm_ids_free(ids);
    return 0;
}

/* Numbers separated by white space; -1 after cmd_fail. */
static int64_t tok_parse_ids(const char *text, int32_t *ids) {
    int64_t n = 0;
    for (const char *p = text;; n++) {
        p += strspn(p, " \t\r\n");
        if (!*p) return n;
        char *end;
        errno = 0;
        long long v = strtoll(p, &end, 10);
        if (end == p || errno || v < 0 || v > INT32_MAX || (*end && !strchr(" \t\r\n", *end)))
            return cmd_fail("standard input: \"%.*s\" is not a token id (number %lld)",
                            (int)strcspn(p, " \t\r\n"), p, (long long)n),
                   -1;
        ids[n] = (int32_t)v;
        p = end;
    }
}

static int tok_print_text(char *text, size_t n) {
    fwrite(text, 1, n, stdout);
    tn_llm_text_free(text);
    return 0;
}

static int tok_decode_ids(const tn_llm *m, const char *input, size_t n) {
    int32_t *ids = malloc(sizeof *ids * (n / 2 + 1));
    if (!ids) return cmd_fail("out of memory");
    char *text;
    size_t n_text;
    int64_t count = tok_parse_ids(input, ids);
    int status = count < 0 ? EXIT_FAILED : 0;
    if (!status && tn_llm_detokenize(m, ids, (size_t)count, tok_no_special, &text, &n_text))
        status = cmd_fail("%s", tn_error());
    free(ids);
    return status ? status : tok_print_text(text, n_text);
}

static int tok_run(void) {
    if (!tok_model) return cmd_usage("tokenize: --model is needed");
    size_t n;
    tn_llm *m = NULL;
    if (tn_llm_open_tokenizer(tok_model, &m)) return cmd_fail("%s", tn_error());
    char *input = cmd_read("-", &n);
    int status = !input       ? EXIT_FAILED
                 : tok_decode ? tok_decode_ids(m, input, n)
                              : tok_encode(m, input, n);
    free(input);
    tn_llm_free(m);
    return status;
}

static int ren_run(void) {
    if (!tok_model || !tok_messages) return cmd_usage("render: --model and --messages are needed");
    size_t n, n_text;
    tn_llm *m = NULL;
    char *messages = cmd_read(tok_messages, &n), *text;
    if (!messages) return EXIT_FAILED;
    tn_llm_chat_opt co = {.size = sizeof co, .no_generation_prompt = tok_no_generation};
    int status = 0;
    if (tn_llm_open_tokenizer(tok_model, &m) || tn_llm_render(m, messages, &co, &text, &n_text))
        status = cmd_fail("%s", tn_error());
    free(messages);
    tn_llm_free(m);
    return status ? status : tok_print_text(text, n_text);
}

extern const command cmd_tokenize, cmd_render;
const command cmd_tokenize = {"tokenize", "text on standard input to token ids, and back", tok_opts,
                              tok_run};
const command cmd_render = {"render", "show what the chat template makes of messages", ren_opts,
                            ren_run};
