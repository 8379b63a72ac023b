/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-common/masks.c - rows to masks: find the state of a row's text, then its
 * mask, which is computed once by a walk over the vocabulary and kept as long as there is room.
 *
 * A walk may find the machine full. Then everything but the row's own state is forgotten and the
 * step is done again; if even one walk does not fit, the call fails and the log names the limit.
 */
#include "masks.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { ENDED = -4 /* the state after the end of sequence */, MAX_FILE = 1 << 20 };

int pbc_masks_create(const pb_host *host, pbc_config cfg, const char *who, pbc_masks **out,
                     pb_err *err)
{
    pbc_masks *k = host->alloc(host, sizeof *k, 0, "constraint");
    if (!k)
        return pbc_fail(err, PB_E_NOMEM, "%s: no memory", who);
    *k = (pbc_masks){ .host = host, .cfg = cfg, .st = host->stats };
    k->text = host->get(host, "text/1");
    int rc = k->text ? pbc_grammar_init(&k->g, host, who, err)
                     : pbc_fail(err, PB_E_UNSUPPORTED, "%s: the model has no vocabulary", who);
    if (!rc && (k->text->eos < 0 || k->text->eos >= k->text->n_vocab))
        rc = pbc_fail(err, PB_E_UNSUPPORTED,
                      "%s: the model has no end-of-sequence token (%d), so a text could never end",
                      who, k->text->eos);
    *out = k;
    if (rc) {
        pbc_masks_destroy(k);
        *out = NULL;
    }
    return rc;
}

int pbc_masks_compile(pbc_masks *k, int32_t root, int complete, pb_err *err)
{
    int rc = pbc_grammar_finish(&k->g, root, err);
    if (!rc)
        rc = pbc_machine_init(&k->m, &k->g, k->cfg.max_states, k->cfg.max_depth, err);
    if (!rc && complete)
        rc = pbc_machine_complete(&k->m, err);
    return rc;
}

/* ---- lifecycle --------------------------------------------------------- */

static void clear_caches(pbc_masks *k)
{
    for (int32_t i = 0; i < k->n_slots; i++)
        k->slot[i].n = -1;
    for (int32_t i = 0; i < k->n_masks; i++)
        k->owner[i] = -1;
    for (int64_t i = 0; i < k->cfg.max_states; i++)
        k->mask_of[i] = -1;
    k->at = 0;
}

int pbc_masks_start(void *self, const pb_run *run, pb_err *err)
{
    pbc_masks *k = self;
    size_t states = (size_t)k->cfg.max_states;
    int rc = pbc_vocab_init(&k->v, k->host, k->text, err);
    if (rc)
        return rc;
    k->words = (k->text->n_vocab + 31) / 32;
    int64_t n = k->cfg.cache / (k->words * 4);
    n = n > k->cfg.max_states ? k->cfg.max_states : n < 1 ? 1 : n;
    k->n_masks = (int32_t)n;
    k->n_slots = run->max_seqs;
    k->slot = k->host->alloc(k->host, (size_t)k->n_slots * sizeof *k->slot, 0, "slots");
    k->mask = k->host->alloc(k->host, (size_t)n * (size_t)k->words * 4, 0, "masks");
    k->owner = k->host->alloc(k->host, (size_t)n * sizeof *k->owner, 0, "owners");
    k->mask_of = k->host->alloc(k->host, states * sizeof *k->mask_of, 0, "masks of states");
    if (k->slot && k->mask && k->owner && k->mask_of) {
        clear_caches(k);
        return 0;
    }
    pbc_masks_stop(k);
    return pbc_fail(err, PB_E_NOMEM, "%s: no memory for cache = %lld bytes of masks", k->g.who,
                    (long long)k->cfg.cache);
}

int pbc_masks_reset(void *self)
{
    clear_caches(self);
    return 0;
}

void pbc_masks_stop(void *self)
{
    pbc_masks *k = self;
    pbc_vocab_free(&k->v);
    k->host->free(k->host, k->slot);
    k->host->free(k->host, k->mask);
    k->host->free(k->host, k->owner);
    k->host->free(k->host, k->mask_of);
    k->slot = NULL;
    k->mask = NULL;
    k->owner = k->mask_of = NULL;
}

void pbc_masks_destroy(void *self)
{
    pbc_masks *k = self;
    pbc_masks_stop(k);
    pbc_machine_free(&k->m);
    pbc_grammar_free(&k->g);
    k->host->free(k->host, k);
}

/* ---- rows -------------------------------------------------------------- */

/* The machine is full: all is forgotten but *state, which gets another number. 0: try again. */
static int make_room(pbc_masks *k, int32_t *state)
{
    k->st->forgotten++;
    clear_caches(k);
    *state = pbc_machine_forget(&k->m, *state);
    return *state < 0 ? PBC_OVERFLOW : 0;
}

static int32_t after_token(pbc_masks *k, int32_t state, int32_t id)
{
    if (id == k->text->eos)
        return state == ENDED || (state >= 0 && k->m.state[state].accepts) ? ENDED : PBC_DEAD;
    if (state < 0)
        return PBC_DEAD;
    int32_t to = pbc_vocab_token(&k->v, &k->m, state, id);
    if (to == PBC_OVERFLOW && !make_room(k, &state))
        to = pbc_vocab_token(&k->v, &k->m, state, id);
    return to;
}

