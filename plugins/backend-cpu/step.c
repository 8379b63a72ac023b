/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/step.c - one step: copies, then the program's operations on the thread
 * team; then draws.
 *
 * The core has validated the step; what only the device knows (its limits, the picks of the step
 * before) is checked here. submit() computes, wait() reports. Invariant: every thread computes
 * under the same floating-point state, whatever a library did to it, and leaves what it found.
 */
#include "cpu.h"
#include "../backend-common/draw.h"

#include <stdio.h>
#include <string.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

/* Round to nearest even, no flush to zero, no traps. */
static unsigned float_state_enter(void)
{
#if defined(__x86_64__)
    unsigned old = _mm_getcsr();
    _mm_setcsr(0x1f80u);
    return old;
#else
    return 0;
#endif
}

static void float_state_leave(unsigned old)
{
#if defined(__x86_64__)
    _mm_setcsr(old);
#else
    (void)old;
#endif
}

static int refuse(const cpu *d, int code, uint64_t step, const char *what, int64_t value,
                  int64_t limit)
{
    char msg[200];
    snprintf(msg, sizeof msg, "backend-cpu: step %llu: %s %lld, limit %lld",
             (unsigned long long)step, what, (long long)value, (long long)limit);
    d->host->log(d->host, PB_LOG_ERROR, msg);
    return code;
}

static int check_step(struct pb_exec *x, const struct pb_kv *kv, const pb_step *s)
{
    const cpu *d = x->dev;
    if (s->n_rows < 0 || s->n_rows > x->lim.max_rows)
        return refuse(d, PB_E_INVAL, s->n, "rows", s->n_rows, x->lim.max_rows);
    if (s->n_seqs < 0 || s->n_seqs > x->lim.max_seqs)
        return refuse(d, PB_E_INVAL, s->n, "sequences", s->n_seqs, x->lim.max_seqs);
    if (s->n_out < 0 || s->n_out > x->lim.max_out)
        return refuse(d, PB_E_INVAL, s->n, "wanted rows", s->n_out, x->lim.max_out);
    if (s->n_groups != kv->n_groups)
        return refuse(d, PB_E_INVAL, s->n, "KV groups", s->n_groups, kv->n_groups);
    if (s->tree)
        return refuse(d, PB_E_UNSUPPORTED, s->n, "draft trees", 1, 0);
    return 0;
}

/* Ids of the rows; ~i is pick i of the step before. */
static int resolve_tokens(struct pb_exec *x, const pb_step *s)
{
    const int32_t *token = PB_STEP_COL(s, token);
    for (int32_t r = 0; r < s->n_rows; r++) {
        int32_t t = token[r];
        if (t < 0) {
            if (!x->picked || x->step + 1 != s->n || ~t >= x->n_out)
                return refuse(x->dev, PB_E_INVAL, s->n, "row names a pick that is not there:", ~t,
                              x->picked ? x->n_out : 0);
            t = x->ids[~t];
        }
        if (t >= x->p->n_vocab)
            return refuse(x->dev, PB_E_INVAL, s->n, "token id", t, x->p->n_vocab);
        x->token[r] = t;
    }
    return 0;
}

/* ---- attention items ------------------------------------------------------------- */

static int32_t item_rows(const struct pb_exec *x, const pb_step *s)
{
    return x->split ? 1 : s->n_rows < CPU_ITEM_ROWS ? s->n_rows : CPU_ITEM_ROWS;
}

/* Rows [r0, r0 + n) of sequence q, all KV heads. */
static void add_items(struct pb_exec *x, const pb_step *s, int32_t g, int32_t q, int32_t r0,
                      int32_t n)
{
    const int32_t *pos = PB_STEP_COL(s, kv_pos);
    const pb_kv_shape *shape = &x->p->groups[g];
    int32_t first = pos[r0], last = pos[r0];
    for (int32_t i = 1; i < n; i++) {
        first = pos[r0 + i] < first ? pos[r0 + i] : first;
        last = pos[r0 + i] > last ? pos[r0 + i] : last;
    }
    int32_t span0 = cpu_first_key(shape->window, first) / PB_SPAN, span1 = last / PB_SPAN + 1;
    int32_t each = x->split ? 1 : span1 - span0;
    for (int32_t h = 0; h < shape->n_kv_heads; h++)
        for (int32_t k = span0; k < span1; k += each)
            x->items[g][x->n_items[g]++] = (pb_attend_item){ q, r0, n, h, k, each };
}

