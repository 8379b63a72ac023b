/* SPDX-License-Identifier: MIT
 *
 * core/conform_policy.c - sampler, constraint, spec and output on a bench: are answers within
 * their limits, inside their memory, and the same whoever else is in the batch?
 *
 * The last one is what keeps tokens independent of batching: a sequence asked alone, in
 * another order, in another slot, or of a fresh instance must get the same answer.
 */
#define _GNU_SOURCE 1
#include "conform_checks.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    SEQS = 6,
    PICKS = 18, /* three rows a sequence: none, one and two unverified tokens */
    TOKENS = 120,
    V = PBI_RIG_VOCAB,
    WORDS = (V + 31) / 32,
    GUARD = 8
};

typedef struct crowd {
    pb_seq seq[SEQS];
    pb_params params[SEQS];
    int32_t tokens[SEQS][TOKENS], tail[SEQS][2];
    pb_pick pick[PICKS];
} crowd;

static void make_crowd(crowd *c, uint64_t seed)
{
    *c = (crowd){ 0 };
    for (int i = 0; i < SEQS; i++) {
        int64_t n = 4 + pbi_rig_below(&seed, TOKENS - 4);
        int period = 2 + (int)pbi_rig_below(&seed, 9); /* repeats, for n-grams and penalties */
        for (int k = 0; k < n; k++)
            c->tokens[i][k] = k < period || pbi_rig_below(&seed, 12) == 0
                                  ? (int32_t)pbi_rig_below(&seed, V)
                                  : c->tokens[i][k - period];
        c->params[i] = (pb_params){ .size = sizeof(pb_params),
                                    .temperature = i % 2 ? NAN : 0.5f + 0.25f * (float)i,
                                    .top_p = i % 3 ? NAN : 0.9f,
                                    .min_p = NAN,
                                    .repeat_penalty = i % 2 ? 1.1f : NAN,
                                    .presence_penalty = i == 4 ? 0.5f : NAN,
                                    .frequency_penalty = i == 5 ? 0.25f : NAN,
                                    .top_k = i == 3 ? 40 : INT32_MIN,
                                    .n_logprobs = -1,
                                    .seed = pbi_rig_random(&seed),
                                    .has_seed = i % 2 };
        c->seq[i] = (pb_seq){ .size = sizeof(pb_seq),
                              .id = 100 + (uint64_t)i,
                              .cache_key = 1,
                              .slot = i,
                              .state = PB_SEQ_RUNNING,
                              .tokens = c->tokens[i],
                              .n_tokens = n,
                              .n_prompt = n / 2,
                              .n_valid = n - 1,
                              .n_left = 1,
                              .max_new = 100,
                              .t_arrival_ns = i * 1000,
                              .params = i == 0 ? NULL : &c->params[i] };
        for (int k = 0; k < 2; k++)
            c->tail[i][k] = (int32_t)pbi_rig_below(&seed, V);
        for (int k = 0; k < 3; k++)
            c->pick[i * 3 + k] =
                (pb_pick){ .seq = &c->seq[i], .out = i * 3 + k, .n_tail = k, .tail = c->tail[i] };
    }
}

/* The same sequences, as another run might have them. */
static void shuffle_crowd(crowd *c)
{
    for (int i = 0; i < SEQS; i++) {
        c->seq[i].slot = SEQS - 1 - i;
        c->seq[i].id = 900 - (uint64_t)i;
        c->seq[i].t_arrival_ns = 5000 - i;
    }
}

static int open_rig(pbi_lint *l, pbi_rig *r)
{
    pb_err err = { 0 };
    *r = (pbi_rig){ 0 };
    int rc = pbi_rig_open(r, l->lib, 0, NULL, &err);
    if (!rc)
        return PBI_PASS;
    int skip = rc == PB_E_INVAL || rc == PB_E_UNSUPPORTED;
    return pbi_say(l, skip ? PBI_SKIP : PBI_FAIL, "with default options: %s", err.msg);
}

static int close_rig(pbi_lint *l, pbi_rig *r, int status)
{
    pb_err err = { 0 };
    if (pbi_rig_done(r, &err) && status < PBI_FAIL)
        return pbi_say(l, PBI_FAIL, "%s", err.msg);
    return status;
}

/* ---- sampler ----------------------------------------------------------- */

