/* SPDX-License-Identifier: MIT
 *
 * plugins/output-budget/budget.c - ends a reasoning block after n tokens: the tokens of its closing
 * mark are forced, then the model answers. Class: LOSSY - the rest of the thought is lost.
 *
 * The block begins where the text of prompt and answer ends in `open`, and ends where it ends in
 * `close`. It is closed only between code points; a closing mark that the model has begun is
 * completed, not repeated. Stop strings belong to the front, which this plugin does not see.
 * Invariant: a verdict is a function of the sequence's tokens: with several accepted at once those
 * after the place are cut, so a text is the same one token at a time. Slots are caches.
 * Test: plugins/output-brief/test_outputs.c
 */
#include <patchbay/plugin.h>

#include <string.h>

enum { MARK = 64, IDS = 128 };

typedef struct config {
    int64_t tokens;
    const char *open, *close;
} config;

typedef struct stats {
    int64_t blocks, closed;
} stats;

/* What the first n tokens of a sequence say. */
typedef struct scan {
    uint64_t id;
    int64_t n, inside;    /* inside: tokens of the open block; -1: not in one */
    int32_t n_tail, rest; /* rest: bytes that the last code point lacks */
    char tail[MARK];
} scan;

typedef struct mark {
    char s[MARK];
    int32_t n, n_ids, ids[IDS];
} mark;

typedef struct budget {
    const pb_host *host;
    const config *cfg;
    stats *st;
    const pb_text *text;
    mark open, close[MARK + 1]; /* close[k]: what is left of it after k bytes */
    scan *slot;
    int32_t n_slots;
} budget;

/* ---- reading ----------------------------------------------------------- */

static int ends_with(const scan *c, const mark *m)
{
    return m->n && c->n_tail >= m->n && !memcmp(c->tail + c->n_tail - m->n, m->s, (size_t)m->n);
}

static void read_byte(scan *c, uint8_t b)
{
    if (c->n_tail == MARK)
        memmove(c->tail, c->tail + 1, (size_t)--c->n_tail);
    c->tail[c->n_tail++] = (char)b;
    if ((b & 0xc0) == 0x80)
        c->rest -= c->rest > 0;
    else
        c->rest = b < 0xc2 ? 0 : b < 0xe0 ? 1 : b < 0xf0 ? 2 : b < 0xf5 ? 3 : 0;
}

/* Do tokens (..., i] end in the mark's ids? For marks that are control tokens, without bytes. */
static int ends_with_ids(const pb_seq *s, int64_t i, const mark *m)
{
    if (!m->n_ids || i + 1 < m->n_ids)
        return 0;
    return !memcmp(s->tokens + i + 1 - m->n_ids, m->ids, (size_t)m->n_ids * sizeof *m->ids);
}

static void read_token(budget *b, scan *c, const pb_seq *s)
{
    int64_t i = c->n++;
    pb_str p = b->text->piece(b->text->h, s->tokens[i]);
    int was = c->inside >= 0, opened = 0, closed = 0;
    for (size_t k = 0; k < p.n; k++) {
        read_byte(c, (uint8_t)p.s[k]);
        opened |= !was && ends_with(c, &b->open);
        closed |= was && ends_with(c, &b->close[0]);
    }
    opened |= !was && ends_with_ids(s, i, &b->open);
    closed |= was && ends_with_ids(s, i, &b->close[0]);
    if (opened)
        c->inside = 0;
    else if (closed)
        c->inside = -1;
    else if (was && i >= s->n_prompt) /* a prompt's thoughts cost nothing */
        c->inside++;
}

/* Reads up to n tokens; begins anew unless the slot knows a shorter part of this sequence. */
static scan *read_to(budget *b, const pb_seq *s, int64_t n, scan *spare)
{
    scan *c = s->slot >= 0 && s->slot < b->n_slots ? &b->slot[s->slot] : spare;
    if (c == spare || c->id != s->id || c->n > n || c->n == 0)
        *c = (scan){ .id = s->id, .inside = -1 };
    while (c->n < n)
        read_token(b, c, s);
    return c;
}

/* Bytes of the closing mark that the text ends in already. */
static int32_t begun(const budget *b, const scan *c)
{
    for (int32_t k = b->close[0].n - 1; k > 0; k--)
        if (c->n_tail >= k && !memcmp(c->tail + c->n_tail - k, b->close[0].s, (size_t)k))
            return k;
    return 0;
}

static int accept(void *self, int32_t n, const pb_seq *const *s, const int32_t *n_new,
                  pb_verdict *v)
{
    budget *b = self;
    for (int32_t i = 0; i < n; i++) {
        /* new tokens are read in a copy: an output after this one may cut them */
        scan spare, now = *read_to(b, s[i], s[i]->n_tokens - n_new[i], &spare), *c = &now;
        for (int32_t k = 0; k < n_new[i]; k++) {
            int64_t before = c->inside;
            read_token(b, c, s[i]);
            b->st->blocks += before < 0 && c->inside >= 0;
            if (c->inside < b->cfg->tokens || c->rest || s[i]->tokens[c->n - 1] == b->text->eos)
                continue;
            const mark *m = &b->close[begun(b, c)];
            v[i].keep = k + 1;
            v[i].forced = m->ids;
            v[i].n_forced = m->n_ids;
            b->st->closed++;
            break;
        }
    }
    return 0;
}

