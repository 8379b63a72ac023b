/* SPDX-License-Identifier: MIT
 *
 * core/options.h - option tables: text to config struct and back. One parser for INI
 * values, --set, defaults and bounds, so that what help shows is what may be typed.
 */
#ifndef PBI_OPTIONS_H
#define PBI_OPTIONS_H
#include <patchbay/plugin.h>

const pb_option *pbi_option_find(const pb_option *table, size_t stride, const char *name);
/* Parses text into config + o->offset after checking type, range, pow2, choices. STR fields
 * point at text, which must live as long as config. Locale independent. */
int pbi_option_set(const pb_option *o, const char *text, void *config, pb_err *err);
/* The value now in config as canonical INI text. */
void pbi_option_format(const pb_option *o, const void *config, char *buf, size_t n);
/* "1..4096, a power of two", "fast|exact" */
void pbi_option_range(const pb_option *o, char *buf, size_t n);
/* Nearest of n names by edit distance < 3, or NULL */
const char *pbi_nearest(const char *word, const char *const *names, int n);
/* Locale-independent numbers; 0 or PB_E_INVAL. Bytes take K, M, G, T (binary). */
int pbi_parse_int(const char *s, int64_t *out);
int pbi_parse_bytes(const char *s, int64_t *out);
int pbi_parse_float(const char *s, double *out);
#endif
