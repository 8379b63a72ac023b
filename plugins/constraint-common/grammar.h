/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-common/grammar.h - a grammar over bytes as a pool of nodes: what regular
 * expressions, GBNF and JSON schemas are translated to. It knows no syntax and no tokens.
 *
 * A node is EMPTY, one byte of a range, a sequence of two nodes, a choice of two, or a rule's
 * name. Nodes are shared freely and never change, so x{0,1000} costs 2000 nodes whatever x is.
 * Invariant after pbc_grammar_finish: every rule has a body, every rule can end, and none begins
 * with itself, so that a machine (machine.h) makes finitely many steps between two bytes.
 */
#ifndef PBC_GRAMMAR_H
#define PBC_GRAMMAR_H
#include <patchbay/plugin.h>

enum { PBC_EMPTY = 0, PBC_BYTE, PBC_CAT, PBC_ALT, PBC_RULE };
enum { PBC_MAX_NODES = 1 << 17, PBC_MAX_RULES = 1 << 14, PBC_NAME = 64 };
enum { PBC_MAX_RANGES = 512, PBC_MAX_REPEAT = 65536 };

typedef struct pbc_node {
    uint8_t kind, lo, hi;
    int32_t a, b; /* CAT, ALT: nodes; RULE: a is the rule */
} pbc_node;

typedef struct pbc_rule {
    char name[PBC_NAME]; /* "" of a repetition */
    int32_t body, line;  /* -1: not defined yet; line of its first mention */
} pbc_rule;

typedef struct pbc_grammar {
    const pb_host *host;
    const char *who; /* "constraint-regex", for messages */
    pbc_node *node;
    pbc_rule *rule;
    int32_t n_nodes, n_rules, root;
    int failed; /* a pool is full or memory is short; err of finish() says so */
} pbc_grammar;

/* A set of code points as sorted, disjoint ranges. */
typedef struct pbc_set {
    int32_t n, full; /* full: more than PBC_MAX_RANGES were added */
    uint32_t lo[PBC_MAX_RANGES], hi[PBC_MAX_RANGES];
} pbc_set;

/* Writes the message, "who: ..." with printf's formats, and returns code. */
int pbc_fail(pb_err *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* [main] Two blocks from host, freed by pbc_grammar_free. 0 or PB_E_NOMEM. */
int pbc_grammar_init(pbc_grammar *g, const pb_host *host, const char *who, pb_err *err);
void pbc_grammar_free(pbc_grammar *g);

/* Nodes by number; node 0 is EMPTY. After a failure they return 0 and finish() tells. */
int32_t pbc_byte(pbc_grammar *g, uint8_t lo, uint8_t hi);
int32_t pbc_cat(pbc_grammar *g, int32_t a, int32_t b);
/* x, made by n calls x = pbc_cat(g, x, y), nested to the right, so that a long sequence keeps
 * stacks flat. No other node may refer to one of the n. */
int32_t pbc_right(pbc_grammar *g, int32_t x, int32_t n);
int32_t pbc_alt(pbc_grammar *g, int32_t a, int32_t b);
int32_t pbc_ref(pbc_grammar *g, int32_t rule);
int32_t pbc_text(pbc_grammar *g, const char *s, size_t n); /* these bytes */
/* x at least lo times, at most hi (-1: any number); lo, hi <= PBC_MAX_REPEAT */
int32_t pbc_repeat(pbc_grammar *g, int32_t x, int32_t lo, int32_t hi);
/* one code point of the set, as UTF-8; an empty set matches nothing (refused by finish) */
int32_t pbc_class(pbc_grammar *g, const pbc_set *set);
/* A rule by name, made when new; name "" always makes one. */
int32_t pbc_rule_of(pbc_grammar *g, const char *name, int32_t line);

void pbc_set_add(pbc_set *s, uint32_t lo, uint32_t hi);
void pbc_set_invert(pbc_set *s); /* among code points, without surrogates */
int pbc_set_has(const pbc_set *s, uint32_t c);
/* The code point at s[0..n), its length, or 0 where it is not UTF-8. */
int32_t pbc_utf8(const char *s, size_t n, uint32_t *c);
int32_t pbc_utf8_put(uint32_t c, char out[4]); /* bytes written */

/* Checks the whole: PB_E_INVAL names an undefined, endless or left-recursive rule, or the limit
 * that was passed. */
int pbc_grammar_finish(pbc_grammar *g, int32_t root, pb_err *err);
#endif
