/* SPDX-License-Identifier: MIT
 *
 * core/stepbuild.h - makes the flat record of a step from its sequences, and checks one
 * against the pool. Runs nothing.
 *
 * Invariant: a step that passed pbi_step_check writes no page that anyone else can see and
 * reads no KV that was never written; it finds the culprit of a broken page table at the step
 * that would have read wrong KV, without looking at numbers.
 */
#ifndef PBI_STEPBUILD_H
#define PBI_STEPBUILD_H
#include "instance.h"
#include "pages.h"

/* One sequence's part of a step: tokens [n_valid, n_valid + n_tokens), then drafts. */
typedef struct pbi_step_item {
    const pb_seq *seq;
    int32_t n_tokens, n_draft;
    const int32_t *draft;
    int32_t want_from; /* of its rows, those from here on are wanted; n_tokens + n_draft: none */
    int32_t first_out; /* set by build: index of its first wanted row among the step's */
} pbi_step_item;

/* Grows, never shrinks: no allocation in steady state. Zeroed at first. */
typedef struct pbi_step_builder {
    char *buf;
    size_t cap;
    void *raw;
    const pb_attention *att;
    pbi_instance *att_in;
    pbi_call_stat *st_table;
    int log; /* calls of the attention plugin are printed */
    int32_t n_groups;
    const pb_kv_plan *plan;
} pbi_step_builder;

/* Writes step n with the pool's queued copies. *out lies in the builder, valid until the next
 * build or free. PB_E_PLUGIN: a table is too short. [step] */
int pbi_step_build(pbi_step_builder *b, uint64_t n, int32_t flags, int32_t n_items,
                   pbi_step_item *items, const pbi_pages *pages, const pb_step **out, pb_err *err);
void pbi_step_builder_free(pbi_step_builder *b);

/* What a step is checked against. */
typedef struct pbi_step_checker {
    const char *attention; /* "attention-paged": for messages; NULL: "step" */
    int32_t n_groups, n_vocab;
    const pb_kv_plan *plan;
    const int32_t *window; /* [n_groups] */
    pb_limits limits;
    pbi_pages *pages;   /* NULL: structure only */
    uint32_t epoch;     /* own state from here on; zeroed at first */
    uint32_t **written; /* [n_groups][n_pages] epoch in which the page was last written */
    int32_t **writer;   /* by which sequence of the step */
} pbi_step_checker;

int pbi_step_checker_init(pbi_step_checker *c, pb_err *err);
void pbi_step_checker_free(pbi_step_checker *c);
/* ids: [n_seqs] for messages, or NULL. PB_E_INTERNAL: the record is malformed. PB_E_PLUGIN: the
 * attention plugin's pages are wrong; names plugin, function, page and sequence. On success the
 * pool notes what each page will hold. [step] */
int pbi_step_check(pbi_step_checker *c, const pb_step *s, const uint64_t *ids, pb_err *err);
#endif
