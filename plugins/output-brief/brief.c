/* SPDX-License-Identifier: MIT
 *
 * plugins/output-brief/brief.c - shorter answers: a cap on the tokens of an answer, and an
 * instruction for the system turn. Class: LOSSY - what is left out is lost.
 *
 * The cap holds twice: a request's own limit is lowered, and an answer that reaches the cap is
 * ended, also where no request was seen. The instruction is handed over in request(), which
 * only a front that renders chats can honour; an instruction that nobody asked for is logged.
 * Invariant: a verdict depends on counts of the sequence alone.
 * Test: plugins/output-brief/test_outputs.c
 */
#include <patchbay/plugin.h>

typedef struct config {
    int64_t max_tokens;
    const char *instruction;
} config;

typedef struct stats {
    int64_t capped, lowered, instructed;
} stats;

typedef struct brief {
    const pb_host *host;
    const config *cfg;
    stats *st;
    int requests, said;
} brief;

static int request(void *self, pb_request *r)
{
    brief *b = self;
    b->requests = 1;
    if (r->max_new < 0 || r->max_new > b->cfg->max_tokens) {
        r->max_new = b->cfg->max_tokens;
        b->st->lowered++;
    }
    if (r->has_messages && b->cfg->instruction[0]) {
        r->system_add = b->cfg->instruction;
        b->st->instructed++;
    } else if (b->cfg->instruction[0] && !b->said) {
        b->host->log(b->host, PB_LOG_WARN,
                     "the instruction was not added: a plain prompt has no system turn; the cap "
                     "alone works");
        b->said = 1;
    }
    return 0;
}

static void warn(brief *b)
{
    if (b->cfg->instruction[0] && !b->requests && !b->said)
        b->host->log(b->host, PB_LOG_WARN,
                     "the instruction was not added: requests are not shown to output plugins "
                     "here; the cap alone works");
    b->said = 1;
}

static int accept(void *self, int32_t n, const pb_seq *const *s, const int32_t *n_new,
                  pb_verdict *v)
{
    brief *b = self;
    warn(b);
    for (int32_t i = 0; i < n; i++) {
        int64_t before = s[i]->n_tokens - n_new[i] - s[i]->n_prompt;
        int64_t room = b->cfg->max_tokens - before;
        if (room > n_new[i])
            continue;
        v[i].keep = (int32_t)(room > 0 ? room : 0);
        v[i].finish = 1;
        b->st->capped++;
    }
    return 0;
}

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    brief *b = host->alloc(host, sizeof *b, 0, "brief");
    if (!b) {
        *err = (pb_err){ .code = PB_E_NOMEM, .msg = "output-brief: no memory" };
        return PB_E_NOMEM;
    }
    *b = (brief){ .host = host, .cfg = cfg, .st = host->stats };
    *self = b;
    return 0;
}

static void destroy(void *self)
{
    brief *b = self;
    b->host->free(b->host, b);
}

static const pb_option options[] = {
    PB_INT(config, max_tokens, "256", "1", "1000000000", PB_O_OUTPUT, "tokens",
           "an answer ends here at the latest; a request may ask for less"),
    PB_STR(config, instruction, "", PB_O_OUTPUT,
           "a sentence for the system turn of chats, as: Answer in at most two sentences. Shortens "
           "answers where they would end by themselves; the cap only cuts"),
    PB_OPTIONS_END
};

static const pb_counter counters[] = {
    PB_COUNTER(stats, capped, PB_C_ENGAGED, "answers", "answers that reached the cap"),
    PB_COUNTER(stats, lowered, 0, "requests", "limits of requests that were lowered"),
    PB_COUNTER(stats, instructed, 0, "requests", "chats that got the instruction"), PB_COUNTERS_END
};

static const pb_output output = { .size = sizeof output, .request = request, .accept = accept };
static const pb_iface ifaces[] = { { "output/1", &output }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .flags = PB_LOSSY,
    .slot = "output",
    .name = "brief",
    .version = "0.1",
    .license = "MIT",
    .summary = "a cap on tokens and an instruction to be short",
    .options = options,
    .counters = counters,
    .config_size = sizeof(config),
    .stats_size = sizeof(stats),
    .ifaces = ifaces,
    .create = create,
    .destroy = destroy,
};
