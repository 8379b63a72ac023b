/* SPDX-License-Identifier: MIT
 * tests/unit/pipe.c - see pipe.h. */
#define _GNU_SOURCE 1
#include "pipe.h"
#include "inspect.h"
#include "model.h"
#include "options.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_IN = 4096, MAX_OPS = 12, MAX_THREADS = 8, MAX_REQUESTS = 64 };

/* a team without finesse: two barriers around each run */
typedef struct crew {
    int32_t n;
    pthread_t thread[MAX_THREADS];
    pthread_barrier_t edge, inside;
    void (*fn)(void *arg, int32_t thread, int32_t n);
    void *arg;
    struct worker {
        struct crew *crew;
        int32_t i;
    } worker[MAX_THREADS];
} crew;

typedef struct buffer {
    void *data;
    size_t bytes;
} buffer;

struct pipe {
    pipe_config c;
    int64_t now;
    pb_clock clock;
    pb_team team;
    pbi_pipeline pl;
    pbi_use *uses[16];
    pb_program *prog; /* &program, or the model's */
    pbi_model *model;
    crew crew;
    pb_program program;
    pb_op ops[MAX_OPS];
    pb_val_info vals[1];
    pb_kv_shape shapes[8];
    pbi_device *dev;
    pbi_runner *run;
    pbi_engine *eng;
    buffer in[MAX_IN];
    int32_t in_head, in_n, held;
    buffer last[80];
    pipe_answer *answers;
    const pipe_request *requests;
    int32_t n_answers, turn, idle;
    char sent[MAX_REQUESTS], aborted[MAX_REQUESTS];
};

uint64_t pipe_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull; /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

int32_t pipe_below(uint64_t *state, int32_t n)
{
    return (int32_t)(pipe_random(state) % (uint64_t)n);
}

pipe_config pipe_default(void)
{
    return (pipe_config){ .backend = "sim",
                          .attention = "contiguous",
                          .scheduler = "continuous",
                          .sampler = "greedy",
                          .n_groups = 1,
                          .n_vocab = 97,
                          .max_seqs = 4,
                          .max_rows = 64,
                          .max_ctx = 256,
                          .kv_tokens = 4096,
                          .paranoid = 1,
                          .threads = 1 };
}

pipe_request pipe_request_default(void)
{
    return (pipe_request){ .max_new = 16,
                           .flags = PBI_SUBMIT_HASH,
                           .abort_after = -1,
                           .params = { .size = sizeof(pb_params),
                                       .temperature = NAN,
                                       .top_p = NAN,
                                       .min_p = NAN,
                                       .repeat_penalty = NAN,
                                       .presence_penalty = NAN,
                                       .frequency_penalty = NAN,
                                       .top_k = INT32_MIN,
                                       .n_logprobs = -1 } };
}

/* ---- a plugin in use -------------------------------------------------- */

void pipe_use_free(pbi_use *u)
{
    if (!u)
        return;
    free(u->config);
    free(u->settings); /* the text that options point into */
    free(u->origin);
    free(u);
}

/* Libraries are never closed, so those of the fakes are made once. */
static int find_fake(const char *name, const pb_plugin *const *fakes, const pbi_library **out,
                     pb_err *err)
{
    static struct {
        const pb_plugin *of;
        pbi_library lib;
    } made[16];
    for (; fakes && *fakes; fakes++) {
        int i = 0, rc;
        if (strcmp((*fakes)->name, name))
            continue;
        while (made[i].of && made[i].of != *fakes)
            i++;
        *out = &made[i].lib;
        if (made[i].of)
            return 0;
        rc = pbi_inspect(*fakes, &made[i].lib.desc, err);
        made[i].of = *fakes;
        made[i].lib.slot = (*fakes)->slot;
        made[i].lib.name = (*fakes)->name;
        return rc;
    }
    return pbi_err(err, PB_E_INVAL, "no fake plugin %s", name);
}

static int set_defaults(const pbi_use *u, pb_err *err)
{
    const pb_option *o = u->lib->desc->options;
    for (; o && o->name; o = (const pb_option *)(const void *)((const char *)o + sizeof *o))
        if (o->def) {
            int rc = pbi_option_set(o, o->def, u->config, err);
            if (rc)
                return rc;
        }
    return 0;
}

