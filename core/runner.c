/* SPDX-License-Identifier: MIT
 *
 * core/runner.c - compiles a program, asks the attention plugin for a plan, divides the arena
 * and runs steps.
 */
#include "runner.h"
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

struct pbi_runner {
    pbi_runner_options o;
    pb_run run;
    pbi_services svc;
    pbi_instance *att, *be_in;
    const pb_backend *be;
    const pb_attention *att_v;
    pbi_pages *pages;
    char *att_name;
    int32_t n_groups;
    pb_kv_group *groups;
    pb_kv_plan *plan, *replan;
    int32_t *window;
    struct pb_exec *exec;
    struct pb_kv *kv;
    pbi_arena *arena;
    int had_arena;
    pbi_step_builder builder;
    pbi_step_checker checker;
    uint64_t model_key;
    int log; /* calls of the backend are printed */
    pbi_call_stat *st_submit, *st_pick, *st_wait, *st_poison, *st_plan, *st_setup;
};

static void *self_of(const pbi_instance *in)
{
    return pbi_instance_self(in);
}

static int poison(void *arg, int32_t group, pb_page page)
{
    pbi_runner *r = arg;
    int rc;
    PBI_CALL(r->st_poison, rc = r->be->poison(self_of(r->be_in), r->kv, group, page));
    return rc;
}

/* ---- open ------------------------------------------------------------- */

static uint64_t key_of(const pb_program *p)
{
    uint64_t h = XXH3_64bits_withSeed(&p->n_vocab, sizeof p->n_vocab, (uint64_t)p->n_ops);
    for (int32_t i = 0; i < p->n_weights; i++)
        for (int32_t k = 0; k < p->weights[i].n_pieces; k++) {
            const pb_piece *q = &p->weights[i].pieces[k];
            int64_t what[5] = { (int64_t)q->t->content, q->row0, q->n_rows, q->col0, q->n_cols };
            h = XXH3_64bits_withSeed(what, sizeof what, h);
        }
    return h;
}

static int make_groups(pbi_runner *r, pb_err *err)
{
    const pb_program *p = r->o.program;
    size_t n = (size_t)p->n_groups + 1;
    r->n_groups = p->n_groups;
    r->groups = calloc(n, sizeof *r->groups);
    r->plan = calloc(n, sizeof *r->plan);
    r->replan = calloc(n, sizeof *r->replan);
    r->window = calloc(n, sizeof *r->window);
    if (!r->groups || !r->plan || !r->replan || !r->window)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    for (int32_t g = 0; g < r->n_groups; g++) {
        int rc;
        r->groups[g].size = sizeof r->groups[g];
        r->window[g] = p->groups[g].window;
        PBI_CALL(r->st_setup,
                 rc = r->be->kv_group(self_of(r->be_in), &p->groups[g], &r->groups[g], err));
        if (rc)
            return pbi_err_prefix(err, "KV group %d", g);
    }
    return 0;
}

/* A plan that overruns the budget would overrun the arena. */
static int check_plan(const pbi_runner *r, const pb_kv_plan *plan, pb_err *err)
{
    double bytes = 0;
    for (int32_t g = 0; g < r->n_groups; g++) {
        int32_t pt = plan[g].page_tokens, granule = r->groups[g].granule;
        if (pt < 1 || plan[g].n_pages < 2 || (granule > 1 && pt % granule))
            return pbi_err(err, PB_E_PLUGIN,
                           "%s.plan: group %d: %d pages of %d tokens (at least 2 pages, tokens a "
                           "multiple of %d)",
                           r->att_name, g, plan[g].n_pages, pt, granule);
        bytes += (double)plan[g].n_pages * pt * (double)r->groups[g].token_bytes;
    }
    if (bytes > (double)r->o.kv_bytes)
        return pbi_err(err, PB_E_PLUGIN, "%s.plan: pages of %.0f bytes, kv_bytes = %lld",
                       r->att_name, bytes, (long long)r->o.kv_bytes);
    return 0;
}

static int ask_plan(pbi_runner *r, pb_kv_plan *plan, pb_err *err)
{
    int rc;
    PBI_CALL(r->st_plan, rc = r->att_v->plan(self_of(r->att), r->n_groups, r->groups, r->o.kv_bytes,
                                             r->o.limits.max_ctx, plan, err));
    return rc ? rc : check_plan(r, plan, err);
}

