/* SPDX-License-Identifier: MIT
 *
 * plugins/attention-common/plan.c - see plan.h.
 */
#include "plan.h"

#include <stdarg.h>
#include <stdio.h>

int pba_fail(pb_err *err, int code, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        err->code = code;
        vsnprintf(err->msg, sizeof err->msg, fmt, ap);
        va_end(ap);
    }
    return code;
}

/* Tokens of a page of group g, or an error. */
static int64_t tokens_of(const char *who, int64_t page_tokens, int32_t i, const pb_kv_group *g,
                         int32_t max_ctx, pb_err *err)
{
    if (g->granule < 1 || g->token_bytes < 1)
        return pba_fail(err, PB_E_INVAL,
                        "%s: KV group %d: granule %d, %lld bytes a token: both must be >= 1", who,
                        i, g->granule, (long long)g->token_bytes);
    if (page_tokens == 0)
        return ((int64_t)max_ctx + g->granule - 1) / g->granule * g->granule;
    if (page_tokens % g->granule != 0)
        return pba_fail(
            err, PB_E_INVAL,
            "%s: page_size %lld: not a multiple of %d, the granule of the backend's KV format", who,
            (long long)page_tokens, g->granule);
    return page_tokens;
}

int pba_plan(const char *who, int64_t page_tokens, int64_t max_pages, int32_t n_groups,
             const pb_kv_group *g, int64_t budget, int32_t max_ctx, pb_kv_plan *out, pb_err *err)
{
    if (n_groups < 1 || n_groups > PBA_MAX_GROUPS || max_ctx < 1)
        return pba_fail(err, PB_E_INVAL, "%s: %d KV groups (1..%d), context %d (>= 1)", who,
                        n_groups, PBA_MAX_GROUPS, max_ctx);
    int64_t bytes = 0, need = 1; /* bytes of one page in every group; pages that must exist */
    for (int32_t i = 0; i < n_groups; i++) {
        int64_t t = tokens_of(who, page_tokens, i, &g[i], max_ctx, err);
        if (t < 0)
            return (int)t;
        if (t > INT32_MAX || t > (INT64_MAX - bytes) / g[i].token_bytes)
            return pba_fail(err, PB_E_INVAL,
                            "%s: KV group %d: a page of %lld tokens of %lld bytes: too large", who,
                            i, (long long)t, (long long)g[i].token_bytes);
        bytes += t * g[i].token_bytes;
        int64_t pages = ((int64_t)max_ctx + t - 1) / t;
        need = pages > need ? pages : need;
        out[i].page_tokens = (int32_t)t;
    }
    need++; /* page 0 */
    int64_t n = budget / bytes;
    if (n < need)
        return pba_fail(
            err, PB_E_NOMEM,
            "%s: kv_bytes %lld hold %lld pages of %lld bytes; a context of %d tokens needs %lld "
            "with the sink: at least %.0f bytes",
            who, (long long)budget, (long long)n, (long long)bytes, max_ctx, (long long)need,
            (double)need * (double)bytes);
    if (max_pages > 0 && n > max_pages)
        n = max_pages > need ? max_pages : need;
    if (n > INT32_MAX)
        n = INT32_MAX;
    for (int32_t i = 0; i < n_groups; i++)
        out[i].n_pages = (pb_page)n;
    return 0;
}
