/* SPDX-License-Identifier: MIT
 *
 * core/pages.h - the page pool of one runner behind service pages/1: free lists, references,
 * the queue of copies, accounting, poison. Mechanism only: which page is taken for what is
 * the attention plugin's affair.
 *
 * Invariant: a page is free exactly if it has no reference and no queued copy reads it. A
 * plugin's misuse is never carried out: it is recorded with the plugin's and function's name
 * (pbi_call_now) and reported by pbi_pages_fault at the end of the call.
 */
#ifndef PBI_PAGES_H
#define PBI_PAGES_H
#include "error.h"
#include <patchbay/attention.h>

typedef struct pbi_pages pbi_pages;

/* An empty pool, so that the service exists before the plan is known. owner is for messages
 * ("attention-paged"). [main] */
int pbi_pages_new(const char *owner, pbi_pages **out, pb_err *err);
/* Divides as planned; all pages free. May be called again: forgets everything. */
int pbi_pages_plan(pbi_pages *p, int32_t n_groups, const pb_kv_group *g, const pb_kv_plan *plan,
                   pb_err *err);
void pbi_pages_free(pbi_pages *p);
const pb_pages *pbi_pages_service(const pbi_pages *p);
/* Called for each page that became free; NULL: off. */
void pbi_pages_poison(pbi_pages *p, int (*fn)(void *arg, int32_t group, pb_page page), void *arg);

/* All references and copies are dropped: the instance that held them is gone. Returns how many
 * pages it had left taken. */
int64_t pbi_pages_clear(pbi_pages *p);
/* First misuse since the last call, or 0. PB_E_PLUGIN. [step] */
int pbi_pages_fault(pbi_pages *p, pb_err *err);

/* Copies queued for the step being built; n in *n. Valid until pbi_pages_step_done. */
const pb_copy *pbi_pages_copies(const pbi_pages *p, int32_t *n);
/* The step ran or was dropped: queue emptied, sources unpinned. */
void pbi_pages_step_done(pbi_pages *p);

int32_t pbi_pages_groups(const pbi_pages *p);
const pb_kv_plan *pbi_pages_planned(const pbi_pages *p, int32_t g);
int32_t pbi_pages_refs(const pbi_pages *p, int32_t g, pb_page page); /* -1: no such page */
int32_t pbi_pages_pins(const pbi_pages *p, int32_t g, pb_page page);
int32_t pbi_pages_n_free(const pbi_pages *p, int32_t g);
int32_t pbi_pages_n_unused(const pbi_pages *p, int32_t g); /* free, whatever the limit */
/* [n_pages] tokens that each page holds from its beginning, as the step checker noted; 0 when a
 * page is taken */
int32_t *pbi_pages_filled(pbi_pages *p, int32_t g);
int64_t pbi_pages_bytes_used(const pbi_pages *p);
/* bytes of one token's K and V in all layers */
double pbi_pages_token_bytes(const pbi_pages *p);
int64_t pbi_pages_bytes_peak(const pbi_pages *p);
void pbi_pages_peak_reset(pbi_pages *p);
/* tests: pretends that only n pages of each group exist, as long as more are not taken; 0: off */
void pbi_pages_limit(pbi_pages *p, int32_t n);
#endif