typedef struct drawn {
    pb_draw d[PICKS + 1];
    pb_edit *edits[PICKS]; /* copies */
} drawn;

static void prepare(pb_draw *d, const pb_pick *p)
{
    *d = (pb_draw){ .size = sizeof *d,
                    .pos = p->seq->n_tokens + p->n_tail,
                    .top_p = 1,
                    .forced = -1,
                    .n_logprobs = -1 };
}

static void free_drawn(drawn *a)
{
    for (int i = 0; i < PICKS; i++)
        free(a->edits[i]);
    *a = (drawn){ 0 };
}

static int check_edits(pbi_lint *l, const pb_draw *d)
{
    if (d->n_edits < 0 || d->n_edits > V || (d->n_edits && !d->edits))
        return pbi_say(l, PBI_FAIL, "draw() sets %d edits", d->n_edits);
    for (int i = 0; i < d->n_edits; i++) {
        const pb_edit *e = &d->edits[i];
        if (e->id < 0 || e->id >= V)
            return pbi_say(l, PBI_FAIL, "draw() edits token %d of a vocabulary of %d", e->id, V);
        if (i && e->id <= d->edits[i - 1].id)
            return pbi_say(l, PBI_FAIL, "edits are not in ascending order of ids: %d, %d",
                           d->edits[i - 1].id, e->id);
        if (!(e->penalty > 0) || !isfinite(e->penalty) || !isfinite(e->add))
            return pbi_say(l, PBI_FAIL, "edit of token %d: penalty %g, add %g", e->id,
                           (double)e->penalty, (double)e->add);
    }
    return PBI_PASS;
}

static int check_draw(pbi_lint *l, const pb_draw *d, const pb_pick *p)
{
    pb_draw want;
    prepare(&want, p);
    if (d->size != want.size || d->pos != want.pos || d->n_logprobs != want.n_logprobs)
        return pbi_say(l, PBI_FAIL, "draw() changes size, pos or n_logprobs, which are the core's");
    if (d->allow)
        return pbi_say(l, PBI_FAIL, "draw() sets allow, which is the constraints'");
    if (d->forced < -1 || d->forced >= V)
        return pbi_say(l, PBI_FAIL, "draw() forces token %d of a vocabulary of %d", d->forced, V);
    if (!(d->temperature >= 0) || !isfinite(d->temperature))
        return pbi_say(l, PBI_FAIL, "draw() sets temperature %g", (double)d->temperature);
    if (!(d->top_p >= 0 && d->top_p <= 1) || !(d->min_p >= 0 && d->min_p <= 1) || d->top_k < 0)
        return pbi_say(l, PBI_FAIL, "draw() sets top_p %g, min_p %g, top_k %d", (double)d->top_p,
                       (double)d->min_p, d->top_k);
    return check_edits(l, d);
}

/* Draws for n picks in one call; answers are copied to a->d[where]. */
static int draw_some(pbi_lint *l, pbi_rig *r, const pb_pick *p, int n, drawn *a, const int *where)
{
    const pb_sampler *s = pbi_rig_iface(r, "sampler/1");
    pb_draw d[PICKS + 1];
    memset(d, 0x7e, sizeof d);
    for (int i = 0; i < n; i++)
        prepare(&d[i], &p[i]);
    pbi_rig_at(r, "draw");
    int rc = s->draw(r->self, n, p, d);
    pbi_rig_at(r, NULL);
    if (rc)
        return pbi_say(l, PBI_FAIL, "draw() of %d rows returns %d", n, rc);
    for (size_t k = 0; k < sizeof *d; k++)
        if (((unsigned char *)&d[n])[k] != 0x7e)
            return pbi_say(l, PBI_FAIL, "draw() of %d rows writes past out[n)", n);
    for (int i = 0; i < n; i++) {
        int status = check_draw(l, &d[i], &p[i]);
        if (status)
            return status;
        size_t bytes = (size_t)d[i].n_edits * sizeof(pb_edit);
        a->d[where[i]] = d[i];
        a->edits[where[i]] = malloc(bytes + 1);
        if (bytes)
            memcpy(a->edits[where[i]], d[i].edits, bytes);
    }
    return PBI_PASS;
}

