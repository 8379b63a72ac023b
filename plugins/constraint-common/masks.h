/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-common/masks.h - what the three grammar constraints share once they have a
 * grammar: states of slots, masks of states, the call mask(), options and counters.
 *
 * The answer alone is constrained, not the prompt. The end of sequence is allowed where the text
 * may end and nowhere else. After a draft token that is not allowed nothing is allowed.
 * Invariant: a mask is a function of the grammar and the answer's tokens; slots and masks are
 * caches that may be lost at any time.
 */
#ifndef PBC_MASKS_H
#define PBC_MASKS_H
#include "vocab.h"

typedef struct pbc_config { /* values of options that all three have */
    int64_t max_states, max_depth, cache;
} pbc_config;

typedef struct pbc_stats {
    int64_t rows, walks, states, dropped, forgotten;
} pbc_stats;

typedef struct pbc_slot { /* cache: the state after the sequence's first n tokens */
    uint64_t id;
    int64_t n, n_prompt;
    int32_t last, state;
} pbc_slot;

typedef struct pbc_masks {
    const pb_host *host;
    const pb_text *text;
    pbc_config cfg;
    pbc_stats *st;
    pbc_grammar g;
    pbc_machine m;
    pbc_vocab v;
    pbc_slot *slot;
    int32_t n_slots, words, n_masks, at; /* at: the next mask to give up */
    uint32_t *mask;                      /* [n_masks][words] */
    int32_t *owner;                      /* [n_masks] state, or -1 */
    int32_t *mask_of;                    /* [max_states] mask, or -1 */
    int said;                            /* the limit was logged */
} pbc_masks;

/* [main] Makes *out and an empty grammar in it for the caller to fill; host->stats is a pbc_stats.
 * On an error of its own the caller calls pbc_masks_destroy. */
int pbc_masks_create(const pb_host *host, pbc_config cfg, const char *who, pbc_masks **out,
                     pb_err *err);
/* [main] Takes the filled grammar. complete: no recursion, build the whole DFA now. */
int pbc_masks_compile(pbc_masks *k, int32_t root, int complete, pb_err *err);
/* Functions of the descriptor and of constraint/1. */
int pbc_masks_start(void *self, const pb_run *run, pb_err *err);
int pbc_masks_reset(void *self);
void pbc_masks_stop(void *self);
void pbc_masks_destroy(void *self);
int pbc_masks_mask(void *self, int32_t n, const pb_pick *p, uint32_t *bits, int64_t words);

/* [main] A file of at most 1 MiB, 0-terminated, from host; *n without the 0. 0 or PB_E_*. */
int pbc_read_file(const pb_host *host, const char *who, const char *path, char **out, size_t *n,
                  pb_err *err);

#define PBC_STATES(T, def)                                                                         \
    PB_INT(                                                                                        \
        T, max_states, def, "64", "65536", 0, "states",                                            \
        "limit on states of the machine, about 1 KiB each; what does not fit is an error or is "   \
        "computed again, a text never changes with it")
#define PBC_DEPTH(T)                                                                               \
    PB_INT(T, max_depth, "256", "8", "100000", PB_O_OUTPUT, "levels",                              \
           "limit on nested rules; a token that would nest deeper is not allowed")
#define PBC_CACHE(T)                                                                               \
    PB_BYTES(                                                                                      \
        T, cache, "32M", "64K", "4G", 0,                                                           \
        "memory for masks, a bit for each token of the vocabulary; a state that is met again "     \
        "finds its mask here in microseconds")

#define PBC_COUNTERS                                                                               \
    PB_COUNTER(pbc_stats, rows, PB_C_ENGAGED, "rows", "rows masked"),                              \
        PB_COUNTER(pbc_stats, walks, 0, "walks", "masks computed: rows whose state was new"),      \
        PB_COUNTER(pbc_stats, states, PB_C_GAUGE, "states", "states of the machine so far"),       \
        PB_COUNTER(pbc_stats, dropped, 0, "stacks", "continuations cut off by max_depth"),         \
        PB_COUNTER(pbc_stats, forgotten, 0, "times", "max_states was full, states began anew")
#endif
