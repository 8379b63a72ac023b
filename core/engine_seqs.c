/* SPDX-License-Identifier: MIT
 *
 * core/engine_seqs.c - sequences: from a submit message to a done message, between the waiting
 * queue and the running list. Every change of state that an attention plugin must know of is
 * made here.
 */
#include "engine_impl.h"
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* ---- the waiting queue ------------------------------------------------ */

static int queue_room(pbi_queue *q)
{
    const pb_seq **p;
    int32_t cap;
    if (q->head + q->n < q->cap)
        return 0;
    if (q->head > q->cap / 2) {
        memmove(q->seq, q->seq + q->head, (size_t)q->n * sizeof *q->seq);
        q->head = 0;
        return 0;
    }
    cap = q->cap ? q->cap * 2 : 64;
    p = realloc(q->seq, (size_t)cap * sizeof *p);
    if (!p)
        return PB_E_NOMEM;
    q->seq = p;
    q->cap = cap;
    return 0;
}

int pbi_queue_add(pbi_queue *q, const pb_seq *s)
{
    const pb_seq **a;
    int32_t i;
    if (queue_room(q))
        return PB_E_NOMEM;
    a = q->seq + q->head;
    for (i = q->n; i > 0 && pbi_seq_of(a[i - 1])->order > pbi_seq_of(s)->order; i--)
        ;
    if (i == 0 && q->head > 0) { /* a preempted one, mostly: back to the front */
        q->seq[--q->head] = s;
        q->n++;
        return 0;
    }
    memmove(a + i + 1, a + i, (size_t)(q->n - i) * sizeof *a);
    a[i] = s;
    q->n++;
    return 0;
}

void pbi_queue_remove(pbi_queue *q, int32_t i)
{
    const pb_seq **a = q->seq + q->head;
    if (i < q->n / 2) {
        memmove(a + 1, a, (size_t)i * sizeof *a);
        q->head++;
    } else {
        memmove(a + i, a + i + 1, (size_t)(q->n - i - 1) * sizeof *a);
    }
    if (--q->n == 0)
        q->head = 0;
}

int32_t pbi_queue_find(const pbi_queue *q, const pb_seq *s, int32_t hint)
{
    const pb_seq *const *a = q->seq + q->head;
    if (hint >= 0 && hint < q->n && a[hint] == s)
        return hint;
    for (int32_t i = 0; i < q->n; i++)
        if (a[i] == s)
            return i;
    return -1;
}

/* ---- submit ----------------------------------------------------------- */

void pbi_seq_free(pbi_sequence *s)
{
    if (!s)
        return;
    free(s->tokens);
    free(s->logprobs);
    free(s->forced);
    free(s);
}

int pbi_seq_push(pbi_sequence *s, int32_t id)
{
    if (s->v.n_tokens == s->cap_tokens) {
        int64_t cap = s->cap_tokens < 64 ? 128 : s->cap_tokens * 2;
        int32_t *t = realloc(s->tokens, (size_t)cap * sizeof *t);
        if (!t)
            return PB_E_NOMEM;
        s->tokens = t;
        s->v.tokens = t;
        s->cap_tokens = cap;
    }
    s->tokens[s->v.n_tokens++] = id;
    s->v.n_left = s->v.n_tokens - s->v.n_valid;
    return 0;
}

static int refuse_reason(const pbi_engine *e, const pbi_msg_submit *m, pb_err *err)
{
    const int32_t *t = pbi_msg_submit_tokens(m);
    if (m->n_tokens < 1 || m->n_prompt < 1)
        return pbi_err(err, PB_E_INVAL, "the prompt has no token");
    if (m->n_tokens > e->lim.max_ctx)
        return pbi_err(err, PB_E_INVAL, "the prompt has %d tokens, the context %d", m->n_tokens,
                       e->lim.max_ctx);
    for (int32_t i = 0; i < m->n_tokens; i++)
        if (t[i] < 0 || t[i] >= e->n_vocab)
            return pbi_err(err, PB_E_INVAL, "token %d of the prompt is %d, the vocabulary has %d",
                           i, t[i], e->n_vocab);
    return 0;
}

static void set_limit(const pbi_engine *e, const pbi_msg_submit *m, pbi_sequence *s)
{
    s->limit = e->lim.max_ctx;
    s->limit_reason = PBI_DONE_CONTEXT;
    if (m->max_new >= 0 && m->max_new <= s->limit - m->n_prompt) {
        s->limit = m->n_prompt + m->max_new;
        s->limit_reason = PBI_DONE_LENGTH;
    }
}

int pbi_seq_is_eos(const pbi_sequence *s, int32_t id)
{
    if (s->flags & PBI_SUBMIT_IGNORE_EOS)
        return 0;
    for (int32_t i = 0; i < s->n_eos; i++)
        if (s->eos[i] == id)
            return 1;
    return 0;
}

