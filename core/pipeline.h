/* SPDX-License-Identifier: MIT
 *
 * core/pipeline.h - an INI pipeline, resolved: which plugin fills each slot, every
 * option's effective value and where it came from. Loads libraries to read their
 * tables; creates no instance and reads no weights. Invariant: a pbi_pipeline that
 * was handed out is complete, typed, in range and composable.
 */
#ifndef PBI_PIPELINE_H
#define PBI_PIPELINE_H
#include "loader.h"

/* [pipeline]: options of the core itself; table in pbi_core_options */
typedef struct pbi_core_config {
    int64_t threads;  /* 0: all cores; never changes a token */
    int64_t context;  /* tokens a sequence may have; 0: the model's own. PB_O_OUTPUT */
    int64_t max_seqs; /* sequences that run at once */
    int64_t max_rows; /* rows of a step */
    int64_t kv_bytes; /* KV arena */
    int32_t paranoid; /* validate each step, poison free pages, check when idle */
    int64_t seed;     /* default seed of sampled requests */
} pbi_core_config;
extern const pb_option pbi_core_options[];

typedef struct pbi_setting {
    const pb_option *opt;
    char *text;   /* effective value, canonical */
    char *origin; /* "default", "conf/hash.ini:12", "--set" */
} pbi_setting;

/* One plugin in use, with its config. */
typedef struct pbi_use {
    const char *slot, *name;
    char *origin; /* where plugin = was written */
    const pbi_library *lib;
    void *config; /* lib->desc->config_size bytes */
    int n_settings;
    pbi_setting *settings;
} pbi_use;

typedef struct pbi_pipeline {
    int refs;
    char *path;
    pbi_core_config core;
    int n_core_settings;
    pbi_setting *core_settings;
    int n_uses;
    pbi_use **uses; /* in pbi_slots order, list slots in the INI's order */
} pbi_pipeline;

/* Reads path and its bases, applies n_set texts "slot.key=value" ("attention=radix" is
 * "attention.plugin=radix"), loads and checks. Errors carry file:line. Slots that the INI does
 * not name and that are mandatory get the defaults: model llama, weights gguf, backend cpu,
 * attention contiguous, scheduler continuous, sampler greedy, process inline. [main] */
int pbi_pipeline_load(const char *path, int n_set, const char *const *set, pbi_pipeline **out,
                      pb_err *err);
/* The same from text; path is used in messages and for base =. */
int pbi_pipeline_parse(const char *text, const char *path, int n_set, const char *const *set,
                       pbi_pipeline **out, pb_err *err);
/* Another owner of p: it goes when each has freed it. An arm is one, so that those who share its
 * device need not care whose pipeline that was made from. Returns p. */
const pbi_pipeline *pbi_pipeline_retain(const pbi_pipeline *p);
void pbi_pipeline_free(const pbi_pipeline *p);
/* i-th use of a slot (0 based), or NULL */
const pbi_use *pbi_pipeline_use(const pbi_pipeline *p, const char *slot, int i);
/* Numeric key: "cpu activations=q8 kv=f16 ..." of all PB_O_OUTPUT options of backend and core
 * (options of sampler, output, constraint and others that declare their own class are listed
 * after it). Written to buf, always terminated; *hash may be NULL. */
void pbi_pipeline_numeric_key(const pbi_pipeline *p, char *buf, size_t n, uint64_t *hash);
#endif