static int same_draw(const drawn *a, const drawn *b, int i)
{
    pb_draw x = a->d[i], y = b->d[i];
    size_t bytes = (size_t)x.n_edits * sizeof(pb_edit);
    return x.seed == y.seed && x.temperature == y.temperature && x.top_p == y.top_p &&
           x.min_p == y.min_p && x.top_k == y.top_k && x.forced == y.forced &&
           x.n_edits == y.n_edits && (!bytes || !memcmp(a->edits[i], b->edits[i], bytes));
}

static int compare_draws(pbi_lint *l, const drawn *a, const drawn *b, const crowd *c,
                         const char *how)
{
    for (int i = 0; i < PICKS; i++)
        if (!same_draw(a, b, i))
            return pbi_say(l, PBI_FAIL,
                           "a row with %d unverified tokens is drawn differently %s: seed %llx or "
                           "%llx, temperature %g or %g, %d or %d edits",
                           c->pick[i].n_tail, how, (unsigned long long)a->d[i].seed,
                           (unsigned long long)b->d[i].seed, (double)a->d[i].temperature,
                           (double)b->d[i].temperature, a->d[i].n_edits, b->d[i].n_edits);
    return PBI_PASS;
}

static int sampler_round(pbi_lint *l, uint64_t seed)
{
    crowd *c = calloc(1, sizeof *c);
    drawn a = { 0 }, b = { 0 };
    pbi_rig r, fresh;
    int all[PICKS], status = open_rig(l, &r);
    make_crowd(c, seed);
    for (int i = 0; i < PICKS; i++)
        all[i] = i;
    if (!status)
        status = draw_some(l, &r, c->pick, PICKS, &a, all);
    for (int i = 0; i < PICKS && !status; i++) /* alone, last one first */
        status = draw_some(l, &r, &c->pick[PICKS - 1 - i], 1, &b, &all[PICKS - 1 - i]);
    if (!status)
        status = compare_draws(l, &a, &b, c, "alone than in a batch");
    free_drawn(&b);
    shuffle_crowd(c);
    int other = open_rig(l, &fresh);
    if (!status && !other)
        status = draw_some(l, &fresh, c->pick, PICKS, &b, all);
    if (!status)
        status = compare_draws(l, &a, &b, c, "in another slot or of a new instance");
    for (int i = 3; i < PICKS && !status; i += 6) /* sequences 1, 3, 5 bring a seed */
        if (a.d[i].temperature > 0 && a.d[i].seed == a.d[(i + 6) % PICKS].seed)
            status = pbi_say(l, PBI_FAIL, "requests with different seeds get one seed");
    free_drawn(&a);
    free_drawn(&b);
    free(c);
    status = close_rig(l, &fresh, status);
    return close_rig(l, &r, status);
}

int pbi_check_sampler(pbi_lint *l)
{
    int status = PBI_PASS;
    for (uint64_t k = 0; k < 30 && !status; k++)
        status = sampler_round(l, l->seed + k);
    return status;
}

/* ---- constraint -------------------------------------------------------- */

/* Masks of n picks over `bits` (in and out); guards around are checked. */
static int mask_some(pbi_lint *l, pbi_rig *r, const pb_pick *p, int n, uint32_t *bits)
{
    const pb_constraint *k = pbi_rig_iface(r, "constraint/1");
    uint32_t buf[GUARD + PICKS * WORDS + GUARD];
    memset(buf, 0x7e, sizeof buf);
    memcpy(buf + GUARD, bits, (size_t)n * WORDS * sizeof *bits);
    pbi_rig_at(r, "mask");
    int rc = k->mask(r->self, n, p, buf + GUARD, WORDS);
    pbi_rig_at(r, NULL);
    if (rc)
        return pbi_say(l, PBI_FAIL, "mask() of %d rows returns %d", n, rc);
    for (int i = 0; i < GUARD; i++)
        if (buf[i] != 0x7e7e7e7eu || buf[GUARD + n * WORDS + i] != 0x7e7e7e7eu)
            return pbi_say(l, PBI_FAIL, "mask() of %d rows writes outside of its %d words", n,
                           n * WORDS);
    memcpy(bits, buf + GUARD, (size_t)n * WORDS * sizeof *bits);
    return PBI_PASS;
}

