/* SPDX-License-Identifier: MIT
 *
 * cli/cli.h - what the commands share. A command is one line in cli/commands.inc and a
 * function pbi_cmd_NAME in a file of its own that cli/Makefile.inc lists.
 *
 * Invariant: answers go to stdout, everything else to stderr; with --json stdout holds one
 * JSON value and nothing else.
 */
#ifndef PBI_CLI_H
#define PBI_CLI_H
#include "error.h"
#include "pipeline.h"
#include <jansson.h>
#include <stdio.h>

/* argv[0] is the command's name. Returns the exit status: 0, or as patchbay(1) lists. */
typedef int pbi_command_fn(int argc, char **argv);
typedef struct pbi_command {
    const char *name, *usage, *summary; /* usage: what follows the name */
    pbi_command_fn *fn;
} pbi_command;
extern const pbi_command pbi_commands[]; /* ends with name == NULL */
const pbi_command *pbi_command_find(const char *name);
#define PBI_COMMAND(name, usage, summary) int pbi_cmd_##name(int argc, char **argv);
#include "commands.inc"
#undef PBI_COMMAND

/* ---- options of a command (args.c) ------------------------------------- */

typedef struct pbi_texts {
    const char **s; /* strings of argv, array malloc'ed */
    int n;
} pbi_texts;

/* out: FLAG int*, TEXT const char**, INT int64_t*, FLOAT double*, LIST pbi_texts* */
enum { PBI_ARG_FLAG = 1, PBI_ARG_TEXT, PBI_ARG_INT, PBI_ARG_FLOAT, PBI_ARG_LIST };
typedef struct pbi_arg {
    const char *name, *alias; /* "--max-tokens", "-n"; alias or NULL */
    int kind;
    void *out;
    const char *value, *help; /* value: "N" in the help; NULL for a flag */
} pbi_arg;
#define PBI_ARGS_END                                                                               \
    {                                                                                              \
        .name = NULL                                                                               \
    }

/* Options that most commands have: a pipeline, a model, --set, --json. */
typedef struct pbi_common {
    const char *pipeline, *model;
    pbi_texts set;
    int json;
} pbi_common;
#define PBI_ARG_PIPELINE(c)                                                                        \
    {                                                                                              \
        .name = "--config", .alias = "-c", .kind = PBI_ARG_TEXT, .out = &(c)->pipeline,            \
        .value = "P.ini", .help = "the pipeline"                                                   \
    }
#define PBI_ARG_MODEL(c)                                                                           \
    {                                                                                              \
        .name = "--model", .alias = "-m", .kind = PBI_ARG_TEXT, .out = &(c)->model,                \
        .value = "FILE", .help = "the model"                                                       \
    }
#define PBI_ARG_SET(c)                                                                             \
    {                                                                                              \
        .name = "--set", .kind = PBI_ARG_LIST, .out = &(c)->set, .value = "SLOT.KEY=VALUE",        \
        .help = "override one value of the pipeline; may be repeated"                              \
    }
#define PBI_ARG_JSON(c)                                                                            \
    {                                                                                              \
        .name = "--json", .kind = PBI_ARG_FLAG, .out = &(c)->json, .help = "print one JSON value"  \
    }

/* Reads options anywhere, "--" ends them; positional words are moved to argv[1..*n_words] in
 * order ("-" is one). "--x=v", "--x v", "-xv" all work. Returns PBI_GO, or the exit status when
 * --help was printed or something was wrong (then said). table may be NULL-terminated empty. */
enum { PBI_GO = -1 };
int pbi_args(int argc, char **argv, const pbi_arg *table, int *n_words);

/* ---- messages ---------------------------------------------------------- */

/* "patchbay COMMAND: user mistake: ..." on stderr; returns the exit status of err->code. */
int pbi_fail(const char *command, const pb_err *err);
/* A mistake on the command line; returns 2. */
int pbi_usage(const char *command, const char *fmt, ...) PBI_PRINTF(2, 3);
/* Loads c->pipeline (empty one with defaults when NULL) with c->set. */
int pbi_common_load(const pbi_common *c, pbi_pipeline **out, pb_err *err);
/* Prints one JSON value and a newline on stdout, frees it; returns 0, or 6 if stdout fails. */
int pbi_print_json(json_t *value);
/* The pipeline as JSON: path, numeric_key, slots with plugins, hashes, options and origins. */
json_t *pbi_pipeline_json(const pbi_pipeline *p);
/* The effective pipeline as an INI that says the same. */
void pbi_print_pipeline(FILE *f, const pbi_pipeline *p);
/* What differs: {differences: [{name, a, b, a_origin, b_origin, may_change_output}],
 * same_numeric_key, a_numeric_key, b_numeric_key}; NULL without memory. */
json_t *pbi_pipeline_diff(const pbi_pipeline *a, const pbi_pipeline *b);
/* Options of a table as JSON: name, type, default, range, unit, help, may_change_output. */
json_t *pbi_options_json(const pb_option *table);
/* "exact", "numeric", "distribution", "lossy" */
const char *pbi_class_name(uint32_t flags);
#endif
