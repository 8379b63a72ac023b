/* SPDX-License-Identifier: MIT
 *
 * core/front.c - the text side of a run.
 */
#include "front.h"

#include <stdlib.h>
#include <string.h>

/* One request on its way. */
typedef struct job {
    int32_t *ids; /* prompt, then emitted tokens */
    int64_t n_ids, cap_ids, n_prompt;
    int64_t cap_out; /* of the answer's arrays */
    uint64_t hash;
    pbi_detok detok;
    pbi_stops *stops;
    size_t cap_text, n_sent;
    int64_t due; /* when it may be sent, on the engine's clock; INT64_MAX: not known yet */
    int64_t heir,
        other;          /* first request that waits for this one's end; next of the same kind; -1 */
    unsigned again : 1; /* was sent to an engine that was lost */
    unsigned sent : 1, done : 1, cut : 1, abort : 1, abort_sent : 1;
    int64_t max_new; /* the request's, or less */
} job;

/* Levels after steps, times how long they lasted. */
typedef struct load {
    int64_t n, first_ns, running_max, waiting_max;
    double running, waiting, kv_used, kv_live; /* sums over ns */
    pbi_step_event last;
} load;

struct pbi_front {
    pbi_front_options o;
    pb_err err;
    uint64_t base; /* message id of request 0 */
    int64_t n, n_done, t_start;
    const pbi_request *req;
    pbi_answer *out;
    job *job;
    int64_t *heap, n_heap; /* what may be sent, earliest due first, equal ones by index */
    pbi_run_hooks hooks;
    int asked, told;  /* statistics, at the beginning and at the end of a run */
    int64_t n_aborts; /* aborts that were not sent yet */
    int64_t n_open;   /* requests that the engine has */
    int32_t n_eos, eos[PBI_MSG_MAX_EOS];
    int64_t n_lost, n_told;       /* engines lost; answers of this one */
    pbi_engine_stats first, last; /* when the run began; now */
    load load;
    void *buf; /* a message being written */
    size_t cap_buf;
};

int pbi_front_new(const pbi_front_options *o, pbi_front **out, pb_err *err)
{
    pbi_front *f = calloc(1, sizeof *f);
    if (!f)
        return pbi_err(err, PB_E_NOMEM, "no memory for a front");
    f->o = *o;
    f->base = 1;
    for (int32_t i = 0; o->tokenizer && i < pbi_tokenizer_size(o->tokenizer); i++)
        if (f->n_eos < PBI_MSG_MAX_EOS && pbi_tokenizer_is_eog(o->tokenizer, i))
            f->eos[f->n_eos++] = i;
    *out = f;
    return 0;
}

static void jobs_free(pbi_front *f)
{
    for (int64_t i = 0; f->job && i < f->n; i++) {
        free(f->job[i].ids);
        pbi_stops_free(f->job[i].stops);
    }
    free(f->job);
    free(f->heap);
    f->job = NULL;
    f->heap = NULL;
}

void pbi_front_free(pbi_front *f)
{
    if (!f)
        return;
    jobs_free(f);
    free(f->buf);
    free(f);
}

void pbi_front_hash_logits(pbi_front *f, int on)
{
    f->o.hash_logits = on;
}

/* ---- what may be sent --------------------------------------------------- */

static int before(const pbi_front *f, int64_t a, int64_t b)
{
    int64_t x = f->job[a].due, y = f->job[b].due;
    return x < y || (x == y && a < b);
}

static void heap_push(pbi_front *f, int64_t i)
{
    int64_t at = f->n_heap++;
    for (; at > 0 && before(f, i, f->heap[(at - 1) / 2]); at = (at - 1) / 2)
        f->heap[at] = f->heap[(at - 1) / 2];
    f->heap[at] = i;
}

static void heap_pop(pbi_front *f)
{
    int64_t i = f->heap[--f->n_heap], at = 0, kid;
    while ((kid = 2 * at + 1) < f->n_heap) {
        if (kid + 1 < f->n_heap && before(f, f->heap[kid + 1], f->heap[kid]))
            kid++;
        if (!before(f, f->heap[kid], i))
            break;
        f->heap[at] = f->heap[kid];
        at = kid;
    }
    f->heap[at] = i;
}

