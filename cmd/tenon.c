/* The program: finds the sub-command and runs it. */
#include "tenon/tenon.h"
#include "base/alloc.h"
#include "opt.h"
#include <jansson.h>
#include <signal.h>
#include <string.h>

extern const command cmd_generate, cmd_perplexity, cmd_finetune, cmd_fuse, cmd_tokenize, cmd_render,
    cmd_info;

const command *const commands[] = {&cmd_generate, &cmd_perplexity, &cmd_finetune, &cmd_fuse,
                                   &cmd_tokenize, &cmd_render,     &cmd_info,     NULL};

static void usage(FILE *to) {
    fputs("tenon " TN_VERSION ": language models on arrays in C\n\n", to);
    for (const command *const *c = commands; *c; c++)
        fprintf(to, "  tenon %-12s %s\n", (*c)->name, (*c)->summary);
    fputs("\ntenon COMMAND --help lists a command's options.\n", to);
}

static int dispatch(int argc, char **argv) {
    for (const command *const *c = commands; *c; c++)
        if (!strcmp((*c)->name, argv[1])) {
            int status = opt_parse(*c, argc - 2, argv + 2);
            return status ? status - 1 : (*c)->run();
        }
    if (!strcmp(argv[1], "man")) return opt_man(), EXIT_OK;
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"))
        return usage(stdout), EXIT_OK;
    if (!strcmp(argv[1], "--version")) return puts("tenon " TN_VERSION), EXIT_OK;
    cmd_usage("unknown command \"%s\"; tenon --help lists them", argv[1]);
    return EXIT_USAGE;
}

int main(int argc, char **argv) {
    /* The program owns its process, so it may route jansson's memory through the allocator that
     * tests make fail; the library itself leaves such global state alone. */
    json_set_alloc_funcs(tni_alloc, tni_free);
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) return usage(stderr), EXIT_USAGE;
    int status = dispatch(argc, argv);
    if (fflush(stdout) || ferror(stdout))
        return status ? status : cmd_fail("standard output cannot be written");
    return status;
}
