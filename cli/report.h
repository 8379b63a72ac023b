/* SPDX-License-Identifier: MIT
 *
 * cli/report.h - what run, score and compare print: answers, statistics, plugin accounts.
 */
#ifndef PBI_REPORT_H
#define PBI_REPORT_H
#include "arm.h"
#include "metrics.h"
#include <jansson.h>
#include <stdio.h>

/* One line on stderr that is written over; what NULL: clears it. Fits pbi_arm_options. */
void pbi_show_progress(void *arg, const char *what, double done);
/* The first Ctrl-C sets a flag, the second ends the process. */
void pbi_catch_interrupts(void);
int pbi_interrupted(void *arg); /* fits pbi_run_hooks.stop */

/* Prints an answer: one that did not stream before (many), ids where there is no text. */
void pbi_print_answer(const pbi_answer *a, int64_t i, int many, int has_text);
void pbi_print_stats(FILE *f, const pbi_arm *arm, int64_t n, const pbi_answer *a,
                     const pbi_totals *t);
/* The whole of a run. */
json_t *pbi_run_json(const pbi_arm *arm, const pbi_pipeline *p, int64_t n, const pbi_answer *a,
                     const pbi_totals *t);
json_t *pbi_answer_json(const pbi_answer *a);
json_t *pbi_totals_json(const pbi_totals *t, const pbi_metrics *m);
json_t *pbi_plugins_json(const pbi_arm *arm); /* counters and memory by plugin */
json_t *pbi_number(double x);                 /* null for NaN and infinity */
json_t *pbi_text(const char *s, size_t n);    /* never NULL for valid UTF-8 */
#endif
