/* SPDX-License-Identifier: MIT
 *
 * core/engine_result.c - what came of a step: drafts are verified, tokens accepted, cut and
 * forced, rows hashed, KV committed, answers sent.
 *
 * A draft is accepted as long as it equals what the row before it drew; the first row that
 * drew something else gives the next token. So the tokens are those of a run without drafts.
 */
#include "engine_impl.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* ---- verification ----------------------------------------------------- */

static int room_for_new(pbi_sequence *s, int64_t n)
{
    float *p;
    if (n <= s->cap_new)
        return 0;
    p = realloc(s->logprobs, (size_t)n * 2 * sizeof *p);
    if (!p)
        return PB_E_NOMEM;
    s->logprobs = p;
    s->cap_new = n * 2;
    return 0;
}

/* Appends what item i's rows drew: n_new tokens, at most the limit, none after an end. */
static int verify(pbi_engine *e, int32_t i, const pb_result *r)
{
    const pbi_step_item *it = &e->items[i];
    pbi_outcome *o = &e->outcome[i];
    pbi_sequence *s = pbi_seq_of(it->seq);
    if (o->first_draw < 0)
        return 0;
    if (room_for_new(s, it->n_draft + 1))
        return pbi_err(&e->err, PB_E_NOMEM, "out of memory");
    for (int32_t k = 0; k <= it->n_draft && s->v.n_tokens < s->limit; k++) {
        int32_t id = r->ids[o->first_draw + k];
        o->dead_end = e->n_constraints && e->dead[o->first_draw + k];
        if (o->dead_end)
            break;
        if (id < 0 || id >= e->n_vocab)
            return pbi_err(
                &e->err, PB_E_PLUGIN,
                "backend-%s: step %llu: row drew token %d, the vocabulary has %d",
                pbi_instance_use(pbi_device_instance(pbi_runner_opts(e->o.runner)->device))->name,
                (unsigned long long)e->step, id, e->n_vocab);
        s->logprobs[o->n_new++] = r->logprobs ? r->logprobs[o->first_draw + k] : NAN;
        if (pbi_seq_push(s, id))
            return pbi_err(&e->err, PB_E_NOMEM, "out of memory");
        if (pbi_seq_is_eos(s, id) || k == it->n_draft || it->draft[k] != id)
            break;
        o->n_accepted++;
    }
    /* the last of the new tokens has no KV yet, whether a draft guessed it or not */
    if (o->n_accepted >= o->n_new)
        o->n_accepted = o->n_new ? o->n_new - 1 : 0;
    o->keep = o->n_new;
    e->st.n_accepted += o->n_accepted;
    return 0;
}

/* ---- output plugins --------------------------------------------------- */

static int take_verdict(pbi_engine *e, const pbi_site *site, int32_t i, const pb_verdict *v)
{
    pbi_outcome *o = &e->outcome[i];
    pbi_sequence *s = pbi_seq_of(e->items[i].seq);
    const char *name = pbi_instance_use(site->in)->name;
    if (v->keep < 0 || v->keep > o->keep || v->n_forced < 0 || (v->n_forced && !v->forced))
        return pbi_err(&e->err, PB_E_PLUGIN,
                       "output-%s.accept: seq %llu: keep %d of %d, %d forced tokens", name,
                       (unsigned long long)s->v.id, v->keep, o->keep, v->n_forced);
    if (v->keep == 0 && !v->n_forced && !v->finish)
        return pbi_err(&e->err, PB_E_PLUGIN,
                       "output-%s.accept: seq %llu: keeps no token, forces none and does not "
                       "finish: the same token would be drawn again for ever",
                       name, (unsigned long long)s->v.id);
    for (int32_t k = 0; k < v->n_forced; k++)
        if (v->forced[k] < 0 || v->forced[k] >= e->n_vocab)
            return pbi_err(&e->err, PB_E_PLUGIN,
                           "output-%s.accept: seq %llu: forced token %d is %d, the vocabulary has "
                           "%d",
                           name, (unsigned long long)s->v.id, k, v->forced[k], e->n_vocab);
    if (v->keep < o->keep)
        s->n_forced = 0; /* what an output before it wanted came after a token that is cut */
    if (v->n_forced && !s->n_forced) {
        if (v->n_forced > s->cap_forced) {
            int32_t *f = realloc(s->forced, (size_t)v->n_forced * sizeof *f);
            if (!f)
                return pbi_err(&e->err, PB_E_NOMEM, "out of memory");
            s->forced = f;
            s->cap_forced = v->n_forced;
        }
        memcpy(s->forced, v->forced, (size_t)v->n_forced * sizeof *s->forced);
        s->n_forced = v->n_forced;
    }
    o->keep = v->keep;
    o->finish |= v->finish != 0;
    s->v.n_tokens = o->n_before + o->keep;
    s->v.n_left = s->v.n_tokens - s->v.n_valid;
    return 0;
}