pbi_use *pipe_use(const char *slot, const char *text, const pb_plugin *const *fakes, pb_err *err)
{
    pbi_use *u = calloc(1, sizeof *u);
    char *t = strdup(text), *save = NULL, *word;
    int rc;
    if (!u || !t)
        abort();
    u->settings = (pbi_setting *)(void *)t;
    u->slot = slot;
    word = strtok_r(t, " ", &save);
    u->origin = strdup("test");
    rc = word[0] == '@' ? find_fake(word + 1, fakes, &u->lib, err)
                        : pbi_loader_open(slot, word, &u->lib, err);
    if (!rc) {
        u->name = u->lib->name;
        u->config = calloc(1, u->lib->desc->config_size + 1u);
        rc = set_defaults(u, err);
    }
    while (!rc && (word = strtok_r(NULL, " ", &save))) {
        char *eq = strchr(word, '=');
        const pb_option *o;
        if (eq)
            *eq = 0;
        o = pbi_option_find(u->lib->desc->options, sizeof *o, word);
        rc = o && eq ? pbi_option_set(o, eq + 1, u->config, err)
                     : pbi_err(err, PB_E_INVAL, "%s has no option %s", u->name, word);
    }
    if (!rc)
        return u;
    pipe_use_free(u);
    return NULL;
}

static int add_use(pipe_t *p, const char *slot, const char *text, pb_err *err)
{
    pbi_use *u = pipe_use(slot, text, p->c.fakes, err);
    if (!u)
        return err->code;
    p->uses[p->pl.n_uses++] = u;
    return 0;
}

static int add_uses(pipe_t *p, pb_err *err)
{
    const pipe_config *c = &p->c;
    int rc = add_use(p, "backend", c->backend, err);
    p->pl.uses = p->uses;
    if (!rc)
        rc = add_use(p, "attention", c->attention, err);
    if (!rc)
        rc = add_use(p, "scheduler", c->scheduler, err);
    if (!rc)
        rc = add_use(p, "sampler", c->sampler, err);
    if (!rc && c->spec)
        rc = add_use(p, "spec", c->spec, err);
    for (int i = 0; i < PIPE_LIST && !rc && c->constraint[i]; i++)
        rc = add_use(p, "constraint", c->constraint[i], err);
    for (int i = 0; i < PIPE_LIST && !rc && c->output[i]; i++)
        rc = add_use(p, "output", c->output[i], err);
    return rc;
}

/* ---- host services ---------------------------------------------------- */

static int64_t now(void *arg)
{
    return ((pipe_t *)arg)->now;
}

static int advance(void *h, int64_t ns)
{
    ((pipe_t *)h)->now += ns;
    return 0;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    crew *c = w->crew;
    for (;;) {
        pthread_barrier_wait(&c->edge);
        if (!c->fn)
            return NULL;
        c->fn(c->arg, w->i, c->n);
        pthread_barrier_wait(&c->edge);
    }
}

static void team_run(void *h, void (*fn)(void *arg, int32_t thread, int32_t n), void *arg)
{
    crew *c = h;
    c->fn = fn;
    c->arg = arg;
    pthread_barrier_wait(&c->edge);
    fn(arg, 0, c->n);
    pthread_barrier_wait(&c->edge);
}

static void team_barrier(void *h)
{
    pthread_barrier_wait(&((crew *)h)->inside);
}

static void crew_open(crew *c, int32_t n)
{
    c->n = n;
    pthread_barrier_init(&c->edge, NULL, (unsigned)n);
    pthread_barrier_init(&c->inside, NULL, (unsigned)n);
    for (int32_t i = 1; i < n; i++) {
        c->worker[i] = (struct worker){ c, i };
        if (pthread_create(&c->thread[i], NULL, work, &c->worker[i]))
            abort();
    }
}

static void crew_close(crew *c)
{
    if (!c->n)
        return;
    c->fn = NULL;
    pthread_barrier_wait(&c->edge);
    for (int32_t i = 1; i < c->n; i++)
        pthread_join(c->thread[i], NULL);
    pthread_barrier_destroy(&c->edge);
    pthread_barrier_destroy(&c->inside);
}

/* ---- port ------------------------------------------------------------- */

