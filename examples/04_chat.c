/* A language model: 04_chat MODEL "What to say". The model's answer streams to standard output. */
#include <stdio.h>
#include <tenon/llm.h>
#include <tenon/tenon.h>

static int fail(void) { return fprintf(stderr, "%s\n", tn_error()), 1; }

/* Appends the tokens of a chat to the session, and prints what the model says to it. */
static int answer(tn_llm *m, tn_llm_session *s, const char *messages) {
    tn_llm_token token;
    int32_t *ids = NULL;
    const char *text;
    size_t n;
    int failed = tn_llm_chat(m, messages, NULL, &ids, &n);
    if (!failed) failed = tn_llm_prompt(s, ids, n, NULL, NULL);
    tn_llm_ids_free(ids);
    while (!failed && !(failed = tn_llm_next(s, NULL, &token)) && !tn_llm_is_end(m, token.id)) {
        failed = tn_llm_text(s, token.id, &text, &n);
        if (!failed) fwrite(text, 1, n, stdout);
    }
    return failed ? fail() : 0;
}

int main(int argc, char **argv) {
    char messages[4096];
    if (argc != 3) return fprintf(stderr, "usage: 04_chat MODEL TEXT\n"), 2;
    /* JSON; the text must have no quotes or backslashes in this small program. */
    snprintf(messages, sizeof messages, "[{\"role\": \"user\", \"content\": \"%s\"}]", argv[2]);
    tn_llm *m = NULL;
    tn_llm_session *s = NULL;
    int failed = tn_llm_open(argv[1], &m) || tn_llm_session_new(m, NULL, &s) ? fail() : 0;
    if (!failed) failed = answer(m, s, messages);
    puts("");
    tn_llm_session_free(s);
    tn_llm_free(m);
    return failed;
}