/* Request i has ended, one way or another: those that waited for it have a time to be sent. */
static void end(pbi_front *f, int64_t i)
{
    int64_t now = pbi_clock_now(f->o.clock);
    f->job[i].done = 1;
    f->n_done++;
    for (int64_t k = f->job[i].heir; k >= 0; k = f->job[k].other) {
        if (f->job[k].done)
            continue;
        f->job[k].due = now + f->req[k].arrival_ns;
        f->out[k].t_submit_ns = f->job[k].due;
        heap_push(f, k);
    }
}

/* ---- requests to jobs -------------------------------------------------- */

static int tokens_of(const pbi_front *f, const pbi_request *r, job *j, pb_err *err)
{
    if (!r->prompt) {
        for (int64_t i = 0; i < r->n_ids; i++)
            if (r->ids[i] < 0 || r->ids[i] >= f->o.n_vocab)
                return pbi_err(err, PB_E_INVAL,
                               "prompt id %d at index %lld is outside of the vocabulary 0..%d",
                               (int)r->ids[i], (long long)i, (int)f->o.n_vocab - 1);
        if (r->n_ids > 0 && !(j->ids = malloc((size_t)r->n_ids * sizeof *j->ids)))
            return pbi_err(err, PB_E_NOMEM, "no memory for %lld ids", (long long)r->n_ids);
        if (r->n_ids > 0)
            memcpy(j->ids, r->ids, (size_t)r->n_ids * sizeof *j->ids);
        j->n_ids = r->n_ids > 0 ? r->n_ids : 0;
    } else if (!f->o.tokenizer) {
        return pbi_err(err, PB_E_INVAL, "a prompt of text needs a tokenizer: %s",
                       f->o.no_text && f->o.no_text->code ? f->o.no_text->msg
                                                          : "this run takes ids only");
    } else {
        size_t n;
        int flags = (r->special ? PBI_TEXT_SPECIAL : 0) | (r->no_bos ? PBI_TEXT_NO_BOS : 0);
        int rc =
            pbi_tokenizer_encode(f->o.tokenizer, r->prompt, r->n_prompt, flags, &j->ids, &n, err);
        if (rc)
            return rc;
        j->n_ids = (int64_t)n;
    }
    j->n_prompt = j->cap_ids = j->n_ids;
    if (!j->n_ids)
        return pbi_err(err, PB_E_INVAL, "the prompt is empty: there is no token to go on from");
    if (j->n_ids > f->o.context)
        return pbi_err(err, PB_E_INVAL, "the prompt has %lld tokens, the context %d",
                       (long long)j->n_ids, (int)f->o.context);
    return 0;
}

/* What output plugins make of a request's limit. */
static int shape(const pbi_front *f, const pbi_request *r, job *j, pb_err *err)
{
    pb_request q = { .size = sizeof q, .max_new = r->max_new };
    int rc = f->o.shape ? f->o.shape(f->o.shape_arg, &q, err) : 0;
    j->max_new = q.max_new;
    return rc;
}

static int prepare(pbi_front *f, int64_t i)
{
    const pbi_request *r = &f->req[i];
    pbi_answer *a = &f->out[i];
    job *j = &f->job[i];
    int rc = pbi_params_check(&r->params, &a->err);
    if (!rc)
        rc = shape(f, r, j, &a->err);
    if (!rc)
        rc = tokens_of(f, r, j, &a->err);
    if (!rc && r->n_stop > 0)
        rc = f->o.tokenizer ? pbi_stops_new(r->n_stop, r->stop, &j->stops, &a->err)
                            : pbi_err(&a->err, PB_E_INVAL, "stop strings need a tokenizer");
    if (!rc && !(a->prompt_ids = malloc((size_t)j->n_prompt * sizeof *a->prompt_ids)))
        rc = pbi_err(&a->err, PB_E_NOMEM, "no memory for a prompt");
    if (!rc) {
        memcpy(a->prompt_ids, j->ids, (size_t)j->n_prompt * sizeof *a->prompt_ids);
        a->n_prompt = j->n_prompt;
        pbi_detok_init(&j->detok, f->o.tokenizer, 0);
        j->detok.first = 1; /* a prompt of nothing but control tokens is no text yet */
        for (int64_t k = 0; k < j->n_prompt && f->o.tokenizer; k++)
            if (!pbi_tokenizer_is_special(f->o.tokenizer, j->ids[k]))
                j->detok.first = 0;
    }
    a->t_submit_ns = f->t_start + r->arrival_ns;
    if (rc) {
        pbi_err_prefix(&a->err, "request %lld", (long long)i);
        a->finish = "error";
        end(f, i);
    }
    return rc;
}