static const void *peek(void *arg, size_t *bytes)
{
    pipe_t *p = arg;
    if (!p->in_n)
        return NULL;
    *bytes = p->in[p->in_head % MAX_IN].bytes;
    return p->in[p->in_head % MAX_IN].data;
}

static void pop(void *arg)
{
    pipe_t *p = arg;
    free(p->in[p->in_head % MAX_IN].data);
    p->in_head++;
    p->in_n--;
}

void pipe_put(pipe_t *p, const void *msg, size_t bytes)
{
    buffer *b = &p->in[(p->in_head + p->in_n) % MAX_IN];
    if (p->in_n == MAX_IN)
        abort();
    p->in_n++;
    b->data = malloc(bytes);
    memcpy(b->data, msg, bytes);
    b->bytes = bytes;
}

static void take_tokens(pipe_answer *a, const pbi_msg_tokens *m)
{
    const float *lp = pbi_msg_tokens_logprobs(m);
    if (a->n + m->n > a->cap) {
        a->cap = (a->n + m->n) * 2;
        a->ids = realloc(a->ids, (size_t)a->cap * sizeof *a->ids);
        a->logprobs = realloc(a->logprobs, (size_t)a->cap * sizeof *a->logprobs);
    }
    memcpy(a->ids + a->n, pbi_msg_tokens_ids(m), (size_t)m->n * sizeof *a->ids);
    for (int32_t i = 0; i < m->n; i++)
        a->logprobs[a->n + i] = lp ? lp[i] : 0;
    a->n += m->n;
    a->hash = m->logits_hash;
}

static int receive(void *arg, const void *msg, size_t bytes)
{
    pipe_t *p = arg;
    const pbi_msg *h = msg;
    pb_err err;
    if (p->c.ring && p->held == p->c.ring)
        return PB_E_FULL;
    if (pbi_msg_check(msg, bytes, &err)) {
        fprintf(stderr, "the engine sent a broken message: %s\n", err.msg);
        abort();
    }
    p->held++;
    free(p->last[h->kind].data);
    p->last[h->kind].data = malloc(bytes);
    memcpy(p->last[h->kind].data, msg, bytes);
    if (h->id >= 1 && h->id <= (uint64_t)p->n_answers) {
        pipe_answer *a = &p->answers[h->id - 1];
        const pbi_msg_done *d = msg;
        if (h->kind == PBI_MSG_TOKENS)
            take_tokens(a, msg);
        if (h->kind == PBI_MSG_DONE) {
            a->reason = d->reason;
            a->hash = d->logits_hash;
            a->n_cached = d->n_cached;
            a->n_preempted = d->n_preempted;
            a->err = d->err;
        }
    }
    return 0;
}

const void *pipe_last(pipe_t *p, uint32_t kind)
{
    return p->last[kind].data;
}

/* ---- the made-up program ---------------------------------------------- */

static void make_program(pipe_t *p)
{
    p->prog = &p->program;
    p->program = (pb_program){ .size = sizeof p->program,
                               .n_vals = 1,
                               .n_groups = p->c.n_groups,
                               .ops = p->ops,
                               .vals = p->vals,
                               .groups = p->shapes,
                               .n_vocab = p->c.n_vocab,
                               .ctx_train = p->c.max_ctx };
    p->vals[0] = (pb_val_info){ .name = "x", .width = 4 };
    for (int32_t g = 0; g < p->c.n_groups; g++) {
        int32_t window = g == p->c.n_groups - 1 ? p->c.window : 0;
        p->shapes[g] = (pb_kv_shape){ .size = sizeof(pb_kv_shape),
                                      .kind = PB_KV_GQA,
                                      .n_layers = 1,
                                      .window = window,
                                      .n_kv_heads = 1,
                                      .head_dim = 4,
                                      .v_dim = 4 };
        p->ops[p->program.n_ops++] = (pb_op){ .kind = PB_OP_ATTEND,
                                              .name = "attend",
                                              .u.attend = { .group = g,
                                                            .n_heads = 1,
                                                            .n_kv_heads = 1,
                                                            .head_dim = 4,
                                                            .v_dim = 4,
                                                            .window = window } };
    }
}

/* ---- open ------------------------------------------------------------- */

