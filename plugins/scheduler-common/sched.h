/* SPDX-License-Identifier: MIT
 *
 * plugins/scheduler-common/sched.h - small rules that the schedulers share. Pure functions of a
 * view; no scheduler keeps anything between two calls.
 */
#ifndef PSC_SCHED_H
#define PSC_SCHED_H
#include <patchbay/policy.h>

static inline int64_t psc_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Drafts that are of use to s, at most `rows`: after the last token that it may have none comes. */
static inline int32_t psc_drafts(const pb_view *v, const pb_seq *s, int32_t rows)
{
    int64_t n = psc_min(v->max_draft, rows);
    if (s->max_new >= 0)
        n = psc_min(n, s->max_new - (s->n_tokens - s->n_prompt) - 1);
    return n > 0 ? (int32_t)n : 0;
}

/* Gives drafts to the planned decode rows, first come first served; returns the rows left. */
static inline int32_t psc_give_drafts(const pb_view *v, pb_plan *out, int32_t n, int32_t rows)
{
    for (int32_t i = 0; i < n && rows > 0 && v->max_draft > 0; i++)
        if (out[i].n_tokens == 1 && out[i].seq->n_left == 1) {
            out[i].n_draft = psc_drafts(v, out[i].seq, rows);
            rows -= out[i].n_draft;
        }
    return rows;
}

/* Takes plans without tokens out; returns the number that stays. */
static inline int32_t psc_drop_empty(pb_plan *out, int32_t n)
{
    int32_t m = 0;
    for (int32_t i = 0; i < n; i++)
        if (out[i].n_tokens > 0)
            out[m++] = out[i];
    return m;
}

/* The youngest running sequence if it is younger than the one in need, else -1: so the oldest is
 * never preempted, and every sequence becomes the oldest in time. */
static inline int32_t psc_youngest(const pb_view *v, const pb_seq *needs)
{
    for (int32_t i = 0; i < v->n_running - 1; i++)
        if (v->running[i] == needs)
            return v->n_running - 1;
    return -1;
}

/* Tokens of waiting s that must be computed if it is admitted now. */
static inline int64_t psc_to_compute(const pb_view *v, const pb_seq *s)
{
    int64_t in_flight = 0, cached = v->match ? v->match(v->h, s, &in_flight) : 0;
    return cached < s->n_tokens ? s->n_tokens - cached : 1;
}
#endif
