/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-grammar/gbnf.h - the text of a GBNF grammar to nodes. Syntax alone; whether
 * the rules make sense is pbc_grammar_finish's affair.
 */
#ifndef GBNF_H
#define GBNF_H
#include "../constraint-common/grammar.h"

/* Rules of the n bytes at s. Returns the node of rule root, or -1 with err, whose text says the
 * line. */
int32_t gbnf_parse(pbc_grammar *g, const char *s, size_t n, const char *root, pb_err *err);
#endif
