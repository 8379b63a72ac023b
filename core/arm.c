/* SPDX-License-Identifier: MIT
 *
 * core/arm.c - builds a pipeline from the bottom up (device, model, runner, engine, front,
 * process), runs requests through it, takes it down in reverse.
 */
#define _GNU_SOURCE
#include "arm.h"
#include "engine.h"
#include "front.h"
#include "layers.h"
#include "model.h"
#include "ring.h"
#include "team.h"

#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <sys/resource.h>
#include <time.h>

/* What arms may share; the last one takes it down. */
typedef struct base {
    int refs;
    const pbi_pipeline *pipeline; /* of the arm that made it */
    pbi_team *team;
    pbi_clock *clock;
    pbi_device *device;
} base;

struct pbi_arm {
    const pbi_pipeline *pipeline;
    pbi_arm_options o;
    base *base;
    pbi_model *model;
    int weights_held;
    pbi_runner *runner;
    pbi_engine *engine;
    pbi_front *front;
    pbi_ring *to_engine, *to_front;
    pbi_instance *process;
    const pbi_run_hooks *hooks; /* of the run under way */
    pbi_instance **instances;
    int idle; /* turns without anything to do */
};

void pbi_params_default(pb_params *p)
{
    const float unset = __builtin_nanf("");
    *p = (pb_params){ .size = sizeof *p,
                      .temperature = unset,
                      .top_p = unset,
                      .min_p = unset,
                      .repeat_penalty = unset,
                      .presence_penalty = unset,
                      .frequency_penalty = unset,
                      .top_k = INT32_MIN,
                      .n_logprobs = -1 };
}

int pbi_params_check(const pb_params *p, pb_err *err)
{
    const struct {
        const char *name;
        float v, lo, hi;
    } range[] = {
        { "temperature", p->temperature, 0, 100 },
        { "top_p", p->top_p, 0, 1 },
        { "min_p", p->min_p, 0, 1 },
        { "repeat_penalty", p->repeat_penalty, 0.01f, 100 },
        { "presence_penalty", p->presence_penalty, -100, 100 },
        { "frequency_penalty", p->frequency_penalty, -100, 100 },
    };
    for (size_t i = 0; i < sizeof range / sizeof *range; i++)
        if (range[i].v < range[i].lo || range[i].v > range[i].hi)
            return pbi_err(err, PB_E_INVAL, "%s %g is outside of %g..%g", range[i].name,
                           (double)range[i].v, (double)range[i].lo, (double)range[i].hi);
    if (p->top_k != INT32_MIN && (p->top_k < 0 || p->top_k > 1000000))
        return pbi_err(err, PB_E_INVAL, "top_k %d is outside of 0..1000000", (int)p->top_k);
    if (p->n_logprobs < -1 || p->n_logprobs > 1000000)
        return pbi_err(err, PB_E_INVAL, "logprobs %d is outside of 0..1000000", (int)p->n_logprobs);
    return 0;
}

void pbi_request_default(pbi_request *r)
{
    *r = (pbi_request){ .max_new = -1, .abort_after = -1 };
    pbi_params_default(&r->params);
}

void pbi_answer_clear(pbi_answer *a)
{
    free(a->prompt_ids);
    free(a->ids);
    free(a->text);
    free(a->logprobs);
    free(a->t_token_ns);
    *a = (pbi_answer){ 0 };
}

/* ---- base -------------------------------------------------------------- */

static void base_release(base *b)
{
    if (!b || --b->refs)
        return;
    pbi_device_close(b->device);
    pbi_clock_free(b->clock);
    pbi_team_free(b->team);
    pbi_pipeline_free(b->pipeline);
    free(b);
}

/* A plugin that moves the clock itself says so in its descriptor. */
static int wants_virtual_clock(const pbi_use *backend)
{
    const char *p = backend->lib->desc->provides;
    return p && strstr(p, "clock.virtual") != NULL;
}

static int kernel_uses(const pbi_pipeline *p, const pbi_use **out, int cap)
{
    int n = 0;
    while (n < cap && (out[n] = pbi_pipeline_use(p, "kernels", n)) != NULL)
        n++;
    return n;
}