static int open_model(pipe_t *p, pb_err *err)
{
    int rc = add_use(p, "weights", p->c.weights, err);
    p->pl.core.context = p->c.max_ctx;
    if (!rc)
        rc = add_use(p, "model", "llama", err);
    if (!rc)
        rc = pbi_model_open(&p->pl, "", PBI_MODEL_NO_TEXT, &p->model, err);
    if (!rc)
        p->prog = pbi_program_get(p->model->program);
    return rc;
}

static int open_device(pipe_t *p, pb_err *err)
{
    pbi_device_options d = { .backend = p->uses[0],
                             .team = &p->team,
                             .clock = &p->clock,
                             .now_ns = now,
                             .now_arg = p,
                             .run = { .size = sizeof(pb_run),
                                      .max_seqs = p->c.max_seqs,
                                      .max_rows = p->c.max_rows,
                                      .max_ctx = p->c.max_ctx,
                                      .n_vocab = p->c.n_vocab } };
    crew_open(&p->crew, p->c.threads);
    p->clock = (pb_clock){ .size = sizeof p->clock, .h = p, .advance = advance };
    p->team = (pb_team){ .size = sizeof p->team,
                         .h = &p->crew,
                         .n_threads = p->c.threads,
                         .run = team_run,
                         .barrier = team_barrier };
    return pbi_device_open(&d, &p->dev, err);
}

static int64_t kv_bytes(const pipe_t *p)
{
    int64_t n = 0;
    for (int32_t g = 0; g < p->prog->n_groups; g++) {
        pb_kv_group out = { .size = sizeof out };
        pb_err err;
        const pb_backend *be = pbi_device_backend(p->dev);
        if (be->kv_group(pbi_instance_self(pbi_device_instance(p->dev)), &p->prog->groups[g], &out,
                         &err))
            return 0;
        n += out.token_bytes;
    }
    return n * p->c.kv_tokens;
}

static int open_engine(pipe_t *p, pb_err *err)
{
    pbi_runner_options r = { .device = p->dev,
                             .program = p->prog,
                             .attention = p->uses[1],
                             .kv_bytes = kv_bytes(p),
                             .own_arena = p->c.own_arena,
                             .paranoid = p->c.paranoid };
    pbi_engine_options e = { .pipeline = &p->pl,
                             .port = { .arg = p, .peek = peek, .pop = pop, .send = receive },
                             .hooks = p->c.hooks,
                             .copy_steps = p->c.copy_steps,
                             .amnesia = p->c.amnesia,
                             .preempt_every = p->c.preempt_every };
    int rc;
    p->pl.core = (pbi_core_config){ .threads = 1,
                                    .context = p->c.max_ctx,
                                    .max_seqs = p->c.max_seqs,
                                    .max_rows = p->c.max_rows,
                                    .kv_bytes = r.kv_bytes,
                                    .paranoid = p->c.paranoid };
    pbi_engine_limits(&p->pl, p->c.max_ctx, &r.limits);
    rc = p->c.share ? 0 : pbi_device_weights(p->dev, p->prog, NULL, NULL, err);
    if (!rc)
        rc = pbi_runner_open(&r, &p->run, err);
    e.runner = p->run;
    return rc ? rc : pbi_engine_open(&e, &p->eng, err);
}

int pipe_open(const pipe_config *c, pipe_t **out, pb_err *err)
{
    pipe_t *p = calloc(1, sizeof *p);
    int rc;
    if (!p)
        abort();
    memset(err, 0, sizeof *err);
    p->c = *c;
    make_program(p);
    rc = add_uses(p, err);
    if (!rc && c->share)
        p->prog = c->share->prog;
    if (!rc && c->weights && !c->share)
        rc = open_model(p, err);
    if (!rc && c->share)
        p->dev = c->share->dev;
    else if (!rc)
        rc = open_device(p, err);
    if (!rc)
        rc = open_engine(p, err);
    if (rc) {
        pipe_close(p);
        return rc;
    }
    *out = p;
    return 0;
}

void pipe_close(pipe_t *p)
{
    if (!p)
        return;
    pbi_engine_close(p->eng);
    pbi_runner_close(p->run);
    if (p->dev && !p->c.share)
        pbi_device_weights_release(p->dev, p->prog);
    if (!p->c.share)
        pbi_device_close(p->dev);
    crew_close(&p->crew);
    pbi_model_close(p->model);
    for (int i = 0; i < p->pl.n_uses; i++)
        pipe_use_free(p->uses[i]);
    while (p->in_n)
        pop(p);
    for (size_t i = 0; i < sizeof p->last / sizeof p->last[0]; i++)
        free(p->last[i].data);
    free(p);
}

