/* SPDX-License-Identifier: MIT
 *
 * core/engine.c - the engine's life and its turn: messages in, one step, messages out. The step
 * itself is in engine_plan.c, engine_step.c and engine_result.c.
 */
#include "engine_impl.h"
#include "options.h"
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_DRAFT = 8, MIN_OUT = 64, MAX_DRAIN = 4096 };

/* ---- limits ----------------------------------------------------------- */

/* Option max_draft of the [spec] plugin; a plugin without one gets DEFAULT_DRAFT. */
static int32_t max_draft_of(const pbi_pipeline *p)
{
    const pbi_use *u = pbi_pipeline_use(p, "spec", 0);
    const pb_plugin *d;
    const pb_option *o;
    int64_t n = DEFAULT_DRAFT;
    if (!u)
        return 0;
    d = u->lib->desc;
    o = d->options ? pbi_option_find(d->options, d->option_size, "max_draft") : NULL;
    if (o && o->type == PB_T_INT)
        memcpy(&n, (const char *)u->config + o->offset, sizeof n);
    if (n > p->core.max_rows - 1)
        n = p->core.max_rows - 1;
    return n < 0 ? 0 : (int32_t)n;
}

void pbi_engine_limits(const pbi_pipeline *p, int64_t max_ctx, pb_limits *out)
{
    int64_t n = p->core.max_seqs * (1 + (int64_t)max_draft_of(p));
    n = n < MIN_OUT ? MIN_OUT : n;
    n = n > p->core.max_rows ? p->core.max_rows : n;
    *out =
        (pb_limits){ .size = sizeof *out,
                     .max_rows = (int32_t)p->core.max_rows,
                     .max_seqs = (int32_t)(p->core.max_seqs < p->core.max_rows ? p->core.max_seqs
                                                                               : p->core.max_rows),
                     .max_ctx = (int32_t)max_ctx,
                     .max_out = (int32_t)n };
}

/* ---- open ------------------------------------------------------------- */

static int site(pbi_site *s, pbi_instance *in, const char *function)
{
    s->in = in;
    s->st = pbi_call_stat_get(in, function);
    s->function = function;
    s->log = pbi_calls_logged(in);
    return s->st ? 0 : PB_E_NOMEM;
}

static int open_plugin(pbi_engine *e, const char *slot, int i, pbi_instance **out)
{
    const pbi_use *u = pbi_pipeline_use(e->o.pipeline, slot, i);
    int rc;
    *out = NULL;
    if (!u)
        return 0;
    rc = pbi_instance_new(u, &e->svc, out, &e->err);
    if (rc)
        return rc;
    e->in[e->n_in++] = *out;
    return pbi_instance_start(*out, &e->run, &e->err);
}

static int open_attention_sites(pbi_engine *e)
{
    pbi_instance *in = pbi_runner_attention(e->o.runner);
    e->att = pbi_instance_iface(in, "attention/1");
    return site(&e->a_match, in, "match") || site(&e->a_attach, in, "attach") ||
                   site(&e->a_reserve, in, "reserve") || site(&e->a_commit, in, "commit") ||
                   site(&e->a_truncate, in, "truncate") || site(&e->a_release, in, "release") ||
                   site(&e->a_check, in, "check") || site(&e->a_idle, in, "idle")
               ? PB_E_NOMEM
               : 0;
}

static int open_single(pbi_engine *e)
{
    pbi_instance *in;
    int rc = open_plugin(e, "scheduler", 0, &in);
    if (rc)
        return rc;
    if (!in)
        return pbi_err(&e->err, PB_E_INVAL, "the pipeline has no [scheduler]");
    e->sched = pbi_instance_iface(in, "scheduler/1");
    if (site(&e->s_next, in, "next") || site(&e->s_victim, in, "victim"))
        return PB_E_NOMEM;
    rc = open_plugin(e, "sampler", 0, &in);
    if (rc)
        return rc;
    if (!in)
        return pbi_err(&e->err, PB_E_INVAL, "the pipeline has no [sampler]");
    e->sampler = pbi_instance_iface(in, "sampler/1");
    if (site(&e->p_draw, in, "draw"))
        return PB_E_NOMEM;
    rc = open_plugin(e, "spec", 0, &in);
    if (rc || !in)
        return rc;
    e->spec = pbi_instance_iface(in, "spec/1");
    return site(&e->d_propose, in, "propose") || site(&e->d_observe, in, "observe") ? PB_E_NOMEM
                                                                                    : 0;
}

