/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-sim/step.c - runs a step on words (sim.h) and moves the virtual clock.
 *
 * Everything that a step names is checked before it is used: a page, a position or a token out
 * of range is refused with a message, as a real device would crash. Invariant: the outcome of a
 * row is a function of its token, its position and the words that its page table leads to.
 */
#include "sim.h"
#include "../backend-common/draw.h"

#include <stdio.h>
#include <string.h>

#define GOLDEN 0x9e3779b97f4a7c15ull

/* Steele, Lea, Flood (2014): finaliser of SplitMix64. */
static uint64_t mix64(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static uint64_t not_zero(uint64_t h)
{
    return h ? h : GOLDEN;
}

static int refuse(const sim *d, int code, const char *what, int64_t value, int64_t limit,
                  uint64_t step)
{
    char msg[200];
    snprintf(msg, sizeof msg, "step %llu: %s %lld, limit %lld", (unsigned long long)step, what,
             (long long)value, (long long)limit);
    d->host->log(d->host, PB_LOG_ERROR, msg);
    return code;
}

/* ---- keys ---------------------------------------------------------------- */

/* One sequence of a step, in one group. */
typedef struct lane {
    const uint64_t *words; /* of the group */
    uint64_t *dst;
    const pb_page *table;
    int32_t n_pages, page_tokens, window, group;
    uint64_t sum; /* over the keys [low, high) */
    int64_t low, high;
    int nan; /* one of them was never written */
} lane;

/* Adds keys [q, end) to the lane's sum, through the page table. */
static void add_keys(lane *l, int64_t q, int64_t end)
{
    while (q < end) {
        int64_t page = q / l->page_tokens, off = q % l->page_tokens;
        int64_t n = l->page_tokens - off < end - q ? l->page_tokens - off : end - q;
        const uint64_t *w = l->words + (size_t)l->table[page] * (size_t)l->page_tokens + off;
        uint64_t sum = 0;
        int nan = 0;
        for (int64_t j = 0; j < n; j++) {
            sum += w[j] * (uint64_t)(2 * (q + j) + 1);
            nan |= w[j] == 0;
        }
        l->sum += sum;
        l->nan |= nan;
        q += n;
    }
}

/* Brings the sum to keys [low, high); incremental while rows follow each other. */
static void see_keys(lane *l, int64_t low, int64_t high)
{
    if (low != l->low || high < l->high) {
        l->sum = 0;
        l->nan = 0;
        l->high = low;
        l->low = low;
    }
    add_keys(l, l->high, high);
    l->high = high;
}

/* Writes the word of one row, then reads it back with the rest: the row's view of its history. */
static uint64_t run_row(lane *l, int32_t token, int32_t pos, int64_t k)
{
    int64_t low = l->window > 0 && k >= l->window ? k - l->window + 1 : 0;
    see_keys(l, low, k);
    uint64_t h = mix64(((uint64_t)(uint32_t)token + 1) * GOLDEN ^ (uint64_t)l->group << 56);
    h = mix64(h + (uint64_t)(uint32_t)pos * GOLDEN + l->sum);
    size_t at = (size_t)l->table[k / l->page_tokens] * (size_t)l->page_tokens +
                (size_t)(k % l->page_tokens);
    l->dst[at] = l->nan ? 0 : not_zero(h);
    see_keys(l, low, k + 1);
    return l->nan ? 0 : not_zero(mix64(l->sum + GOLDEN));
}

/* ---- logits ---------------------------------------------------------------- */

/* The likeliest token. With probability `echo` it follows from the last token alone, so that
 * text repeats itself now and then and a drafter has something to find. */
static int32_t peak_of(const struct pb_exec *x, uint64_t h, int32_t last)
{
    uint64_t g = mix64(h ^ GOLDEN);
    if ((double)(g >> 40) < x->dev->cfg->echo * 16777216.0)
        g = mix64(((uint64_t)(uint32_t)last + 7) * GOLDEN);
    return (int32_t)(g % (uint64_t)x->n_vocab);
}

/* A row of logits [n_vocab]: all in [0, 4), one peak above them. NaN for a row that read
 * memory nobody wrote. */
static void fill_row(const struct pb_exec *x, uint64_t h, int32_t last, float *l)
{
    uint32_t a = (uint32_t)h, b = (uint32_t)(h >> 32);
    if (h == 0) {
        for (int32_t i = 0; i < x->n_vocab; i++)
            l[i] = __builtin_nanf("");
        return;
    }
    for (int32_t i = 0; i < x->n_vocab; i++) {
        uint32_t z = (a ^ (uint32_t)i) * 0x9e3779b1u;
        z = (z ^ z >> 15 ^ b) * 0x85ebca6bu;
        z ^= z >> 13;
        l[i] = (float)(z >> 8) * (4.0f / 16777216.0f);
    }
    l[peak_of(x, h, last)] = x->peak;
}

/* ---- a step --------------------------------------------------------------- */

static int run_copies(sim *d, const struct pb_kv *kv, const pb_step *s, double *bytes)
{
    const pb_copy *c = PB_STEP_COPIES(s);
    for (int32_t i = 0; i < s->n_copies; i++) {
        if (c[i].group < 0 || c[i].group >= kv->n_groups)
            return refuse(d, PB_E_INVAL, "group of a copy", c[i].group, kv->n_groups, s->n);
        const pb_kv_plan *p = &kv->plan[c[i].group];
        if (c[i].src < 0 || c[i].src >= p->n_pages || c[i].dst < 1 || c[i].dst >= p->n_pages)
            return refuse(d, PB_E_INVAL, "page of a copy",
                          c[i].src < 0 || c[i].src >= p->n_pages ? c[i].src : c[i].dst, p->n_pages,
                          s->n);
        if (c[i].n_tokens < 0 || c[i].n_tokens > p->page_tokens)
            return refuse(d, PB_E_INVAL, "tokens of a copy", c[i].n_tokens, p->page_tokens, s->n);
        uint64_t *w = kv->arena->words + kv->first[c[i].group];
        memmove(w + (size_t)c[i].dst * (size_t)p->page_tokens,
                w + (size_t)c[i].src * (size_t)p->page_tokens, (size_t)c[i].n_tokens * sizeof *w);
        *bytes += (double)c[i].n_tokens;
        d->st->copies++;
    }
    return 0;
}

/* The lane of sequence q in group g, its page ids checked. */
static int open_lane(sim *d, const struct pb_exec *x, const struct pb_kv *kv, const pb_step *s,
                     int32_t g, int32_t q, lane *l)
{
    const int32_t *begin = PB_STEP_COL(s, table_begin) + (size_t)g * (size_t)(s->n_seqs + 1);
    memset(l, 0, sizeof *l);
    l->dst = kv->arena->words + kv->first[g];
    l->words = l->dst;
    l->table = PB_STEP_COL(s, table) + begin[q];
    l->n_pages = begin[q + 1] - begin[q];
    l->page_tokens = kv->plan[g].page_tokens;
    l->window = x->window[g];
    l->group = g;
    for (int32_t i = 0; i < l->n_pages; i++)
        if (l->table[i] < 0 || l->table[i] >= kv->plan[g].n_pages)
            return refuse(d, PB_E_INVAL, "page id", l->table[i], kv->plan[g].n_pages, s->n);
    return 0;
}

/* The token of row r; ~i is pick i of the step before. */
static int token_of(sim *d, struct pb_exec *x, const pb_step *s, int32_t r, int32_t *token)
{
    int32_t t = PB_STEP_COL(s, token)[r];
    if (t < 0) {
        const sim_out *before = &x->out[(s->n - 1) & 1];
        if (before->n != s->n - 1 || !before->picked || ~t >= before->n_out)
            return refuse(d, PB_E_INVAL,
                          "row names a pick of the step before that is not there:", ~t,
                          before->n_out, s->n);
        t = before->ids[~t];
    }
    if (t >= x->n_vocab)
        return refuse(d, PB_E_INVAL, "token id", t, x->n_vocab, s->n);
    *token = t;
    return 0;
}

static int run_seq(sim *d, struct pb_exec *x, struct pb_kv *kv, const pb_step *s, int32_t q,
                   sim_out *o, double *keys, double *pairs)
{
    const int32_t *begin = PB_STEP_COL(s, row_begin), *pos = PB_STEP_COL(s, pos);
    const int32_t *kv_pos = PB_STEP_COL(s, kv_pos);
    for (int32_t g = 0; g < s->n_groups; g++) {
        lane l;
        int rc = open_lane(d, x, kv, s, g, q, &l);
        for (int32_t r = begin[q]; r < begin[q + 1] && !rc; r++) {
            int32_t token;
            rc = token_of(d, x, s, r, &token);
            if (rc)
                break;
            if (kv_pos[r] < 0 || kv_pos[r] / l.page_tokens >= l.n_pages)
                return refuse(d, PB_E_INVAL, "KV position", kv_pos[r],
                              (int64_t)l.n_pages * l.page_tokens, s->n);
            uint64_t h = run_row(&l, token, pos[r], kv_pos[r]);
            if (h == 0 && o->faulty_op < 0 && (s->flags & PB_STEP_CHECK))
                o->faulty_op = x->attend_op[g];
            int bad = h == 0 || (g > 0 && x->state[r] == 0);
            x->state[r] = bad ? 0 : not_zero(g > 0 ? mix64(x->state[r] ^ h) : h);
            *pairs += g == 0 ? (double)(l.high - l.low) : 0.0;
        }
        if (rc)
            return rc;
        *keys += g == 0 ? (double)(l.high - l.low) : 0.0;
    }
    return 0;
}

/* Keeps the state of the wanted rows, and their logits if the caller wants them. */
static int keep_outputs(sim *d, struct pb_exec *x, const pb_step *s, sim_out *o)
{
    const int32_t *row = PB_STEP_COL(s, out_row);
    o->has_logits = (s->flags & PB_STEP_LOGITS) != 0;
    for (int32_t i = 0; i < s->n_out; i++) {
        if (row[i] < 0 || row[i] >= s->n_rows)
            return refuse(d, PB_E_INVAL, "wanted row", row[i], s->n_rows, s->n);
        o->hash[i] = x->state[row[i]];
        if (o->hash[i] == 0)
            o->rc = PB_E_NUMERIC;
        int rc = token_of(d, x, s, row[i], &o->last[i]);
        if (rc)
            return rc;
        if (o->has_logits)
            fill_row(x, o->hash[i], o->last[i], x->logits + (size_t)i * (size_t)x->n_vocab);
    }
    return 0;
}

static int check_step(sim *d, const struct pb_exec *x, const struct pb_kv *kv, const pb_step *s)
{
    if (s->n_rows < 0 || s->n_rows > x->lim.max_rows)
        return refuse(d, PB_E_INVAL, "rows", s->n_rows, x->lim.max_rows, s->n);
    if (s->n_seqs < 0 || s->n_seqs > x->lim.max_seqs)
        return refuse(d, PB_E_INVAL, "sequences", s->n_seqs, x->lim.max_seqs, s->n);
    if (s->n_out < 0 || s->n_out > x->lim.max_out)
        return refuse(d, PB_E_INVAL, "wanted rows", s->n_out, x->lim.max_out, s->n);
    if (s->n_groups != kv->n_groups)
        return refuse(d, PB_E_INVAL, "KV groups", s->n_groups, kv->n_groups, s->n);
    if (s->tree)
        return refuse(d, PB_E_UNSUPPORTED, "draft trees", 1, 0, s->n);
    const int32_t *begin = PB_STEP_COL(s, row_begin);
    if (s->n_seqs > 0 && (begin[0] != 0 || begin[s->n_seqs] > s->n_rows))
        return refuse(d, PB_E_INVAL, "rows of the sequences", begin[s->n_seqs], s->n_rows, s->n);
    for (int32_t i = 0; i < s->n_seqs; i++)
        if (begin[i + 1] < begin[i])
            return refuse(d, PB_E_INVAL, "row range of sequence", i, s->n_seqs, s->n);
    return 0;
}

int sim_submit(void *self, struct pb_exec *x, struct pb_kv *kv, const pb_step *s)
{
    sim *d = self;
    int rc = check_step(d, x, kv, s);
    double copied = 0.0, keys = 0.0, pairs = 0.0;
    if (rc)
        return rc;
    sim_out *o = x->last = &x->out[s->n & 1];
    o->n = s->n;
    o->n_out = s->n_out;
    o->rc = o->picked = o->logprobs = 0;
    o->faulty_op = -1;
    rc = run_copies(d, kv, s, &copied);
    for (int32_t q = 0; q < s->n_seqs && !rc; q++)
        rc = run_seq(d, x, kv, s, q, o, &keys, &pairs);
    if (!rc)
        rc = keep_outputs(d, x, s, o);
    if (rc) {
        o->n = 0;
        return rc;
    }
    o->cost_ns = sim_cost_ns(x, s->n_rows, s->n_out, keys, pairs, copied * x->cost.key_bytes);
    d->st->steps++;
    d->st->rows += s->n_rows;
    d->st->keys += (int64_t)keys;
    return 0;
}

/* ---- draws ----------------------------------------------------- */

/* Draws that need no row: the same token as pbc_draw would draw from fill_row's. */
static int draw_fast(const struct pb_exec *x, const pb_draw *d, uint64_t h, int32_t last,
                     int32_t *id)
{
    if (d->n_logprobs >= 0)
        return 0;
    if (d->forced >= 0 && d->forced < x->n_vocab) {
        *id = d->forced;
        return 1;
    }
    if (d->forced >= 0 || d->temperature > 0.0f || d->allow || d->n_edits > 0)
        return 0;
    *id = peak_of(x, h, last);
    return 1;
}

int sim_pick(void *self, struct pb_exec *x, int32_t n, const pb_draw *d, size_t stride)
{
    sim *dev = self;
    sim_out *o = x->last;
    if (!o || o->n == 0 || n != o->n_out)
        return refuse(dev, PB_E_STATE, "draws", n, o ? o->n_out : 0, o ? o->n : 0);
    for (int32_t i = 0; i < n; i++) {
        const pb_draw *p = (const pb_draw *)(const void *)((const char *)d + (size_t)i * stride);
        if (o->hash[i] == 0) { /* NaN: reported by wait */
            o->ids[i] = 0;
            o->logprob[i] = __builtin_nanf("");
            continue;
        }
        if (draw_fast(x, p, o->hash[i], o->last[i], &o->ids[i]))
            continue;
        const float *l = x->logits + (size_t)i * (size_t)x->n_vocab;
        if (!o->has_logits) {
            fill_row(x, o->hash[i], o->last[i], x->row);
            l = x->row;
        }
        int rc = pbc_draw(p, l, x->n_vocab, x->scratch, &o->ids[i], &o->logprob[i]);
        if (rc)
            return rc;
        o->logprobs |= p->n_logprobs >= 0;
    }
    o->picked = 1;
    return 0;
}

int sim_wait(void *self, struct pb_exec *x, uint64_t step, pb_result *out)
{
    sim *d = self;
    sim_out *o = &x->out[step & 1];
    if (step == 0 || o->n != step)
        return refuse(d, PB_E_STATE, "waiting for a step that was not submitted; the last one is",
                      (int64_t)o->n, (int64_t)step, step);
    if (d->clock)
        d->clock->advance(d->clock->h,
                          o->cost_ns); /* refused on a real clock: then it costs nothing */
    d->st->device_ns += o->cost_ns;
    out->step = step;
    out->n_out = o->n_out;
    out->faulty_op = o->faulty_op;
    out->ids = o->picked ? o->ids : NULL;
    out->logprobs = o->logprobs ? o->logprob : NULL;
    out->logits = o->has_logits ? x->logits : NULL;
    out->n_vocab = x->n_vocab;
    out->device_ns = o->cost_ns;
    return o->rc;
}

int sim_poison(void *self, struct pb_kv *kv, int32_t group, pb_page page)
{
    sim *d = self;
    if (group < 0 || group >= kv->n_groups || page < 0 || page >= kv->plan[group].n_pages)
        return refuse(d, PB_E_INVAL, "page to poison", page,
                      group < 0 || group >= kv->n_groups ? 0 : kv->plan[group].n_pages, 0);
    size_t n = (size_t)kv->plan[group].page_tokens;
    memset(kv->arena->words + kv->first[group] + (size_t)page * n, 0, n * sizeof(uint64_t));
    d->st->poisoned++;
    return 0;
}