static int constraint_round(pbi_lint *l, uint64_t seed, int *n_cleared)
{
    static uint32_t all[PICKS * WORDS], some[PICKS * WORDS], start[PICKS * WORDS];
    crowd *c = calloc(1, sizeof *c);
    pbi_rig r, fresh;
    make_crowd(c, seed);
    int status = open_rig(l, &r), other = open_rig(l, &fresh);
    status = status > other ? status : other;
    memset(all, 0xff, sizeof all);
    for (int i = 0; i < PICKS * WORDS; i++)
        some[i] = start[i] = (uint32_t)pbi_rig_random(&seed);
    if (!status)
        status = mask_some(l, &r, c->pick, PICKS, all);
    shuffle_crowd(c);
    for (int i = 0; i < PICKS && !status; i++) /* alone, of a new instance, over another mask */
        status = mask_some(l, &fresh, &c->pick[i], 1, some + i * WORDS);
    for (int i = 0; i < PICKS * WORDS && !status; i++) {
        *n_cleared += all[i] != 0xffffffffu;
        if (some[i] & ~start[i])
            status = pbi_say(l, PBI_FAIL, "mask() allows a token that was forbidden before it");
        else if (some[i] != (start[i] & all[i]))
            status = pbi_say(l, PBI_FAIL,
                             "a row with %d unverified tokens is masked differently alone, in "
                             "another slot, or of a new instance",
                             c->pick[i / WORDS].n_tail);
    }
    free(c);
    status = close_rig(l, &fresh, status);
    return close_rig(l, &r, status);
}

int pbi_check_constraint(pbi_lint *l)
{
    int status = PBI_PASS, n_cleared = 0;
    for (uint64_t k = 0; k < 30 && !status; k++)
        status = constraint_round(l, l->seed + k, &n_cleared);
    if (!status && !n_cleared)
        return pbi_say(l, PBI_WARN, "with default options nothing is ever forbidden");
    return status;
}

/* ---- spec -------------------------------------------------------------- */

enum { STRIDE = 8 };

static int propose_some(pbi_lint *l, pbi_rig *r, int n, const pb_seq *const *s, const int32_t *want,
                        int32_t *out, int32_t *n_out)
{
    const pb_spec *k = pbi_rig_iface(r, "spec/1");
    int32_t buf[SEQS * STRIDE + GUARD], count[SEQS + GUARD];
    memset(buf, 0x7e, sizeof buf);
    memset(count, 0x7e, sizeof count);
    pbi_rig_at(r, "propose");
    int rc = k->propose(r->self, n, s, want, buf, STRIDE, count);
    pbi_rig_at(r, NULL);
    if (rc)
        return pbi_say(l, PBI_FAIL, "propose() for %d sequences returns %d", n, rc);
    for (int i = 0; i < GUARD; i++)
        if (buf[n * STRIDE + i] != 0x7e7e7e7e || count[n + i] != 0x7e7e7e7e)
            return pbi_say(l, PBI_FAIL, "propose() for %d sequences writes past its arrays", n);
    for (int i = 0; i < n; i++) {
        if (count[i] < 0 || count[i] > want[i] || count[i] > STRIDE)
            return pbi_say(l, PBI_FAIL, "propose() gives %d tokens, %d were wanted", count[i],
                           want[i]);
        for (int t = 0; t < count[i]; t++)
            if (buf[i * STRIDE + t] < 0 || buf[i * STRIDE + t] >= V)
                return pbi_say(l, PBI_FAIL, "propose() gives token %d of a vocabulary of %d",
                               buf[i * STRIDE + t], V);
        n_out[i] = count[i];
        memcpy(out + i * STRIDE, buf + i * STRIDE, (size_t)count[i] * sizeof *out);
    }
    return PBI_PASS;
}

static int spec_round(pbi_lint *l, uint64_t seed, int *n_proposed)
{
    crowd *c = calloc(1, sizeof *c);
    pbi_rig r;
    const pb_seq *s[SEQS];
    int32_t want[SEQS], out[SEQS * STRIDE], one[STRIDE], n_out[SEQS], n_one = 0, kept[SEQS];
    make_crowd(c, seed);
    int status = open_rig(l, &r);
    for (int i = 0; i < SEQS; i++) {
        s[i] = &c->seq[i];
        want[i] = i; /* also none */
    }
    if (!status)
        status = propose_some(l, &r, SEQS, s, want, out, n_out);
    for (int i = SEQS - 1; i >= 0 && !status; i--) {
        status = propose_some(l, &r, 1, &s[i], &want[i], one, &n_one);
        if (!status &&
            (n_one != n_out[i] || memcmp(one, out + i * STRIDE, (size_t)n_one * sizeof *one)))
            status = pbi_say(l, PBI_WARN, "other tokens are proposed alone than in a batch");
    }
    const pb_spec *k = pbi_rig_iface(&r, "spec/1");
    if (!status) {
        for (int i = 0; i < SEQS; i++) {
            kept[i] = n_out[i] / 2;
            *n_proposed += n_out[i];
        }
        pbi_rig_at(&r, "observe");
        if (k->observe)
            k->observe(r.self, SEQS, s, n_out, kept, 1000);
        pbi_rig_at(&r, NULL);
    }
    free(c);
    return close_rig(l, &r, status);
}

