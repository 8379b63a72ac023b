/* SPDX-License-Identifier: MIT
 *
 * core/account.h - memory given to one plugin instance, counted. Invariant: now equals the
 * bytes of the blocks that were not given back, and peak is the largest now ever.
 */
#ifndef PBI_ACCOUNT_H
#define PBI_ACCOUNT_H
#include <stddef.h>
#include <stdint.h>

typedef struct pbi_block pbi_block;
typedef struct pbi_account {
    pbi_block *buckets[64];
    int64_t *now, *peak;       /* where the sums live */
    int64_t n_blocks, fail_at; /* fail_at: this many allocations from now one fails; 0: off */
    const char *owner_slot, *owner_name; /* for messages */
} pbi_account;

/* Zeroed bytes aligned to align (0: 64), or NULL. 2 MiB and more lie on huge pages where the
 * system has them. tag: a literal or any string that outlives the block. [main] */
void *pbi_account_alloc(pbi_account *a, size_t bytes, size_t align, const char *tag);
/* Refuses, with a message, what was not handed out. */
void pbi_account_free(pbi_account *a, void *p);
/* Gives back everything that is left, reports each tag at WARN; returns the bytes. */
int64_t pbi_account_drain(pbi_account *a);

/* Log lines of the core and of plugins: "patchbay: attention-paged: msg" on stderr, if level is
 * at least PATCHBAY_LOG (debug, info, warn, error; default warn). [any] */
void pbi_log(int level, const char *slot, const char *name, const char *msg);
#endif