static int open_lists(pbi_engine *e)
{
    pbi_instance *in;
    int rc;
    for (int i = 0; pbi_pipeline_use(e->o.pipeline, "constraint", i); i++) {
        rc = open_plugin(e, "constraint", i, &in);
        if (rc)
            return rc;
        e->constraint[i] = pbi_instance_iface(in, "constraint/1");
        if (site(&e->c_mask[i], in, "mask"))
            return PB_E_NOMEM;
        e->n_constraints = i + 1;
    }
    for (int i = 0; pbi_pipeline_use(e->o.pipeline, "output", i); i++) {
        rc = open_plugin(e, "output", i, &in);
        if (rc)
            return rc;
        e->output[i] = pbi_instance_iface(in, "output/1");
        if (site(&e->o_accept[i], in, "accept"))
            return PB_E_NOMEM;
        e->n_outputs = i + 1;
    }
    return 0;
}

static int alloc_lists(pbi_engine *e)
{
    size_t n = (size_t)e->o.pipeline->n_uses + 1;
    e->in = calloc(n, sizeof *e->in);
    e->constraint = calloc(n, sizeof *e->constraint);
    e->output = calloc(n, sizeof *e->output);
    e->c_mask = calloc(n, sizeof *e->c_mask);
    e->o_accept = calloc(n, sizeof *e->o_accept);
    return e->in && e->constraint && e->output && e->c_mask && e->o_accept ? 0 : PB_E_NOMEM;
}

/* Everything that a step needs, so that none of it is allocated at a step. */
static int alloc_step(pbi_engine *e)
{
    size_t n = (size_t)e->lim.max_seqs + 1, o = (size_t)e->lim.max_out + 1;
    size_t d = n * ((size_t)e->max_draft + 1);
    e->words = (e->n_vocab + 31) / 32;
    e->running = calloc(n, sizeof *e->running);
    e->slots = calloc(n, sizeof *e->slots);
    e->plan = calloc(n, sizeof *e->plan);
    e->age = calloc(n, sizeof *e->age);
    e->items = calloc(n, sizeof *e->items);
    e->outcome = calloc(n, sizeof *e->outcome);
    e->ids = calloc(n, sizeof *e->ids);
    e->spec_seq = calloc(n, sizeof *e->spec_seq);
    e->spec_want = calloc(n, sizeof *e->spec_want);
    e->spec_n = calloc(n, sizeof *e->spec_n);
    e->spec_acc = calloc(n, sizeof *e->spec_acc);
    e->draft = calloc(d, sizeof *e->draft);
    e->draft_row = calloc(n, sizeof *e->draft_row);
    e->draws = calloc(o, sizeof *e->draws);
    e->picks = calloc(o, sizeof *e->picks);
    e->dead = calloc(o, sizeof *e->dead);
    e->masks = e->n_constraints ? calloc(o * (size_t)e->words, sizeof *e->masks) : NULL;
    e->acc_seq = calloc(n, sizeof *e->acc_seq);
    e->acc_n = calloc(n, sizeof *e->acc_n);
    e->acc_item = calloc(n, sizeof *e->acc_item);
    e->verdict = calloc(n, sizeof *e->verdict);
    if (!e->running || !e->slots || !e->plan || !e->age || !e->items || !e->outcome || !e->ids ||
        !e->spec_seq || !e->spec_want || !e->spec_n || !e->spec_acc || !e->draft || !e->draft_row ||
        !e->draws || !e->picks || !e->dead || (e->n_constraints && !e->masks) || !e->acc_seq ||
        !e->acc_n || !e->acc_item || !e->verdict)
        return PB_E_NOMEM;
    for (int32_t i = 0; i < e->lim.max_seqs; i++) /* slot 0 is given first */
        e->slots[e->n_slots++] = e->lim.max_seqs - 1 - i;
    return 0;
}

