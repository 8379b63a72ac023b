/* SPDX-License-Identifier: MIT
 *
 * plugins/attention-common/plan.h - divides a KV budget into pages, for every attention
 * plugin. Knows no sequence. Invariant: a plan that was handed out fits the budget and holds
 * at least one sequence of max_ctx tokens in every group, so that whoever runs alone can end.
 */
#ifndef PBA_PLAN_H
#define PBA_PLAN_H
#include <patchbay/attention.h>

enum { PBA_MAX_GROUPS = 8 };

/* Fills out[0..n_groups): pages of page_tokens tokens in every group (0: one page a sequence,
 * max_ctx rounded up to the group's granule), the same number in each, the sink included.
 * max_pages: more are of no use to the caller (0: no such bound). who: the plugin, for messages.
 * PB_E_INVAL: page size against granule, or bad arguments; PB_E_NOMEM: the budget is too small,
 * and says what would do. [main] */
int pba_plan(const char *who, int64_t page_tokens, int64_t max_pages, int32_t n_groups,
             const pb_kv_group *g, int64_t budget, int32_t max_ctx, pb_kv_plan *out, pb_err *err);

/* snprintf into err, as the setup calls of plugins do; returns code. err may be NULL. */
int pba_fail(pb_err *err, int code, const char *fmt, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;
#endif
