/* SPDX-License-Identifier: MIT
 *
 * cli/arms.h - what compare and ablate have in common: pipelines that run the same requests, read
 * from the command line.
 */
#ifndef PBI_ARMS_H
#define PBI_ARMS_H
#include "cli.h"
#include "compare/trial.h"
#include "workload/workload.h"

typedef struct pbi_arms {
    pbi_common common;
    const char *file, *prompt, *workload_path, *cache, *report;
    pbi_texts workload_set;
    int64_t epochs, rounds, max_new, seed;
    double delta, until, max_time; /* percent, percent, seconds */
    pbi_requests requests;         /* or a workload */
    pbw_workload *workload;
    pbi_pipeline *pipelines[PBC_MAX_ARMS];
    char *names[PBC_MAX_ARMS];
    int n_arms;
} pbi_arms;

#define PBI_ARMS_DEFAULTS .rounds = 1, .max_new = 64, .seed = 1, .delta = 2, .cache = "cold"

/* the options of these; goes into a table of pbi_arg */
#define PBI_ARMS_ARGS(c)                                                                           \
    PBI_ARG_MODEL(&(c)->common), PBI_ARG_SET(&(c)->common),                                        \
        { .name = "--workload",                                                                    \
          .alias = "-w",                                                                           \
          .kind = PBI_ARG_TEXT,                                                                    \
          .out = &(c)->workload_path,                                                              \
          .value = "W.ini",                                                                        \
          .help = "requests drawn anew for each round (patchbay help workloads)" },                \
        { .name = "--workload-set",                                                                \
          .kind = PBI_ARG_LIST,                                                                    \
          .out = &(c)->workload_set,                                                               \
          .value = "KEY=VALUE",                                                                    \
          .help = "override one value of the workload; may be repeated" },                         \
        { .name = "--file",                                                                        \
          .alias = "-f",                                                                           \
          .kind = PBI_ARG_TEXT,                                                                    \
          .out = &(c)->file,                                                                       \
          .value = "FILE.jsonl",                                                                   \
          .help = "requests, one JSON object a line" },                                            \
        { .name = "--prompt",                                                                      \
          .alias = "-p",                                                                           \
          .kind = PBI_ARG_TEXT,                                                                    \
          .out = &(c)->prompt,                                                                     \
          .value = "TEXT",                                                                         \
          .help = "one request" },                                                                 \
        { .name = "--max-tokens",                                                                  \
          .alias = "-n",                                                                           \
          .kind = PBI_ARG_INT,                                                                     \
          .out = &(c)->max_new,                                                                    \
          .value = "N",                                                                            \
          .help = "new tokens of a request that does not say (64)" },                              \
        { .name = "--epochs",                                                                      \
          .kind = PBI_ARG_INT,                                                                     \
          .out = &(c)->epochs,                                                                     \
          .value = "N",                                                                            \
          .help = "times that all arms are created anew: the unit of the interval; 0: as many as " \
                  "an interval needs" },                                                           \
        { .name = "--rounds",                                                                      \
          .kind = PBI_ARG_INT,                                                                     \
          .out = &(c)->rounds,                                                                     \
          .value = "N",                                                                            \
          .help = "timed blocks of each arm in an epoch (1)" },                                    \
        { .name = "--until",                                                                       \
          .kind = PBI_ARG_FLOAT,                                                                   \
          .out = &(c)->until,                                                                      \
          .value = "PERCENT",                                                                      \
          .help = "go on until the interval of requests/s is this narrow, to either side" },       \
        { .name = "--max-time",                                                                    \
          .kind = PBI_ARG_FLOAT,                                                                   \
          .out = &(c)->max_time,                                                                   \
          .value = "SECONDS",                                                                      \
          .help = "begin no epoch after that" },                                                   \
        { .name = "--cache",                                                                       \
          .kind = PBI_ARG_TEXT,                                                                    \
          .out = &(c)->cache,                                                                      \
          .value = "STATE",                                                                        \
          .help = "before a block: cold (empty), warm (the same requests ran before) or natural "  \
                  "(as the block before left it)" },                                               \
        { .name = "--seed",                                                                        \
          .kind = PBI_ARG_INT,                                                                     \
          .out = &(c)->seed,                                                                       \
          .value = "N",                                                                            \
          .help = "of the order in which the arms run, and of the requests (1)" },                 \
        { .name = "--delta",                                                                       \
          .kind = PBI_ARG_FLOAT,                                                                   \
          .out = &(c)->delta,                                                                      \
          .value = "PERCENT",                                                                      \
          .help = "a tie is an interval within 1 +- this (2)" },                                   \
        { .name = "--report",                                                                      \
          .kind = PBI_ARG_TEXT,                                                                    \
          .out = &(c)->report,                                                                     \
          .value = "OUT.html",                                                                     \
          .help = "write a page with figures" },                                                   \
        PBI_ARG_JSON(&(c)->common)

/* PBI_GO, or the exit status of a wrong value, which was said. */
int pbi_arms_usage(const char *command, const pbi_arms *c);
/* Reads the requests or the workload. */
int pbi_arms_requests(pbi_arms *c, pb_err *err);
/* One more arm: the pipeline of path with settings "slot.key=value,..." (NULL: none) behind those
 * of --set. Its name is with, or path. */
int pbi_arms_add(pbi_arms *c, const char *path, const char *with, pb_err *err);
/* The last one: arm 0 once more, for A/A. */
int pbi_arms_again(pbi_arms *c, const char *path, const char *with, pb_err *err);
/* What they ask for; callbacks are left to the caller. */
pbc_options pbi_arms_options(pbi_arms *c);
/* Draws a workload, or always the same list. */
pbc_source pbi_arms_source(pbw_workload *w, pbi_requests *r);
void pbi_arms_clear(pbi_arms *c);
#endif