/* Which requests wait for which: an heir is sent when the one before it has ended. */
static int find_heirs(pbi_front *f, pb_err *err)
{
    for (int64_t i = 0; i < f->n; i++)
        f->job[i].heir = f->job[i].other = -1;
    for (int64_t i = f->n - 1; i >= 0; i--) {
        int64_t after = f->req[i].after;
        if (after < 0 || after > i)
            return pbi_err(err, PB_E_INVAL,
                           "request %lld waits for request %lld, which is not before it",
                           (long long)i, (long long)after - 1);
        if (after) {
            f->job[i].due = INT64_MAX;
            f->job[i].other = f->job[after - 1].heir;
            f->job[after - 1].heir = i;
        }
    }
    return 0;
}

int pbi_front_begin(pbi_front *f, int64_t n, const pbi_request *req, pbi_answer *out,
                    const pbi_run_hooks *hooks, pb_err *err)
{
    size_t bytes;
    jobs_free(f);
    while (pbi_ring_peek(f->o.to_front, &bytes))
        pbi_ring_pop(f->o.to_front); /* acknowledgements of an earlier quit */
    pbi_ring_reset(f->o.to_engine);  /* what a run that ended early left; no engine runs now */
    f->base += (uint64_t)f->n;
    f->n = n;
    f->req = req;
    f->out = out;
    f->hooks = hooks ? *hooks : (pbi_run_hooks){ 0 };
    f->n_heap = f->n_done = f->n_aborts = f->n_open = f->n_lost = f->n_told = 0;
    f->load = (load){ 0 };
    f->asked = f->told = 0;
    f->first = f->last = (pbi_engine_stats){ 0 };
    f->err = (pb_err){ 0 };
    f->t_start = pbi_clock_now(f->o.clock);
    f->job = calloc((size_t)n + 1, sizeof *f->job);
    f->heap = calloc((size_t)n + 1, sizeof *f->heap);
    if (!f->job || !f->heap)
        return pbi_err(err, PB_E_NOMEM, "no memory for %lld requests", (long long)n);
    for (int64_t i = 0; i < n; i++)
        out[i] = (pbi_answer){ 0 };
    int rc = find_heirs(f, err);
    if (rc)
        return rc;
    for (int64_t i = 0; i < n; i++) {
        if (!req[i].after)
            f->job[i].due = f->t_start + req[i].arrival_ns;
        if (!prepare(f, i) && !req[i].after)
            heap_push(f, i);
    }
    return 0;
}

/* ---- to the engine ----------------------------------------------------- */

static int room(pbi_front *f, size_t n)
{
    if (n <= f->cap_buf)
        return 0;
    void *p = realloc(f->buf, n);
    if (!p)
        return pbi_err(&f->err, PB_E_NOMEM, "no memory for a message of %zu bytes", n);
    f->buf = p;
    f->cap_buf = n;
    return 0;
}

