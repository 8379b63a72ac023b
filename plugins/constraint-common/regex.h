/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-common/regex.h - regular expressions to grammar nodes. A subset of the
 * usual syntax, whole texts only (^ and $ are allowed at the ends, and implied).
 *
 * Literals, . (all but a line feed), [classes], \d \w \s \D \W \S (ASCII), \n \t \r \f \v,
 * \xHH \x{H...} \uHHHH, groups (...) (?:...), |, * + ? {m} {m,} {m,n} (a lazy ? after them changes
 * no text). What it does not know - look-around, back references, \b, possessive and named
 * things - is refused by name and position.
 */
#ifndef PBC_REGEX_H
#define PBC_REGEX_H
#include "grammar.h"

/* The node of the n bytes at s, or -1 with err. json: what is matched is written inside a JSON
 * string (characters escaped where JSON must), and without ^ or $ anything may be around it. */
int32_t pbc_regex(pbc_grammar *g, const char *s, size_t n, int json, pb_err *err);
#endif