static int ask_outputs(pbi_engine *e)
{
    for (int k = 0; k < e->n_outputs; k++) {
        pbi_site *site = &e->o_accept[k];
        int32_t n = 0;
        int rc;
        for (int32_t i = 0; i < e->n_items; i++) {
            int32_t keep = e->outcome[i].keep;
            if (keep < 1)
                continue;
            e->acc_seq[n] = e->items[i].seq;
            e->acc_n[n] = keep;
            e->acc_item[n] = i;
            e->verdict[n++] = (pb_verdict){ .keep = keep };
        }
        if (!n)
            return 0;
        PBI_SITE(site,
                 rc = e->output[k]->accept(PBI_SELF(site), n, e->acc_seq, e->acc_n, e->verdict));
        PBI_LOG(site, rc, "%d sequences, first seq %llu: keep %d of %d, %d forced", n,
                (unsigned long long)e->acc_seq[0]->id, e->verdict[0].keep, e->acc_n[0],
                e->verdict[0].n_forced);
        if (rc < 0)
            return pbi_err(&e->err, rc, "output-%s.accept failed (%d)",
                           pbi_instance_use(site->in)->name, rc);
        for (int32_t j = 0; j < n; j++) {
            rc = take_verdict(e, site, e->acc_item[j], &e->verdict[j]);
            if (rc)
                return rc;
        }
    }
    return 0;
}

/* Forced tokens follow what was kept. */
static int append_forced(pbi_engine *e, int32_t i)
{
    pbi_outcome *o = &e->outcome[i];
    pbi_sequence *s = pbi_seq_of(e->items[i].seq);
    int64_t n = s->n_forced;
    o->n_kept = o->keep;
    int ended = o->keep > 0 && pbi_seq_is_eos(s, s->tokens[s->v.n_tokens - 1]);
    s->n_forced = 0;
    if (ended || o->finish)
        return 0;
    if (room_for_new(s, o->keep + n))
        return pbi_err(&e->err, PB_E_NOMEM, "out of memory");
    for (int64_t k = 0; k < n && s->v.n_tokens < s->limit; k++) {
        s->logprobs[o->keep++] = NAN;
        if (pbi_seq_push(s, s->forced[k]))
            return pbi_err(&e->err, PB_E_NOMEM, "out of memory");
        if (pbi_seq_is_eos(s, s->forced[k]))
            break;
    }
    return 0;
}

/* ---- rows ------------------------------------------------------------- */

/* Shows the wanted row at r->logits[out], which stands at position pos. */
static void show_row(pbi_engine *e, pbi_sequence *s, const pb_result *r, int32_t out, int64_t pos)
{
    const float *row = r->logits + (int64_t)out * e->n_vocab;
    if (s->flags & PBI_SUBMIT_HASH)
        s->hash = XXH3_64bits_withSeed(row, (size_t)e->n_vocab * sizeof *row, s->hash);
    if (e->o.hooks.on_logits)
        e->o.hooks.on_logits(e->o.hooks.arg, s->v.id, pos, row, e->n_vocab);
    s->next_row = pos + 1;
}

/* Rows whose tokens were kept; with ALL_LOGITS also those of the prompt, of forced tokens and of
 * a token that another was put in place of. Each is one that a run of one token a step computes
 * too, and the order is by position: so the hash depends on neither drafts nor chunks. */
static void show_rows(pbi_engine *e, int32_t i, const pb_result *r, int ends)
{
    const pbi_step_item *it = &e->items[i];
    const pbi_outcome *o = &e->outcome[i];
    pbi_sequence *s = pbi_seq_of(it->seq);
    int64_t first = o->base + it->want_from; /* position of the first wanted row */
    int64_t from, to;                        /* positions */
    if (!r->logits)
        return;
    to = o->n_before - 1 + o->n_kept;
    if (o->first_draw < 0)
        to = o->base + it->n_tokens;
    else if (s->v.flags & PB_SEQ_ALL_LOGITS && !ends && o->n_kept < o->n_new)
        to++;
    from = s->v.flags & PB_SEQ_ALL_LOGITS || o->first_draw < 0 ? first : o->n_before - 1;
    if (s->v.flags & PB_SEQ_ALL_LOGITS && to < s->v.n_prompt && o->first_draw >= 0)
        to = s->v.n_prompt;
    for (int64_t pos = from > s->next_row ? from : s->next_row; pos < to; pos++)
        show_row(e, s, r, it->first_out + (int32_t)(pos - first), pos);
}

/* ---- commit and answer ------------------------------------------------ */