static int submit(pbi_front *f, int64_t i)
{
    const pbi_request *r = &f->req[i];
    job *j = &f->job[i];
    size_t bytes = pbi_msg_submit_bytes(j->n_ids, f->n_eos);
    if (room(f, bytes ? bytes : 1))
        return f->err.code;
    pbi_msg_submit m = { .h = { .id = f->base + (uint64_t)i },
                         .salt = r->salt,
                         .logits_hash = j->hash,
                         .max_new = f->job[i].max_new,
                         .arrival_ns = f->out[i].t_submit_ns,
                         .params = r->params,
                         .flags = (r->all_logits ? PBI_SUBMIT_ALL_LOGITS : 0) |
                                  (r->ignore_eos ? PBI_SUBMIT_IGNORE_EOS : 0) |
                                  (f->o.hash_logits ? PBI_SUBMIT_HASH : 0),
                         .priority = r->priority,
                         .n_tokens = (int32_t)j->n_ids,
                         .n_prompt = (int32_t)j->n_prompt,
                         .n_eos = f->n_eos };
    if (!m.params.has_seed && f->o.seed) {
        m.params.seed = f->o.seed;
        m.params.has_seed = 1;
    }
    bytes = pbi_msg_put_submit(f->buf, f->cap_buf, &m, j->ids, f->eos);
    if (!bytes)
        return pbi_err(&f->err, PB_E_INTERNAL, "request %lld makes no message", (long long)i);
    int rc = pbi_ring_put(f->o.to_engine, f->buf, bytes);
    if (rc == PB_E_INVAL)
        return pbi_err(&f->err, PB_E_INTERNAL, "request %lld: %zu bytes are too long for the ring",
                       (long long)i, bytes);
    if (!rc) {
        j->sent = 1;
        f->n_open++;
    }
    return rc;
}

static int plain(pbi_front *f, uint32_t kind, uint64_t id)
{
    pbi_msg m = { .kind = kind, .bytes = sizeof m, .id = id };
    return pbi_ring_put(f->o.to_engine, &m, sizeof m);
}

static void want_abort(pbi_front *f, int64_t i)
{
    if (!f->job[i].abort && !f->job[i].done) {
        f->job[i].abort = 1;
        f->n_aborts++;
    }
}

static int send_aborts(pbi_front *f)
{
    int moved = 0;
    for (int64_t i = 0; i < f->n && f->n_aborts; i++) {
        job *j = &f->job[i];
        if (!j->abort || j->abort_sent || !j->sent || j->done)
            continue;
        if (plain(f, PBI_MSG_ABORT, f->base + (uint64_t)i))
            return moved;
        j->abort_sent = 1;
        f->n_aborts--;
        moved = 1;
    }
    return moved;
}

/* Sends what has arrived; 1 if anything moved, or PB_E_*. In a closed loop a request that had to
 * wait for a client arrives when that client is free. */
static int send_due(pbi_front *f)
{
    int moved = 0;
    int64_t now = pbi_clock_now(f->o.clock);
    while (f->n_heap) {
        int64_t i = f->heap[0];
        if (!f->job[i].done) {
            if (f->job[i].due > now || (f->hooks.clients > 0 && f->n_open >= f->hooks.clients))
                break;
            if (f->hooks.clients > 0 && !f->job[i].again)
                f->out[i].t_submit_ns = now;
            int rc = submit(f, i);
            if (rc == PB_E_FULL)
                break;
            if (rc)
                return rc;
        }
        heap_pop(f);
        moved = 1;
    }
    return moved;
}

/* Nothing runs and the next request comes later: a virtual clock goes there at once. */
static void skip_idle_time(pbi_front *f)
{
    if (f->n_open || !f->n_heap || !pbi_clock_is_virtual(f->o.clock))
        return;
    pbi_clock_reach(f->o.clock, f->job[f->heap[0]].due);
}

/* ---- from the engine --------------------------------------------------- */

static int append_out(pbi_answer *a, job *j, int32_t id, int64_t t, int with_logprobs, float lp)
{
    if (a->n_ids == j->cap_out) {
        int64_t cap = j->cap_out ? 2 * j->cap_out : 32;
        int32_t *ids = realloc(a->ids, (size_t)cap * sizeof *ids);
        if (ids)
            a->ids = ids;
        int64_t *ts = realloc(a->t_token_ns, (size_t)cap * sizeof *ts);
        if (ts)
            a->t_token_ns = ts;
        float *lps = with_logprobs ? realloc(a->logprobs, (size_t)cap * sizeof *lps) : NULL;
        if (lps)
            a->logprobs = lps;
        if (!ids || !ts || (with_logprobs && !lps))
            return PB_E_NOMEM;
        j->cap_out = cap;
    }
    a->ids[a->n_ids] = id;
    a->t_token_ns[a->n_ids] = t;
    if (with_logprobs && a->logprobs)
        a->logprobs[a->n_ids] = lp;
    a->n_ids++;
    return 0;
}

