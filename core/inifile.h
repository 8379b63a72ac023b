/* SPDX-License-Identifier: MIT
 *
 * core/inifile.h - one INI file as a list of sections and entries with their lines; knows
 * neither slots nor options. Invariant: what was handed out is what the author wrote:
 * nothing was cut, merged or dropped, and every name occurs once.
 */
#ifndef PBI_INIFILE_H
#define PBI_INIFILE_H
#include "error.h"

typedef struct pbi_ini_section {
    char *name;
    int line;
} pbi_ini_section;

typedef struct pbi_ini_entry {
    int section; /* index into sections */
    int line;
    char *key, *value;
} pbi_ini_entry;

typedef struct pbi_ini {
    char *path;
    int n_sections, n_entries;
    pbi_ini_section *sections;
    pbi_ini_entry *entries;
} pbi_ini;

enum { PBI_INI_MAX_FILE = 1 << 20, PBI_INI_MAX_SECTION = 49, PBI_INI_MAX_ENTRIES = 4096 };

/* Parses n bytes; path is for messages, which read "path:line: what". PB_E_INVAL for the
 * author's mistakes. [main] */
int pbi_ini_parse(const char *text, size_t n, const char *path, pbi_ini **out, pb_err *err);
/* The same from a file of at most PBI_INI_MAX_FILE bytes; PB_E_INVAL if it is missing. */
int pbi_ini_load(const char *path, pbi_ini **out, pb_err *err);
/* Such a file's bytes, malloc'ed, not terminated. */
int pbi_ini_read(const char *path, char **out, size_t *n, pb_err *err);
void pbi_ini_free(pbi_ini *ini);
/* The section, or NULL; the entry of key in it, or NULL. */
const pbi_ini_section *pbi_ini_find(const pbi_ini *ini, const char *section);
const pbi_ini_entry *pbi_ini_get(const pbi_ini *ini, const char *section, const char *key);
#endif
