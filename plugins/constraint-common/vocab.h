/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-common/vocab.h - the bytes of all tokens as a trie in one array, in the order
 * of a walk from the root: a subtree is a range, so that skipping one is an assignment.
 *
 * Tokens without bytes (control tokens) are not in it: they are never allowed by a grammar.
 */
#ifndef PBC_VOCAB_H
#define PBC_VOCAB_H
#include "machine.h"

enum { PBC_MAX_TOKEN = 4096 }; /* longer tokens are left out */

typedef struct pbc_trie_node {
    int32_t end;    /* first node after the subtree */
    int32_t token;  /* a token that ends here, or -1; others by same[] */
    uint16_t depth; /* 1: first byte */
    uint8_t byte;
} pbc_trie_node;

typedef struct pbc_vocab {
    const pb_host *host;
    const pb_text *text;
    pbc_trie_node *node;
    int32_t *same; /* [n_vocab] the next token with equal bytes, or -1 */
    int32_t *path; /* [max_depth + 1] states on the way to a node */
    int32_t n_nodes, n_vocab, max_depth;
} pbc_vocab;

/* [main] Asks text for each piece once (twice for the sort's copy). 0 or PB_E_NOMEM. */
int pbc_vocab_init(pbc_vocab *v, const pb_host *host, const pb_text *text, pb_err *err);
void pbc_vocab_free(pbc_vocab *v);
/* Sets the bit of every token that m takes whole from `state`; bits are zero before. 0 or
 * PBC_OVERFLOW, then the bits mean nothing. */
int pbc_vocab_walk(const pbc_vocab *v, pbc_machine *m, int32_t state, uint32_t *bits);
/* The state after a token's bytes; PBC_DEAD also of a token without bytes; PBC_OVERFLOW. */
int32_t pbc_vocab_token(const pbc_vocab *v, pbc_machine *m, int32_t state, int32_t id);
#endif