static int append_job(job *j, int32_t id)
{
    if (j->n_ids == j->cap_ids) {
        int64_t cap = 2 * j->cap_ids + 32;
        int32_t *p = realloc(j->ids, (size_t)cap * sizeof *p);
        if (!p)
            return PB_E_NOMEM;
        j->ids = p;
        j->cap_ids = cap;
    }
    j->ids[j->n_ids++] = id;
    return 0;
}

static void show_text(pbi_front *f, int64_t i, size_t n_safe)
{
    job *j = &f->job[i];
    if (n_safe > j->n_sent && f->hooks.on_text)
        f->hooks.on_text(f->hooks.arg, i, f->out[i].text + j->n_sent, n_safe - j->n_sent);
    if (n_safe > j->n_sent)
        j->n_sent = n_safe;
}

/* Text after one more token (id -1: what was held back, at the end). 1: a stop string. */
static int more_text(pbi_front *f, int64_t i, int32_t id, int last)
{
    job *j = &f->job[i];
    pbi_answer *a = &f->out[i];
    size_t n_safe;
    if (!f->o.tokenizer)
        return 0;
    int rc = pbi_detok_push(&j->detok, id, last, &a->text, &a->n_text, &j->cap_text);
    if (rc)
        return rc;
    n_safe = a->n_text;
    if (j->stops && pbi_stops_scan(j->stops, a->text, a->n_text, j->n_sent, &n_safe)) {
        show_text(f, i, n_safe);
        a->n_text = n_safe;
        a->text[n_safe] = 0;
        return 1;
    }
    show_text(f, i, last ? a->n_text : n_safe);
    return 0;
}

static int got_tokens(pbi_front *f, int64_t i, const pbi_msg_tokens *m)
{
    job *j = &f->job[i];
    pbi_answer *a = &f->out[i];
    const int32_t *ids = pbi_msg_tokens_ids(m);
    const float *lp = pbi_msg_tokens_logprobs(m);
    for (int32_t k = 0; k < m->n && !j->cut; k++) {
        if (append_job(j, ids[k]) || append_out(a, j, ids[k], m->t_ns, lp != NULL, lp ? lp[k] : 0))
            return PB_E_NOMEM;
        if (!a->t_first_ns)
            a->t_first_ns = m->t_ns;
        a->t_last_ns = m->t_ns;
        int rc = more_text(f, i, ids[k], 0);
        if (rc < 0)
            return rc;
        if (rc > 0)
            a->finish = "stop";
        else if (f->req[i].abort_after >= 0 && a->n_ids >= f->req[i].abort_after)
            a->finish = "abort";
        if (a->finish) {
            j->cut = 1; /* the engine may have gone on: what it sends from here is dropped */
            want_abort(f, i);
        }
    }
    j->hash = m->logits_hash;
    a->n_cached = m->n_cached;
    if (!a->t_admit_ns)
        a->t_admit_ns = m->t_admit_ns;
    return 0;
}

static int got_done(pbi_front *f, int64_t i, const pbi_msg_done *m)
{
    job *j = &f->job[i];
    pbi_answer *a = &f->out[i];
    if (j->abort && !j->abort_sent)
        f->n_aborts--;
    end(f, i);
    f->n_open--;
    a->n_cached = m->n_cached;
    if (!a->t_admit_ns)
        a->t_admit_ns = m->t_admit_ns;
    if (j->cut)
        return 0; /* a hash would count rows after the cut: it stays 0, not comparable */
    a->logits_hash = m->logits_hash;
    a->finish = pbi_done_name(m->reason);
    if (m->reason == PBI_DONE_ERROR) {
        a->err = m->err;
        pbi_err_prefix(&a->err, "request %lld", (long long)i);
    }
    int rc = more_text(f, i, -1, 1);
    return rc < 0 ? rc : 0;
}

