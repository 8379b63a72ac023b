/* SPDX-License-Identifier: MIT
 *
 * compare/equal.c - are the answers the same? The first place where an arm's differ from the
 * base's, and how close the decision was there.
 */
#include "live.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int pbc_pool_add(pbc_pool *p, double x)
{
    if (p->n == p->cap) {
        int64_t cap = p->cap ? 2 * p->cap : 1024;
        double *v = realloc(p->v, (size_t)cap * sizeof *v);
        if (!v)
            return -1;
        p->v = v;
        p->cap = cap;
    }
    p->v[p->n++] = x;
    return 0;
}

void pbc_clear_answers(pbi_answer *a, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        pbi_answer_clear(&a[i]);
}

/* A copy of request i by its token ids, in l->differing[a]. */
static int keep_request(pbc_live *l, int a, int64_t i, pb_err *err)
{
    const pbi_answer *x = &l->answers[0][i];
    pbi_request q = l->requests.v[i];
    pbi_requests *r = &l->differing[a];
    pbi_requests_clear(r);
    *r = (pbi_requests){ 0 };
    q.prompt = NULL;
    q.n_prompt = 0;
    q.ids = x->prompt_ids;
    q.n_ids = x->n_prompt;
    q.arrival_ns = q.after = 0;
    q.n_stop = 0; /* not needed to get to that place */
    q.stop = NULL;
    int rc = pbi_requests_add(r, &q, err);
    if (rc)
        return rc;
    int32_t *ids = malloc(((size_t)q.n_ids + 1) * sizeof *ids);
    r->owned = malloc(sizeof *r->owned);
    if (!ids || !r->owned) {
        free(ids);
        return pbi_err(err, PB_E_NOMEM, "no memory for a request");
    }
    memcpy(ids, q.ids, (size_t)q.n_ids * sizeof *ids);
    r->owned[0] = ids;
    r->n_owned = r->cap_owned = 1;
    r->v[0].ids = ids;
    return 0;
}

static int note(pbc_live *l, int a, int64_t i, int epoch, int round, pb_err *err)
{
    const pbi_answer *x = &l->answers[0][i], *y = &l->answers[a][i];
    pbc_difference *d = &l->t->diff[a];
    int64_t n = x->n_ids < y->n_ids ? x->n_ids : y->n_ids, k = 0;
    while (k < n && x->ids[k] == y->ids[k])
        k++;
    int other = x->n_ids != y->n_ids || k < n;
    int bits = x->logits_hash && y->logits_hash && x->logits_hash != y->logits_hash;
    if ((!other && !bits) || x->err.code || y->err.code)
        return 0;
    d->n_answers++;
    if (d->found && !(d->logits_only && other))
        return 0;
    int64_t n_answers = d->n_answers;
    *d =
        (pbc_difference){ .found = 1,
                          .logits_only = !other,
                          .epoch = epoch,
                          .round = round,
                          .request = i,
                          .position = k,
                          .n_answers = n_answers,
                          .token = { k < x->n_ids ? x->ids[k] : -1, k < y->n_ids ? y->ids[k] : -1 },
                          .margin = { NAN, NAN } };
    for (int64_t p = k - PBC_CONTEXT; p < k; p++) {
        int64_t at = p + x->n_prompt;
        if (at >= 0)
            d->before[d->n_before++] = p < 0 ? x->prompt_ids[at] : x->ids[p];
    }
    return keep_request(l, a, i, err);
}

int pbc_note_differences(pbc_live *l, int epoch, int round, pb_err *err)
{
    for (int a = 1; a < l->t->n_all; a++)
        for (int64_t i = 0; i < l->requests.n; i++) {
            int rc = note(l, a, i, epoch, round, err);
            if (rc)
                return rc;
        }
    return 0;
}

/* ---- the logits there -------------------------------------------------------------- */

typedef struct watch {
    int64_t pos; /* of the row that chose the token */
    int32_t a, b;
    float logit[2];
    int seen;
} watch;

static void on_logits(void *arg, int64_t i, int64_t pos, const float *row, int64_t n_vocab)
{
    watch *w = arg;
    (void)i;
    if (pos != w->pos)
        return;
    w->logit[0] = w->a >= 0 && w->a < n_vocab ? row[w->a] : NAN;
    w->logit[1] = w->b >= 0 && w->b < n_vocab ? row[w->b] : NAN;
    w->seen = 1;
}

/* The request again, alone, on an arm that shows its logits; its answer's token there. */
static int watch_arm(pbc_live *l, int arm, const pbi_request *q, watch *w, int32_t *token)
{
    const pbc_options *o = &l->t->o;
    pbi_arm_options ao = { .model_path = o->model,
                           .share = l->holder[l->device_of[arm]],
                           .want_logits = 1 };
    const pbi_run_hooks hooks = { .arg = w, .on_logits = on_logits };
    pbi_arm *x = NULL;
    pbi_answer a = { 0 };
    pb_err err = { 0 };
    int64_t k = w->pos + 1 - q->n_ids;
    int rc = pbi_arm_open(o->pipelines[arm], &ao, &x, &err);
    if (!rc)
        rc = pbi_arm_run(x, 1, q, &a, &hooks, NULL, &err);
    *token = !rc && k < a.n_ids ? a.ids[k] : -1;
    pbi_answer_clear(&a);
    pbi_arm_close(x);
    return rc;
}

/* Appends bytes that fit, control characters as \n or \x0b; out stays a string. */
static void append(char *out, size_t cap, const char *s, size_t n)
{
    size_t at = strlen(out);
    for (size_t i = 0; i < n && at + 5 < cap; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '\n' || c == '\t')
            at += (size_t)sprintf(out + at, "\\%c", c == '\n' ? 'n' : 't');
        else if (c < 32 || c == 127)
            at += (size_t)sprintf(out + at, "\\x%02x", c);
        else
            out[at++] = s[i];
        out[at] = 0;
    }
}

static void name_tokens(const pbi_tokenizer *tok, pbc_difference *d)
{
    for (int i = 0; i < 2 && tok; i++)
        if (d->token[i] >= 0) {
            pb_str t = pbi_tokenizer_piece(tok, d->token[i], 1);
            append(d->text[i], sizeof d->text[i], t.s, t.n);
        }
    for (int i = 0; i < d->n_before && tok; i++) {
        pb_str t = pbi_tokenizer_piece(tok, d->before[i], 1);
        append(d->before_text, sizeof d->before_text, t.s, t.n);
    }
}

int pbc_explain_differences(pbc_live *l, pb_err *err)
{
    (void)err;
    for (int a = 1; a < l->t->n_all; a++) {
        pbc_difference *d = &l->t->diff[a];
        if (!d->found)
            continue;
        name_tokens(pbi_arm_tokenizer(l->holder[0]), d);
        if (d->logits_only || l->differing[a].n < 1)
            continue;
        const pbi_request *q = &l->differing[a].v[0];
        int32_t token[2];
        int both = 1;
        for (int k = 0; k < 2 && both; k++) {
            watch w = { .pos = q->n_ids + d->position - 1, .a = d->token[k], .b = d->token[!k] };
            both = !watch_arm(l, k ? a : 0, q, &w, &token[k]);
            d->margin[k] = w.seen ? (double)w.logit[0] - (double)w.logit[1] : NAN;
        }
        d->explained = both;
        d->repeated = both && token[0] == d->token[0] && token[1] == d->token[1];
    }
    return 0;
}