/* The state after the answer in p's sequence, from the slot's memory as far as it reaches. */
static int32_t after_answer(pbc_masks *k, const pb_seq *s)
{
    pbc_slot *c = s->slot >= 0 && s->slot < k->n_slots ? &k->slot[s->slot] : NULL;
    int32_t state = k->m.start;
    int64_t i = s->n_prompt;
    if (c && c->n >= i && c->n <= s->n_tokens && c->id == s->id && c->n_prompt == i &&
        (c->n == 0 || c->last == s->tokens[c->n - 1])) {
        i = c->n;
        state = c->state;
    }
    for (; i < s->n_tokens && state != PBC_OVERFLOW; i++)
        state = after_token(k, state, s->tokens[i]);
    if (c && state != PBC_OVERFLOW)
        *c = (pbc_slot){ .id = s->id,
                         .n = s->n_tokens,
                         .n_prompt = s->n_prompt,
                         .last = s->n_tokens ? s->tokens[s->n_tokens - 1] : -1,
                         .state = state };
    return state;
}

/* The mask of a state, from the cache or by a walk; NULL when the machine is full. */
static const uint32_t *mask_of(pbc_masks *k, int32_t state)
{
    int32_t at = k->mask_of[state];
    if (at >= 0)
        return k->mask + (size_t)at * (size_t)k->words;
    at = k->at;
    uint32_t *bits = k->mask + (size_t)at * (size_t)k->words;
    if (k->owner[at] >= 0) /* the oldest gives way */
        k->mask_of[k->owner[at]] = -1;
    k->owner[at] = -1;
    memset(bits, 0, (size_t)k->words * 4);
    k->st->walks++;
    if (pbc_vocab_walk(&k->v, &k->m, state, bits))
        return NULL;
    if (k->m.state[state].accepts)
        bits[k->text->eos / 32] |= 1u << k->text->eos % 32;
    k->owner[at] = state;
    k->mask_of[state] = at;
    k->at = (at + 1) % k->n_masks;
    return bits;
}

/* One row. 0 or PBC_OVERFLOW, then the bits are as they were. */
static int mask_row(pbc_masks *k, const pb_pick *p, uint32_t *bits, int64_t words)
{
    int64_t eos = k->text->eos;
    int32_t state = after_answer(k, p->seq);
    for (int32_t i = 0; i < p->n_tail && state != PBC_OVERFLOW; i++)
        state = after_token(k, state, p->tail[i]);
    if (state == PBC_OVERFLOW)
        return PBC_OVERFLOW;
    if (state < 0) {
        uint32_t keep = state == ENDED && eos / 32 < words ? bits[eos / 32] & 1u << eos % 32 : 0;
        memset(bits, 0, (size_t)words * 4);
        if (keep)
            bits[eos / 32] = keep;
        return 0;
    }
    const uint32_t *m = mask_of(k, state);
    if (!m && !make_room(k, &state))
        m = mask_of(k, state);
    if (!m)
        return PBC_OVERFLOW;
    for (int64_t w = 0; w < words && w < k->words; w++)
        bits[w] &= m[w];
    for (int64_t w = k->words; w < words; w++)
        bits[w] = 0;
    return 0;
}

static int too_small(pbc_masks *k)
{
    char msg[200];
    snprintf(msg, sizeof msg,
             "%s: one row of the vocabulary needs more than max_states = %lld states; raise it",
             k->g.who, (long long)k->cfg.max_states);
    if (!k->said)
        k->host->log(k->host, PB_LOG_ERROR, msg);
    k->said = 1;
    return PB_E_NOMEM;
}

int pbc_masks_mask(void *self, int32_t n, const pb_pick *p, uint32_t *bits, int64_t words)
{
    pbc_masks *k = self;
    for (int32_t i = 0; i < n; i++) {
        uint32_t *row = bits + i * words;
        if (mask_row(k, &p[i], row, words))
            return too_small(k);
    }
    k->st->rows += n;
    k->st->states = k->m.n_states;
    k->st->dropped = k->m.n_dropped;
    return 0;
}

/* ---- files ------------------------------------------------------------- */

int pbc_read_file(const pb_host *host, const char *who, const char *path, char **out, size_t *n,
                  pb_err *err)
{
    FILE *f = fopen(path, "rb");
    *out = NULL;
    if (!f)
        return pbc_fail(err, PB_E_INVAL, "%s: cannot open %s: %s", who, path, strerror(errno));
    char *buf = host->alloc(host, MAX_FILE + 2, 0, "file");
    size_t got = buf ? fread(buf, 1, MAX_FILE + 1, f) : 0;
    int bad = ferror(f);
    fclose(f);
    int rc = !buf  ? pbc_fail(err, PB_E_NOMEM, "%s: no memory to read %s", who, path)
             : bad ? pbc_fail(err, PB_E_IO, "%s: reading %s failed", who, path)
             : got > MAX_FILE
                 ? pbc_fail(err, PB_E_INVAL, "%s: %s has more than %d bytes", who, path, MAX_FILE)
                 : 0;
    if (rc) {
        host->free(host, buf);
        return rc;
    }
    buf[got] = 0;
    *out = buf;
    *n = got;
    return 0;
}