static int send_new(pbi_engine *e, pbi_sequence *s, int32_t n)
{
    const int32_t *ids = s->tokens + s->v.n_tokens - n;
    for (int32_t at = 0; at < n;) {
        int32_t k = n - at < PBI_MSG_MAX_IDS ? n - at : PBI_MSG_MAX_IDS;
        pbi_msg_tokens m = { .h = { .id = s->v.id },
                             .logits_hash = s->hash,
                             .t_ns = pbi_device_now(pbi_runner_opts(e->o.runner)->device),
                             .t_admit_ns = s->t_admit,
                             .n_cached = s->n_cached,
                             .n = k };
        size_t bytes = pbi_msg_tokens_bytes(k, s->params.n_logprobs >= 0);
        void *buf = pbi_engine_buf(e, bytes);
        int rc;
        if (!buf)
            return pbi_err(&e->err, PB_E_NOMEM, "out of memory");
        pbi_msg_put_tokens(buf, bytes, &m, ids + at,
                           s->params.n_logprobs >= 0 ? s->logprobs + at : NULL);
        rc = pbi_engine_send(e, buf, bytes);
        if (rc)
            return rc;
        at += k;
    }
    e->st.n_out_tokens += n;
    return 0;
}

static int32_t end_reason(const pbi_sequence *s, const pbi_outcome *o)
{
    if (o->keep > 0 && pbi_seq_is_eos(s, s->tokens[s->v.n_tokens - 1]))
        return PBI_DONE_STOP;
    if (o->finish)
        return PBI_DONE_STOP;
    if (s->v.n_tokens >= s->limit && (o->keep > 0 || s->v.n_left == 0))
        return s->limit_reason;
    return 0;
}

/* The KV that is good: what was fed, accepted drafts included, as far as its tokens stayed. A
 * sequence that goes on must have a row to feed. */
static void commit(pbi_engine *e, int32_t i)
{
    const pbi_step_item *it = &e->items[i];
    const pbi_outcome *o = &e->outcome[i];
    pbi_sequence *s = pbi_seq_of(it->seq);
    int64_t end = s->v.n_valid + it->n_tokens + it->n_draft;
    int64_t good = s->v.n_valid + it->n_tokens + o->n_accepted;
    int64_t most = o->first_draw < 0 ? s->v.n_tokens : s->v.n_tokens - 1;
    int64_t kept = o->n_before + o->n_kept;
    good = good < kept ? good : kept;
    good = good < most ? good : most;
    s->v.n_valid = good;
    s->v.n_left = s->v.n_tokens - good;
    PBI_SITE(&e->a_commit, e->att->commit(PBI_SELF(&e->a_commit), &s->v, good));
    PBI_LOG(&e->a_commit, 0, "seq %llu, %lld", (unsigned long long)s->v.id, (long long)good);
    if (good == end)
        return;
    PBI_SITE(&e->a_truncate, e->att->truncate(PBI_SELF(&e->a_truncate), &s->v, good));
    PBI_LOG(&e->a_truncate, 0, "seq %llu, %lld of %lld", (unsigned long long)s->v.id,
            (long long)good, (long long)end);
}

static void observe(pbi_engine *e, int64_t step_ns)
{
    int32_t n = 0;
    for (int32_t i = 0; i < e->n_items; i++)
        if (e->items[i].n_draft) {
            e->spec_seq[n] = e->items[i].seq;
            e->spec_want[n] = e->items[i].n_draft;
            e->spec_acc[n++] = e->outcome[i].n_accepted;
        }
    if (n)
        PBI_SITE(&e->d_observe, e->spec->observe(PBI_SELF(&e->d_observe), n, e->spec_seq,
                                                 e->spec_want, e->spec_acc, step_ns));
}

static int settle(pbi_engine *e, int32_t i, const pb_result *r)
{
    pbi_outcome *o = &e->outcome[i];
    pbi_sequence *s = pbi_seq_of(e->items[i].seq);
    int32_t reason;
    int rc = append_forced(e, i);
    if (rc)
        return rc;
    commit(e, i);
    reason = end_reason(s, o);
    show_rows(e, i, r, reason != 0);
    if (o->keep) {
        rc = send_new(e, s, o->keep);
        if (rc)
            return rc;
    }
    if (!reason && o->dead_end && o->keep == o->n_new) {
        pb_err why = { 0 };
        pbi_err(&why, PB_E_PLUGIN, "constraint-%s%s: no token is allowed at position %lld",
                pbi_instance_use(e->c_mask[0].in)->name, e->n_constraints > 1 ? " and others" : "",
                (long long)s->v.n_tokens);
        return pbi_seq_finish(e, s, PBI_DONE_ERROR, &why);
    }
    return reason ? pbi_seq_finish(e, s, reason, NULL) : 0;
}

int pbi_engine_results(pbi_engine *e, const pb_result *r, int64_t step_ns)
{
    int rc = 0;
    for (int32_t i = 0; i < e->n_items && !rc; i++)
        rc = verify(e, i, r);
    if (!rc && e->max_draft)
        observe(e, step_ns);
    if (!rc)
        rc = ask_outputs(e);
    for (int32_t i = 0; i < e->n_items && !rc; i++)
        rc = settle(e, i, r);
    return rc;
}
