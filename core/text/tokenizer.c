/* SPDX-License-Identifier: MIT
 *
 * core/text/tokenizer.c - text to ids: special tokens first, then words, then merges; and the
 * bytes of single tokens.
 *
 * It reads no metadata (vocab.c) and merges nothing itself (merge.c). Invariant: every byte
 * string has ids; ids depend on the text and the flags alone.
 *
 * Special and user-defined tokens are found leftmost first, then longest. Bytes that are not
 * UTF-8 become their byte tokens. A byte for which the vocabulary has no token becomes the
 * unknown token, or nothing where there is none.
 */
#include "vocab.h"
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* ---- words seen before in this text ------------------------------------ */

enum { CACHE = 4096, CACHED_WORD = 20, CACHE_FROM = 512 /* bytes of text */ };
typedef struct cached {
    uint32_t at, n; /* its ids are ids[at, at + n) of the output */
    uint8_t len, reserved[3];
    char word[CACHED_WORD];
} cached;

typedef struct encoder {
    const pbi_tokenizer *t;
    pbi_merger *merger;
    pbi_ids ids;
    cached *cache; /* [CACHE] or NULL */
    pb_err *err;
} encoder;

static int encode_word(void *arg, const char *s, size_t n)
{
    encoder *e = arg;
    const pbi_tokenizer *t = e->t;
    cached *c = NULL;
    if (e->cache && n <= CACHED_WORD) {
        c = &e->cache[XXH3_64bits(s, n) % CACHE];
        if (c->len == n && !memcmp(c->word, s, n)) {
            pbi_ids_repeat(&e->ids, c->at, c->n);
            return e->ids.failed ? PB_E_NOMEM : 0;
        }
    }
    size_t at = e->ids.n;
    int32_t whole = t->ignore_merges ? pbi_strmap_get(&t->map, s, n) : -1;
    int rc = 0;
    if (whole >= 0 && whole < t->n)
        pbi_ids_push(&e->ids, whole);
    else
        rc = pbi_merger_word(e->merger, s, n, &e->ids);
    if (c && !rc) {
        c->at = (uint32_t)at;
        c->n = (uint32_t)(e->ids.n - at);
        c->len = (uint8_t)n;
        memcpy(c->word, s, n);
    }
    return rc;
}

/* ---- text without special tokens --------------------------------------- */

static int encode_spm(encoder *e, const char *s, size_t n, int prefix)
{
    const pbi_tokenizer *t = e->t;
    char *buf = malloc(n + 2);
    if (!buf)
        return PB_E_NOMEM;
    size_t k = 0;
    if (prefix)
        buf[k++] = ' ';
    for (size_t i = 0; i < n;) {
        if (n - i >= 3 && !memcmp(s + i, "\xe2\x96\x81", 3)) {
            buf[k++] = ' ';
            i += 3;
        } else
            buf[k++] = s[i++];
    }
    int rc = 0;
    size_t from = 0;
    for (size_t i = 1; i < k && !rc && t->words; i++)
        if (buf[i] == ' ' && buf[i - 1] != ' ') {
            rc = encode_word(e, buf + from, i - from);
            from = i;
        }
    if (!rc && from < k)
        rc = encode_word(e, buf + from, k - from);
    free(buf);
    return rc;
}

/* valid UTF-8 in the vocabulary's normal form, cut into words */
static int encode_valid(encoder *e, const char *s, size_t n)
{
    utf8proc_uint8_t *nfc = NULL;
    if (e->t->nfc) {
        size_t i = 0;
        while (i < n && !((unsigned char)s[i] & 0x80))
            i++;
        if (i < n) {
            utf8proc_ssize_t k = utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n,
                                              &nfc, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
            if (k < 0)
                return pbi_err(e->err, PB_E_NOMEM, "normalising a text of %zu bytes: %s", n,
                               utf8proc_errmsg(k));
            s = (const char *)nfc;
            n = (size_t)k;
        }
    }
    int rc = pbi_splitter_run(e->t->splitter, s, n, encode_word, e, e->err);
    free(nfc);
    return rc;
}