static int open_all(pbi_engine *e)
{
    const pbi_runner_options *r = pbi_runner_opts(e->o.runner);
    const pbi_device_options *d = pbi_device_opts(r->device);
    int rc;
    e->lim = r->limits;
    e->n_vocab = r->program->n_vocab;
    e->max_draft = max_draft_of(e->o.pipeline);
    e->run = (pb_run){ .size = sizeof e->run,
                       .max_seqs = e->lim.max_seqs,
                       .max_rows = e->lim.max_rows,
                       .max_ctx = e->lim.max_ctx,
                       .n_vocab = e->n_vocab };
    e->svc = (pbi_services){
        .team = d->team, .text = e->o.text, .now_ns = d->now_ns, .now_arg = d->now_arg
    };
    e->rng = e->o.amnesia;
    rc = alloc_lists(e);
    if (!rc)
        rc = open_attention_sites(e);
    if (!rc)
        rc = open_single(e);
    if (!rc)
        rc = open_lists(e);
    return rc ? rc : alloc_step(e);
}

int pbi_engine_open(const pbi_engine_options *o, pbi_engine **out, pb_err *err)
{
    pbi_engine *e = calloc(1, sizeof *e);
    int rc;
    if (!e)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    e->o = *o;
    e->out_last = &e->out_first;
    rc = open_all(e);
    if (rc) {
        if (!e->err.code)
            pbi_err(&e->err, rc, "the engine: %s", pbi_err_kind(rc));
        if (err)
            *err = e->err;
        pbi_engine_close(e);
        return rc;
    }
    *out = e;
    return 0;
}

static void drop_sequences(pbi_engine *e)
{
    while (e->n_running) {
        const pb_seq *v = e->running[--e->n_running];
        PBI_SITE(&e->a_release, e->att->release(PBI_SELF(&e->a_release), v, PB_REL_ABORTED));
        e->slots[e->n_slots++] = v->slot;
        pbi_seq_free(pbi_seq_of(v));
    }
    for (int32_t i = 0; i < e->waiting.n; i++)
        pbi_seq_free(pbi_seq_of(e->waiting.seq[e->waiting.head + i]));
    e->waiting.n = e->waiting.head = 0;
}

static void free_step(pbi_engine *e)
{
    void *const p[] = { e->running, e->slots,     e->plan,      e->items,      e->outcome,
                        e->ids,     e->spec_seq,  e->spec_want, e->spec_n,     e->spec_acc,
                        e->draft,   e->draft_row, e->draws,     e->picks,      e->dead,
                        e->masks,   e->acc_seq,   e->acc_n,     e->acc_item,   e->verdict,
                        e->age,     e->copy_raw,  e->msg_buf,   e->waiting.seq };
    for (size_t i = 0; i < sizeof p / sizeof *p; i++)
        free(p[i]);
}

void pbi_engine_close(pbi_engine *e)
{
    if (!e)
        return;
    drop_sequences(e);
    while (e->out_first) {
        pbi_outmsg *m = e->out_first;
        e->out_first = m->next;
        free(m);
    }
    for (int i = e->n_in; i-- > 0;)
        pbi_instance_free(e->in[i]);
    free_step(e);
    free(e->in);
    free(e->constraint);
    free(e->output);
    free(e->c_mask);
    free(e->o_accept);
    free(e);
}

/* ---- messages out ----------------------------------------------------- */