static int open_attention(pbi_runner *r, pb_err *err)
{
    const pbi_use *u = r->o.attention;
    const pbi_device_options *d = pbi_device_opts(r->o.device);
    size_t n = strlen(u->slot) + strlen(u->name) + 2;
    int rc;
    r->att_name = malloc(n);
    if (!r->att_name)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    memcpy(r->att_name, u->slot, strlen(u->slot) + 1);
    strcat(strcat(r->att_name, "-"), u->name);
    rc = pbi_pages_new(r->att_name, &r->pages, err);
    if (rc)
        return rc;
    r->svc = (pbi_services){ .team = d->team,
                             .pages = pbi_pages_service(r->pages),
                             .now_ns = d->now_ns,
                             .now_arg = d->now_arg };
    rc = pbi_instance_new(u, &r->svc, &r->att, err);
    if (!rc)
        rc = pbi_instance_start(r->att, &r->run, err);
    if (rc)
        return rc;
    r->att_v = pbi_instance_iface(r->att, "attention/1");
    r->st_plan = pbi_call_stat_get(r->att, "plan");
    r->builder.st_table = pbi_call_stat_get(r->att, "table");
    if (!r->st_plan || !r->builder.st_table)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    rc = ask_plan(r, r->plan, err);
    return rc ? rc : pbi_pages_plan(r->pages, r->n_groups, r->groups, r->plan, err);
}

static int take_plan(pbi_runner *r, pb_err *err)
{
    if (r->o.n_plan != r->n_groups)
        return pbi_err(err, PB_E_INTERNAL, "plan for %d KV groups, the program has %d", r->o.n_plan,
                       r->n_groups);
    memcpy(r->plan, r->o.plan, (size_t)r->n_groups * sizeof *r->plan);
    return 0;
}

static int open_kv(pbi_runner *r, pb_err *err)
{
    int rc = pbi_device_arena(r->o.device, (uint64_t)r->o.kv_bytes, r->o.own_arena, &r->arena, err);
    if (rc)
        return rc;
    r->arena->user = r; /* dividing it may disturb what another had in it */
    PBI_CALL(r->st_setup, rc = r->be->kv(self_of(r->be_in), r->exec, r->arena->mem, r->arena->bytes,
                                         r->n_groups, r->plan, &r->kv, err));
    return rc;
}

static int open_rest(pbi_runner *r, pb_err *err)
{
    const pb_program *p = r->o.program;
    int rc;
    r->be_in = pbi_device_instance(r->o.device);
    r->be = pbi_device_backend(r->o.device);
    r->st_submit = pbi_call_stat_get(r->be_in, "submit");
    r->st_pick = pbi_call_stat_get(r->be_in, "pick");
    r->st_wait = pbi_call_stat_get(r->be_in, "wait");
    r->st_poison = pbi_call_stat_get(r->be_in, "poison");
    r->st_setup = pbi_call_stat_get(r->be_in, "setup");
    if (!r->st_submit || !r->st_pick || !r->st_wait || !r->st_poison || !r->st_setup)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    PBI_CALL(r->st_setup, rc = r->be->compile(self_of(r->be_in), p, &r->o.limits, &r->exec, err));
    if (!rc)
        rc = make_groups(r, err);
    if (!rc)
        rc = r->o.attention ? open_attention(r, err) : take_plan(r, err);
    if (!rc)
        rc = open_kv(r, err);
    if (rc)
        return rc;
    r->model_key = key_of(p);
    r->checker = (pbi_step_checker){ .attention = r->att_name,
                                     .n_groups = r->n_groups,
                                     .n_vocab = p->n_vocab,
                                     .plan = r->plan,
                                     .window = r->window,
                                     .limits = r->o.limits,
                                     .pages = r->pages };
    r->builder.att = r->att_v;
    r->builder.att_in = r->att;
    r->builder.n_groups = r->n_groups;
    r->builder.plan = r->plan;
    r->builder.log = r->att && pbi_calls_logged(r->att);
    r->log = pbi_calls_logged(r->be_in);
    if (r->o.paranoid && r->pages)
        pbi_pages_poison(r->pages, poison, r);
    return pbi_step_checker_init(&r->checker, err);
}

int pbi_runner_open(const pbi_runner_options *o, pbi_runner **out, pb_err *err)
{
    pbi_runner *r = calloc(1, sizeof *r);
    int rc;
    if (!r)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    r->o = *o;
    r->run = (pb_run){ .size = sizeof r->run,
                       .max_seqs = o->limits.max_seqs,
                       .max_rows = o->limits.max_rows,
                       .max_ctx = o->limits.max_ctx,
                       .n_vocab = o->program->n_vocab };
    rc = open_rest(r, err);
    if (rc) {
        pbi_runner_close(r);
        return rc;
    }
    *out = r;
    return 0;
}

void pbi_runner_close(pbi_runner *r)
{
    if (!r)
        return;
    if (r->pages)
        pbi_pages_poison(r->pages, NULL, NULL); /* the arena goes next */
    pbi_instance_free(r->att);
    if (r->kv)
        r->be->kv_free(self_of(r->be_in), r->kv);
    if (r->exec)
        r->be->exec_free(self_of(r->be_in), r->exec);
    if (r->arena && r->arena->user == r)
        r->arena->user = NULL;
    pbi_device_arena_release(r->o.device, r->arena);
    pbi_pages_free(r->pages);
    pbi_step_builder_free(&r->builder);
    pbi_step_checker_free(&r->checker);
    free(r->groups);
    free(r->plan);
    free(r->replan);
    free(r->window);
    free(r->att_name);
    free(r);
}