int64_t pbi_front_index(const pbi_front *f, uint64_t id)
{
    return id >= f->base && id - f->base < (uint64_t)f->n ? (int64_t)(id - f->base) : -1;
}

static void got_step(pbi_front *f, const pbi_msg_step *m)
{
    load *l = &f->load;
    pbi_step_event e = { .t_ns = m->t_ns,
                         .step_ns = m->step_ns,
                         .kv_used = m->kv_used,
                         .kv_live = m->kv_live,
                         .prefill_rows = m->prefill_rows,
                         .decode_rows = m->decode_rows,
                         .running = m->running,
                         .waiting = m->waiting };
    double ns = (double)(e.t_ns - l->last.t_ns);
    if (l->n++ == 0) {
        l->first_ns = e.t_ns;
    } else {
        l->running += ns * l->last.running;
        l->waiting += ns * l->last.waiting;
        l->kv_used += ns * (double)l->last.kv_used;
        l->kv_live += ns * (double)l->last.kv_live;
    }
    l->last = e;
    l->running_max = e.running > l->running_max ? e.running : l->running_max;
    l->waiting_max = e.waiting > l->waiting_max ? e.waiting : l->waiting_max;
    if (f->hooks.on_step)
        f->hooks.on_step(f->hooks.arg, &e);
}

static int got_message(pbi_front *f, const void *msg, size_t bytes)
{
    const pbi_msg *h = msg;
    int rc = pbi_msg_check(msg, bytes, &f->err);
    if (rc)
        return rc;
    int64_t i = pbi_front_index(f, h->id);
    if (h->kind == PBI_MSG_STATS) {
        f->last = ((const pbi_msg_stats *)msg)->stats;
        if (!f->told++)
            f->first = f->last;
        return 0;
    }
    if (h->kind == PBI_MSG_FAULT) {
        f->err = ((const pbi_msg_fault *)msg)->err;
        return f->err.code ? f->err.code : PB_E_INTERNAL;
    }
    if (h->kind == PBI_MSG_STEP)
        got_step(f, msg);
    if (h->kind == PBI_MSG_ACK || h->kind == PBI_MSG_STEP)
        return 0;
    if (h->id < f->base)
        return 0; /* of a run that ended early */
    if (i < 0 || f->job[i].done)
        return pbi_err(&f->err, PB_E_INTERNAL, "a message of kind %u for no open request",
                       (unsigned)h->kind);
    f->n_told++;
    rc = h->kind == PBI_MSG_TOKENS ? got_tokens(f, i, msg) : got_done(f, i, msg);
    if (rc)
        return pbi_err(&f->err, rc, "no memory for the answer of request %lld", (long long)i);
    return 0;
}

/* 1 if anything came, 0, or PB_E_* */
static int receive(pbi_front *f)
{
    size_t bytes;
    const void *msg;
    int moved = 0;
    while ((msg = pbi_ring_peek(f->o.to_front, &bytes)) != NULL) {
        int rc = got_message(f, msg, bytes);
        pbi_ring_pop(f->o.to_front);
        if (rc)
            return rc;
        moved = 1;
    }
    return moved;
}

/* ---- turns ------------------------------------------------------------- */

static void stop_all(pbi_front *f)
{
    for (int64_t i = 0; i < f->n; i++) {
        job *j = &f->job[i];
        if (j->done)
            continue;
        if (j->sent) {
            want_abort(f, i);
            continue;
        }
        f->out[i].finish = "abort";
        j->done = 1; /* no heir is sent any more */
        f->n_done++;
    }
    f->hooks.stop = NULL;
}

