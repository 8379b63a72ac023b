/* SPDX-License-Identifier: MIT
 *
 * core/conform.h - does a plugin keep its contract? The checks behind `patchbay lint`, each
 * with a name; the plugin runs alone, on services made for the purpose, without an engine.
 *
 * Not a test of speed or of a whole pipeline. Invariant: a check judges what the headers of
 * include/patchbay demand and nothing else; the same seed gives the same run.
 */
#ifndef PBI_CONFORM_H
#define PBI_CONFORM_H
#include "account.h"
#include "error.h"
#include "loader.h"

/* ---- checks ------------------------------------------------------------ */

enum { PBI_PASS = 0, PBI_SKIP, PBI_WARN, PBI_FAIL, PBI_CRASH, PBI_TIMEOUT };

/* What a check is given and what it says. */
typedef struct pbi_lint {
    const char *path;
    const pbi_library *lib; /* NULL for checks with before_load */
    uint64_t seed;
    char *text; /* why not PASS; [n_text] */
    size_t n_text;
} pbi_lint;

typedef struct pbi_check {
    const char *name, *slot; /* slot: NULL = every plugin */
    const char *what;        /* one line for people */
    int before_load;         /* reads the file, opens no library */
    int (*run)(pbi_lint *l); /* PBI_PASS .. PBI_FAIL */
} pbi_check;
extern const pbi_check pbi_checks[];
extern const int pbi_n_checks;

typedef struct pbi_finding {
    const pbi_check *check;
    int status;
    double seconds;
    char slot[32], name[64]; /* of the plugin; empty if it does not load */
    char text[600];
} pbi_finding;

/* Runs one check in a forked child, so that a crash or a hang is a finding (in_process: here,
 * for debuggers). PBI_SKIP if the plugin fills another slot. [main] */
void pbi_conform_run(const pbi_check *c, const char *path, uint64_t seed, int in_process,
                     int timeout_s, pbi_finding *out);
const char *pbi_status_name(int status);

/* Writes l->text and returns status, so that `return pbi_say(...)` works. */
int pbi_say(pbi_lint *l, int status, const char *fmt, ...) PBI_PRINTF(3, 4);

/* ---- a plugin on a test bench ------------------------------------------ */

enum { PBI_RIG_SEQS = 8, PBI_RIG_ROWS = 64, PBI_RIG_CTX = 256, PBI_RIG_VOCAB = 500 };

/* One instance with guarded memory: each block has a fence on both sides. */
typedef struct pbi_rig {
    const pbi_library *lib;
    const pb_plugin *desc;
    pb_host host;
    void *config, *stats, *self;
    char *texts; /* option values that config points into */
    pbi_account account;
    struct pbi_rig_block *blocks; /* live ones */
    int64_t now, peak, n_allocs;
    const pb_pages *pages; /* pages/1 for attention plugins; set before create */
    pb_team team;
    pb_text text;
    int64_t clock;
    int created, started;
    char fault[200]; /* first misuse of the host's services; "" */
} pbi_rig;

/* A config from defaults and n_set texts "key=value"; nothing is called but check(). [main] */
int pbi_rig_init(pbi_rig *r, const pbi_library *lib, int n_set, const char *const *set,
                 pb_err *err);
int pbi_rig_create(pbi_rig *r, pb_err *err);
int pbi_rig_start(pbi_rig *r, pb_err *err);
/* stop and destroy; returns the bytes that were not freed (they are freed here). */
int64_t pbi_rig_destroy(pbi_rig *r);
/* Destroys and frees all; 0 if the plugin used the host's services well and leaked nothing,
 * else the reason in err. */
int pbi_rig_done(pbi_rig *r, pb_err *err);
/* init + create + start */
int pbi_rig_open(pbi_rig *r, const pbi_library *lib, int n_set, const char *const *set,
                 pb_err *err);
const void *pbi_rig_iface(const pbi_rig *r, const char *id);
/* Names the function that a crash is attributed to. */
void pbi_rig_at(const pbi_rig *r, const char *function);

/* A seeded generator for checks. */
uint64_t pbi_rig_random(uint64_t *state);
int64_t pbi_rig_below(uint64_t *state, int64_t n);

/* ---- role checks that tests call too ----------------------------------- */

/* Model-based run of an attention plugin: random admissions, growth, drafts, preemptions and
 * aborts of sequences with shared beginnings, against a model of what every page holds. 0, or
 * PB_E_PLUGIN with step and reason. */
int pbi_conform_attention(const pbi_library *lib, int n_set, const char *const *set, uint64_t seed,
                          int n_steps, pb_err *err);
/* Property run of a scheduler: plans are valid, every sequence finishes, victims are younger. */
int pbi_conform_scheduler(const pbi_library *lib, int n_set, const char *const *set, uint64_t seed,
                          pb_err *err);
#endif
