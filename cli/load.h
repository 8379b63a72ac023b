/* SPDX-License-Identifier: MIT
 *
 * cli/load.h - one pipeline on one workload: what patchbay run --workload does and prints.
 */
#ifndef PBI_LOAD_H
#define PBI_LOAD_H
#include "arm.h"
#include "pipeline.h"
#include "workload/workload.h"
#include <jansson.h>
#include <stdio.h>

/* What a workload is drawn for: the vocabulary and context of an open arm. */
pbw_vocab pbi_load_vocab(const pbi_arm *arm);
/* Draws the workload with its own seed, runs it, prints the metrics (or JSON) on stdout. */
int pbi_load_run(pbw_workload *w, pbi_arm *arm, const pbi_pipeline *p, int json, pb_err *err);
/* The formulas behind the numbers, for patchbay help metrics. */
void pbi_load_help(FILE *f);
#endif
