/* SPDX-License-Identifier: MIT
 *
 * core/engine_step.c - one step on the device: build, submit, masks, draws, wait; and what to do
 * when a number was none.
 */
#include "engine_impl.h"
#include <stdlib.h>
#include <string.h>

/* ---- draws ------------------------------------------------------------ */

static pb_draw draw_default(const pb_seq *s, int64_t pos)
{
    const pb_params *q = s->params;
    return (pb_draw){ .size = sizeof(pb_draw),
                      .seed = q->seed,
                      .pos = pos,
                      .temperature = 0.0f,
                      .top_p = 1.0f,
                      .min_p = 0.0f,
                      .top_k = 0,
                      .forced = -1,
                      .n_logprobs = q->n_logprobs };
}

/* 1 if the last of its tokens' rows draws the next token */
static int item_draws(const pbi_step_item *it)
{
    return it->n_tokens == it->seq->n_left && it->seq->n_tokens < pbi_seq_of(it->seq)->limit;
}

/* Picks of all rows that draw; returns their number. */
static int32_t make_picks(pbi_engine *e)
{
    int32_t n = 0;
    for (int32_t i = 0; i < e->n_items; i++) {
        const pbi_step_item *it = &e->items[i];
        int32_t out = it->first_out + it->n_tokens - 1 - it->want_from;
        e->outcome[i] = (pbi_outcome){ .first_draw = -1,
                                       .n_before = it->seq->n_tokens,
                                       .base = it->seq->n_valid };
        if (!item_draws(it))
            continue;
        e->outcome[i].first_draw = out;
        for (int32_t k = 0; k <= it->n_draft; k++) {
            e->picks[n] =
                (pb_pick){ .seq = it->seq, .out = out + k, .n_tail = k, .tail = it->draft };
            e->draws[n++] = draw_default(it->seq, it->seq->n_tokens + k);
        }
    }
    return n;
}

static void fill_masks(pbi_engine *e, int32_t n)
{
    uint32_t last = e->n_vocab % 32 ? (1u << (e->n_vocab % 32)) - 1u : 0xffffffffu;
    memset(e->masks, 0xff, (size_t)n * (size_t)e->words * sizeof *e->masks);
    for (int32_t i = 0; i < n; i++) /* no bit of a token that does not exist */
        e->masks[(size_t)(i + 1) * (size_t)e->words - 1] = last;
}

/* A row without any allowed token is fatal for its sequence only if its turn comes: after a
 * draft that is not allowed nothing may be. */
static void find_dead(pbi_engine *e, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        const uint32_t *m = e->masks + (size_t)i * (size_t)e->words;
        uint32_t any = 0;
        for (int64_t k = 0; k < e->words; k++)
            any |= m[k];
        e->dead[e->picks[i].out] = any == 0;
        if (any)
            e->draws[i].allow = m;
        else
            e->draws[i].forced = 0;
    }
}

static int apply_masks(pbi_engine *e, int32_t n)
{
    fill_masks(e, n);
    for (int c = 0; c < e->n_constraints; c++) {
        pbi_site *st = &e->c_mask[c];
        int rc;
        PBI_SITE(st, rc = e->constraint[c]->mask(PBI_SELF(st), n, e->picks, e->masks, e->words));
        PBI_LOG(st, rc, "%d rows, first seq %llu", n, (unsigned long long)e->picks[0].seq->id);
        if (rc < 0)
            return pbi_err(&e->err, rc, "constraint-%s.mask failed (%d)",
                           pbi_instance_use(st->in)->name, rc);
    }
    find_dead(e, n);
    return 0;
}

/* Every wanted row has a draw; those that only show their logits draw token 0, unread. */
static void spread_draws(pbi_engine *e, int32_t n, int32_t n_out)
{
    int32_t k = n - 1;
    if (n == n_out)
        return;
    for (int32_t i = n_out - 1; i >= 0; i--) {
        if (k >= 0 && e->picks[k].out == i) {
            e->draws[i] = e->draws[k--];
        } else {
            e->draws[i] =
                (pb_draw){ .size = sizeof(pb_draw), .top_p = 1.0f, .forced = 0, .n_logprobs = -1 };
        }
    }
}

