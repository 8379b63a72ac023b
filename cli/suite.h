/* SPDX-License-Identifier: MIT
 *
 * cli/suite.h - a folder of comparisons that stand for claims: patchbay compare --suite.
 */
#ifndef PBI_SUITE_H
#define PBI_SUITE_H
#include "arms.h"

/* Runs every section of DIR/suite.ini and prints a table as Markdown (or JSON) on stdout, a page to
 * like->report. like: model and options of the trials. The exit status, or PB_E_*. Keys of a
 * section: claim; before, after, workload (files beside it), metric (key of a metric, which is
 * judged); gone (settings of the workload, parted by spaces, under which the gain should
 * disappear), when (the same in words); or missing (why it cannot run yet). */
int pbi_suite(const char *dir, const pbi_arms *like, pb_err *err);
#endif
