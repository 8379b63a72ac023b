/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-common/grammar.c - builds nodes, and the UTF-8 of sets of code points. The
 * checks of a finished grammar are in analyse.c.
 *
 * After the first failure every function returns node 0 and nothing grows, so that callers
 * need not test each node; pbc_grammar_finish reports it.
 */
#include "grammar.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int pbc_fail(pb_err *err, int code, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    err->code = code;
    vsnprintf(err->msg, sizeof err->msg, format, ap);
    va_end(ap);
    return code;
}

int pbc_grammar_init(pbc_grammar *g, const pb_host *host, const char *who, pb_err *err)
{
    *g = (pbc_grammar){ .host = host, .who = who, .n_nodes = 1, .root = -1 };
    g->node = host->alloc(host, PBC_MAX_NODES * sizeof *g->node, 0, "nodes");
    g->rule = host->alloc(host, PBC_MAX_RULES * sizeof *g->rule, 0, "rules");
    if (g->node && g->rule)
        return 0;
    pbc_grammar_free(g);
    return pbc_fail(err, PB_E_NOMEM, "%s: no memory for the grammar", who);
}

void pbc_grammar_free(pbc_grammar *g)
{
    if (!g->host)
        return;
    g->host->free(g->host, g->node);
    g->host->free(g->host, g->rule);
    g->node = NULL;
    g->rule = NULL;
}

/* ---- nodes ------------------------------------------------------------- */

static int32_t put(pbc_grammar *g, pbc_node n)
{
    if (g->failed || g->n_nodes == PBC_MAX_NODES) {
        g->failed = 1;
        return 0;
    }
    g->node[g->n_nodes] = n;
    return g->n_nodes++;
}

int32_t pbc_byte(pbc_grammar *g, uint8_t lo, uint8_t hi)
{
    return put(g, (pbc_node){ .kind = PBC_BYTE, .lo = lo, .hi = hi });
}

int32_t pbc_cat(pbc_grammar *g, int32_t a, int32_t b)
{
    if (a == 0 || b == 0)
        return a + b;
    return put(g, (pbc_node){ .kind = PBC_CAT, .a = a, .b = b });
}

int32_t pbc_right(pbc_grammar *g, int32_t x, int32_t n)
{
    int32_t rest = 0;
    for (; n > 0 && !g->failed; n--) {
        pbc_node *k = &g->node[x];
        int32_t here = x, left = k->a;
        if (rest) {
            *k = (pbc_node){ .kind = PBC_CAT, .a = k->b, .b = rest };
            rest = here;
        } else {
            rest = k->b;
        }
        x = left;
    }
    return pbc_cat(g, x, rest);
}

int32_t pbc_alt(pbc_grammar *g, int32_t a, int32_t b)
{
    return a == b ? a : put(g, (pbc_node){ .kind = PBC_ALT, .a = a, .b = b });
}

int32_t pbc_ref(pbc_grammar *g, int32_t rule)
{
    return put(g, (pbc_node){ .kind = PBC_RULE, .a = rule });
}

int32_t pbc_text(pbc_grammar *g, const char *s, size_t n)
{
    int32_t x = 0;
    while (n-- > 0)
        x = pbc_cat(g, pbc_byte(g, (uint8_t)s[n], (uint8_t)s[n]), x);
    return x;
}

int32_t pbc_rule_of(pbc_grammar *g, const char *name, int32_t line)
{
    for (int32_t i = 0; name[0] && i < g->n_rules; i++)
        if (!strcmp(g->rule[i].name, name))
            return i;
    if (g->n_rules == PBC_MAX_RULES) {
        g->failed = 1;
        return 0;
    }
    pbc_rule *r = &g->rule[g->n_rules];
    *r = (pbc_rule){ .body = -1, .line = line };
    snprintf(r->name, sizeof r->name, "%s", name);
    return g->n_rules++;
}

int32_t pbc_repeat(pbc_grammar *g, int32_t x, int32_t lo, int32_t hi)
{
    int32_t y = 0;
    if (x == 0) /* nothing, any number of times */
        return 0;
    if (hi < 0) {
        int32_t r = pbc_rule_of(g, "", 0);
        y = pbc_ref(g, r);
        if (!g->failed)
            g->rule[r].body = pbc_alt(g, pbc_cat(g, x, y), 0);
    }
    for (int32_t i = lo; i < hi && !g->failed; i++)
        y = pbc_alt(g, pbc_cat(g, x, y), 0);
    for (int32_t i = 0; i < lo && !g->failed; i++)
        y = pbc_cat(g, x, y);
    return y;
}

/* ---- sets of code points ----------------------------------------------- */

void pbc_set_add(pbc_set *s, uint32_t lo, uint32_t hi)
{
    int32_t i = 0, j;
    while (i < s->n && s->hi[i] + 1 < lo)
        i++;
    for (j = i; j < s->n && s->lo[j] <= hi + 1; j++) { /* those that touch become one */
        lo = s->lo[j] < lo ? s->lo[j] : lo;
        hi = s->hi[j] > hi ? s->hi[j] : hi;
    }
    if (i == j && s->n == PBC_MAX_RANGES) {
        s->full = 1;
        return;
    }
    size_t rest = (size_t)(s->n - j);
    memmove(&s->lo[i + 1], &s->lo[j], rest * sizeof s->lo[0]);
    memmove(&s->hi[i + 1], &s->hi[j], rest * sizeof s->hi[0]);
    s->lo[i] = lo;
    s->hi[i] = hi;
    s->n += 1 - (j - i);
}

