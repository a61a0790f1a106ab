/* A tokenizer of ten tokens and a chat template for the tiny model of tiny_model.h, and a folder
 * with all of it. Letters that are no token are left out of what a text becomes. */
#ifndef TESTS_TINY_TEXT_H
#define TESTS_TINY_TEXT_H

#include "base/mmap.h"
#include "tiny_model.h"
#include <unistd.h>

/* "a" 2, "b" 3, "c" 4, "d" 5, " " 6, ":" 7, "?" 8, "ab" 9 */
#define TINY_TOKENIZER                                                                             \
    "{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true},"                          \
    "{\"id\":1,\"content\":\"</s>\",\"special\":true}],\"model\":{\"type\":\"BPE\",\"vocab\":{"    \
    "\"<s>\":0,\"</s>\":1,\"a\":2,\"b\":3,\"c\":4,\"d\":5,\" \":6,\":\":7,\"?\":8,\"ab\":9},"      \
    "\"merges\":[\"a b\"]},\"decoder\":{\"type\":\"Fuse\"}}"

/* User: ?text</s>; all others: :text</s>; tools are as many d before them. */
#define TINY_CHAT                                                                                  \
    "{\"eos_token\":\"</s>\",\"chat_template\":\"{% for t in tools or [] %}d{% endfor %}"          \
    "{% for m in messages %}{{ '?' if m.role == 'user' else ':' }}{{ m.content }}</s>"             \
    "{% endfor %}{% if add_generation_prompt %}:{% endif %}\"}"

static const char *const tiny_names[] = {"model.safetensors", "config.json", "tokenizer.json",
                                         "tokenizer_config.json"};

static inline void tiny_write(const char *folder, const char *name, const char *bytes, size_t n) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    MUST(!tni_file_write(path, bytes, n));
}

/* folder: a template of mkdtemp, made here. */
static inline void tiny_make(char *folder) {
    tni_str file = tiny_file();
    MUST(mkdtemp(folder));
    tiny_write(folder, tiny_names[0], file.v, file.n);
    tiny_write(folder, tiny_names[1], TINY_LLAMA, strlen(TINY_LLAMA));
    tiny_write(folder, tiny_names[2], TINY_TOKENIZER, strlen(TINY_TOKENIZER));
    tiny_write(folder, tiny_names[3], TINY_CHAT, strlen(TINY_CHAT));
    tni_str_free(&file);
}

static inline void tiny_remove(const char *folder) {
    char path[256];
    for (size_t i = 0; i < sizeof tiny_names / sizeof *tiny_names; i++)
        snprintf(path, sizeof path, "%s/%s", folder, tiny_names[i]), unlink(path);
    rmdir(folder);
}

#endif
