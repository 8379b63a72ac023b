/* SPDX-License-Identifier: MIT
 *
 * workload/draw.c - from a seed to requests: token ids or words, lengths, arrivals.
 */
#include "impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* ---- content ------------------------------------------------------------- */

/* common words of one token in most vocabularies when a space comes before */
static const char *const words[] = {
    "time",  "year",   "people", "way",    "day",   "man",    "thing", "woman", "life",   "child",
    "world", "school", "state",  "family", "group", "hand",   "part",  "place", "case",   "week",
    "work",  "system", "number", "night",  "point", "home",   "water", "room",  "mother", "area",
    "money", "story",  "fact",   "month",  "lot",   "right",  "study", "book",  "eye",    "job",
    "word",  "side",   "kind",   "head",   "house", "friend", "hour",  "game",  "line",   "end",
    "city",  "name",   "team",   "minute", "idea",  "body",   "back",  "face",  "level",  "office",
    "door",  "health", "art",    "war"
};
enum { N_WORDS = sizeof words / sizeof *words };

void pbw_content(const pbw_draws *d, uint64_t tag, int64_t n, int32_t *out)
{
    uint64_t state = tag, count = (uint64_t)(d->ordinary ? d->n_ordinary : d->v->n_vocab);
    for (int64_t i = 0; i < n; i++) {
        uint64_t k = pbw_random(&state) % count;
        out[i] = d->ordinary ? d->ordinary[k] : (int32_t)k;
    }
}

/* ids that are text: no special token, no end, not empty */
static int find_ordinary(pbw_draws *d)
{
    const pbi_tokenizer *t = d->v->tokenizer;
    if (!t)
        return 0;
    d->ordinary = malloc((size_t)d->v->n_vocab * sizeof *d->ordinary + 1);
    if (!d->ordinary)
        return pbi_err(d->err, PB_E_NOMEM, "no memory for %d ids", (int)d->v->n_vocab);
    for (int32_t i = 0; i < d->v->n_vocab && i < pbi_tokenizer_size(t); i++)
        if (!pbi_tokenizer_is_special(t, i) && !pbi_tokenizer_is_eog(t, i) &&
            pbi_tokenizer_piece(t, i, 0).n > 0)
            d->ordinary[d->n_ordinary++] = i;
    if (!d->n_ordinary) {
        free(d->ordinary);
        d->ordinary = NULL;
    }
    return 0;
}

/* ---- one request --------------------------------------------------------- */

/* The next arrival of the workload's own process. */
static double next_arrival(pbw_draws *d)
{
    const pbw_config *c = &d->w->c;
    double now = d->clock_s;
    switch (c->arrivals) {
    case PBW_POISSON: d->clock_s += -pbw_ln(pbw_unit(&d->rng)) / c->rate; break;
    case PBW_GAMMA: d->clock_s += pbw_gamma(&d->rng, c->burstiness) / c->rate; break;
    case PBW_CONSTANT: d->clock_s += 1 / c->rate; break;
    default: break;
    }
    return now;
}

static int finish(pbw_draws *d, pbi_request *q, int64_t n_tokens, double at_s, int64_t after,
                  double after_ms, int64_t *index)
{
    const pbw_config *c = &d->w->c;
    double s = after ? after_ms / 1e3 : c->arrivals == PBW_TRACE ? at_s : next_arrival(d);
    q->arrival_ns =
        s > 0 && (after || c->arrivals != PBW_CLOSED) ? (int64_t)(s * 1e6 + 0.5) * 1000 : 0;
    q->after = after ? d->base + after : 0;
    q->ignore_eos = c->ignore_eos;
    if (isfinite(c->temperature))
        q->params.temperature = (float)c->temperature;
    q->params.seed = pbw_mix(d->seed, (uint64_t)(d->out->n - d->base), 77);
    q->params.has_seed = 1;
    if (index)
        *index = d->out->n - d->base;
    d->drawn->n_requests++;
    d->drawn->prompt_tokens += n_tokens;
    d->drawn->max_new += q->max_new;
    if (!after && s > d->drawn->seconds && c->arrivals != PBW_CLOSED)
        d->drawn->seconds = s;
    return pbi_requests_add(d->out, q, d->err);
}

/* 1: it fits (perhaps after a cut of *n and *max_new), 0: it is left out, or PB_E_* */
static int fits(pbw_draws *d, int64_t *n, int64_t *max_new, int can_cut, int64_t *index)
{
    const pbw_config *c = &d->w->c;
    if (*n + *max_new <= d->v->context)
        return 1;
    if (c->too_long == PBW_REFUSE)
        return pbi_err(d->err, PB_E_INVAL,
                       "%s: request %lld has %lld prompt and %lld new tokens, the context is %lld "
                       "(too_long = skip leaves such requests out)",
                       d->w->path, (long long)d->drawn->n_requests, (long long)*n,
                       (long long)*max_new, (long long)d->v->context);
    if (c->too_long == PBW_CUT && can_cut && d->v->context > 1) {
        *max_new = *max_new < d->v->context / 2 ? *max_new : d->v->context / 2;
        *n = *n < d->v->context - *max_new ? *n : d->v->context - *max_new;
        return 1;
    }
    d->drawn->n_left_out++;
    if (index)
        *index = -1;
    return 0;
}