static int encode_bpe(encoder *e, const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        size_t from = i, len;
        while (i < n && (len = pbi_utf8_char(s + i, n - i, NULL)))
            i += len;
        int rc = i > from ? encode_valid(e, s + from, i - from) : 0;
        from = i;
        while (!rc && i < n && !pbi_utf8_char(s + i, n - i, NULL))
            i++;
        if (!rc && i > from)
            rc = encode_word(e, s + from, i - from);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- the whole text ---------------------------------------------------- */

/* longest token that begins at s; *id < 0: none. user: marks of s, or NULL */
static size_t trie_match(const pbi_tokenizer *t, const char *s, const unsigned char *user, size_t n,
                         int special, int32_t *id)
{
    size_t best = 0;
    int32_t k = t->trie_root[(unsigned char)s[0]];
    *id = -1;
    for (size_t i = 0; i < n; i++) {
        while (k >= 0 && t->trie[k].byte != (unsigned char)s[i])
            k = t->trie[k].next;
        if (k < 0)
            break;
        const pbi_trie_node *e = &t->trie[k];
        special = special && !(user && user[i]);
        if (e->token >= 0 && (special || !e->control)) {
            best = i + 1;
            *id = e->token;
        }
        k = e->child;
    }
    return best;
}

static int encode_text(encoder *e, const char *s, const unsigned char *user, size_t n, int flags)
{
    const pbi_tokenizer *t = e->t;
    int prefix = t->add_prefix && !(flags & PBI_TEXT_NO_PREFIX), rc = 0;
    size_t from = 0;
    for (size_t i = 0; i <= n && !rc;) {
        int32_t id = -1;
        size_t len = 0;
        if (i < n && t->trie_root[(unsigned char)s[i]] >= 0)
            len =
                trie_match(t, s + i, user ? user + i : NULL, n - i, flags & PBI_TEXT_SPECIAL, &id);
        if (i < n && id < 0) {
            i++;
            continue;
        }
        if (i > from)
            rc = t->kind == PBI_VOCAB_SPM ? encode_spm(e, s + from, i - from, prefix)
                                          : encode_bpe(e, s + from, i - from);
        if (i == n)
            break;
        pbi_ids_push(&e->ids, id);
        i += len;
        from = i;
        /* SentencePiece pieces after a control token begin a text of their own */
        prefix = t->add_prefix && t->type[id] != PBI_TOK_USER;
    }
    return rc;
}

int pbi_tokenizer_encode(const pbi_tokenizer *t, const char *s, size_t n, int flags, int32_t **ids,
                         size_t *n_ids, pb_err *err)
{
    return pbi_tokenizer_encode_marked(t, s, NULL, n, flags, ids, n_ids, err);
}

int pbi_tokenizer_encode_marked(const pbi_tokenizer *t, const char *s, const unsigned char *user,
                                size_t n, int flags, int32_t **ids, size_t *n_ids, pb_err *err)
{
    encoder e = { .t = t, .err = err };
    if (err)
        err->code = 0;
    if (n > 0x3fffffff)
        return pbi_err(err, PB_E_INVAL, "a text of %zu bytes is over the limit of %d", n,
                       0x3fffffff);
    e.merger = pbi_merger_new(t);
    if (n >= CACHE_FROM)
        e.cache = calloc(CACHE, sizeof *e.cache); /* only slower without */
    int bos = t->add_bos && !(flags & PBI_TEXT_NO_BOS);
    int rc = e.merger ? 0 : PB_E_NOMEM;
    if (!rc && bos)
        pbi_ids_push(&e.ids, t->bos);
    if (!rc)
        rc = encode_text(&e, s, user, n, flags);
    /* a template that writes BOS itself must not double it */
    if (!rc && bos && (flags & PBI_TEXT_SPECIAL) && e.ids.n > 1 && e.ids.id[1] == t->bos)
        memmove(e.ids.id, e.ids.id + 1, --e.ids.n * sizeof *e.ids.id);
    if (!rc && t->add_eos && !(flags & PBI_TEXT_NO_BOS))
        pbi_ids_push(&e.ids, t->eos);
    if (!rc && !e.ids.id)
        e.ids.id = malloc(sizeof *e.ids.id);
    if (!rc && (e.ids.failed || !e.ids.id))
        rc = PB_E_NOMEM;
    pbi_merger_free(e.merger);
    free(e.cache);
    if (rc) {
        free(e.ids.id);
        if (err && err->code)
            return rc;
        return pbi_err(err, rc, "no memory to tokenize a text of %zu bytes", n);
    }
    *ids = e.ids.id;
    *n_ids = e.ids.n;
    return 0;
}

/* ---- single tokens ----------------------------------------------------- */

int32_t pbi_tokenizer_size(const pbi_tokenizer *t)
{
    return t->n;
}

int pbi_tokenizer_is_eog(const pbi_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n && t->eog[id];
}

int pbi_tokenizer_is_special(const pbi_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n && t->type[id] == PBI_TOK_CONTROL;
}

pb_str pbi_tokenizer_piece(const pbi_tokenizer *t, int32_t id, int special)
{
    if (id < 0 || id >= t->n)
        return (pb_str){ "", 0 };
    if (t->type[id] == PBI_TOK_CONTROL && !special)
        return (pb_str){ "", 0 };
    if (t->type[id] == PBI_TOK_UNKNOWN && !special)
        return (pb_str){ " \xe2\x81\x87 ", 5 }; /* as SentencePiece writes it */
    return t->sym[id];
}

static pb_str service_piece(void *h, int32_t id)
{
    return pbi_tokenizer_piece(h, id, 0);
}

static int32_t service_encode(void *h, const char *s, size_t n, int32_t *out, int32_t cap)
{
    int32_t *ids;
    size_t k;
    int rc = pbi_tokenizer_encode(h, s, n, PBI_TEXT_NO_BOS | PBI_TEXT_NO_PREFIX, &ids, &k, NULL);
    if (rc)
        return rc;
    if (cap < 0 || k > (size_t)cap)
        rc = PB_E_FULL;
    else if (k)
        memcpy(out, ids, k * sizeof *ids);
    free(ids);
    return rc ? rc : (int32_t)k;
}

const pb_text *pbi_tokenizer_service(const pbi_tokenizer *t)
{
    return &t->service;
}

int pbi_tokenizer_new(const pb_meta *meta, pbi_tokenizer **out, pb_err *err)
{
    pbi_tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return pbi_err(err, PB_E_NOMEM, "no memory for a tokenizer");
    int rc = pbi_vocab_load(t, meta, err);
    if (rc) {
        pbi_tokenizer_free(t);
        return rc;
    }
    t->service = (pb_text){ .size = sizeof(pb_text),
                            .h = t,
                            .n_vocab = t->n,
                            .bos = t->bos,
                            .eos = t->eos,
                            .piece = service_piece,
                            .encode = service_encode };
    *out = t;
    return 0;
}

void pbi_tokenizer_free(pbi_tokenizer *t)
{
    if (!t)
        return;
    free(t->sym);
    free(t->type);
    free(t->eog);
    free(t->rank);
    free(t->arena);
    free(t->map.e);
    free(t->merges.e);
    free(t->trie);
    pbi_splitter_free(t->splitter);
    free(t);
}
