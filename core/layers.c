/* SPDX-License-Identifier: MIT
 *
 * core/layers.c - the chain of base = files and --set, flattened.
 *
 * A variant that puts another plugin into a slot changes that and nothing else: inherited options
 * stay if the new plugin has an option of that name. If it has none, they were meant for the
 * plugin that left, and are no mistake: words marked orphan. Test: tests/unit/test_pipeline.c.
 */
#define _GNU_SOURCE 1
#include "layers.h"
#include "loader.h"
#include "options.h"
#include "pipeline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_CHAIN = 16 };
static const char core_section[] = "pipeline";

static const struct {
    const char *slot, *name;
} defaults[] = { { "model", "llama" },          { "weights", "gguf" },
                 { "backend", "cpu" },          { "attention", "contiguous" },
                 { "scheduler", "continuous" }, { "sampler", "greedy" },
                 { "process", "inline" } };

const char *pbi_slot_default(const char *slot)
{
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++)
        if (strcmp(defaults[i].slot, slot) == 0)
            return defaults[i].name;
    return NULL;
}

int pbi_slot_is_list(const char *slot)
{
    return !strcmp(slot, "constraint") || !strcmp(slot, "output") || !strcmp(slot, "kernels");
}

int pbi_list_next(const char **p, char *buf, size_t n)
{
    const char *s = *p + strspn(*p, " \t,");
    size_t len = strcspn(s, ",");
    if (!*s)
        return 0;
    *p = s + len;
    while (len && (s[len - 1] == ' ' || s[len - 1] == '\t'))
        len--;
    snprintf(buf, n, "%.*s", (int)len, s);
    return 1;
}

pbi_word *pbi_layers_find(const pbi_layers *l, const char *slot, const char *name, const char *key)
{
    for (int i = 0; i < l->n_words; i++) {
        pbi_word *w = &l->words[i];
        if (strcmp(w->slot, slot) == 0 && strcmp(w->key, key) == 0 &&
            (name && w->name ? strcmp(name, w->name) == 0 : name == w->name))
            return w;
    }
    return NULL;
}

static void free_word(pbi_word *w)
{
    free(w->name);
    free(w->key);
    free(w->value);
    free(w->origin);
}

/* Options of the slot that are there now were written for the plugin that goes. */
static void mark_orphans(pbi_layers *l, const char *slot)
{
    for (int i = 0; i < l->n_words; i++)
        if (strcmp(l->words[i].slot, slot) == 0 && strcmp(l->words[i].key, "plugin") != 0)
            l->words[i].orphan = 1;
}

static int put(pbi_layers *l, const char *slot, const char *name, const char *key,
               const char *value, const char *origin, pb_err *err)
{
    pbi_word *w = pbi_layers_find(l, slot, name, key);
    const char *before = w ? w->value : pbi_slot_default(slot);
    if (strcmp(key, "plugin") == 0 && before && strcmp(before, value) != 0)
        mark_orphans(l, slot); /* plugin keys are applied before the options of their layer */
    pbi_word fresh = { .slot = slot,
                       .name = name ? strdup(name) : NULL,
                       .key = strdup(key),
                       .value = strdup(value),
                       .origin = strdup(origin) };
    if (!fresh.key || !fresh.value || !fresh.origin || (name && !fresh.name)) {
        free_word(&fresh);
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    }
    if (w) {
        free_word(w);
        *w = fresh;
        return 0;
    }
    w = realloc(l->words, (size_t)(l->n_words + 1) * sizeof *w);
    if (!w) {
        free_word(&fresh);
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    }
    l->words = w;
    w[l->n_words++] = fresh;
    return 0;
}

/* ---- sections ---------------------------------------------------------- */

static int unknown_section(const char *origin, const char *section, pb_err *err)
{
    const char *names[32];
    int n = 0;
    names[n++] = core_section;
    for (int i = 0; i < pbi_n_slots; i++)
        names[n++] = pbi_slots[i];
    const char *near = pbi_nearest(section, names, n);
    return pbi_err(err, PB_E_INVAL, "%s: unknown section [%s]%s%s%s", origin, section,
                   near ? "; did you mean [" : "; it names neither a slot nor [pipeline]",
                   near ? near : "", near ? "]?" : "");
}

