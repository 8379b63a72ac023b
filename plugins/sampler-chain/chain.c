/* SPDX-License-Identifier: MIT
 *
 * plugins/sampler-chain/chain.c - penalties, temperature, top-k, top-p, min-p and a seed: the
 * usual chain, as one pb_draw for each wanted row.
 *
 * It computes no probability: it says how to draw, the backend draws, so that logits stay on
 * the device. Options are defaults for requests that leave a field unset. Class: DISTRIBUTION.
 *
 * Invariant: a draw is a function of the options, the request's parameters, and the tokens
 * before its row (sequence, then tail) - not of the slot, the batch, the order of arrival, the
 * length of the prompt, or an earlier call. So a preempted, resumed or speculated request goes
 * on with the same text, and there is nothing to rebuild after a restart.
 *
 * Penalties count the last `penalty_window` tokens, prompt included, and become sparse edits.
 * A row costs one walk over the window and over a bitmap of the vocabulary, which yields the
 * ids in ascending order without a sort.
 * Test: tests/unit/test_samplers.c
 */
#include <patchbay/plugin.h>

#include <string.h>

typedef struct config {
    double temperature, top_p, min_p;
    double repeat_penalty, presence_penalty, frequency_penalty;
    int64_t top_k, penalty_window, seed;
} config;

typedef struct stats {
    int64_t drawn, sampled, edits;
} stats;

typedef struct chain {
    const pb_host *host;
    const config *cfg;
    stats *st;
    int32_t n_vocab, window, n_rows; /* window: of one row; edits has room for n_rows of them */
    int32_t *count;                  /* [n_vocab] zero between rows */
    uint64_t *seen;                  /* [(n_vocab + 63) / 64] zero between rows */
    pb_edit *edits;                  /* [n_rows][window] */
} chain;

/* A request's value, or the option when it is unset (NaN). */
static float pick_f(float request, double option)
{
    return request == request ? request : (float)option;
}

/* What holds for one sequence: the request's values over the options. */
static pb_params resolve(const config *c, const pb_params *q)
{
    pb_params r = {
        .size = sizeof r,
        .seed = (uint64_t)c->seed,
        .temperature = (float)c->temperature,
        .top_p = (float)c->top_p,
        .min_p = (float)c->min_p,
        .repeat_penalty = (float)c->repeat_penalty,
        .presence_penalty = (float)c->presence_penalty,
        .frequency_penalty = (float)c->frequency_penalty,
        .top_k = (int32_t)c->top_k,
    };
    if (!q)
        return r;
    r.temperature = pick_f(q->temperature, c->temperature);
    r.top_p = pick_f(q->top_p, c->top_p);
    r.min_p = pick_f(q->min_p, c->min_p);
    r.repeat_penalty = pick_f(q->repeat_penalty, c->repeat_penalty);
    r.presence_penalty = pick_f(q->presence_penalty, c->presence_penalty);
    r.frequency_penalty = pick_f(q->frequency_penalty, c->frequency_penalty);
    if (q->top_k != INT32_MIN)
        r.top_k = q->top_k;
    if (q->has_seed)
        r.seed = q->seed;
    return r;
}

/* One more occurrence of id; ids that are none (a caller's mistake) do not count. */
static void count_one(chain *s, int32_t id)
{
    if (id < 0 || id >= s->n_vocab)
        return;
    s->count[id]++;
    s->seen[id / 64] |= 1ull << (id % 64);
}

/* Counts the last `window` tokens of the sequence followed by the tail. */
static void count_window(chain *s, const pb_pick *p)
{
    int32_t n_tail = p->n_tail < s->window ? p->n_tail : s->window;
    int64_t n_seq = s->window - n_tail;
    if (n_seq > p->seq->n_tokens)
        n_seq = p->seq->n_tokens;
    for (int64_t i = p->seq->n_tokens - n_seq; i < p->seq->n_tokens; i++)
        count_one(s, p->seq->tokens[i]);
    for (int32_t i = p->n_tail - n_tail; i < p->n_tail; i++)
        count_one(s, p->tail[i]);
}

/* Turns the counts into edits, ids ascending, and clears them. */
static int32_t write_edits(chain *s, const pb_params *q, pb_edit *out)
{
    int32_t n = 0;
    for (int32_t w = 0; w < (s->n_vocab + 63) / 64; w++) {
        for (uint64_t bits = s->seen[w]; bits; bits &= bits - 1) {
            int32_t id = w * 64 + __builtin_ctzll(bits);
            float times = (float)s->count[id];
            out[n++] = (pb_edit){ .id = id,
                                  .penalty = q->repeat_penalty,
                                  .add = -(q->presence_penalty + q->frequency_penalty * times) };
            s->count[id] = 0;
        }
        s->seen[w] = 0;
    }
    return n;
}

