/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-json/schema.h - a JSON schema to grammar nodes. What it writes is valid under
 * the schema, though not all that is valid can be written: members stand in the schema's order, and
 * numbers, blanks and additional names have limits (schema.c says which).
 *
 * Invariant: a keyword that is not translated is refused by name and place, never passed over.
 */
#ifndef JSON_SCHEMA_H
#define JSON_SCHEMA_H
#include "../constraint-common/grammar.h"

/* Node of the n bytes of schema at s, or -1 with err. spaces: most blanks at a place. */
int32_t schema_translate(pbc_grammar *g, const char *s, size_t n, int64_t spaces, pb_err *err);
#endif