int pbi_engine_send(pbi_engine *e, const void *msg, size_t bytes)
{
    pbi_outmsg *m;
    if (!e->out_first && e->o.port.send(e->o.port.arg, msg, bytes) == 0)
        return 0;
    m = malloc(sizeof *m + bytes);
    if (!m)
        return PB_E_NOMEM;
    m->next = NULL;
    m->bytes = bytes;
    memcpy(m->data, msg, bytes);
    *e->out_last = m;
    e->out_last = &m->next;
    return 0;
}

static void flush(pbi_engine *e)
{
    while (e->out_first) {
        pbi_outmsg *m = e->out_first;
        if (e->o.port.send(e->o.port.arg, m->data, m->bytes))
            return;
        e->out_first = m->next;
        if (!e->out_first)
            e->out_last = &e->out_first;
        free(m);
    }
}

void *pbi_engine_buf(pbi_engine *e, size_t bytes)
{
    if (bytes > e->msg_cap) {
        free(e->msg_buf);
        e->msg_buf = malloc(bytes * 2);
        e->msg_cap = e->msg_buf ? bytes * 2 : 0;
    }
    return e->msg_buf;
}

int pbi_engine_send_done(pbi_engine *e, uint64_t id, const pbi_sequence *s, int32_t reason,
                         const pb_err *err)
{
    pbi_msg_done m;
    memset(&m, 0, sizeof m);
    m.h = (pbi_msg){ .kind = PBI_MSG_DONE, .bytes = sizeof m, .id = id };
    m.t_ns = pbi_device_now(pbi_runner_opts(e->o.runner)->device);
    m.reason = reason;
    if (s) {
        m.logits_hash = s->hash;
        m.n_cached = s->n_cached > 0 ? s->n_cached : 0;
        m.t_admit_ns = s->t_admit;
        m.n_preempted = s->n_preempted;
    }
    if (err)
        m.err = *err;
    return pbi_engine_send(e, &m, sizeof m);
}

static int send_ack(pbi_engine *e, const pbi_msg *of, int32_t kind, const pb_err *err)
{
    pbi_msg_ack m;
    memset(&m, 0, sizeof m);
    m.h = (pbi_msg){ .kind = (uint32_t)kind, .bytes = sizeof m, .id = of ? of->id : 0 };
    m.kind = of ? (int32_t)of->kind : 0;
    if (err)
        m.err = *err;
    return pbi_engine_send(e, &m, sizeof m);
}

/* ---- renewal ---------------------------------------------------------- */