/* "output.brief" -> "output" and "brief" */
static int split_section(const char *section, const char *origin, const char **slot,
                         const char **name, pb_err *err)
{
    *name = NULL;
    if (strcmp(section, core_section) == 0) {
        *slot = core_section;
        return 0;
    }
    size_t n = strcspn(section, ".");
    for (int i = 0; i < pbi_n_slots; i++)
        if (strlen(pbi_slots[i]) == n && memcmp(pbi_slots[i], section, n) == 0) {
            *slot = pbi_slots[i];
            if (!section[n])
                return 0;
            if (!pbi_slot_is_list(*slot))
                return pbi_err(err, PB_E_INVAL,
                               "%s: [%s]: slot %s takes one plugin; write its options in [%s]",
                               origin, section, *slot, *slot);
            *name = section + n + 1;
            return **name ? 0 : unknown_section(origin, section, err);
        }
    return unknown_section(origin, section, err);
}

/* pass 0: plugin keys, so that an option finds its plugin whatever the order; pass 1: options */
static int apply(pbi_layers *l, int pass, const char *section, const char *key, const char *value,
                 const char *origin, pb_err *err)
{
    const char *slot, *name;
    int rc = split_section(section, origin, &slot, &name, err);
    if (rc)
        return rc;
    int is_plugin = strcmp(key, "plugin") == 0 && slot != core_section;
    if (is_plugin == pass)
        return 0;
    if (is_plugin && name)
        return pbi_err(err, PB_E_INVAL,
                       "%s: [%s] takes options; list plugins in [%s] plugin =", origin, section,
                       slot);
    if (!is_plugin && !name && pbi_slot_is_list(slot))
        return pbi_err(err, PB_E_INVAL,
                       "%s: [%s] %s: slot %s takes a list of plugins; write options of one in "
                       "[%s.NAME]",
                       origin, section, key, slot, slot);
    return put(l, slot, name, key, value, origin, err);
}

static int apply_file(pbi_layers *l, const pbi_ini *ini, pb_err *err)
{
    int rc = 0;
    for (int i = 0; i < ini->n_sections && !rc; i++) {
        char origin[600];
        const char *slot, *name;
        snprintf(origin, sizeof origin, "%.500s:%d", ini->path, ini->sections[i].line);
        rc = split_section(ini->sections[i].name, origin, &slot, &name, err);
    }
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < ini->n_entries && !rc; i++) {
            const pbi_ini_entry *e = &ini->entries[i];
            const char *section = ini->sections[e->section].name;
            char origin[600];
            if (strcmp(section, core_section) == 0 && strcmp(e->key, "base") == 0)
                continue;
            snprintf(origin, sizeof origin, "%.500s:%d", ini->path, e->line);
            rc = apply(l, pass, section, e->key, e->value, origin, err);
        }
    return rc;
}

/* ---- base -------------------------------------------------------------- */

typedef struct link {
    pbi_ini *ini;
    dev_t dev;
    ino_t ino;
    int known; /* dev and ino are valid: text may come without a file */
} link;

static int find_cycle(const link *chain, int n, const char *where, const char *next, pb_err *err)
{
    struct stat st;
    if (stat(next, &st))
        return 0; /* reading it will say why */
    for (int i = 0; i < n; i++)
        if (chain[i].known && chain[i].dev == st.st_dev && chain[i].ino == st.st_ino) {
            char path[300] = "";
            for (int k = i; k < n; k++) {
                size_t used = strlen(path);
                snprintf(path + used, sizeof path - used, "%s -> ", chain[k].ini->path);
            }
            return pbi_err(err, PB_E_INVAL, "%s: base = goes in a circle: %s%s", where, path,
                           chain[i].ini->path);
        }
    return 0;
}