static int base_new(const pbi_pipeline *p, const pbi_arm_options *o, const pb_run *run, base **out,
                    pb_err *err)
{
    const pbi_use *kernels[32], *backend = pbi_pipeline_use(p, "backend", 0);
    base *b = calloc(1, sizeof *b);
    if (!b)
        return pbi_err(err, PB_E_NOMEM, "no memory for a device");
    b->refs = 1;
    b->pipeline = pbi_pipeline_retain(p);
    int rc = pbi_team_new((int32_t)p->core.threads, &b->team, err);
    if (!rc)
        rc = pbi_clock_new(o->virtual_clock || wants_virtual_clock(backend), &b->clock, err);
    if (!rc) {
        pbi_device_options d = { .backend = backend,
                                 .n_kernels = kernel_uses(p, kernels, 32),
                                 .kernels = kernels,
                                 .team = pbi_team_service(b->team),
                                 .clock = pbi_clock_service(b->clock),
                                 .now_ns = pbi_clock_now,
                                 .now_arg = b->clock,
                                 .run = *run };
        rc = pbi_device_open(&d, &b->device, err);
    }
    if (rc) {
        base_release(b);
        return rc;
    }
    *out = b;
    return 0;
}

static int same_use(const pbi_use *a, const pbi_use *b)
{
    if (!a || !b)
        return a == b;
    if (a->lib != b->lib || a->n_settings != b->n_settings)
        return 0;
    for (int i = 0; i < a->n_settings; i++) {
        const char *x = a->settings[i].text, *y = b->settings[i].text;
        if ((x == NULL) != (y == NULL) || (x && strcmp(x, y)))
            return 0;
    }
    return 1;
}

int pbi_arm_can_share(const pbi_arm *a, const pbi_pipeline *p)
{
    const pbi_pipeline *q = a->base->pipeline;
    int same = same_use(pbi_pipeline_use(p, "backend", 0), pbi_pipeline_use(q, "backend", 0)) &&
               p->core.threads == q->core.threads;
    for (int i = 0; same; i++) {
        const pbi_use *x = pbi_pipeline_use(p, "kernels", i),
                      *y = pbi_pipeline_use(q, "kernels", i);
        if (!x && !y)
            break;
        same = same_use(x, y);
    }
    return same;
}

static int base_share(const pbi_arm *with, const pbi_pipeline *p, base **out, pb_err *err)
{
    if (!pbi_arm_can_share(with, p))
        return pbi_err(err, PB_E_INVAL,
                       "%s and %s differ in [backend], [kernels] or threads: they cannot share a "
                       "device",
                       with->base->pipeline->path, p->path);
    with->base->refs++;
    *out = with->base;
    return 0;
}

/* Logits are shown where the engine runs: in another process nobody would see them. */
static int can_show_logits(const pbi_pipeline *p, pb_err *err)
{
    const pbi_use *u = pbi_pipeline_use(p, "process", 0);
    if (!u->lib->desc->provides || !strstr(u->lib->desc->provides, "process.fork"))
        return 0;
    return pbi_err(err, PB_E_INVAL,
                   "[process] plugin = %s (%s): logits cannot be seen from another process; use "
                   "inline",
                   u->name, u->origin);
}

/* ---- opening ----------------------------------------------------------- */

static const void *port_peek(void *arg, size_t *bytes)
{
    return pbi_ring_peek(((pbi_arm *)arg)->to_engine, bytes);
}

static void port_pop(void *arg)
{
    pbi_ring_pop(((pbi_arm *)arg)->to_engine);
}

static int port_send(void *arg, const void *msg, size_t bytes)
{
    return pbi_ring_put(((pbi_arm *)arg)->to_front, msg, bytes);
}

static void on_logits(void *arg, uint64_t id, int64_t pos, const float *row, int64_t n_vocab)
{
    const pbi_arm *a = arg;
    int64_t i = pbi_front_index(a->front, id);
    if (i >= 0 && a->hooks && a->hooks->on_logits)
        a->hooks->on_logits(a->hooks->arg, i, pos, row, n_vocab);
}

static void weights_progress(void *arg, double done)
{
    const pbi_arm *a = arg;
    a->o.progress(a->o.progress_arg, "packing weights", done);
}