uint64_t pbi_engine_random(pbi_engine *e)
{
    uint64_t z = e->rng += 0x9e3779b97f4a7c15ull; /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* All sequences go back to waiting, then the pages' owner starts from nothing. */
static int renew_attention(pbi_engine *e)
{
    int rc = pbi_seq_preempt_all(e, PB_REL_SWAPPED);
    return rc ? rc : pbi_runner_renew(e->o.runner, &e->err);
}

int pbi_engine_renew(pbi_engine *e, const char *slot)
{
    int found = 0, rc;
    for (int i = 0; i < e->n_in; i++) {
        if (*slot && strcmp(pbi_instance_use(e->in[i])->slot, slot))
            continue;
        rc = pbi_instance_renew(e->in[i], &e->err);
        if (rc)
            return rc;
        found = 1;
    }
    if (!*slot || !strcmp(slot, "attention"))
        return renew_attention(e);
    return found ? 0 : PB_E_INVAL;
}

/* Now and then one plugin forgets everything, as after a crash or a swap. */
static int amnesia(pbi_engine *e)
{
    uint64_t r = pbi_engine_random(e);
    int i = (int)(r >> 8) % (e->n_in + 1);
    if (r & 7)
        return 0;
    i = i < 0 ? -i : i;
    return i == e->n_in ? renew_attention(e) : pbi_instance_renew(e->in[i], &e->err);
}

static int reset_all(pbi_engine *e, pb_err *why)
{
    int rc;
    if (e->n_running + e->waiting.n)
        return pbi_err(why, PB_E_STATE, "reset with %d sequences running and %d waiting",
                       e->n_running, e->waiting.n);
    for (int i = 0; i < e->n_in; i++) {
        rc = pbi_instance_reset(e->in[i]);
        if (rc)
            return pbi_err(why, rc, "%s-%s.reset failed (%d)", pbi_instance_use(e->in[i])->slot,
                           pbi_instance_use(e->in[i])->name, rc);
    }
    rc = pbi_instance_reset(pbi_runner_attention(e->o.runner));
    if (!rc)
        rc = pbi_runner_renew(e->o.runner, why);
    memset(&e->st, 0, sizeof e->st);
    pbi_pages_peak_reset(pbi_runner_pages(e->o.runner));
    return rc;
}

/* ---- messages in ------------------------------------------------------ */

static const pb_seq *find_id(const pbi_engine *e, uint64_t id)
{
    for (int32_t i = 0; i < e->n_running; i++)
        if (e->running[i]->id == id)
            return e->running[i];
    for (int32_t i = 0; i < e->waiting.n; i++)
        if (e->waiting.seq[e->waiting.head + i]->id == id)
            return e->waiting.seq[e->waiting.head + i];
    return NULL;
}

static int send_stats(pbi_engine *e, const pbi_msg *of)
{
    pbi_msg_stats m;
    memset(&m, 0, sizeof m);
    m.h = (pbi_msg){ .kind = PBI_MSG_STATS, .bytes = sizeof m, .id = of->id };
    pbi_engine_get_stats(e, &m.stats);
    return pbi_engine_send(e, &m, sizeof m);
}

static int answer(pbi_engine *e, const pbi_msg *h)
{
    pb_err why = { 0 };
    const pb_seq *s;
    switch (h->kind) {
    case PBI_MSG_SUBMIT: return pbi_seq_submit(e, (const pbi_msg_submit *)(const void *)h);
    case PBI_MSG_ABORT:
        s = find_id(e, h->id);
        return s ? pbi_seq_finish(e, pbi_seq_of(s), PBI_DONE_ABORT, NULL) : 0;
    case PBI_MSG_RESET: reset_all(e, &why); return send_ack(e, h, PBI_MSG_ACK, &why);
    case PBI_MSG_RENEW: {
        const char *slot = ((const pbi_msg_renew *)(const void *)h)->slot;
        int rc = pbi_engine_renew(e, slot);
        if (rc == PB_E_INVAL && !e->err.code)
            rc = pbi_err(&why, PB_E_INVAL, "renew: the engine has no plugin in slot '%s'", slot);
        else if (rc)
            return rc;
        return send_ack(e, h, PBI_MSG_ACK, &why);
    }
    case PBI_MSG_ASK: return send_stats(e, h);
    case PBI_MSG_QUIT:
        drop_sequences(e);
        e->quit = 1;
        return send_ack(e, h, PBI_MSG_ACK, NULL);
    default:
        return pbi_err(&e->err, PB_E_FORMAT,
                       "the engine got a message of kind %u, which is an "
                       "answer",
                       h->kind);
    }
}

static int drain(pbi_engine *e, int *n)
{
    const void *msg;
    size_t bytes;
    *n = 0;
    while (*n < MAX_DRAIN && !e->quit && (msg = e->o.port.peek(e->o.port.arg, &bytes))) {
        int rc = pbi_msg_check(msg, bytes, &e->err);
        if (!rc)
            rc = answer(e, msg);
        e->o.port.pop(e->o.port.arg);
        ++*n;
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- the turn --------------------------------------------------------- */

int pbi_engine_pages_fault(pbi_engine *e)
{
    return pbi_pages_fault(pbi_runner_pages(e->o.runner), &e->err);
}

/* Nothing is attached: the plugin's references must be the pool's, and what it still holds must
 * be a cache that it would give up. */
static int check_idle(pbi_engine *e)
{
    const pbi_pages *p = pbi_runner_pages(e->o.runner);
    const char *name = pbi_instance_use(e->a_check.in)->name;
    int rc;
    e->checked_idle = 1;
    if (!pbi_runner_opts(e->o.runner)->paranoid)
        return 0;
    PBI_SITE(&e->a_check, rc = e->att->check(PBI_SELF(&e->a_check), &e->err));
    PBI_LOG(&e->a_check, rc, "idle");
    if (rc)
        return pbi_err_prefix(&e->err, "attention-%s.check", name);
    for (int32_t g = 0; g < pbi_pages_groups(p); g++) {
        int32_t taken = pbi_pages_planned(p, g)->n_pages - 1 - pbi_pages_n_unused(p, g), idle;
        PBI_SITE(&e->a_idle, idle = e->att->idle(PBI_SELF(&e->a_idle), g));
        if (taken != idle)
            return pbi_err(&e->err, PB_E_PLUGIN,
                           "attention-%s.release: %d pages of group %d are left taken while no "
                           "sequence is attached, and idle says %d",
                           name, taken, g, idle);
    }
    return pbi_engine_pages_fault(e);
}

static int one_step(pbi_engine *e)
{
    int rc = 0;
    if (pbi_runner_take_arena(e->o.runner))
        rc = renew_attention(e);
    if (!rc && e->o.amnesia)
        rc = amnesia(e);
    if (!rc && e->o.preempt_every > 0 && e->n_running > 1 &&
        e->step % (uint64_t)e->o.preempt_every == 0)
        rc = pbi_seq_preempt(e, pbi_seq_of(e->running[e->n_running - 1]), PB_REL_PREEMPTED);
    if (!rc)
        rc = pbi_engine_plan(e);
    if (!rc)
        rc = pbi_engine_pages_fault(e);
    if (!rc && e->n_items)
        rc = pbi_engine_run(e);
    if (!rc)
        rc = pbi_engine_pages_fault(e);
    e->checked_idle = 0;
    return rc;
}

static int fail(pbi_engine *e, int rc)
{
    e->code = rc;
    if (!e->err.code)
        pbi_err(&e->err, rc, "the engine: %s", pbi_err_kind(rc));
    send_ack(e, NULL, PBI_MSG_FAULT, &e->err);
    return rc;
}

int pbi_engine_turn(pbi_engine *e)
{
    int n = 0, rc;
    flush(e);
    if (e->code)
        return e->code;
    rc = drain(e, &n);
    if (rc)
        return fail(e, rc);
    if (e->out_first) /* the front must read first */
        return PB_LOOP_IDLE;
    if (e->quit)
        return PB_LOOP_DONE;
    if (e->n_running + e->waiting.n == 0) {
        rc = e->checked_idle ? 0 : check_idle(e);
        return rc ? fail(e, rc) : n ? PB_LOOP_BUSY : PB_LOOP_IDLE;
    }
    rc = one_step(e);
    if (rc)
        return fail(e, rc);
    return e->n_items || n ? PB_LOOP_BUSY : PB_LOOP_IDLE;
}

/* ---- views ------------------------------------------------------------ */

const pb_err *pbi_engine_error(const pbi_engine *e)
{
    return &e->err;
}

int32_t pbi_engine_load(const pbi_engine *e)
{
    return e->n_running + e->waiting.n;
}

void pbi_engine_get_stats(const pbi_engine *e, pbi_engine_stats *s)
{
    const pbi_pages *p = pbi_runner_pages(e->o.runner);
    *s = e->st;
    s->kv_bytes_arena = pbi_runner_arena_bytes(e->o.runner);
    s->kv_bytes_used = pbi_pages_bytes_used(p);
    s->kv_bytes_peak = pbi_pages_bytes_peak(p);
    s->weight_bytes = pbi_device_weight_bytes(pbi_runner_opts(e->o.runner)->device);
}

int pbi_engine_instances(const pbi_engine *e, pbi_instance *const **out)
{
    *out = e->in;
    return e->n_in;
}