static int as_words(pbw_draws *d, int n_parts, const pbw_part *parts, int64_t total, pbi_request *q)
{
    char *s = malloc((size_t)total * 8 + 1);
    size_t n = 0;
    if (!s)
        return pbi_err(d->err, PB_E_NOMEM, "no memory for a prompt of %lld words",
                       (long long)total);
    for (int p = 0; p < n_parts; p++) {
        uint64_t state = parts[p].tag;
        for (int64_t i = 0; i < parts[p].n && total > 0; i++, total--) {
            const char *w = words[pbw_random(&state) % N_WORDS];
            size_t len = strlen(w);
            if (n)
                s[n++] = ' ';
            memcpy(s + n, w, len);
            n += len;
        }
    }
    s[n] = 0;
    q->prompt = s;
    q->n_prompt = n;
    return pbi_requests_own(d->out, s, d->err);
}

static int as_ids(pbw_draws *d, int n_parts, const pbw_part *parts, int64_t total, pbi_request *q)
{
    int32_t *ids = malloc((size_t)total * sizeof *ids + 1);
    int64_t at = 0;
    if (!ids)
        return pbi_err(d->err, PB_E_NOMEM, "no memory for a prompt of %lld tokens",
                       (long long)total);
    for (int p = 0; p < n_parts && at < total; p++) {
        int64_t n = parts[p].n < total - at ? parts[p].n : total - at;
        pbw_content(d, parts[p].tag, n, ids + at);
        at += n;
    }
    q->ids = ids;
    q->n_ids = at;
    return pbi_requests_own(d->out, ids, d->err);
}

int pbw_emit(pbw_draws *d, int n_parts, const pbw_part *parts, int64_t max_new, double at_s,
             int64_t after, double after_ms, int64_t *index)
{
    pbi_request q;
    int64_t total = 0;
    for (int p = 0; p < n_parts; p++)
        total += parts[p].n;
    int rc = fits(d, &total, &max_new, 1, index);
    if (rc <= 0)
        return rc;
    pbi_request_default(&q);
    q.max_new = max_new;
    rc = d->w->c.content == PBW_WORDS ? as_words(d, n_parts, parts, total, &q)
                                      : as_ids(d, n_parts, parts, total, &q);
    return rc ? rc : finish(d, &q, total, at_s, after, after_ms, index);
}

int pbw_emit_text(pbw_draws *d, const char *s, size_t n, const char *expect, int64_t max_new,
                  double at_s, int64_t after, double after_ms, int64_t *index)
{
    pbi_request q;
    int32_t *ids = NULL;
    size_t n_ids = n / 4 + 1; /* without a tokenizer: the usual length of a token */
    int64_t total;
    int rc =
        d->v->tokenizer ? pbi_tokenizer_encode(d->v->tokenizer, s, n, 0, &ids, &n_ids, d->err) : 0;
    free(ids);
    if (rc)
        return rc;
    total = (int64_t)n_ids;
    rc = fits(d, &total, &max_new, 0, index);
    if (rc <= 0)
        return rc;
    pbi_request_default(&q);
    q.max_new = max_new;
    q.prompt = s; /* lives in the workload, as expect does */
    q.expect = expect;
    q.match = d->w->c.match;
    q.n_prompt = n;
    return finish(d, &q, total, at_s, after, after_ms, index);
}

/* ---- all ------------------------------------------------------------------ */

static uint64_t hash_of(const pbi_requests *r, int64_t base)
{
    XXH3_state_t *st = XXH3_createState();
    if (!st)
        return 0;
    XXH3_64bits_reset(st);
    for (int64_t i = base; i < r->n; i++) {
        const pbi_request *q = &r->v[i];
        int64_t head[4] = { q->arrival_ns, q->after ? q->after - base : 0, q->max_new,
                            q->ignore_eos };
        XXH3_64bits_update(st, head, sizeof head);
        if (q->prompt)
            XXH3_64bits_update(st, q->prompt, q->n_prompt);
        else
            XXH3_64bits_update(st, q->ids, (size_t)q->n_ids * sizeof *q->ids);
    }
    uint64_t h = XXH3_64bits_digest(st);
    XXH3_freeState(st);
    return h;
}

int pbw_draw(pbw_workload *w, const pbw_vocab *v, uint64_t seed, pbi_requests *out,
             pbw_drawn *drawn, pb_err *err)
{
    pbw_draws d = { .w = w,
                    .v = v,
                    .out = out,
                    .drawn = &w->last,
                    .seed = pbw_mix(seed, (uint64_t)w->c.seed, 1),
                    .rng = pbw_mix(seed, (uint64_t)w->c.seed, 2),
                    .base = out->n,
                    .err = err };
    *d.drawn = (pbw_drawn){ .reuse = NAN };
    out->clients = w->c.arrivals == PBW_CLOSED ? w->c.clients : 0;
    int rc = find_ordinary(&d);
    if (!rc)
        rc = w->c.kind < PBW_PROMPTS ? pbw_draw_made(&d) : pbw_draw_records(&d);
    free(d.ordinary);
    if (!rc && out->n == d.base)
        rc = pbi_err(err, PB_E_INVAL,
                     "%s: no request is left: %lld are longer than the context of %lld tokens",
                     w->path, (long long)d.drawn->n_left_out, (long long)v->context);
    d.drawn->hash = rc ? 0 : hash_of(out, d.base);
    if (drawn)
        *drawn = w->last;
    return rc;
}

const pbw_drawn *pbw_last(const pbw_workload *w)
{
    return &w->last;
}