static void add_valid(pbc_set *s, uint32_t lo, uint32_t hi)
{
    if (lo < 0xd800 && lo <= hi)
        pbc_set_add(s, lo, hi < 0xd7ff ? hi : 0xd7ff);
    if (hi > 0xdfff)
        pbc_set_add(s, lo > 0xe000 ? lo : 0xe000, hi);
}

void pbc_set_invert(pbc_set *s)
{
    pbc_set out = { .full = s->full };
    uint32_t next = 0;
    for (int32_t i = 0; i < s->n; i++) {
        if (s->lo[i] > next)
            add_valid(&out, next, s->lo[i] - 1);
        next = s->hi[i] + 1;
    }
    if (next <= 0x10ffff)
        add_valid(&out, next, 0x10ffff);
    *s = out;
}

int pbc_set_has(const pbc_set *s, uint32_t c)
{
    for (int32_t i = 0; i < s->n; i++)
        if (c >= s->lo[i] && c <= s->hi[i])
            return 1;
    return 0;
}

int32_t pbc_utf8(const char *s, size_t n, uint32_t *c)
{
    const unsigned char *p = (const unsigned char *)s;
    static const uint32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    int32_t len = n == 0        ? 0
                  : p[0] < 0x80 ? 1
                  : p[0] < 0xc2 ? 0
                  : p[0] < 0xe0 ? 2
                  : p[0] < 0xf0 ? 3
                  : p[0] < 0xf5 ? 4
                                : 0;
    if (len == 0 || (size_t)len > n)
        return 0;
    *c = len == 1 ? p[0] : p[0] & (0xffu >> (len + 1));
    for (int32_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        *c = *c << 6 | (p[i] & 0x3f);
    }
    return *c < least[len] || *c > 0x10ffff || (*c >= 0xd800 && *c < 0xe000) ? 0 : len;
}

int32_t pbc_utf8_put(uint32_t c, char out[4])
{
    int32_t len = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t head[5] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    for (int32_t i = len - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(head[len] | c);
    return len;
}

/* Code points lo..hi whose encodings have equal length len, as ranges of bytes: where the first
 * bytes differ, the range is split so that what follows a first byte is all or one part. */
static int32_t same_length(pbc_grammar *g, const uint8_t *lo, const uint8_t *hi, int32_t len)
{
    int32_t lo_min = 1, hi_max = 1;
    for (int32_t i = 1; i < len; i++) {
        lo_min &= lo[i] == 0x80;
        hi_max &= hi[i] == 0xbf;
    }
    if (len == 1)
        return pbc_byte(g, lo[0], hi[0]);
    if (lo[0] == hi[0])
        return pbc_cat(g, pbc_byte(g, lo[0], lo[0]), same_length(g, lo + 1, hi + 1, len - 1));
    static const uint8_t least[3] = { 0x80, 0x80, 0x80 }, most[3] = { 0xbf, 0xbf, 0xbf };
    int32_t from = lo[0] + !lo_min, to = hi[0] - !hi_max, x = -1;
    if (from <= to)
        x = pbc_cat(g, pbc_byte(g, (uint8_t)from, (uint8_t)to),
                    same_length(g, least, most, len - 1));
    if (!lo_min) {
        int32_t y = pbc_cat(g, pbc_byte(g, lo[0], lo[0]), same_length(g, lo + 1, most, len - 1));
        x = x < 0 ? y : pbc_alt(g, y, x);
    }
    if (!hi_max) {
        int32_t y = pbc_cat(g, pbc_byte(g, hi[0], hi[0]), same_length(g, least, hi + 1, len - 1));
        x = x < 0 ? y : pbc_alt(g, x, y);
    }
    return x;
}

int32_t pbc_class(pbc_grammar *g, const pbc_set *given)
{
    pbc_set twice = *given, *set = &twice;
    pbc_set_invert(set); /* twice: without surrogates, which UTF-8 does not write */
    pbc_set_invert(set);
    g->failed |= set->full;
    static const uint32_t end[4] = { 0x7f, 0x7ff, 0xffff, 0x10ffff };
    int32_t x = -1;
    for (int32_t i = 0; i < set->n; i++) {
        uint32_t lo = set->lo[i];
        for (int32_t k = 0; k < 4 && lo <= set->hi[i]; k++) {
            char a[4] = { 0 }, b[4] = { 0 };
            uint32_t hi = set->hi[i] < end[k] ? set->hi[i] : end[k];
            if (lo > hi)
                continue;
            pbc_utf8_put(lo, a);
            pbc_utf8_put(hi, b);
            int32_t y = same_length(g, (const uint8_t *)a, (const uint8_t *)b, k + 1);
            x = x < 0 ? y : pbc_alt(g, x, y);
            lo = hi + 1;
        }
    }
    if (x >= 0)
        return x;
    int32_t r = pbc_rule_of(g, "", 0); /* matches nothing: a rule that never ends */
    x = pbc_ref(g, r);
    if (!g->failed)
        g->rule[r].body = pbc_cat(g, pbc_byte(g, 0, 0), x);
    return x;
}
