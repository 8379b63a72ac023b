/* SPDX-License-Identifier: MIT
 *
 * core/messages.c - writing, reading and checking flat messages. The other side may be a
 * process that died while it wrote, so every count is tested against the bytes before use.
 */
#include "messages.h"
#include <string.h>

/* above this no request fits any context; keeps all sums far from overflow */
enum { MAX_TOKENS = 1 << 26 };

static size_t round8(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

size_t pbi_msg_submit_bytes(int64_t n_tokens, int64_t n_eos)
{
    if (n_tokens < 0 || n_tokens > MAX_TOKENS || n_eos < 0 || n_eos > PBI_MSG_MAX_EOS)
        return 0;
    return round8(sizeof(pbi_msg_submit) + ((size_t)n_tokens + (size_t)n_eos) * 4);
}

size_t pbi_msg_tokens_bytes(int64_t n, int has_logprobs)
{
    if (n < 0 || n > PBI_MSG_MAX_IDS)
        return 0;
    return round8(sizeof(pbi_msg_tokens) + (size_t)n * (has_logprobs ? 8 : 4));
}

const int32_t *pbi_msg_submit_tokens(const pbi_msg_submit *m)
{
    return (const int32_t *)(const void *)(m + 1);
}

const int32_t *pbi_msg_submit_eos(const pbi_msg_submit *m)
{
    return pbi_msg_submit_tokens(m) + m->n_tokens;
}

const int32_t *pbi_msg_tokens_ids(const pbi_msg_tokens *m)
{
    return (const int32_t *)(const void *)(m + 1);
}

const float *pbi_msg_tokens_logprobs(const pbi_msg_tokens *m)
{
    return m->has_logprobs ? (const float *)(const void *)(pbi_msg_tokens_ids(m) + m->n) : NULL;
}

/* bytes after the arrays up to the next multiple of 8 are zeroed: no stray memory is sent */
static void finish(char *buf, size_t used, size_t total, uint32_t kind)
{
    pbi_msg *h = (pbi_msg *)(void *)buf;
    memset(buf + used, 0, total - used);
    h->kind = kind;
    h->bytes = (uint32_t)total;
}

size_t pbi_msg_put_submit(void *buf, size_t cap, const pbi_msg_submit *m, const int32_t *tokens,
                          const int32_t *eos)
{
    size_t total = pbi_msg_submit_bytes(m->n_tokens, m->n_eos);
    char *b = buf;
    size_t at = sizeof *m;
    if (!total || total > cap)
        return 0;
    memcpy(b, m, sizeof *m);
    if (m->n_tokens)
        memcpy(b + at, tokens, (size_t)m->n_tokens * 4);
    at += (size_t)m->n_tokens * 4;
    if (m->n_eos)
        memcpy(b + at, eos, (size_t)m->n_eos * 4);
    at += (size_t)m->n_eos * 4;
    finish(b, at, total, PBI_MSG_SUBMIT);
    return total;
}

size_t pbi_msg_put_tokens(void *buf, size_t cap, const pbi_msg_tokens *m, const int32_t *ids,
                          const float *logprobs)
{
    size_t total = pbi_msg_tokens_bytes(m->n, logprobs != NULL);
    char *b = buf;
    size_t at = sizeof *m;
    if (!total || total > cap)
        return 0;
    memcpy(b, m, sizeof *m);
    ((pbi_msg_tokens *)(void *)b)->has_logprobs = logprobs != NULL;
    if (m->n)
        memcpy(b + at, ids, (size_t)m->n * 4);
    at += (size_t)m->n * 4;
    if (logprobs && m->n) {
        memcpy(b + at, logprobs, (size_t)m->n * 4);
        at += (size_t)m->n * 4;
    }
    finish(b, at, total, PBI_MSG_TOKENS);
    return total;
}

static int check_submit(const pbi_msg_submit *m, size_t n, pb_err *err)
{
    size_t want = pbi_msg_submit_bytes(m->n_tokens, m->n_eos);
    if (!want)
        return pbi_err(err, PB_E_FORMAT,
                       "submit message: n_tokens = %d (0..%d) or n_eos = %d (0..%d) out of range",
                       m->n_tokens, MAX_TOKENS, m->n_eos, PBI_MSG_MAX_EOS);
    if (want != n)
        return pbi_err(err, PB_E_FORMAT,
                       "submit message: %zu bytes, but n_tokens = %d and n_eos = %d need %zu", n,
                       m->n_tokens, m->n_eos, want);
    if (m->n_prompt < 0 || m->n_prompt > m->n_tokens)
        return pbi_err(err, PB_E_FORMAT, "submit message: n_prompt = %d is not in 0..%d",
                       m->n_prompt, m->n_tokens);
    if (m->params.size != sizeof(pb_params))
        return pbi_err(err, PB_E_FORMAT, "submit message: params of %zu bytes, expected %zu",
                       m->params.size, sizeof(pb_params));
    if (m->max_new < -1)
        return pbi_err(err, PB_E_FORMAT, "submit message: max_new = %lld is below -1",
                       (long long)m->max_new);
    return 0;
}

static int check_tokens(const pbi_msg_tokens *m, size_t n, pb_err *err)
{
    size_t want = pbi_msg_tokens_bytes(m->n, m->has_logprobs);
    if (!want)
        return pbi_err(err, PB_E_FORMAT, "tokens message: n = %d is not in 0..%d", m->n,
                       PBI_MSG_MAX_IDS);
    if (want != n)
        return pbi_err(err, PB_E_FORMAT, "tokens message: %zu bytes, but n = %d needs %zu", n, m->n,
                       want);
    return 0;
}

/* a string that another process wrote ends inside its field */
static int check_string(const char *s, size_t cap, const char *what, pb_err *err)
{
    return memchr(s, 0, cap) ? 0 : pbi_err(err, PB_E_FORMAT, "%s: text without end", what);
}

static size_t fixed_bytes(uint32_t kind)
{
    switch (kind) {
    case PBI_MSG_SUBMIT: return sizeof(pbi_msg_submit);
    case PBI_MSG_ABORT:
    case PBI_MSG_RESET:
    case PBI_MSG_ASK:
    case PBI_MSG_QUIT: return sizeof(pbi_msg);
    case PBI_MSG_RENEW: return sizeof(pbi_msg_renew);
    case PBI_MSG_TOKENS: return sizeof(pbi_msg_tokens);
    case PBI_MSG_DONE: return sizeof(pbi_msg_done);
    case PBI_MSG_STATS: return sizeof(pbi_msg_stats);
    case PBI_MSG_STEP: return sizeof(pbi_msg_step);
    case PBI_MSG_ACK:
    case PBI_MSG_FAULT: return sizeof(pbi_msg_ack);
    default: return 0;
    }
}

int pbi_msg_check(const void *msg, size_t n, pb_err *err)
{
    const pbi_msg *h = msg;
    size_t fixed;
    if (n < sizeof *h)
        return pbi_err(err, PB_E_FORMAT, "message of %zu bytes is shorter than its header (%zu)", n,
                       sizeof *h);
    fixed = fixed_bytes(h->kind);
    if (!fixed)
        return pbi_err(err, PB_E_FORMAT, "message of unknown kind %u", h->kind);
    if (h->bytes != n)
        return pbi_err(err, PB_E_FORMAT, "message of kind %u says %u bytes, %zu arrived", h->kind,
                       h->bytes, n);
    if (n < fixed)
        return pbi_err(err, PB_E_FORMAT, "message of kind %u has %zu bytes, needs %zu", h->kind, n,
                       fixed);
    if (h->kind == PBI_MSG_SUBMIT)
        return check_submit(msg, n, err);
    if (h->kind == PBI_MSG_TOKENS)
        return check_tokens(msg, n, err);
    if (round8(fixed) != n)
        return pbi_err(err, PB_E_FORMAT, "message of kind %u has %zu bytes, expected %zu", h->kind,
                       n, round8(fixed));
    if (h->kind == PBI_MSG_RENEW) {
        const pbi_msg_renew *m = msg;
        return check_string(m->slot, sizeof m->slot, "renew message", err);
    }
    if (h->kind == PBI_MSG_DONE) {
        const pbi_msg_done *m = msg;
        return check_string(m->err.msg, sizeof m->err.msg, "done message", err);
    }
    if (h->kind == PBI_MSG_ACK || h->kind == PBI_MSG_FAULT) {
        const pbi_msg_ack *m = msg;
        return check_string(m->err.msg, sizeof m->err.msg, "ack message", err);
    }
    return 0;
}

const char *pbi_done_name(int32_t reason)
{
    static const char *const names[] = { "stop", "length", "context", "abort", "error" };
    return reason >= PBI_DONE_STOP && reason <= PBI_DONE_ERROR ? names[reason - 1] : "unknown";
}