pbi_engine *pipe_engine(pipe_t *p)
{
    return p->eng;
}

pbi_runner *pipe_runner(pipe_t *p)
{
    return p->run;
}

pbi_device *pipe_device(pipe_t *p)
{
    return p->dev;
}

const pb_program *pipe_program(const pipe_t *p)
{
    return p->prog;
}

/* ---- run -------------------------------------------------------------- */

static void submit(pipe_t *p, const pipe_request *q, uint64_t id)
{
    pbi_msg_submit m = { .h = { .id = id },
                         .salt = q->salt,
                         .logits_hash = q->logits_hash,
                         .max_new = q->max_new,
                         .arrival_ns = p->now,
                         .params = q->params,
                         .flags = q->flags,
                         .priority = q->priority,
                         .n_tokens = q->n,
                         .n_prompt = q->n_prompt ? q->n_prompt : q->n,
                         .n_eos = q->n_eos };
    size_t bytes = pbi_msg_submit_bytes(q->n, q->n_eos);
    void *buf = malloc(bytes);
    if (!buf || !pbi_msg_put_submit(buf, bytes, &m, q->ids, q->eos))
        abort();
    pipe_put(p, buf, bytes);
    free(buf);
}

static int all_done(const pipe_t *p)
{
    for (int32_t i = 0; i < p->n_answers; i++)
        if (!p->answers[i].reason)
            return 0;
    return 1;
}

void pipe_begin(pipe_t *p, int32_t n, const pipe_request *req, pipe_answer *out)
{
    memset(out, 0, (size_t)n * sizeof *out);
    memset(p->aborted, 0, sizeof p->aborted);
    memset(p->sent, 0, sizeof p->sent);
    p->answers = out;
    p->n_answers = n;
    p->requests = req;
    p->turn = p->idle = 0;
    if (n > MAX_REQUESTS)
        abort();
}

static void feed(pipe_t *p)
{
    for (int32_t i = 0; i < p->n_answers; i++) {
        const pipe_request *q = &p->requests[i];
        if (!p->sent[i] && q->at_turn <= p->turn) {
            submit(p, q, (uint64_t)i + 1);
            p->sent[i] = 1;
            p->idle = 0;
        }
        if (p->sent[i] && !p->aborted[i] && q->abort_after >= 0 &&
            p->answers[i].n >= q->abort_after) {
            pbi_msg m = { PBI_MSG_ABORT, sizeof m, (uint64_t)i + 1 };
            pipe_put(p, &m, sizeof m);
            p->aborted[i] = 1;
        }
    }
}

int pipe_turn(pipe_t *p, pb_err *err)
{
    int rc;
    if (all_done(p))
        return 1;
    feed(p);
    p->held = 0;
    p->turn++;
    rc = pbi_engine_turn(p->eng);
    if (rc < 0)
        *err = *pbi_engine_error(p->eng);
    p->idle = rc == PB_LOOP_IDLE ? p->idle + 1 : 0;
    if (p->idle > 3000 || p->turn > 200000)
        rc = pbi_err(err, PB_E_STATE, "no progress after %d turns", p->turn);
    return rc < 0 ? rc : 0;
}

int pipe_end(pipe_t *p, pb_err *err)
{
    int rc = 0;
    for (int i = 0; i < 2 && rc >= 0; i++) { /* the check of the idle pool */
        p->held = 0;
        rc = pbi_engine_turn(p->eng);
        if (rc < 0)
            *err = *pbi_engine_error(p->eng);
    }
    p->n_answers = 0;
    return rc < 0 ? rc : 0;
}

int pipe_run(pipe_t *p, int32_t n, const pipe_request *req, pipe_answer *out, pb_err *err)
{
    int rc;
    pipe_begin(p, n, req, out);
    while ((rc = pipe_turn(p, err)) == 0)
        ;
    if (rc > 0)
        rc = pipe_end(p, err);
    p->n_answers = 0;
    return rc;
}

void pipe_answers_free(pipe_answer *a, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        free(a[i].ids);
        free(a[i].logprobs);
    }
}
