/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-common/test_host.h - for the constraints' tests: lint's bench with a
 * vocabulary of the test's own, and one row at a time. Not part of a plugin.
 */
#ifndef PBC_TEST_HOST_H
#define PBC_TEST_HOST_H
#include "conform.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Token 0 is the end; 1 + b is byte b; then words. Its text service replaces the rig's. */
enum { BYTES = 257, MAX_VOCAB = 200000 };

typedef struct bench {
    pbi_rig r;
    char (*piece)[16];
    uint8_t *len;
    int32_t n_vocab, n_tok, tok[4096];
    uint32_t bits[MAX_VOCAB / 32 + 1];
} bench;

static inline pb_str bench_piece(void *h, int32_t id)
{
    bench *b = h;
    return id <= 0 || id >= b->n_vocab ? (pb_str){ "", 0 } : (pb_str){ b->piece[id], b->len[id] };
}

static inline void bench_words(bench *b, int n, const char *const *words)
{
    b->n_vocab = BYTES + n;
    b->piece = calloc((size_t)b->n_vocab, 16);
    b->len = calloc((size_t)b->n_vocab, 1);
    for (int i = 0; i < 256; i++) {
        b->piece[1 + i][0] = (char)i;
        b->len[1 + i] = 1;
    }
    for (int i = 0; i < n; i++) {
        snprintf(b->piece[BYTES + i], 16, "%s", words[i]);
        b->len[BYTES + i] = (uint8_t)strlen(b->piece[BYTES + i]);
    }
}

/* 0, or the error of create or start. set: "key=value" */
static inline int bench_open(bench *b, const char *name, int n_set, const char *const *set,
                             pb_err *err)
{
    const pbi_library *lib;
    if (pbi_loader_open("constraint", name, &lib, err))
        fail_msg("%s", err->msg);
    b->r = (pbi_rig){ 0 };
    if (pbi_rig_init(&b->r, lib, n_set, set, err))
        return err->code;
    b->r.text.h = b;
    b->r.text.n_vocab = b->n_vocab;
    b->r.text.eos = 0;
    b->r.text.piece = bench_piece;
    b->n_tok = 0;
    int rc = pbi_rig_create(&b->r, err);
    return rc ? rc : pbi_rig_start(&b->r, err);
}

static inline void bench_close(bench *b)
{
    pb_err err = { 0 };
    if (pbi_rig_done(&b->r, &err))
        fail_msg("%s", err.msg);
}

/* The mask after b->tok[0..n_seq) and n_tail drafts that follow; b->bits. */
static inline int bench_mask(bench *b, int32_t n_seq, int32_t n_tail)
{
    const pb_constraint *v = pbi_rig_iface(&b->r, "constraint/1");
    pb_seq s = { .size = sizeof s, .id = 7, .tokens = b->tok, .n_tokens = n_seq };
    pb_pick p = { .seq = &s, .n_tail = n_tail, .tail = b->tok + n_seq };
    memset(b->bits, 0xff, sizeof b->bits);
    return v->mask(b->r.self, 1, &p, b->bits, (b->n_vocab + 31) / 32);
}

static inline int bench_allows(const bench *b, int32_t id)
{
    return b->bits[id / 32] >> id % 32 & 1;
}

/* Puts the bytes of s as single tokens behind the sequence. */
static inline void bench_say(bench *b, const char *s)
{
    for (; *s; s++)
        b->tok[b->n_tok++] = 1 + (unsigned char)*s;
}
#endif