/* ---- reading ---------------------------------------------------------- */

const pbi_runner_options *pbi_runner_opts(const pbi_runner *r)
{
    return &r->o;
}

pbi_instance *pbi_runner_attention(const pbi_runner *r)
{
    return r->att;
}

pbi_pages *pbi_runner_pages(const pbi_runner *r)
{
    return r->pages;
}

int32_t pbi_runner_groups(const pbi_runner *r)
{
    return r->n_groups;
}

const pb_kv_plan *pbi_runner_plan(const pbi_runner *r)
{
    return r->plan;
}

int64_t pbi_runner_arena_bytes(const pbi_runner *r)
{
    return (int64_t)r->arena->bytes;
}

uint64_t pbi_runner_model_key(const pbi_runner *r)
{
    return r->model_key;
}

/* ---- renewal ---------------------------------------------------------- */

int pbi_runner_renew(pbi_runner *r, pb_err *err)
{
    int rc = pbi_instance_renew(r->att, err);
    if (rc)
        return rc;
    rc = pbi_pages_fault(r->pages, err); /* misuse while it was destroyed */
    pbi_pages_clear(r->pages);
    if (!rc)
        rc = ask_plan(r, r->replan, err);
    if (rc)
        return rc;
    for (int32_t g = 0; g < r->n_groups; g++)
        if (r->plan[g].page_tokens != r->replan[g].page_tokens ||
            r->plan[g].n_pages != r->replan[g].n_pages)
            return pbi_err(err, PB_E_PLUGIN,
                           "%s.plan: group %d: %d pages of %d tokens, before %d of %d: equal "
                           "arguments must give an equal plan",
                           r->att_name, g, r->replan[g].n_pages, r->replan[g].page_tokens,
                           r->plan[g].n_pages, r->plan[g].page_tokens);
    return 0;
}

int pbi_runner_take_arena(pbi_runner *r)
{
    int lost = r->arena->user != r && r->had_arena;
    r->arena->user = r;
    r->had_arena = 1;
    return lost;
}

/* ---- steps ------------------------------------------------------------ */

int pbi_runner_check(pbi_runner *r, const pb_step *s, const uint64_t *ids, pb_err *err)
{
    return pbi_step_check(&r->checker, s, ids, err);
}

int pbi_runner_build(pbi_runner *r, uint64_t n, int32_t flags, int32_t n_items,
                     pbi_step_item *items, const uint64_t *ids, const pb_step **out, pb_err *err)
{
    int rc = pbi_step_build(&r->builder, n, flags, n_items, items, r->pages, out, err);
    return rc || !r->o.paranoid ? rc : pbi_step_check(&r->checker, *out, ids, err);
}

static int failed(const pbi_runner *r, const char *function, uint64_t step, int rc, pb_err *err)
{
    const pbi_use *u = pbi_instance_use(r->be_in);
    return pbi_err(err, rc, "%s-%s.%s: step %llu: %s (%d)", u->slot, u->name, function,
                   (unsigned long long)step, pbi_err_kind(rc), rc);
}

int pbi_runner_submit(pbi_runner *r, const pb_step *s, pb_err *err)
{
    int rc;
    PBI_CALL(r->st_submit, rc = r->be->submit(self_of(r->be_in), r->exec, r->kv, s));
    if (r->log)
        pbi_calls_print(r->be_in, "submit", rc,
                        "step %llu: %d rows of %d sequences, %d wanted, %d copies",
                        (unsigned long long)s->n, s->n_rows, s->n_seqs, s->n_out, s->n_copies);
    return rc ? failed(r, "submit", s->n, rc, err) : 0;
}

int pbi_runner_pick(pbi_runner *r, int32_t n, const pb_draw *d, size_t stride, pb_err *err)
{
    int rc;
    PBI_CALL(r->st_pick, rc = r->be->pick(self_of(r->be_in), r->exec, n, d, stride));
    if (r->log)
        pbi_calls_print(r->be_in, "pick", rc, "%d draws", n);
    return rc ? failed(r, "pick", 0, rc, err) : 0;
}

int pbi_runner_wait(pbi_runner *r, uint64_t step, pb_result *out, pb_err *err)
{
    int rc;
    memset(out, 0, sizeof *out);
    out->size = sizeof *out;
    out->faulty_op = -1;
    PBI_CALL(r->st_wait, rc = r->be->wait(self_of(r->be_in), r->exec, step, out));
    if (r->log)
        pbi_calls_print(r->be_in, "wait", rc, "step %llu: %d wanted rows", (unsigned long long)step,
                        out->n_out);
    if (rc == PB_E_NUMERIC && out->faulty_op >= 0 && out->faulty_op < r->o.program->n_ops)
        return pbi_err(err, rc, "step %llu: NaN or infinity first in operation %s",
                       (unsigned long long)step, r->o.program->ops[out->faulty_op].name);
    return rc ? failed(r, "wait", step, rc, err) : 0;
}
