/* SPDX-License-Identifier: MIT
 *
 * compare/html.h - the report of a comparison: one page that needs no network and no script.
 *
 * Made from the document of result.h alone, so a report can be written again from a saved one.
 * Invariant: text from models, files and plugins is escaped wherever it lands.
 */
#ifndef PBC_HTML_H
#define PBC_HTML_H
#include <jansson.h>
#include <stdio.h>

/* Writes the page; 0, or -1 when the file could not take it. */
int pbc_html(FILE *f, const json_t *result);

/* ---- shared with other pages ---------------------------------------------- */

/* Head with the style sheet, and the title as heading; the foot. */
void pbc_page_begin(FILE *f, const char *title);
void pbc_page_end(FILE *f);
/* what stands between them for one comparison */
void pbc_html_body(FILE *f, const json_t *result);

/* ---- shared by html.c and plot.c ---------------------------------------- */

const json_t *pbc_at(const json_t *j, const char *key);
double pbc_num(const json_t *j, const char *key);       /* NaN where there is none */
const char *pbc_text(const json_t *j, const char *key); /* "" where there is none */
void pbc_escaped(FILE *f, const char *s);               /* for HTML and SVG text */

/* Ratio and interval of each metric of a comparison, and the A/A interval behind it. */
void pbc_plot_forest(FILE *f, const json_t *result, const json_t *comparison);
/* Share of answers below a time, one line for each arm; key: "ttft_ms", "e2e_ms". */
void pbc_plot_ecdf(FILE *f, const json_t *result, const char *key, const char *title);
/* One arm's first timed block, step by step: rows, sequences, KV. */
void pbc_plot_timeline(FILE *f, const json_t *arm, double last_ms);
/* Where the time of an arm's plugins went: one bar each. */
void pbc_plot_plugins(FILE *f, const json_t *arm);
/* Ratio of each epoch for a metric, dots, with those of A/A as rings. */
void pbc_plot_epochs(FILE *f, const json_t *comparison, const char *key, const char *title);
#endif