static int draw(pbi_engine *e, const pb_step *s)
{
    int32_t n = make_picks(e);
    int rc;
    if (!n)
        return 0;
    PBI_SITE(&e->p_draw, rc = e->sampler->draw(PBI_SELF(&e->p_draw), n, e->picks, e->draws));
    PBI_LOG(&e->p_draw, rc, "%d rows, first seq %llu", n, (unsigned long long)e->picks[0].seq->id);
    if (rc < 0)
        return pbi_err(&e->err, rc, "sampler-%s.draw failed (%d)",
                       pbi_instance_use(e->p_draw.in)->name, rc);
    if (e->n_constraints && (rc = apply_masks(e, n)))
        return rc;
    spread_draws(e, n, s->n_out);
    if (e->o.hooks.on_draws)
        e->o.hooks.on_draws(e->o.hooks.arg, s->n_out, e->draws, sizeof *e->draws);
    return pbi_runner_pick(e->o.runner, s->n_out, e->draws, sizeof *e->draws, &e->err);
}

/* ---- the record ------------------------------------------------------- */

static int32_t step_flags(const pbi_engine *e)
{
    int32_t wanted = 0;
    for (int32_t i = 0; i < e->n_items; i++) {
        const pbi_step_item *it = &e->items[i];
        int shown = e->o.hooks.on_logits || (pbi_seq_of(it->seq)->flags & PBI_SUBMIT_HASH);
        wanted |= shown && it->want_from < it->n_tokens + it->n_draft;
    }
    return wanted ? PB_STEP_LOGITS : 0;
}

/* A copy elsewhere, so that a backend that keeps an address of the last step is found out. */
static int copy_step(pbi_engine *e, const pb_step **s)
{
    size_t shift = (size_t)(e->step % 7) * 64;
    if ((*s)->bytes + 1024 > e->copy_cap) {
        free(e->copy_raw);
        e->copy_cap = (*s)->bytes * 2 + 1024;
        e->copy_raw = malloc(e->copy_cap + 64);
        if (!e->copy_raw) {
            e->copy_cap = 0;
            return pbi_err(&e->err, PB_E_NOMEM, "out of memory for a copy of the step");
        }
        e->copy_buf = (void *)(((uintptr_t)e->copy_raw + 63) / 64 * 64);
    }
    memset(e->copy_buf, 0xff, e->copy_cap);
    memcpy((char *)e->copy_buf + shift, *s, (*s)->bytes);
    *s = (const pb_step *)(const void *)((char *)e->copy_buf + shift);
    return 0;
}

/* ---- NaN -------------------------------------------------------------- */

static int row_is_bad(const float *row, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!(row[i] - row[i] == 0.0f))
            return 1;
    return 0;
}

/* The same step once more with a look at every operation: names the culprit, and whose rows
 * are hit. They fail; the others try again in the next step. */
static int numeric(pbi_engine *e, const pb_step *built)
{
    pb_step *s = (pb_step *)(void *)(uintptr_t)built; /* ours: it lies in the runner's builder */
    pb_err why = { 0 };
    pb_result r;
    int n_failed = 0, rc;
    s->flags |= PB_STEP_CHECK | PB_STEP_LOGITS;
    rc = pbi_runner_submit(e->o.runner, s, &e->err);
    if (rc)
        return rc;
    rc = pbi_runner_wait(e->o.runner, s->n, &r, &why);
    if (rc && rc != PB_E_NUMERIC) {
        e->err = why;
        return rc;
    }
    if (!rc)
        pbi_err(&why, PB_E_NUMERIC,
                "step %llu: NaN or infinity in the logits, but not when it was run again",
                (unsigned long long)s->n);
    pbi_pages_step_done(pbi_runner_pages(e->o.runner));
    for (int pass = 0; pass < 2 && !n_failed; pass++) /* second pass: nobody in particular */
        for (int32_t i = 0; i < e->n_items; i++) {
            const pbi_step_item *it = &e->items[i];
            int32_t n = it->n_tokens + it->n_draft - it->want_from, bad = pass;
            for (int32_t k = 0; k < n && rc && r.logits && !bad; k++)
                bad = row_is_bad(r.logits + (int64_t)(it->first_out + k) * e->n_vocab, e->n_vocab);
            if (!bad)
                continue;
            n_failed++;
            int rc2 = pbi_seq_finish(e, pbi_seq_of(it->seq), PBI_DONE_ERROR, &why);
            if (rc2)
                return rc2;
        }
    return 0;
}