/* Few rows with long contexts are split by spans, so that all threads have work. */
static void plan_items(struct pb_exec *x, const pb_step *s)
{
    const int32_t *begin = PB_STEP_COL(s, row_begin), *pos = PB_STEP_COL(s, kv_pos);
    int long_one = 0;
    for (int32_t r = 0; r < s->n_rows; r++)
        long_one |= pos[r] >= PB_SPAN;
    x->split = x->n_threads > 1 && s->n_rows <= CPU_FEW && long_one;
    for (int32_t g = 0; g < s->n_groups; g++) {
        x->n_items[g] = 0;
        for (int32_t q = 0; q < s->n_seqs; q++) {
            int32_t n = item_rows(x, s);
            for (int32_t r = begin[q]; r < begin[q + 1]; r += n)
                add_items(x, s, g, q, r, begin[q + 1] - r < n ? begin[q + 1] - r : n);
        }
    }
}

/* ---- on the team -------------------------------------------------------------------- */

/* Copies in their order, each thread for layers of its own. */
static void run_copies(const cpu_run *r)
{
    const pb_copy *c = PB_STEP_COPIES(r->s);
    for (int32_t i = 0; i < r->s->n_copies; i++) {
        const pb_kv_shape *s = &r->x->p->groups[c[i].group];
        uint64_t page = r->kv->page_bytes[c[i].group], layer = r->kv->layer_bytes[c[i].group];
        char *base = r->kv->group[c[i].group];
        int64_t a, b;
        cpu_share(r, s->n_layers, 1, &a, &b);
        for (int64_t l = a; l < b; l++)
            r->x->dev->kvfmt->copy(s, r->kv->plan[c[i].group].page_tokens,
                                   base + (uint64_t)c[i].src * page + (uint64_t)l * layer,
                                   base + (uint64_t)c[i].dst * page + (uint64_t)l * layer,
                                   c[i].n_tokens);
    }
}

static void turn_tables(const cpu_run *r)
{
    const int32_t *pos = PB_STEP_COL(r->s, pos);
    int64_t a, b;
    cpu_share(r, r->s->n_rows, 1, &a, &b);
    for (int i = 0; i < r->x->n_rope; i++) {
        const cpu_rope *t = &r->x->rope[i];
        for (int64_t row = a; row < b; row++)
            r->x->dev->elem->cossin(t->freq, (double)pos[row], t->n, t->cs + row * 2 * t->n);
    }
}

/* Rows of value v are finite, or op is remembered as the first at fault. */
static void look(const cpu_run *r, pb_val v, int32_t op)
{
    const cpu_val *c = &r->x->val[v];
    int64_t a, b;
    int ok = 1, none = 0;
    cpu_share(r, c->width, 16, &a, &b);
    for (int32_t i = 0; i < cpu_rows_of(r, v); i++)
        ok &= r->x->dev->elem->finite(c->data + i * c->stride + a, b - a);
    if (!ok)
        atomic_compare_exchange_strong(&r->x->bad, &none, op + 1);
}

static void look_after(const cpu_run *r, int32_t op)
{
    const pb_op *o = &r->x->p->ops[op];
    switch (o->kind) {
    case PB_OP_EMBED: look(r, o->u.embed.y, op); break;
    case PB_OP_LINEAR:
        for (int i = 0; i < (o->u.linear.act == PB_ACT_NONE ? o->u.linear.n_w : 1); i++)
            look(r, o->u.linear.y[i], op);
        break;
    case PB_OP_ATTEND: look(r, o->u.attend.y, op); break;
    case PB_OP_NORM: look(r, o->u.norm.y, op); break;
    case PB_OP_ADD: look(r, o->u.add.y, op); break;
    default: look(r, o->u.rows.y, op); break;
    }
    cpu_barrier(r); /* the next operation may write over what was read */
}

static void run_step(void *arg, int32_t thread, int32_t n_threads)
{
    cpu_run r = *(const cpu_run *)arg;
    unsigned state = float_state_enter();
    r.thread = thread;
    r.n_threads = n_threads;
    run_copies(&r);
    turn_tables(&r);
    cpu_barrier(&r);
    for (int32_t op = 0; op < r.x->p->n_ops; op++) {
        switch (r.x->p->ops[op].kind) {
        case PB_OP_LINEAR: cpu_op_linear(&r, op); break;
        case PB_OP_ATTEND: cpu_op_attend(&r, op); break;
        default: cpu_op_small(&r, op); break;
        }
        if (r.s->flags & PB_STEP_CHECK)
            look_after(&r, op);
    }
    look(&r, r.x->p->logits, r.x->p->n_ops - 1);
    float_state_leave(state);
}