static int open_runner(pbi_arm *a, const pb_limits *lim, pb_err *err)
{
    const pbi_pipeline *p = a->pipeline;
    pb_program *program = pbi_program_get(a->model->program);
    int rc = pbi_device_weights(a->base->device, program, a->o.progress ? weights_progress : NULL,
                                a, err);
    pbi_team_rest(a->base->team); /* it packed; a process plugin may fork now */
    if (rc)
        return rc;
    a->weights_held = 1;
    pbi_runner_options r = { .device = a->base->device,
                             .program = program,
                             .attention = pbi_pipeline_use(p, "attention", 0),
                             .limits = *lim,
                             .kv_bytes = p->core.kv_bytes,
                             .own_arena = a->o.own_arena,
                             .paranoid = p->core.paranoid };
    return pbi_runner_open(&r, &a->runner, err);
}

/* Output plugins see each request before it is sent; they may only ask for less. */
static int shape(void *arg, pb_request *r, pb_err *err)
{
    const pbi_arm *a = arg;
    pbi_instance *const *in;
    int n = pbi_engine_instances(a->engine, &in);
    for (int i = 0; i < n; i++) {
        const pb_output *o = pbi_instance_iface(in[i], "output/1");
        int64_t before = r->max_new;
        int rc = 0;
        if (!o || !o->request)
            continue;
        PBI_CALL(pbi_call_stat_get(in[i], "request"), rc = o->request(pbi_instance_self(in[i]), r));
        const char *name = pbi_instance_use(in[i])->name;
        if (rc)
            return pbi_err(err, rc, "output-%s refuses the request", name);
        if (before >= 0 && (r->max_new < 0 || r->max_new > before))
            return pbi_err(err, PB_E_PLUGIN,
                           "output-%s: request() raised max_new from %lld to %lld", name,
                           (long long)before, (long long)r->max_new);
    }
    return 0;
}

static int open_engine(pbi_arm *a, pb_err *err)
{
    size_t prompt = pbi_msg_submit_bytes(a->model->context, PBI_MSG_MAX_EOS);
    int rc = pbi_ring_new(prompt * 4 > 1 << 20 ? prompt * 4 : 1 << 20, &a->to_engine, err);
    if (!rc)
        rc = pbi_ring_new(1 << 20, &a->to_front, err);
    if (rc)
        return rc;
    pbi_engine_options e = {
        .runner = a->runner,
        .pipeline = a->pipeline,
        .text = a->model->tokenizer ? pbi_tokenizer_service(a->model->tokenizer) : NULL,
        .port = { .arg = a, .peek = port_peek, .pop = port_pop, .send = port_send },
        .hooks = { .arg = a, .on_logits = a->o.want_logits ? on_logits : NULL },
        .step_events = 1,
        .copy_steps = a->o.copy_steps,
        .amnesia = a->o.amnesia
    };
    rc = pbi_engine_open(&e, &a->engine, err);
    if (rc)
        return rc;
    pbi_front_options f = { .tokenizer = a->model->tokenizer,
                            .shape = shape,
                            .shape_arg = a,
                            .no_text = &a->model->no_text,
                            .n_vocab = pbi_program_get(a->model->program)->n_vocab,
                            .context = a->model->context,
                            .seed = (uint64_t)a->pipeline->core.seed,
                            .hash_logits = a->o.hash_logits,
                            .clock = a->base->clock,
                            .to_engine = a->to_engine,
                            .to_front = a->to_front };
    return pbi_front_new(&f, &a->front, err);
}

static int open_process(pbi_arm *a, const pb_run *run, pb_err *err)
{
    static const pbi_services none;
    int rc = pbi_instance_new(pbi_pipeline_use(a->pipeline, "process", 0), &none, &a->process, err);
    return rc ? rc : pbi_instance_start(a->process, run, err);
}

