/* SPDX-License-Identifier: MIT
 *
 * core/ini.c - libinih behind a line source of our own.
 *
 * The library finds names, values and comments. Our source hands it one line at a time,
 * so it knows the line number, and refuses what the library would silently mangle:
 * indented keys (taken as continuations), section names above 49 characters (cut), lines
 * longer than its buffer (split), sections without keys (invisible), NUL bytes (end of
 * line). Test: tests/unit/test_ini.c, fuzz: tests/fuzz/fuzz_ini.c.
 */
#define _GNU_SOURCE 1
#include "inifile.h"

#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct source {
    const char *text;
    size_t n, at;
    int line;
    int failed; /* err is filled; the rest of the file is not read */
    pbi_ini *ini;
    pb_err *err;
} source;

static int fail(source *s, const char *what)
{
    if (!s->failed)
        pbi_err(s->err, PB_E_INVAL, "%s:%d: %s", s->ini->path, s->line, what);
    s->failed = 1;
    return 0;
}

static int is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

static int add_section(source *s, const char *name, size_t n)
{
    pbi_ini *ini = s->ini;
    if (ini->n_sections >= PBI_INI_MAX_ENTRIES)
        return fail(s, "more than 4096 sections");
    for (int i = 0; i < ini->n_sections; i++)
        if (strlen(ini->sections[i].name) == n && memcmp(ini->sections[i].name, name, n) == 0) {
            char msg[160];
            snprintf(msg, sizeof msg, "section [%s] again; it began in line %d",
                     ini->sections[i].name, ini->sections[i].line);
            return fail(s, msg);
        }
    pbi_ini_section *p =
        realloc(ini->sections, (size_t)(ini->n_sections + 1) * sizeof *ini->sections);
    if (!p)
        return fail(s, "out of memory");
    ini->sections = p;
    p += ini->n_sections;
    *p = (pbi_ini_section){ .name = strndup(name, n), .line = s->line };
    if (!p->name)
        return fail(s, "out of memory");
    ini->n_sections++;
    return 1;
}

/* An empty section would be dropped by the library; nobody writes one on purpose. */
static int section_used(source *s)
{
    pbi_ini *ini = s->ini;
    if (!ini->n_sections ||
        (ini->n_entries && ini->entries[ini->n_entries - 1].section == ini->n_sections - 1))
        return 1;
    if (!s->failed)
        pbi_err(s->err, PB_E_INVAL,
                "%s:%d: section [%s] is empty: write plugin = NAME or remove it", ini->path,
                ini->sections[ini->n_sections - 1].line, ini->sections[ini->n_sections - 1].name);
    s->failed = 1;
    return 0;
}

static int section_line(source *s, const char *p, size_t n)
{
    const char *end = memchr(p, ']', n);
    if (!end)
        return fail(s, "a section without ]");
    size_t len = (size_t)(end - p) - 1;
    if (!len)
        return fail(s, "a section without a name");
    if (len > PBI_INI_MAX_SECTION)
        return fail(s, "section name longer than 49 characters");
    if (is_space(p[1]) || is_space(end[-1]))
        return fail(s, "spaces around the section's name");
    for (const char *q = end + 1; q < p + n && *q != ';' && *q != '#'; q++)
        if (!is_space(*q))
            return fail(s, "text after the section's ]");
    return section_used(s) && add_section(s, p + 1, len);
}

/* Checks one line before the library sees it. */
static int line_ok(source *s, const char *p, size_t n)
{
    if (memchr(p, 0, n))
        return fail(s, "a NUL byte");
    if (s->line == 1 && n >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0)
        p += 3, n -= 3;
    size_t lead = 0;
    while (lead < n && is_space(p[lead]))
        lead++;
    if (lead == n || p[lead] == ';' || p[lead] == '#')
        return 1;
    if (lead)
        return fail(s, "an indented line: keys and sections begin in the first column");
    if (*p == '[')
        return section_line(s, p, n);
    if (*p == '=' || *p == ':')
        return fail(s, "a value without a key");
    const char *eq = memchr(p, '=', n), *colon = memchr(p, ':', n);
    if (!eq)
        return fail(s, "neither [section] nor key = value");
    if (colon && colon < eq)
        return fail(s, "a ':' in the key"); /* the library would end the key there */
    return 1;
}

/* The library's fgets. num counts the terminator; it wants room for one more. */
static char *next_line(char *buf, int num, void *stream)
{
    source *s = stream;
    if (s->failed || s->at >= s->n)
        return NULL;
    const char *p = s->text + s->at;
    const char *nl = memchr(p, '\n', s->n - s->at);
    size_t n = nl ? (size_t)(nl - p) : s->n - s->at;
    s->at += n + 1;
    s->line++;
    if (num < 4 || n > (size_t)num - 3) {
        char msg[80];
        snprintf(msg, sizeof msg, "line of %zu characters; the limit is %d", n, num - 3);
        fail(s, msg);
        return NULL;
    }
    if (!line_ok(s, p, n))
        return NULL;
    memcpy(buf, p, n);
    buf[n] = '\n';
    buf[n + 1] = 0;
    return buf;
}

