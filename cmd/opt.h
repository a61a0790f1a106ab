/* Command-line options as tables: one row an option gives parsing, --help and the man page. */
#ifndef CMD_OPT_H
#define CMD_OPT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

typedef enum opt_kind { OPT_FLAG, OPT_STR, OPT_INT, OPT_NUM } opt_kind;

typedef struct opt {
    const char *name; /* "--temp" */
    opt_kind kind;
    void *value;     /* bool *, const char **, int64_t *, double *; holds the default */
    const char *arg; /* "T" in --temp T; NULL for flags */
    const char *help;
    double min, max; /* of numbers; both 0: any */
} opt;

typedef struct command {
    const char *name, *summary;
    const opt *opts; /* ends with a row without name */
    int (*run)(void);
} command;

extern const command *const commands[]; /* NULL-terminated */

/* 0: go on; else the status to exit with plus one (help asked for, or usage wrong). */
int opt_parse(const command *c, int argc, char **argv);
void opt_help(const command *c, FILE *to);
void opt_man(void); /* the program's man page, mdoc, to standard output */

/* A sentence on standard error that begins with the program's name; returns EXIT_FAILED. */
int cmd_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int cmd_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Whole of a file, or of standard input for "-"; NULL after cmd_fail. Freed with free(). */
char *cmd_read(const char *path, size_t *n);
void cmd_json_free(char *text); /* what json_dumps returned, whatever allocator jansson uses */
double cmd_seconds(void);
int64_t cmd_peak_bytes(void); /* most memory the process has held */
/* A line that is overwritten by the next, on a terminal only; NULL clears it. */
void cmd_progress(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
extern volatile int cmd_interrupted; /* set by Ctrl-C after cmd_catch_interrupt */
void cmd_catch_interrupt(void);

#endif
