/* SPDX-License-Identifier: MIT
 *
 * plugins/spec-ngram/ngram.c - proposes what followed the same words before: finds the longest
 * suffix of the sequence that occurs earlier in it and drafts the tokens after that place.
 *
 * Known as prompt lookup (Saxena 2023); no model, no index, no state. It wins where answers
 * quote their prompt (code edits, summaries, extraction) and costs one scan of the tokens a
 * step. Class: EXACT, as every draft is verified. Invariant: proposals depend on the tokens
 * of the sequence alone. Test: tests/unit/test_samplers.c
 */
#include <patchbay/plugin.h>

#include <string.h>

typedef struct config {
    int64_t min_n, max_n, max_draft;
} config;

typedef struct stats {
    int64_t lookups, drafted, verified, accepted;
} stats;

typedef struct ngram {
    const pb_host *host;
    const config *cfg;
    stats *st;
} ngram;

/* Length of the longest common suffix of t[0..a] and t[0..b], a < b, at most max. */
static int64_t common_suffix(const int32_t *t, int64_t a, int64_t b, int64_t max)
{
    int64_t k = 0;
    while (k < max && k <= a && t[a - k] == t[b - k])
        k++;
    return k;
}

/* Last position of the earlier occurrence to continue from; -1: none of min_n tokens. Among
 * equally long matches the most recent one. */
static int64_t find(const config *c, const int32_t *t, int64_t n)
{
    int64_t best = c->min_n - 1, at = -1;
    for (int64_t i = n - 2; i >= 0; i--) {
        if (t[i] != t[n - 1])
            continue;
        int64_t k = common_suffix(t, i, n - 1, c->max_n);
        if (k > best) {
            best = k;
            at = i;
        }
        if (k == c->max_n)
            break;
    }
    return at;
}

static int propose(void *self, int32_t n, const pb_seq *const *s, const int32_t *want, int32_t *out,
                   int32_t stride, int32_t *n_out)
{
    ngram *g = self;
    for (int32_t i = 0; i < n; i++) {
        const int32_t *t = s[i]->tokens;
        int64_t n_tok = s[i]->n_tokens, cap = g->cfg->max_draft;
        int32_t *d = out + (ptrdiff_t)i * stride;
        if (cap > want[i])
            cap = want[i];
        if (cap > stride)
            cap = stride;
        n_out[i] = 0;
        if (cap < 1 || n_tok < 2)
            continue;
        g->st->lookups++;
        int64_t at = find(g->cfg, t, n_tok);
        if (at < 0)
            continue;
        /* past the end the match overlaps itself: its own proposals continue it */
        for (int64_t k = 0; k < cap; k++) {
            int64_t src = at + 1 + k;
            d[k] = src < n_tok ? t[src] : d[src - n_tok];
        }
        n_out[i] = (int32_t)cap;
        g->st->drafted += cap;
    }
    return 0;
}

static void observe(void *self, int32_t n, const pb_seq *const *s, const int32_t *proposed,
                    const int32_t *accepted, int64_t step_ns)
{
    ngram *g = self;
    (void)s, (void)step_ns;
    for (int32_t i = 0; i < n; i++) {
        g->st->verified += proposed[i];
        g->st->accepted += accepted[i];
    }
}

/* ---- lifecycle --------------------------------------------------------- */

static int check(const void *config_, pb_err *err)
{
    const config *c = config_;
    static const char msg[] = "min_n is greater than max_n";
    if (c->min_n <= c->max_n)
        return 0;
    err->code = PB_E_INVAL;
    memcpy(err->msg, msg, sizeof msg);
    return PB_E_INVAL;
}

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    ngram *g = host->alloc(host, sizeof *g, 0, "ngram");
    if (!g) {
        *err = (pb_err){ .code = PB_E_NOMEM, .msg = "no memory for the proposer" };
        return PB_E_NOMEM;
    }
    g->host = host;
    g->cfg = cfg;
    g->st = host->stats;
    *self = g;
    return 0;
}

static void destroy(void *self)
{
    ngram *g = self;
    g->host->free(g->host, g);
}

/* ---- tables ------------------------------------------------------------ */

static const pb_option options[] = {
    PB_INT(config, min_n, "2", "1", "64", 0, "tokens",
           "shortest suffix that must have occurred before"),
    PB_INT(config, max_n, "4", "1", "64", 0, "tokens",
           "longest suffix compared; longer matches go before shorter ones"),
    PB_INT(config, max_draft, "8", "1", "64", 0, "tokens",
           "proposals a sequence and step, at most"),
    PB_OPTIONS_END
};

static const pb_counter counters[] = {
    PB_COUNTER(stats, lookups, 0, "calls", "sequences searched"),
    PB_COUNTER(stats, drafted, 0, "tokens", "tokens proposed"),
    PB_COUNTER(stats, verified, 0, "tokens", "of these: computed by the model"),
    PB_COUNTER(stats, accepted, PB_C_ENGAGED, "tokens", "of these: what the model drew as well"),
    PB_COUNTERS_END
};

static const pb_spec spec = { .size = sizeof spec, .propose = propose, .observe = observe };
static const pb_iface ifaces[] = { { "spec/1", &spec }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .flags = PB_EXACT,
    .slot = "spec",
    .name = "ngram",
    .version = "0.1",
    .license = "MIT",
    .summary = "drafts what followed the same tokens before",
    .options = options,
    .counters = counters,
    .config_size = sizeof(config),
    .stats_size = sizeof(stats),
    .ifaces = ifaces,
    .check = check,
    .create = create,
    .destroy = destroy,
};