static int draw(void *self, int32_t n, const pb_pick *p, pb_draw *out)
{
    chain *s = self;
    if (n > s->n_rows)
        return PB_E_STATE;
    for (int32_t i = 0; i < n; i++) {
        pb_params q = resolve(s->cfg, p[i].seq->params);
        out[i].seed = q.seed;
        out[i].temperature = q.temperature;
        out[i].top_k = q.top_k;
        out[i].top_p = q.top_p;
        out[i].min_p = q.min_p;
        out[i].edits = NULL;
        out[i].n_edits = 0;
        int neutral =
            q.repeat_penalty == 1.0f && q.presence_penalty == 0.0f && q.frequency_penalty == 0.0f;
        if (!neutral && s->window > 0) {
            pb_edit *e = s->edits + (size_t)i * (size_t)s->window;
            count_window(s, &p[i]);
            out[i].n_edits = write_edits(s, &q, e);
            out[i].edits = e;
        }
        s->st->sampled += q.temperature > 0.0f;
        s->st->edits += out[i].n_edits;
    }
    s->st->drawn += n;
    return 0;
}

/* ---- lifecycle --------------------------------------------------------- */

static int fail(pb_err *err, int code, const char *msg)
{
    err->code = code;
    memcpy(err->msg, msg, strlen(msg) + 1);
    return code;
}

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    chain *s = host->alloc(host, sizeof *s, 0, "chain");
    if (!s)
        return fail(err, PB_E_NOMEM, "no memory for the sampler");
    s->host = host;
    s->cfg = cfg;
    s->st = host->stats;
    *self = s;
    return 0;
}

static void stop(void *self)
{
    chain *s = self;
    s->host->free(s->host, s->count);
    s->host->free(s->host, s->seen);
    s->host->free(s->host, s->edits);
    s->count = NULL;
    s->seen = NULL;
    s->edits = NULL;
}

static int start(void *self, const pb_run *run, pb_err *err)
{
    chain *s = self;
    int64_t window = s->cfg->penalty_window;
    if (window > run->max_ctx)
        window = run->max_ctx;
    s->window = (int32_t)window;
    s->n_vocab = run->n_vocab;
    s->n_rows = run->max_rows;
    size_t vocab = (size_t)run->n_vocab, rows = (size_t)run->max_rows;
    s->count = s->host->alloc(s->host, vocab * sizeof *s->count, 0, "counts");
    s->seen = s->host->alloc(s->host, (vocab + 63) / 64 * sizeof *s->seen, 0, "seen");
    s->edits = s->host->alloc(s->host, (rows * (size_t)window + 1) * sizeof *s->edits, 0, "edits");
    if (s->count && s->seen && s->edits)
        return 0;
    stop(s);
    return fail(err, PB_E_NOMEM, "no memory for the edits of a step; lower penalty_window");
}

static void destroy(void *self)
{
    chain *s = self;
    stop(s);
    s->host->free(s->host, s);
}

/* ---- tables ------------------------------------------------------------ */

static const pb_option options[] = {
    PB_FLOAT(config, temperature, "1", "0", "100", PB_O_OUTPUT, NULL,
             "divides the logits; 0 takes the highest one"),
    PB_INT(config, top_k, "0", "0", "1000000", PB_O_OUTPUT, "tokens",
           "keep the k most likely tokens; 0 keeps all"),
    PB_FLOAT(config, top_p, "1", "0", "1", PB_O_OUTPUT, NULL,
             "keep the most likely tokens whose probabilities sum to p; 1 keeps all"),
    PB_FLOAT(config, min_p, "0", "0", "1", PB_O_OUTPUT, NULL,
             "keep tokens at least this likely, as a share of the most likely one"),
    PB_FLOAT(config, repeat_penalty, "1", "0.01", "100", PB_O_OUTPUT, NULL,
             "divides the positive logits of tokens in the window, multiplies the negative"),
    PB_FLOAT(config, presence_penalty, "0", "-100", "100", PB_O_OUTPUT, NULL,
             "subtracted from the logit of every token in the window"),
    PB_FLOAT(config, frequency_penalty, "0", "-100", "100", PB_O_OUTPUT, NULL,
             "subtracted from a token's logit once for each occurrence in the window"),
    PB_INT(config, penalty_window, "64", "0", "4096", PB_O_OUTPUT, "tokens",
           "last tokens, prompt included, that penalties look at; 12 bytes a row of a step"),
    PB_INT(config, seed, "0", NULL, NULL, PB_O_OUTPUT, NULL,
           "seed of requests that bring none; equal prompts then give equal texts"),
    PB_OPTIONS_END
};

static const pb_counter counters[] = {
    PB_COUNTER(stats, drawn, PB_C_ENGAGED, "tokens", "rows whose draw this sampler described"),
    PB_COUNTER(stats, sampled, 0, "tokens", "of these: with a temperature above 0"),
    PB_COUNTER(stats, edits, 0, "edits", "logits that penalties changed"), PB_COUNTERS_END
};

static const pb_sampler sampler = { .size = sizeof sampler, .draw = draw };
static const pb_iface ifaces[] = { { "sampler/1", &sampler }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .flags = PB_DISTRIBUTION,
    .slot = "sampler",
    .name = "chain",
    .version = "0.1",
    .license = "MIT",
    .summary = "penalties, temperature, top-k, top-p, min-p, seed",
    .options = options,
    .counters = counters,
    .config_size = sizeof(config),
    .stats_size = sizeof(stats),
    .ifaces = ifaces,
    .create = create,
    .start = start,
    .stop = stop,
    .destroy = destroy,
};