static void on_team(struct pb_exec *x, void (*fn)(void *, int32_t, int32_t), void *arg)
{
    const pb_team *t = x->dev->team;
    if (t && x->n_threads > 1)
        t->run(t->h, fn, arg);
    else
        fn(arg, 0, 1);
}

int cpu_submit(void *self, struct pb_exec *x, struct pb_kv *kv, const pb_step *s)
{
    cpu *d = self;
    int64_t t0 = d->host->now_ns(d->host);
    int rc = check_step(x, kv, s);
    if (!rc)
        rc = resolve_tokens(x, s);
    if (rc)
        return rc;
    x->step = s->n;
    x->n_out = s->n_out;
    x->picked = x->has_logprobs = 0;
    x->has_logits = (s->flags & PB_STEP_LOGITS) != 0;
    x->faulty_op = -1;
    x->rc = 0;
    atomic_store(&x->bad, 0);
    for (int32_t o = 0; o < x->p->n_ops; o++)
        atomic_store_explicit(&x->work[o].next, 0, memory_order_relaxed);
    plan_items(x, s);
    cpu_run r = { .x = x, .kv = kv, .s = s };
    on_team(x, run_step, &r);
    if (atomic_load(&x->bad)) {
        x->rc = PB_E_NUMERIC;
        x->faulty_op = s->flags & PB_STEP_CHECK ? atomic_load(&x->bad) - 1 : -1;
    }
    for (int32_t i = 0; i < s->n_copies; i++)
        d->st->tokens_copied += PB_STEP_COPIES(s)[i].n_tokens;
    d->st->steps++;
    d->st->rows += s->n_rows;
    x->ns = d->host->now_ns(d->host) - t0;
    d->st->device_ns += x->ns;
    return 0;
}

/* ---- draws --------------------------------------------------------------------- */

typedef struct draws {
    struct pb_exec *x;
    const char *d;
    size_t stride;
    int32_t n;
} draws;

static void run_draws(void *arg, int32_t thread, int32_t n_threads)
{
    const draws *a = arg;
    struct pb_exec *x = a->x;
    const cpu_val *v = &x->val[x->p->logits];
    unsigned state = float_state_enter();
    int *rc = &x->pick_rc[thread];
    *rc = 0;
    for (int32_t i = thread; i < a->n; i += n_threads) {
        const pb_draw *p = (const pb_draw *)(const void *)(a->d + (size_t)i * a->stride);
        int e =
            pbc_draw(p, v->data + i * v->stride, x->p->n_vocab,
                     x->draw_scratch + (size_t)thread * x->draw_bytes, &x->ids[i], &x->logprob[i]);
        *rc = *rc ? *rc : e;
    }
    float_state_leave(state);
}

int cpu_pick(void *self, struct pb_exec *x, int32_t n, const pb_draw *d, size_t stride)
{
    cpu *dev = self;
    int64_t t0 = dev->host->now_ns(dev->host);
    draws a = { x, (const char *)d, stride, n };
    int rc = 0;
    if (n != x->n_out)
        return refuse(dev, PB_E_STATE, x->step, "draws", n, x->n_out);
    x->picked = 1;
    for (int32_t i = 0; i < n; i++) {
        const pb_draw *p = (const pb_draw *)(const void *)(a.d + (size_t)i * stride);
        x->has_logprobs |= p->n_logprobs >= 0;
        x->ids[i] = 0;
    }
    if (x->rc) /* NaN: reported by wait */
        return 0;
    for (int t = 0; t < x->n_threads; t++)
        x->pick_rc[t] = 0;
    if (n > 1)
        on_team(x, run_draws, &a);
    else
        run_draws(&a, 0, 1);
    for (int t = 0; t < x->n_threads; t++)
        rc = rc ? rc : x->pick_rc[t];
    int64_t ns = dev->host->now_ns(dev->host) - t0;
    x->ns += ns;
    dev->st->device_ns += ns;
    return rc;
}

int cpu_wait(void *self, struct pb_exec *x, uint64_t step, pb_result *out)
{
    cpu *d = self;
    const cpu_val *v = &x->val[x->p->logits];
    if (step == 0 || step != x->step)
        return refuse(d, PB_E_STATE, step, "waiting for a step that was not submitted; the last is",
                      (int64_t)x->step, (int64_t)step);
    out->step = step;
    out->n_out = x->n_out;
    out->faulty_op = x->faulty_op;
    out->ids = x->picked ? x->ids : NULL;
    out->logprobs = x->has_logprobs ? x->logprob : NULL;
    out->logits = x->has_logits ? v->data : NULL;
    out->n_vocab = x->p->n_vocab;
    out->device_ns = x->ns;
    return x->rc;
}