int pbi_arm_open(const pbi_pipeline *p, const pbi_arm_options *o, pbi_arm **out, pb_err *err)
{
    pbi_arm *a = calloc(1, sizeof *a);
    pb_limits lim;
    if (!a)
        return pbi_err(err, PB_E_NOMEM, "no memory for an arm");
    a->pipeline = pbi_pipeline_retain(p);
    a->o = *o;
    int rc = o->want_logits ? can_show_logits(p, err) : 0;
    if (!rc)
        rc = pbi_model_open(p, o->model_path ? o->model_path : "",
                            o->no_text ? PBI_MODEL_NO_TEXT : 0, &a->model, err);
    pb_run run = { .size = sizeof run };
    if (!rc) {
        pbi_engine_limits(p, a->model->context, &lim);
        run.max_seqs = lim.max_seqs;
        run.max_rows = lim.max_rows;
        run.max_ctx = lim.max_ctx;
        run.n_vocab = pbi_program_get(a->model->program)->n_vocab;
        rc =
            o->share ? base_share(o->share, p, &a->base, err) : base_new(p, o, &run, &a->base, err);
    }
    if (!rc)
        rc = open_runner(a, &lim, err);
    if (!rc)
        rc = open_engine(a, err);
    if (!rc)
        rc = open_process(a, &run, err);
    if (rc) {
        pbi_arm_close(a);
        return rc;
    }
    *out = a;
    return 0;
}

void pbi_arm_close(pbi_arm *a)
{
    if (!a)
        return;
    pbi_instance_free(a->process);
    pbi_front_free(a->front);
    pbi_engine_close(a->engine);
    pbi_runner_close(a->runner);
    if (a->weights_held)
        pbi_device_weights_release(a->base->device, pbi_program_get(a->model->program));
    pbi_ring_free(a->to_engine);
    pbi_ring_free(a->to_front);
    base_release(a->base);
    pbi_model_close(a->model);
    pbi_pipeline_free(a->pipeline);
    free(a->instances);
    free(a);
}

/* ---- running ----------------------------------------------------------- */

static int loop_front(void *h)
{
    pbi_arm *a = h;
    int rc = pbi_front_turn(a->front);
    if (rc == PB_LOOP_BUSY)
        a->idle = 0;
    return rc;
}

static int loop_engine(void *h)
{
    pbi_arm *a = h;
    int rc = pbi_engine_turn(a->engine);
    if (rc == PB_LOOP_BUSY)
        a->idle = 0;
    return rc;
}

static int loop_engine_lost(void *h, pb_err *err)
{
    return pbi_front_engine_lost(((pbi_arm *)h)->front, err);
}

static void loop_quit(void *h)
{
    pbi_front_quit(((pbi_arm *)h)->front);
}

/* Yields for a while, then sleeps longer and longer, up to a millisecond. */
static void loop_relax(void *h)
{
    pbi_arm *a = h;
    if (pbi_clock_is_virtual(a->base->clock) || ++a->idle < 50) {
        sched_yield();
        return;
    }
    int64_t ns = (int64_t)(a->idle - 49) * 20000;
    struct timespec ts = { .tv_nsec = ns > 1000000 ? 1000000 : (long)ns };
    nanosleep(&ts, NULL);
}

static int64_t cpu_ns(void)
{
    struct rusage self, dead;
    getrusage(RUSAGE_SELF, &self);
    getrusage(RUSAGE_CHILDREN, &dead);
    return ((int64_t)self.ru_utime.tv_sec + self.ru_stime.tv_sec + dead.ru_utime.tv_sec +
            dead.ru_stime.tv_sec) *
               1000000000 +
           ((int64_t)self.ru_utime.tv_usec + self.ru_stime.tv_usec + dead.ru_utime.tv_usec +
            dead.ru_stime.tv_usec) *
               1000;
}

static void fill_totals(const pbi_arm *a, pbi_totals *t)
{
    pbi_engine_stats s;
    pbi_front_stats(a->front, &s, &t->n_engine_lost);
    pbi_front_load(a->front, t);
    t->n_steps = s.n_steps;
    t->n_rows = s.n_rows;
    t->n_out_tokens = s.n_out_tokens;
    t->n_prompt_tokens = s.n_prompt_tokens;
    t->n_cached_tokens = s.n_cached_tokens;
    t->n_preempted = s.n_preempted;
    t->n_drafted = s.n_drafted;
    t->n_accepted = s.n_accepted;
    t->kv_bytes_arena = s.kv_bytes_arena;
    t->kv_bytes_peak = s.kv_bytes_peak;
    t->weight_bytes = pbi_device_weight_bytes(a->base->device);
    t->step_ns = s.step_ns;
    t->device_ns = s.device_ns;
}