/* All is answered: the statistics are asked for, then the run is done. */
static int wind_up(pbi_front *f, int moved)
{
    if (f->told > 1)
        return PB_LOOP_DONE;
    if (f->asked == 1 && !plain(f, PBI_MSG_ASK, 0)) {
        f->asked++;
        moved = 1;
    }
    return moved ? PB_LOOP_BUSY : PB_LOOP_IDLE; /* idle: the engine may be dead */
}

int pbi_front_turn(pbi_front *f)
{
    if (f->hooks.stop && f->hooks.stop(f->hooks.arg))
        stop_all(f);
    int got = receive(f);
    if (got < 0)
        return got;
    if (!f->asked)
        f->asked += !plain(f, PBI_MSG_ASK, 0);
    int sent = send_due(f);
    if (sent < 0)
        return sent;
    if (f->n_aborts)
        sent |= send_aborts(f);
    if (f->n_done == f->n)
        return wind_up(f, got || sent);
    if (!got && !sent)
        skip_idle_time(f);
    return got || sent ? PB_LOOP_BUSY : PB_LOOP_IDLE;
}

const pb_err *pbi_front_error(const pbi_front *f)
{
    return &f->err;
}

int pbi_front_engine_lost(pbi_front *f, pb_err *err)
{
    int rc = receive(f); /* whole messages are good, also from the dead */
    if (rc < 0) {
        if (err)
            *err = f->err;
        return rc;
    }
    pbi_ring_reset(f->o.to_engine);
    pbi_ring_reset(f->o.to_front);
    f->n_lost++;
    int answered = f->n_told > 0;
    f->n_told = 0;
    /* the new engine begins to count where the lost one began */
    f->asked = f->told = f->told > 0;
    f->n_heap = f->n_aborts = f->n_open = 0;
    for (int64_t i = 0; i < f->n; i++)
        if (!f->job[i].done && f->job[i].cut) /* its answer was complete already */
            end(f, i);
    f->n_heap = 0;
    for (int64_t i = 0; i < f->n; i++) {
        job *j = &f->job[i];
        if (j->done)
            continue;
        j->again |= j->sent;
        j->sent = j->abort_sent = 0;
        if (j->due != INT64_MAX)
            heap_push(f, i);
        if (j->abort)
            f->n_aborts++;
    }
    return answered;
}

void pbi_front_quit(pbi_front *f)
{
    (void)plain(f, PBI_MSG_QUIT, 0);
}

void pbi_front_give_up(pbi_front *f, const pb_err *why)
{
    for (int64_t i = 0; i < f->n; i++)
        if (!f->job[i].done) {
            f->job[i].done = 1;
            f->n_done++;
            if (!f->out[i].finish)
                f->out[i].finish = "error";
            f->out[i].err = *why;
        }
}

void pbi_front_stats(const pbi_front *f, pbi_engine_stats *s, int64_t *n_lost)
{
    const pbi_engine_stats *a = &f->first, *b = &f->last;
    *s = *b; /* levels and peaks as they are, sums since the run began */
    s->n_steps -= a->n_steps;
    s->n_rows -= a->n_rows;
    s->n_out_tokens -= a->n_out_tokens;
    s->n_prompt_tokens -= a->n_prompt_tokens;
    s->n_cached_tokens -= a->n_cached_tokens;
    s->n_preempted -= a->n_preempted;
    s->n_drafted -= a->n_drafted;
    s->n_accepted -= a->n_accepted;
    s->n_copies -= a->n_copies;
    s->step_ns -= a->step_ns;
    s->device_ns -= a->device_ns;
    *n_lost = f->n_lost;
}

void pbi_front_load(const pbi_front *f, pbi_totals *t)
{
    const load *l = &f->load;
    double ns = (double)(l->last.t_ns - l->first_ns);
    t->running_max = l->running_max;
    t->waiting_max = l->waiting_max;
    t->running_mean = ns > 0 ? l->running / ns : (double)l->last.running;
    t->waiting_mean = ns > 0 ? l->waiting / ns : (double)l->last.waiting;
    t->kv_used_mean = ns > 0 ? l->kv_used / ns : (double)l->last.kv_used;
    t->kv_live_mean = ns > 0 ? l->kv_live / ns : (double)l->last.kv_live;
}
