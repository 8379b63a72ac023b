/* SPDX-License-Identifier: MIT
 *
 * workload/made.c - kinds of workloads that are made up: uniform, shared-prefix, mix, multi-turn.
 *
 * What requests share is drawn from the workload's own seed and stays the same from draw to draw,
 * as a system prompt does; the rest is drawn from the seed of the draw.
 */
#include "impl.h"

enum { TAG_OWN = 1, TAG_PREFIX, TAG_LENGTH, TAG_FIRST, TAG_TURN, TAG_ANSWER };
enum { MAX_TURNS = 64 };

/* what group g shares */
static pbw_part shared(const pbw_draws *d, int64_t g, pbw_range length)
{
    uint64_t wide = (uint64_t)d->w->c.seed, state = pbw_mix(wide, TAG_LENGTH, (uint64_t)g);
    return (pbw_part){ .tag = pbw_mix(wide, TAG_PREFIX, (uint64_t)g),
                       .n = pbw_between(&state, length) };
}

static int uniform(pbw_draws *d, int64_t i)
{
    pbw_part p = { pbw_mix(d->seed, TAG_OWN, (uint64_t)i), pbw_between(&d->rng, d->w->prompt) };
    return pbw_emit(d, 1, &p, pbw_between(&d->rng, d->w->output), -1, 0, 0, NULL);
}

static int shared_prefix(pbw_draws *d, int64_t i)
{
    const pbw_workload *w = d->w;
    pbw_range groups = { 0, w->c.groups - 1 };
    pbw_part p[2] = { shared(d, pbw_between(&d->rng, groups), w->prefix) };
    p[1] = (pbw_part){ pbw_mix(d->seed, TAG_OWN, (uint64_t)i), pbw_between(&d->rng, w->own) };
    return pbw_emit(d, 2, p, pbw_between(&d->rng, w->output), -1, 0, 0, NULL);
}

static int mix(pbw_draws *d, int64_t i)
{
    const pbw_workload *w = d->w;
    int is_long = pbw_unit(&d->rng) < w->c.long_share;
    pbw_part p = { pbw_mix(d->seed, TAG_OWN, (uint64_t)i),
                   pbw_between(&d->rng, is_long ? w->long_prompt : w->prompt) };
    return pbw_emit(d, 1, &p, pbw_between(&d->rng, is_long ? w->long_output : w->output), -1, 0, 0,
                    NULL);
}

/* All turns of a conversation. The answers in the prompts are made up as well: those of the model
 * would make a request depend on the run. */
static int conversation(pbw_draws *d, int64_t c, int64_t n_turns)
{
    const pbw_workload *w = d->w;
    pbw_part p[2 + 2 * MAX_TURNS];
    pbw_range groups = { 0, w->c.groups - 1 };
    uint64_t own = pbw_mix(d->seed, TAG_FIRST, (uint64_t)c);
    int64_t before = 0, at = -1;
    int n = 0, rc = 0;
    p[n++] = shared(d, pbw_between(&d->rng, groups), w->system);
    p[n++] = (pbw_part){ own, pbw_between(&d->rng, w->first) };
    for (int64_t t = 0; t < n_turns && !rc; t++) {
        int64_t out = pbw_between(&d->rng, w->output);
        rc = pbw_emit(d, n, p, out, -1, before, w->c.think_ms, &at);
        if (rc || at < 0)
            break; /* what follows is longer still */
        before = at + 1;
        p[n++] = (pbw_part){ pbw_mix(own, TAG_ANSWER, (uint64_t)t), out };
        p[n++] = (pbw_part){ pbw_mix(own, TAG_TURN, (uint64_t)t), pbw_between(&d->rng, w->turn) };
    }
    return rc;
}

int pbw_draw_made(pbw_draws *d)
{
    const pbw_config *c = &d->w->c;
    int rc = 0;
    for (int64_t i = 0; i < c->requests && !rc;) {
        int64_t left = c->requests - i, n = c->kind == PBW_MULTI_TURN ? c->turns : 1;
        switch (c->kind) {
        case PBW_UNIFORM: rc = uniform(d, i); break;
        case PBW_SHARED_PREFIX: rc = shared_prefix(d, i); break;
        case PBW_MIX: rc = mix(d, i); break;
        default: rc = conversation(d, i, n < left ? n : left); break;
        }
        i += n;
    }
    return rc;
}