/* The library's handler: 1 goes on. */
static int entry(void *user, const char *section, const char *key, const char *value)
{
    source *s = user;
    pbi_ini *ini = s->ini;
    char msg[256];
    if (s->failed)
        return 0;
    if (!ini->n_sections) {
        snprintf(msg, sizeof msg, "key '%.60s' before the first [section]", key);
        return fail(s, msg);
    }
    if (ini->n_entries >= PBI_INI_MAX_ENTRIES)
        return fail(s, "more than 4096 keys");
    int cur = ini->n_sections - 1;
    if (strcmp(ini->sections[cur].name, section) != 0) {
        snprintf(msg, sizeof msg, "section [%.60s] is not understood", ini->sections[cur].name);
        return fail(s, msg);
    }
    for (int i = ini->n_entries - 1; i >= 0 && ini->entries[i].section == cur; i--)
        if (strcmp(ini->entries[i].key, key) == 0) {
            snprintf(msg, sizeof msg, "[%s] %.60s is set twice; first in line %d", section, key,
                     ini->entries[i].line);
            return fail(s, msg);
        }
    if (!*key || !*value) {
        snprintf(msg, sizeof msg, "[%s] %.60s has no value", section, key);
        return fail(s, msg);
    }
    pbi_ini_entry *e = realloc(ini->entries, (size_t)(ini->n_entries + 1) * sizeof *e);
    if (!e)
        return fail(s, "out of memory");
    ini->entries = e;
    e += ini->n_entries;
    *e = (pbi_ini_entry){
        .section = cur, .line = s->line, .key = strdup(key), .value = strdup(value)
    };
    ini->n_entries++;
    return e->key && e->value ? 1 : fail(s, "out of memory");
}

int pbi_ini_parse(const char *text, size_t n, const char *path, pbi_ini **out, pb_err *err)
{
    *out = NULL;
    pb_err local = { 0 };
    source s = { .text = text, .n = n, .err = err ? err : &local };
    s.ini = calloc(1, sizeof *s.ini);
    if (s.ini)
        s.ini->path = strdup(path);
    if (!s.ini || !s.ini->path) {
        pbi_ini_free(s.ini);
        return pbi_err(err, PB_E_NOMEM, "%s: out of memory", path);
    }
    int rc = ini_parse_stream(next_line, &s, entry, &s);
    if (!s.failed)
        section_used(&s);
    if (!s.failed && rc) {
        s.line = rc > 0 ? rc : s.line;
        fail(&s, "neither [section] nor key = value");
    }
    if (s.failed) {
        pbi_ini_free(s.ini);
        return s.err->code;
    }
    *out = s.ini;
    return 0;
}

int pbi_ini_read(const char *path, char **out, size_t *n_out, pb_err *err)
{
    *out = NULL;
    FILE *f = fopen(path, "rbe");
    if (!f)
        return pbi_err(err, PB_E_INVAL, "%s: %s", path, strerror(errno));
    char *text = malloc(PBI_INI_MAX_FILE + 1);
    size_t n = text ? fread(text, 1, PBI_INI_MAX_FILE + 1, f) : 0;
    int bad = ferror(f), e = errno;
    fclose(f);
    int rc = 0;
    if (!text)
        rc = pbi_err(err, PB_E_NOMEM, "%s: out of memory", path);
    else if (bad)
        rc = pbi_err(err, PB_E_INVAL, "%s: %s", path, strerror(e));
    else if (n > PBI_INI_MAX_FILE)
        rc = pbi_err(err, PB_E_INVAL, "%s: larger than %d bytes, the limit of a pipeline file",
                     path, PBI_INI_MAX_FILE);
    if (rc) {
        free(text);
        return rc;
    }
    *out = text;
    *n_out = n;
    return 0;
}

int pbi_ini_load(const char *path, pbi_ini **out, pb_err *err)
{
    char *text = NULL;
    size_t n = 0;
    *out = NULL;
    int rc = pbi_ini_read(path, &text, &n, err);
    if (!rc)
        rc = pbi_ini_parse(text, n, path, out, err);
    free(text);
    return rc;
}

void pbi_ini_free(pbi_ini *ini)
{
    if (!ini)
        return;
    for (int i = 0; i < ini->n_sections; i++)
        free(ini->sections[i].name);
    for (int i = 0; i < ini->n_entries; i++) {
        free(ini->entries[i].key);
        free(ini->entries[i].value);
    }
    free(ini->sections);
    free(ini->entries);
    free(ini->path);
    free(ini);
}

const pbi_ini_section *pbi_ini_find(const pbi_ini *ini, const char *section)
{
    for (int i = 0; i < ini->n_sections; i++)
        if (strcmp(ini->sections[i].name, section) == 0)
            return &ini->sections[i];
    return NULL;
}

const pbi_ini_entry *pbi_ini_get(const pbi_ini *ini, const char *section, const char *key)
{
    const pbi_ini_section *s = pbi_ini_find(ini, section);
    for (int i = 0; s && i < ini->n_entries; i++)
        if (ini->entries[i].section == (int)(s - ini->sections) &&
            strcmp(ini->entries[i].key, key) == 0)
            return &ini->entries[i];
    return NULL;
}
