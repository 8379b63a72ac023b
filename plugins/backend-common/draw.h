/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-common/draw.h - a row of logits becomes a token: the definition of
 * pb_draw (patchbay/step.h) in plain C, compiled into each backend that draws on the host.
 *
 * It knows no step and no sequence. Invariant: the result depends on the row, the record and
 * nothing else - no libm, no thread count, no vector width, no earlier call - so that every
 * backend that uses it, and every device that reimplements it, draws the same token:
 *
 *   l[id]   = logits[id], after the edits of that id
 *   A       = allowed ids (all without a mask) with l > -infinity
 *   forced >= 0:      that id.   temperature 0: the id of A with the highest l, lowest id first
 *   z[id]   = (l[id] - max l over A) / temperature, in double
 *   w[id]   = floor(exp(z) * 2^40): whole numbers, so that sums have no order
 *   top_k   : keep the k first of A by (l descending, id ascending)
 *   top_p   : of these keep the shortest beginning, same order, whose w sum to
 *             >= ceil(top_p * sum of w); at least one
 *   min_p   : of these keep those with w >= min_p * 2^40; the first one always
 *   token   = argmax over the kept of z + gumbel(seed, pos, id), lowest id first
 *   gumbel  = -log(-log(u)), u = (hash(seed, pos, id) >> 12 + 0.5) / 2^52
 *   logprob = (logits[id] - max) - log(sum of floor(exp(logits - max) * 2^40) / 2^40), over
 *             all unedited logits: what the model said, before temperature and filters
 */
#ifndef PBC_DRAW_H
#define PBC_DRAW_H
#include <patchbay/step.h>

/* Bytes of scratch (aligned to 16) for rows of n_vocab logits. [any] */
size_t pbc_draw_scratch(int64_t n_vocab);

/* Draws from logits [n_vocab] (not written). *logprob is set if d->n_logprobs >= 0; it may be
 * NULL. PB_E_INVAL: no token is allowed, or forced is no id. PB_E_NUMERIC: NaN or infinity
 * where a probability is needed. [any] one scratch each */
int pbc_draw(const pb_draw *d, const float *logits, int64_t n_vocab, void *scratch, int32_t *id,
             float *logprob);

/* Index of the highest of n >= 1 logits, ties to the lower; -1 if none is above -infinity or
 * one of them is NaN. [any] */
int32_t pbc_argmax(const float *l, int64_t n);

/* Own functions: IEEE double operations only, equal bits everywhere. [any] */
double pbc_exp(double x); /* x <= 700; 0 below -708 */
double pbc_log(double x); /* x > 0, normal */
/* the noise of one token */
double pbc_gumbel(uint64_t seed, int64_t pos, int32_t id);
#endif