/* Reads the base of the last link into the next; 1: there is one, 0: none, or an error */
static int read_base(link *chain, int n, pb_err *err)
{
    const pbi_ini *ini = chain[n - 1].ini;
    const pbi_ini_entry *e = pbi_ini_get(ini, core_section, "base");
    struct stat st;
    if (!e)
        return 0;
    char where[600], path[1024];
    snprintf(where, sizeof where, "%.500s:%d", ini->path, e->line);
    const char *slash = e->value[0] == '/' ? NULL : strrchr(ini->path, '/');
    int k = snprintf(path, sizeof path, "%.*s%s", slash ? (int)(slash - ini->path + 1) : 0,
                     ini->path, e->value);
    if (k < 0 || (size_t)k >= sizeof path)
        return pbi_err(err, PB_E_INVAL, "%s: base = is longer than a path may be", where);
    int rc = find_cycle(chain, n, where, path, err);
    if (rc)
        return rc;
    if (n == MAX_CHAIN)
        return pbi_err(err, PB_E_INVAL, "%s: more than %d files in the chain of base =", where,
                       MAX_CHAIN);
    rc = pbi_ini_load(path, &chain[n].ini, err);
    if (rc) {
        if (err && strncmp(err->msg, path, strlen(path)) == 0 && err->msg[strlen(path)] == ':' &&
            err->msg[strlen(path) + 1] == ' ') /* the file itself, not one of its lines */
            pbi_err_prefix(err, "%s: base =", where);
        return rc;
    }
    if (stat(path, &st) == 0)
        chain[n] = (link){ .ini = chain[n].ini, .dev = st.st_dev, .ino = st.st_ino, .known = 1 };
    return 1;
}

int pbi_layers_read(const char *text, size_t n, const char *path, pbi_layers *out, pb_err *err)
{
    link chain[MAX_CHAIN] = { 0 };
    struct stat st;
    int n_chain = 0;
    *out = (pbi_layers){ 0 };
    int rc = pbi_ini_parse(text, n, path, &chain[0].ini, err);
    if (!rc) {
        n_chain = 1;
        if (stat(path, &st) == 0)
            chain[0] =
                (link){ .ini = chain[0].ini, .dev = st.st_dev, .ino = st.st_ino, .known = 1 };
        while ((rc = read_base(chain, n_chain, err)) == 1)
            n_chain++;
    }
    for (int i = n_chain - 1; i >= 0 && !rc; i--)
        rc = apply_file(out, chain[i].ini, err);
    for (int i = 0; i < n_chain; i++)
        pbi_ini_free(chain[i].ini);
    if (rc)
        pbi_layers_free(out);
    return rc;
}

/* ---- --set ------------------------------------------------------------- */

/* "attention=paged", "attention.page_size=32", "output.brief.max=9" */
static int apply_set(pbi_layers *l, int pass, const char *text, pb_err *err)
{
    char left[200];
    const char *eq = strchr(text, '='), *key = "plugin";
    if (!eq || eq == text || !eq[1] || (size_t)(eq - text) >= sizeof left)
        return pbi_err(err, PB_E_INVAL, "--set %.100s: write SLOT.KEY=VALUE or SLOT=PLUGIN", text);
    memcpy(left, text, (size_t)(eq - text));
    left[eq - text] = 0;
    char *dot = strrchr(left, '.');
    if (dot) {
        *dot = 0;
        key = dot + 1;
        if (!*left || !*key)
            return pbi_err(err, PB_E_INVAL, "--set %.100s: write SLOT.KEY=VALUE or SLOT=PLUGIN",
                           text);
    } else {
        for (const pb_option *o = pbi_core_options; o->name; o++)
            if (strcmp(o->name, left) == 0)
                return pbi_err(err, PB_E_INVAL, "--set %.100s: write --set pipeline.%.100s", text,
                               text);
    }
    return apply(l, pass, left, key, eq + 1, "--set", err);
}

int pbi_layers_set(pbi_layers *l, int n_set, const char *const *set, pb_err *err)
{
    int rc = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < n_set && !rc; i++)
            rc = apply_set(l, pass, set[i], err);
    return rc;
}

void pbi_layers_free(pbi_layers *l)
{
    for (int i = 0; i < l->n_words; i++)
        free_word(&l->words[i]);
    free(l->words);
    *l = (pbi_layers){ 0 };
}
