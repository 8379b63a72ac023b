/* SPDX-License-Identifier: MIT
 *
 * core/program.h - the host's builder behind pb_builder: collects, checks and owns a
 * pb_program. Invariant: a finished program is write-once, width-checked and every
 * piece lies inside its tensor.
 */
#ifndef PBI_PROGRAM_H
#define PBI_PROGRAM_H
#include <patchbay/plugin.h>
#include <stdio.h>

typedef struct pbi_program pbi_program;
/* A builder whose errors go to err; builder->h is owned by the returned pbi_program. */
int pbi_program_new(pbi_program **out, pb_err *err);
const pb_builder *pbi_program_builder(pbi_program *p);
/* The finished program; NULL before finish or after an error. Owned by p. */
pb_program *pbi_program_get(pbi_program *p);
void pbi_program_free(pbi_program *p);
/* patchbay show --program: one line an operation, widths, weights, bytes, MAC a token. */
void pbi_program_print(const pb_program *p, FILE *f);
/* multiply-adds for one row, and stored weight bytes read by a decode step: the floors */
int64_t pbi_program_macs(const pb_program *p);
int64_t pbi_program_weight_bytes(const pb_program *p);
#endif