static pbi_sequence *seq_new(const pbi_engine *e, const pbi_msg_submit *m)
{
    pbi_sequence *s = calloc(1, sizeof *s);
    uint64_t key[2] = { pbi_runner_model_key(e->o.runner), m->salt };
    if (!s)
        return NULL;
    s->cap_tokens = m->n_tokens + 64;
    s->tokens = malloc((size_t)s->cap_tokens * sizeof *s->tokens);
    if (!s->tokens) {
        free(s);
        return NULL;
    }
    memcpy(s->tokens, pbi_msg_submit_tokens(m), (size_t)m->n_tokens * sizeof *s->tokens);
    memcpy(s->eos, pbi_msg_submit_eos(m), (size_t)m->n_eos * sizeof *s->eos);
    s->n_eos = m->n_eos;
    s->flags = (uint32_t)m->flags;
    s->params = m->params;
    s->hash = m->logits_hash;
    s->n_cached = -1;
    s->v = (pb_seq){ .size = sizeof s->v,
                     .id = m->h.id,
                     .cache_key = XXH3_64bits(key, sizeof key),
                     .slot = -1,
                     .state = PB_SEQ_WAITING,
                     .priority = m->priority,
                     .flags = m->flags & PBI_SUBMIT_ALL_LOGITS ? PB_SEQ_ALL_LOGITS : 0,
                     .tokens = s->tokens,
                     .n_tokens = m->n_tokens,
                     .n_prompt = m->n_prompt,
                     .n_left = m->n_tokens,
                     .max_new = m->max_new,
                     .t_arrival_ns = m->arrival_ns,
                     .params = &s->params };
    /* rows before the emitted tokens were counted by the engine that was lost */
    if (m->n_tokens > m->n_prompt)
        s->next_row = m->n_tokens - 1;
    set_limit(e, m, s);
    return s;
}

int pbi_seq_submit(pbi_engine *e, const pbi_msg_submit *m)
{
    pb_err why = { 0 };
    pbi_sequence *s;
    if (refuse_reason(e, m, &why))
        return pbi_engine_send_done(e, m->h.id, NULL, PBI_DONE_ERROR, &why);
    s = seq_new(e, m);
    if (!s)
        return PB_E_NOMEM;
    s->order = e->next_order++;
    /* a resubmission of what was complete already: only its DONE was lost */
    if (s->v.n_tokens > s->v.n_prompt && pbi_seq_is_eos(s, s->tokens[s->v.n_tokens - 1]))
        return pbi_seq_finish(e, s, PBI_DONE_STOP, NULL);
    if (s->v.n_tokens > s->v.n_prompt && s->v.n_tokens >= s->limit)
        return pbi_seq_finish(e, s, s->limit_reason, NULL);
    if (pbi_queue_add(&e->waiting, &s->v)) {
        pbi_seq_free(s);
        return PB_E_NOMEM;
    }
    return 0;
}

/* ---- running ---------------------------------------------------------- */

int32_t pbi_seq_index(const pbi_engine *e, const pb_seq *s)
{
    for (int32_t i = 0; i < e->n_running; i++)
        if (e->running[i] == s)
            return i;
    return -1;
}

static void leave_running(pbi_engine *e, const pb_seq *v)
{
    int32_t i = pbi_seq_index(e, v);
    if (i < 0)
        return;
    e->n_running--;
    memmove(e->running + i, e->running + i + 1, (size_t)(e->n_running - i) * sizeof *e->running);
}

static void release(pbi_engine *e, pbi_sequence *s, int32_t why)
{
    PBI_SITE(&e->a_release, e->att->release(PBI_SELF(&e->a_release), &s->v, why));
    PBI_LOG(&e->a_release, 0, "seq %llu, n_valid %lld, why %d", (unsigned long long)s->v.id,
            (long long)s->v.n_valid, why);
    e->slots[e->n_slots++] = s->v.slot;
    s->v.slot = -1;
    s->v.n_valid = 0;
    s->v.n_left = s->v.n_tokens;
    leave_running(e, &s->v);
}

int pbi_seq_admit(pbi_engine *e, const pb_seq *v, int32_t queue_at)
{
    pbi_sequence *s = pbi_seq_of(v);
    int64_t n, most = v->flags & PB_SEQ_ALL_LOGITS ? 0 : v->n_tokens - 1;
    s->v.slot = e->slots[--e->n_slots];
    s->v.state = PB_SEQ_RUNNING;
    pbi_queue_remove(&e->waiting, queue_at);
    e->running[e->n_running++] = v;
    PBI_SITE(&e->a_attach, n = e->att->attach(PBI_SELF(&e->a_attach), v));
    PBI_LOG(&e->a_attach, n, "seq %llu, %lld tokens", (unsigned long long)v->id,
            (long long)v->n_tokens);
    if (n < 0 || n > most)
        return pbi_err(&e->err, PB_E_PLUGIN,
                       "attention-%s.attach: seq %llu: %lld cached tokens, "
                       "0..%lld are possible",
                       pbi_instance_use(e->a_attach.in)->name, (unsigned long long)v->id,
                       (long long)n, (long long)most);
    s->v.n_valid = n;
    s->v.n_left = v->n_tokens - n;
    return 0;
}

int pbi_seq_preempt(pbi_engine *e, pbi_sequence *s, int32_t why)
{
    release(e, s, why);
    s->v.state = PB_SEQ_WAITING;
    if (why == PB_REL_PREEMPTED) {
        s->n_preempted++;
        e->st.n_preempted++;
    }
    return pbi_queue_add(&e->waiting, &s->v);
}

int pbi_seq_preempt_all(pbi_engine *e, int32_t why)
{
    while (e->n_running) {
        int rc = pbi_seq_preempt(e, pbi_seq_of(e->running[e->n_running - 1]), why);
        if (rc)
            return rc;
    }
    return 0;
}

int pbi_seq_finish(pbi_engine *e, pbi_sequence *s, int32_t reason, const pb_err *err)
{
    int rc;
    if (s->v.state == PB_SEQ_RUNNING)
        release(e, s,
                reason == PBI_DONE_ABORT   ? PB_REL_ABORTED
                : reason == PBI_DONE_ERROR ? PB_REL_FAILED
                                           : PB_REL_FINISHED);
    else {
        int32_t at = pbi_queue_find(&e->waiting, &s->v, 0);
        if (at >= 0)
            pbi_queue_remove(&e->waiting, at);
    }
    s->v.state = PB_SEQ_DONE;
    rc = pbi_engine_send_done(e, s->v.id, s, reason, err);
    pbi_seq_free(s);
    return rc;
}