int pbi_arm_run(pbi_arm *a, int64_t n, const pbi_request *req, pbi_answer *out,
                const pbi_run_hooks *hooks, pbi_totals *totals, pb_err *err)
{
    const pb_loops loops = { .size = sizeof loops,
                             .h = a,
                             .front = loop_front,
                             .engine = loop_engine,
                             .engine_lost = loop_engine_lost,
                             .quit = loop_quit,
                             .relax = loop_relax };
    const pb_process *process = pbi_instance_iface(a->process, "process/1");
    int64_t wall = pbi_clock_now(a->base->clock), cpu = cpu_ns();
    pb_err why = { 0 };
    int rc = pbi_front_begin(a->front, n, req, out, hooks, &why);
    if (!rc) {
        a->hooks = hooks;
        PBI_CALL(pbi_call_stat_get(a->process, "run"),
                 rc = process->run(pbi_instance_self(a->process), &loops, &why));
        a->hooks = NULL;
    }
    if (rc < 0) {
        /* the loop's own error says more than that of the process that carried it */
        if (pbi_front_error(a->front)->code)
            why = *pbi_front_error(a->front);
        else if (pbi_engine_error(a->engine)->code)
            why = *pbi_engine_error(a->engine);
        if (!why.code)
            pbi_err(&why, rc, "the run ended early");
        pbi_front_give_up(a->front, &why);
        if (err)
            *err = why;
    }
    if (totals) {
        *totals = (pbi_totals){ .wall_ns = pbi_clock_now(a->base->clock) - wall,
                                .cpu_ns = cpu_ns() - cpu };
        fill_totals(a, totals);
    }
    return rc < 0 ? rc : 0;
}

void pbi_arm_hash_logits(pbi_arm *a, int on)
{
    pbi_front_hash_logits(a->front, on);
}

int pbi_arm_reset(pbi_arm *a, pb_err *err)
{
    pbi_msg m = { .kind = PBI_MSG_RESET, .bytes = sizeof m };
    size_t bytes;
    const void *msg;
    int rc = pbi_ring_put(a->to_engine, &m, sizeof m);
    if (rc)
        return pbi_err(err, PB_E_STATE, "reset: the engine has not read its messages");
    for (;;) {
        rc = pbi_engine_turn(a->engine);
        if (rc < 0) {
            if (err)
                *err = *pbi_engine_error(a->engine);
            return rc;
        }
        while ((msg = pbi_ring_peek(a->to_front, &bytes)) != NULL) {
            const pbi_msg_ack *ack = msg;
            int done = ack->h.kind == PBI_MSG_ACK && ack->kind == PBI_MSG_RESET;
            pb_err e = done ? ack->err : (pb_err){ 0 };
            pbi_ring_pop(a->to_front);
            if (done && e.code && err)
                *err = e;
            if (done)
                return e.code;
        }
    }
}

/* ---- looking inside ---------------------------------------------------- */

const pbi_tokenizer *pbi_arm_tokenizer(const pbi_arm *a)
{
    return a->model->tokenizer;
}

const pb_program *pbi_arm_program(const pbi_arm *a)
{
    return pbi_program_get(a->model->program);
}

int64_t pbi_arm_context(const pbi_arm *a)
{
    return a->model->context;
}

int pbi_arm_instances(const pbi_arm *arm, pbi_instance *const **out)
{
    pbi_arm *a = (pbi_arm *)(uintptr_t)arm; /* the list is a cache */
    pbi_instance *const *d, *const *e;
    int nd = pbi_device_instances(a->base->device, &d), ne = pbi_engine_instances(a->engine, &e);
    int n = 0;
    free(a->instances);
    a->instances = calloc((size_t)(nd + ne) + 4, sizeof *a->instances);
    if (!a->instances)
        return 0;
    a->instances[n++] = a->model->model;
    a->instances[n++] = a->model->weights;
    for (int i = 0; i < nd; i++)
        a->instances[n++] = d[i];
    a->instances[n++] = pbi_runner_attention(a->runner);
    for (int i = 0; i < ne; i++)
        a->instances[n++] = e[i];
    a->instances[n++] = a->process;
    *out = a->instances;
    return n;
}