/* ---- the step --------------------------------------------------------- */

static void count(pbi_engine *e, const pb_step *s)
{
    e->st.n_steps++;
    e->st.n_rows += s->n_rows;
    e->st.n_copies += s->n_copies;
    for (int32_t i = 0; i < e->n_items; i++)
        e->st.n_drafted += e->items[i].n_draft;
}

/* A plugin that changes how this thread computes would change others' bits. */
static int check_spoiler(pbi_engine *e)
{
    const pbi_call *c = pbi_call_spoiler();
    if (!c)
        return 0;
    return pbi_err(&e->err, PB_E_PLUGIN,
                   "%s-%s: %s() left the rounding mode or the treatment of denormals changed; "
                   "compile it without -ffast-math, or restore the register",
                   c->slot, c->name, c->function);
}

/* Tells the front what the step did; its rows are counted before results change the items. */
static int send_event(pbi_engine *e, int64_t step_ns, int32_t decode_rows, int32_t rows)
{
    const pbi_pages *p = pbi_runner_pages(e->o.runner);
    int64_t live = 0;
    for (int32_t i = 0; i < e->n_running; i++)
        live += e->running[i]->n_valid;
    pbi_msg_step m = { .h = { .kind = PBI_MSG_STEP, .bytes = sizeof m, .id = e->step },
                       .t_ns = pbi_device_now(pbi_runner_opts(e->o.runner)->device),
                       .step_ns = step_ns,
                       .kv_used = pbi_pages_bytes_used(p),
                       .kv_live = (int64_t)((double)live * pbi_pages_token_bytes(p)),
                       .prefill_rows = rows - decode_rows,
                       .decode_rows = decode_rows,
                       .running = e->n_running,
                       .waiting = e->waiting.n };
    return pbi_engine_send(e, &m, sizeof m);
}

/* rows of sequences that are past their prompt, drafts included */
static int32_t count_decode(const pbi_engine *e)
{
    int32_t n = 0;
    for (int32_t i = 0; i < e->n_items; i++)
        if (e->items[i].seq->n_valid >= e->items[i].seq->n_prompt)
            n += e->items[i].n_tokens + e->items[i].n_draft;
    return n;
}

int pbi_engine_run(pbi_engine *e)
{
    const pb_step *built, *s;
    pb_result r;
    int32_t decode_rows = e->o.step_events ? count_decode(e) : 0, rows;
    int64_t t0 = pbi_device_now(pbi_runner_opts(e->o.runner)->device), ns;
    int rc = pbi_runner_build(e->o.runner, ++e->step, step_flags(e), e->n_items, e->items, e->ids,
                              &built, &e->err);
    if (rc)
        return rc;
    s = built;
    rows = s->n_rows;
    if (e->o.copy_steps && (rc = copy_step(e, &s)))
        return rc;
    if (e->o.hooks.on_step)
        e->o.hooks.on_step(e->o.hooks.arg, s);
    count(e, s);
    rc = pbi_runner_submit(e->o.runner, s, &e->err);
    if (rc)
        return rc;
    rc = draw(e, s);
    if (!rc)
        rc = check_spoiler(e);
    if (rc) /* the device still works on it */
        pbi_runner_wait(e->o.runner, e->step, &r, NULL);
    else
        rc = pbi_runner_wait(e->o.runner, e->step, &r, &e->err);
    if (e->o.copy_steps) /* from now on nobody may look at it */
        memset(e->copy_buf, 0xff, e->copy_cap);
    if (rc == PB_E_NUMERIC)
        return numeric(e, built);
    if (rc)
        return rc;
    pbi_pages_step_done(pbi_runner_pages(e->o.runner));
    ns = pbi_device_now(pbi_runner_opts(e->o.runner)->device) - t0;
    e->st.step_ns += ns;
    e->st.device_ns += r.device_ns;
    if (e->o.hooks.on_result)
        e->o.hooks.on_result(e->o.hooks.arg, built, &r);
    rc = e->o.step_events ? send_event(e, ns, decode_rows, rows) : 0;
    return rc ? rc : pbi_engine_results(e, &r, ns);
}
