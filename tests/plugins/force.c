/* SPDX-License-Identifier: MIT
 *
 * tests/plugins/force.c - output-force: after so many answer tokens a list of tokens must
 * follow; after so many the answer ends. Only built by `make check`, never installed.
 *
 * It looks at counts alone: where several tokens are accepted at once (speculation), those
 * beyond the place are cut, so that the answer is the same as one token at a time.
 */
#include <patchbay/plugin.h>

#include <string.h>

enum { MAX_FORCED = 64 };

typedef struct config {
    int64_t after, end;
    const char *tokens;
} config;

typedef struct stats {
    int64_t forced, ended;
} stats;

typedef struct force {
    const pb_host *host;
    const config *cfg;
    stats *st;
    int32_t n, ids[MAX_FORCED];
} force;

/* "5 17 3"; returns the count, or -1 */
static int32_t parse(const char *s, int32_t *ids)
{
    int32_t n = 0;
    while (*s) {
        int64_t v = 0;
        if (*s == ' ') {
            s++;
            continue;
        }
        for (; *s >= '0' && *s <= '9' && v < INT32_MAX / 10; s++)
            v = v * 10 + (*s - '0');
        if ((*s && *s != ' ') || n == MAX_FORCED)
            return -1;
        ids[n++] = (int32_t)v;
    }
    return n;
}

/* Keeps as many of the new tokens as reach `place` answer tokens; 1 if it lies among them. */
static int cut_at(int64_t place, int64_t before, int32_t n_new, pb_verdict *v)
{
    if (place <= before || place > before + n_new)
        return 0;
    v->keep = (int32_t)(place - before);
    return 1;
}

static int accept(void *self, int32_t n, const pb_seq *const *s, const int32_t *n_new,
                  pb_verdict *v)
{
    force *f = self;
    for (int32_t i = 0; i < n; i++) {
        int64_t before = s[i]->n_tokens - n_new[i] - s[i]->n_prompt;
        if (f->cfg->end && cut_at(f->cfg->end, before, n_new[i], &v[i])) {
            v[i].finish = 1;
            f->st->ended++;
        }
        if (f->n && f->cfg->after <= before + v[i].keep &&
            cut_at(f->cfg->after, before, n_new[i], &v[i])) {
            v[i].finish = 0;
            v[i].forced = f->ids;
            v[i].n_forced = f->n;
            f->st->forced += f->n;
        }
    }
    return 0;
}

static int check(const void *cfg, pb_err *err)
{
    int32_t ids[MAX_FORCED];
    if (parse(((const config *)cfg)->tokens, ids) >= 0)
        return 0;
    *err = (pb_err){ .code = PB_E_INVAL,
                     .msg = "tokens: not a list of at most 64 ids, as in '5 17 3'" };
    return PB_E_INVAL;
}

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    force *f = host->alloc(host, sizeof *f, 0, "force");
    if (!f) {
        *err = (pb_err){ .code = PB_E_NOMEM, .msg = "no memory for the list" };
        return PB_E_NOMEM;
    }
    f->host = host;
    f->cfg = cfg;
    f->st = host->stats;
    f->n = parse(f->cfg->tokens, f->ids);
    *self = f;
    return 0;
}

static void destroy(void *self)
{
    force *f = self;
    f->host->free(f->host, f);
}

static const pb_option options[] = {
    PB_INT(config, after, "4", "1", "1000000", PB_O_OUTPUT, "tokens",
           "answer tokens before the list"),
    PB_STR(config, tokens, "5 6 7", PB_O_OUTPUT, "the ids that must follow, separated by spaces"),
    PB_INT(config, end, "0", "0", "1000000", PB_O_OUTPUT, "tokens",
           "the answer ends after so many; 0 leaves the end to others"),
    PB_OPTIONS_END
};

static const pb_counter counters[] = {
    PB_COUNTER(stats, forced, PB_C_ENGAGED, "tokens", "tokens that were forced"),
    PB_COUNTER(stats, ended, 0, "sequences", "answers that were ended"), PB_COUNTERS_END
};

static const pb_output output = { .size = sizeof output, .accept = accept };
static const pb_iface ifaces[] = { { "output/1", &output }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .flags = PB_LOSSY,
    .slot = "output",
    .name = "force",
    .version = "0.1",
    .license = "MIT",
    .summary = "test: tokens that must follow, and an end, at given places",
    .options = options,
    .counters = counters,
    .config_size = sizeof(config),
    .stats_size = sizeof(stats),
    .ifaces = ifaces,
    .check = check,
    .create = create,
    .destroy = destroy,
};