/* ---- lifecycle --------------------------------------------------------- */

static int fail(pb_err *err, int code, const char *msg)
{
    err->code = code;
    memcpy(err->msg, msg, strlen(msg) + 1);
    return code;
}

/* \n and \\ are written so in an INI. 0, or -1 when it is too long. */
static int unescape(const char *s, mark *m)
{
    m->n = 0;
    for (; *s; s++) {
        char c = *s;
        if (c == '\\' && (s[1] == 'n' || s[1] == '\\'))
            c = *++s == 'n' ? '\n' : '\\';
        if (m->n == MARK)
            return -1;
        m->s[m->n++] = c;
    }
    return 0;
}

static int check(const void *cfg, pb_err *err)
{
    const config *c = cfg;
    mark m;
    if (!c->open[0] || unescape(c->open, &m))
        return fail(err, PB_E_INVAL, "open: from 1 to 64 bytes are expected");
    if (!c->close[0] || unescape(c->close, &m))
        return fail(err, PB_E_INVAL, "close: from 1 to 64 bytes are expected");
    return 0;
}

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    budget *b = host->alloc(host, sizeof *b, 0, "budget");
    if (!b)
        return fail(err, PB_E_NOMEM, "output-budget: no memory");
    *b = (budget){ .host = host, .cfg = cfg, .st = host->stats };
    *self = b;
    b->text = host->get(host, "text/1");
    if (b->text)
        return 0;
    host->free(host, b);
    *self = NULL;
    return fail(err, PB_E_UNSUPPORTED, "output-budget: the model has no vocabulary");
}

static int encode(const budget *b, mark *m)
{
    m->n_ids = b->text->encode(b->text->h, m->s, (size_t)m->n, m->ids, IDS);
    return m->n_ids > 0 ? 0 : -1;
}

static int start(void *self, const pb_run *run, pb_err *err)
{
    budget *b = self;
    unescape(b->cfg->open, &b->open);
    unescape(b->cfg->close, &b->close[0]);
    int rc = encode(b, &b->open);
    for (int32_t k = 0; k < b->close[0].n && !rc; k++) {
        b->close[k].n = b->close[0].n - k;
        memmove(b->close[k].s, b->close[0].s + k, (size_t)b->close[k].n);
        rc = encode(b, &b->close[k]);
    }
    if (rc)
        return fail(err, PB_E_UNSUPPORTED,
                    "output-budget: this vocabulary cannot write open or close");
    b->n_slots = run->max_seqs;
    b->slot = b->host->alloc(b->host, (size_t)run->max_seqs * sizeof *b->slot, 0, "slots");
    return b->slot ? 0 : fail(err, PB_E_NOMEM, "output-budget: no memory for slots");
}

static int reset(void *self)
{
    budget *b = self;
    memset(b->slot, 0, (size_t)b->n_slots * sizeof *b->slot);
    return 0;
}

static void stop(void *self)
{
    budget *b = self;
    b->host->free(b->host, b->slot);
    b->slot = NULL;
    b->n_slots = 0;
}

static void destroy(void *self)
{
    budget *b = self;
    stop(b);
    b->host->free(b->host, b);
}

static const pb_option options[] = {
    PB_INT(config, tokens, "512", "1", "1000000000", PB_O_OUTPUT, "tokens",
           "a reasoning block is closed after so many; hard questions may need thousands"),
    PB_STR(config, open, "<think>", PB_O_OUTPUT,
           "text that begins a block, in the prompt's end or in the answer; \\n is a line feed"),
    PB_STR(
        config, close, "</think>", PB_O_OUTPUT,
        "text that ends a block and is forced; as the model was trained, \\n\\n may belong to it"),
    PB_OPTIONS_END
};

static const pb_counter counters[] = {
    PB_COUNTER(stats, blocks, 0, "blocks", "blocks that began in an answer"),
    PB_COUNTER(stats, closed, PB_C_ENGAGED, "blocks", "blocks that the budget closed"),
    PB_COUNTERS_END
};

static const pb_output output = { .size = sizeof output, .accept = accept };
static const pb_iface ifaces[] = { { "output/1", &output }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .flags = PB_LOSSY,
    .slot = "output",
    .name = "budget",
    .version = "0.1",
    .license = "MIT",
    .summary = "ends a reasoning block in time, then lets the model answer",
    .options = options,
    .counters = counters,
    .config_size = sizeof(config),
    .stats_size = sizeof(stats),
    .ifaces = ifaces,
    .check = check,
    .create = create,
    .start = start,
    .reset = reset,
    .stop = stop,
    .destroy = destroy,
};