int pbi_check_spec(pbi_lint *l)
{
    int status = PBI_PASS, n_proposed = 0;
    for (uint64_t k = 0; k < 30 && !status; k++)
        status = spec_round(l, l->seed + k, &n_proposed);
    if (!status && !n_proposed)
        return pbi_say(l, PBI_WARN, "nothing was proposed in 30 rounds of repetitive text");
    return status;
}

/* ---- output ------------------------------------------------------------ */

static int check_request(pbi_lint *l, pbi_rig *r)
{
    const pb_output *o = pbi_rig_iface(r, "output/1");
    for (int64_t max_new = 0; max_new < 1000; max_new = max_new * 3 + 1) {
        pb_request q = { .size = sizeof q, .max_new = max_new, .has_messages = max_new % 2 == 0 };
        pbi_rig_at(r, "request");
        int rc = o->request ? o->request(r->self, &q) : 0;
        pbi_rig_at(r, NULL);
        if (rc)
            return pbi_say(l, PBI_FAIL, "request() returns %d", rc);
        if (q.max_new > max_new || q.max_new < 0)
            return pbi_say(l, PBI_FAIL, "request() makes max_new %lld of %lld; it may be lowered",
                           (long long)q.max_new, (long long)max_new);
    }
    return PBI_PASS;
}

static int check_accept(pbi_lint *l, pbi_rig *r, uint64_t *rng)
{
    const pb_output *o = pbi_rig_iface(r, "output/1");
    crowd *c = calloc(1, sizeof *c);
    const pb_seq *s[SEQS];
    int32_t n_new[SEQS];
    pb_verdict v[SEQS + 1];
    make_crowd(c, pbi_rig_random(rng));
    memset(v, 0x7e, sizeof v);
    for (int i = 0; i < SEQS; i++) {
        s[i] = &c->seq[i];
        n_new[i] = 1 + (int32_t)pbi_rig_below(rng, 3);
        v[i] = (pb_verdict){ .keep = n_new[i] };
    }
    pbi_rig_at(r, "accept");
    int rc = o->accept ? o->accept(r->self, SEQS, s, n_new, v) : 0, status = PBI_PASS;
    pbi_rig_at(r, NULL);
    if (rc)
        status = pbi_say(l, PBI_FAIL, "accept() returns %d", rc);
    for (size_t k = 0; k < sizeof *v && !status; k++)
        if (((unsigned char *)&v[SEQS])[k] != 0x7e)
            status = pbi_say(l, PBI_FAIL, "accept() writes past v[n)");
    for (int i = 0; i < SEQS && !status; i++) {
        if (v[i].keep < 0 || v[i].keep > n_new[i])
            status = pbi_say(l, PBI_FAIL, "accept() keeps %d of %d tokens", v[i].keep, n_new[i]);
        else if (v[i].n_forced < 0 || (v[i].n_forced && !v[i].forced))
            status = pbi_say(l, PBI_FAIL, "accept() forces %d tokens", v[i].n_forced);
        for (int k = 0; !status && k < v[i].n_forced; k++)
            if (v[i].forced[k] < 0 || v[i].forced[k] >= V)
                status = pbi_say(l, PBI_FAIL, "accept() forces token %d of a vocabulary of %d",
                                 v[i].forced[k], V);
    }
    free(c);
    return status;
}

int pbi_check_output(pbi_lint *l)
{
    pbi_rig r;
    uint64_t rng = l->seed;
    int status = open_rig(l, &r);
    if (!status)
        status = check_request(l, &r);
    for (int k = 0; k < 50 && !status; k++)
        status = check_accept(l, &r, &rng);
    return close_rig(l, &r, status);
}
