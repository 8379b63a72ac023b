/* SPDX-License-Identifier: MIT
 *
 * core/text/detok.c - ids back to text, piece by piece: UTF-8 characters that tokens cut in two
 * are held back until they are whole; and stop strings, which may lie across tokens as well.
 *
 * It knows no engine and sends nothing. Invariant: what was appended is valid UTF-8 and is
 * never taken back; bytes that cannot become a character are U+FFFD, one for each maximal
 * beginning of a character (Unicode standard, section 3.9).
 */
#include "vocab.h"
#include <stdlib.h>
#include <string.h>

/* RFC 3629: which second bytes may follow a first one */
static int utf8_lead(unsigned char a, size_t *len, unsigned char *lo, unsigned char *hi)
{
    *lo = 0x80;
    *hi = 0xbf;
    if (a < 0x80)
        *len = 1;
    else if (a >= 0xc2 && a <= 0xdf)
        *len = 2;
    else if (a >= 0xe0 && a <= 0xef) {
        *len = 3;
        if (a == 0xe0)
            *lo = 0xa0;
        if (a == 0xed)
            *hi = 0x9f;
    } else if (a >= 0xf0 && a <= 0xf4) {
        *len = 4;
        if (a == 0xf0)
            *lo = 0x90;
        if (a == 0xf4)
            *hi = 0x8f;
    } else
        return 0;
    return 1;
}

/* Bytes of the character at s; else 0 and *good = length of the longest beginning of one, at
 * least 1, and *cut = whether more bytes could complete it. */
static size_t utf8_scan(const char *s, size_t n, size_t *good, int *cut)
{
    const unsigned char *u = (const unsigned char *)s;
    unsigned char lo, hi;
    size_t len;
    *good = 1;
    *cut = 0;
    if (!utf8_lead(u[0], &len, &lo, &hi))
        return 0;
    for (size_t i = 1; i < len; i++) {
        if (i == n) {
            *cut = 1;
            return 0;
        }
        if (u[i] < lo || u[i] > hi)
            return 0;
        lo = 0x80;
        hi = 0xbf;
        *good = i + 1;
    }
    return len;
}

size_t pbi_utf8_char(const char *s, size_t n, int *cut)
{
    size_t good;
    int c;
    size_t len = utf8_scan(s, n, &good, &c);
    if (cut)
        *cut = c;
    return len;
}

static int text_room(char **buf, const size_t *n, size_t *cap, size_t more)
{
    if (*n + more + 1 <= *cap)
        return 0;
    size_t c = *cap ? *cap : 64;
    while (c < *n + more + 1)
        c *= 2;
    char *p = realloc(*buf, c);
    if (!p)
        return PB_E_NOMEM;
    *buf = p;
    *cap = c;
    return 0;
}

void pbi_detok_init(pbi_detok *d, const pbi_tokenizer *t, int special)
{
    *d = (pbi_detok){ .t = t, .special = special };
}

/* Appends what is certain of the k bytes at s; holds a cut character unless last. */
static int append_valid(pbi_detok *d, const char *s, size_t k, int last, char **buf, size_t *n,
                        size_t *cap)
{
    if (text_room(buf, n, cap, 3 * k + 3))
        return PB_E_NOMEM;
    d->n_held = 0;
    for (size_t i = 0; i < k;) {
        size_t good;
        int cut;
        size_t len = utf8_scan(s + i, k - i, &good, &cut);
        if (len) {
            memmove(*buf + *n, s + i, len);
            *n += len;
            i += len;
        } else if (cut && !last) {
            d->n_held = (unsigned)(k - i);
            memmove(d->held, s + i, k - i);
            break;
        } else {
            memcpy(*buf + *n, "\xef\xbf\xbd", 3);
            *n += 3;
            i += good;
        }
    }
    (*buf)[*n] = 0;
    return 0;
}

int pbi_detok_push(pbi_detok *d, int32_t id, int last, char **buf, size_t *n, size_t *cap)
{
    pb_str p = pbi_tokenizer_piece(d->t, id, d->special);
    if (d->first && p.n) {
        d->first = 0;
        if (d->t->add_prefix && p.s[0] == ' ' && !d->t->eog[id]) {
            p.s++;
            p.n--;
        }
    }
    if (!d->n_held)
        return append_valid(d, p.s, p.n, last, buf, n, cap);
    char small[64], *join = small;
    size_t k = d->n_held + p.n;
    if (k > sizeof small && !(join = malloc(k)))
        return PB_E_NOMEM;
    memcpy(join, d->held, d->n_held);
    if (p.n)
        memcpy(join + d->n_held, p.s, p.n);
    int rc = append_valid(d, join, k, last, buf, n, cap);
    if (join != small)
        free(join);
    return rc;
}

int pbi_tokenizer_decode(const pbi_tokenizer *t, const int32_t *ids, size_t n, int special,
                         char **text, size_t *n_text, pb_err *err)
{
    pbi_detok d;
    char *buf = NULL;
    size_t used = 0, cap = 0;
    pbi_detok_init(&d, t, special);
    d.first = 1;
    int rc = text_room(&buf, &used, &cap, 16);
    if (!rc)
        buf[0] = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        if (ids[i] < 0 || ids[i] >= t->n) {
            free(buf);
            return pbi_err(err, PB_E_INVAL,
                           "id %d at index %zu is outside of the vocabulary [0, %d)", (int)ids[i],
                           i, (int)t->n);
        }
        rc = pbi_detok_push(&d, ids[i], i + 1 == n, &buf, &used, &cap);
    }
    if (rc) {
        free(buf);
        return pbi_err(err, rc, "no memory to write the text of %zu tokens", n);
    }
    *text = buf;
    *n_text = used;
    return 0;
}

/* ---- stop strings ------------------------------------------------------ */

struct pbi_stops {
    int n;
    size_t longest;
    pb_str *s;
};

int pbi_stops_new(int n, const char *const *stops, pbi_stops **out, pb_err *err)
{
    pbi_stops *p = calloc(1, sizeof *p);
    if (!p || (n > 0 && !(p->s = calloc((size_t)n, sizeof *p->s)))) {
        free(p);
        return pbi_err(err, PB_E_NOMEM, "no memory for %d stop strings", n);
    }
    for (int i = 0; i < n; i++) {
        size_t len = strlen(stops[i]);
        char *c = malloc(len + 1);
        if (!len || !c) {
            free(c);
            pbi_stops_free(p);
            return len ? pbi_err(err, PB_E_NOMEM, "no memory for a stop string")
                       : pbi_err(err, PB_E_INVAL, "stop string %d is empty", i);
        }
        memcpy(c, stops[i], len + 1);
        p->s[p->n++] = (pb_str){ c, len };
        if (len > p->longest)
            p->longest = len;
    }
    *out = p;
    return 0;
}

void pbi_stops_free(pbi_stops *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->n; i++)
        free((void *)(uintptr_t)s->s[i].s);
    free(s->s);
    free(s);
}

int pbi_stops_scan(const pbi_stops *s, const char *text, size_t n, size_t sent, size_t *n_safe)
{
    *n_safe = n;
    for (size_t i = sent; i < n; i++)
        for (int k = 0; k < s->n; k++) {
            size_t left = n - i, len = s->s[k].n;
            if (text[i] != s->s[k].s[0])
                continue;
            if (left >= len && !memcmp(text + i, s->s[k].s, len)) {
                if (i < *n_safe)
                    *n_safe = i;
                return 1;
            }
            if (left < len && !memcmp(text + i, s->s[k].s, left) && i < *n_safe)
                *n_safe = i;
        }
    return 0;
}
