/* SPDX-License-Identifier: MIT
 *
 * core/pipeline.c - words to plugins: which library fills each slot, every option parsed,
 * checked and traced to the line that set it, and whether the plugins fit together.
 * Test: tests/unit/test_pipeline.c.
 */
#define _GNU_SOURCE 1
#include "pipeline.h"
#include "account.h"
#include "error.h"
#include "layers.h"
#include "options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

const pb_option pbi_core_options[] = {
    PB_INT(pbi_core_config, threads, "0", "0", "1024", 0, "threads",
           "threads that compute; 0: one for each core that the process may use. Never changes a "
           "token"),
    PB_INT(pbi_core_config, context, "0", "0", "16777216", PB_O_OUTPUT, "tokens",
           "tokens that a sequence may have, prompt and answer; 0: what the model was trained "
           "with"),
    PB_INT(pbi_core_config, max_seqs, "16", "1", "65536", 0, "sequences",
           "sequences that run at once"),
    PB_INT(pbi_core_config, max_rows, "512", "1", "65536", 0, "rows",
           "rows of a step: tokens fed and drafts verified together"),
    PB_BYTES(pbi_core_config, kv_bytes, "1G", "1M", NULL, 0,
             "address space for keys and values; memory is taken as pages are written"),
    PB_BOOL(pbi_core_config, paranoid, "off", 0,
            "validate each step, poison free pages, compare references when idle"),
    PB_INT(pbi_core_config, seed, "0", NULL, NULL, PB_O_OUTPUT, NULL,
           "seed of sampled requests that bring none"),
    PB_OPTIONS_END
};

/* ---- options ----------------------------------------------------------- */

static int count_options(const pb_option *o)
{
    int n = 0;
    while (o && o[n].name)
        n++;
    return n;
}

static int unknown_key(const pb_option *table, const pbi_word *w, const char *what, pb_err *err)
{
    const char *names[256] = { NULL };
    char all[300] = "";
    int n = 0;
    for (const pb_option *o = table; o && o->name && n < 256; o++) {
        size_t used = strlen(all);
        names[n] = o->name;
        snprintf(all + used, sizeof all - used, "%s%s", n ? ", " : "", o->name);
        n++;
    }
    const char *near = pbi_nearest(w->key, names, n);
    if (near)
        return pbi_err(err, PB_E_INVAL, "%s: [%s] %.60s: %s has no such option; did you mean '%s'?",
                       w->origin, w->slot, w->key, what, near);
    return pbi_err(err, PB_E_INVAL, "%s: [%s] %.60s: %s has no such option; it has %s", w->origin,
                   w->slot, w->key, what, n ? all : "none");
}

/* Parses text into config and keeps it, canonical, in s. */
static int set_one(const pb_option *o, const char *text, const char *origin, void *config,
                   pbi_setting *s, pb_err *err)
{
    *s = (pbi_setting){ .opt = o, .text = strdup(text), .origin = strdup(origin) };
    if (!s->text || !s->origin)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    int rc = pbi_option_set(o, s->text, config, err);
    if (rc || o->type == PB_T_STR)
        return rc; /* config points at s->text */
    char buf[512];
    pbi_option_format(o, config, buf, sizeof buf);
    char *canonical = strdup(buf);
    if (!canonical)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    free(s->text);
    s->text = canonical;
    return 0;
}

/* Fills config and its settings from the words of (slot, name). what, origin: for messages. */
static int resolve(const pbi_layers *l, const char *slot, const char *name, const pb_option *table,
                   const char *what, const char *origin, void *config, pbi_setting **settings,
                   int *n_settings, pb_err *err)
{
    int n = count_options(table), rc = 0;
    *settings = calloc((size_t)n + 1, sizeof **settings);
    if (!*settings)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    *n_settings = n;
    for (int i = 0; i < n && !rc; i++) {
        pbi_word *w = pbi_layers_find(l, slot, name, table[i].name);
        const char *text = w ? w->value : table[i].def;
        (*settings)[i].opt = &table[i];
        if (!text && table[i].flags & PB_O_REQUIRED)
            rc = pbi_err(err, PB_E_INVAL, "%s: [%s] %s needs option %s: %s", origin, slot, what,
                         table[i].name, table[i].help);
        else if (text) {
            rc = set_one(&table[i], text, w ? w->origin : "default", config, &(*settings)[i], err);
            if (rc && w)
                pbi_err_prefix(err, "%s: [%s] %s", w->origin, slot, what);
        } else if (!((*settings)[i].origin = strdup("default")))
            rc = pbi_err(err, PB_E_NOMEM, "out of memory");
        if (w && table[i].flags & PB_O_DEPRECATED) {
            char msg[400];
            snprintf(msg, sizeof msg, "%s: [%s] %s is deprecated: %s", w->origin, slot,
                     table[i].name, table[i].help);
            pbi_log(PB_LOG_WARN, NULL, NULL, msg);
        }
        if (w)
            w->used = 1;
    }
    for (int i = 0; i < l->n_words && !rc; i++) {
        const pbi_word *w = &l->words[i];
        if (!w->used && !w->orphan && strcmp(w->slot, slot) == 0 && strcmp(w->key, "plugin") != 0 &&
            (name && w->name ? strcmp(name, w->name) == 0 : name == w->name))
            rc = unknown_key(table, w, what, err);
    }
    return rc;
}

static void free_settings(pbi_setting *s, int n)
{
    for (int i = 0; s && i < n; i++) {
        free(s[i].text);
        free(s[i].origin);
    }
    free(s);
}

/* ---- plugins ----------------------------------------------------------- */

static void free_use(pbi_use *u)
{
    if (!u)
        return;
    free_settings(u->settings, u->n_settings);
    free(u->config);
    free(u->origin);
    free(u);
}

/* A plugin given as a path that is not absolute lies relative to the working folder. */
static int add_use(pbi_pipeline *p, const pbi_layers *l, const char *slot, const char *plugin,
                   const char *origin, pb_err *err)
{
    const pbi_library *lib;
    int rc = pbi_loader_open(slot, plugin, &lib, err);
    if (rc) {
        pbi_err_prefix(err, "%s: [%s] plugin = %.60s", origin, slot, plugin);
        return rc;
    }
    pbi_use **all = realloc(p->uses, (size_t)(p->n_uses + 1) * sizeof *all);
    pbi_use *u = calloc(1, sizeof *u);
    if (all)
        p->uses = all;
    if (!all || !u) {
        free(u);
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    }
    all[p->n_uses++] = u;
    *u = (pbi_use){ .slot = lib->slot, .name = lib->name, .lib = lib };
    u->origin = strdup(origin);
    u->config = calloc(1, lib->desc->config_size + 1);
    if (!u->origin || !u->config)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    for (int i = 0; i + 1 < p->n_uses; i++)
        if (strcmp(p->uses[i]->slot, u->slot) == 0 && strcmp(p->uses[i]->name, u->name) == 0)
            return pbi_err(err, PB_E_INVAL, "%s: [%s] names %s twice", origin, slot, u->name);
    rc = resolve(l, slot, pbi_slot_is_list(slot) ? plugin : NULL, lib->desc->options, u->name,
                 origin, u->config, &u->settings, &u->n_settings, err);
    if (rc)
        return rc;
    rc = lib->desc->check(u->config, err);
    if (rc)
        pbi_err_prefix(err, "%s: [%s] %s", origin, slot, u->name);
    return rc;
}

/* Options of a plugin that is not there would be ignored: an error. */
static int check_unused(const pbi_layers *l, const char *slot, pb_err *err)
{
    for (int i = 0; i < l->n_words; i++) {
        const pbi_word *w = &l->words[i];
        if (w->used || w->orphan || strcmp(w->slot, slot) != 0 || strcmp(w->key, "plugin") == 0)
            continue;
        if (w->name)
            return pbi_err(err, PB_E_INVAL, "%s: [%s.%.60s]: [%s] plugin = does not list %.60s",
                           w->origin, slot, w->name, slot, w->name);
        return pbi_err(err, PB_E_INVAL,
                       "%s: [%s] %.60s: no plugin is in slot %s; add plugin = NAME", w->origin,
                       slot, w->key, slot);
    }
    return 0;
}

static int fill_slot(pbi_pipeline *p, const pbi_layers *l, const char *slot, pb_err *err)
{
    const pbi_word *w = pbi_layers_find(l, slot, NULL, "plugin");
    const char *text = w ? w->value : pbi_slot_default(slot), *origin = w ? w->origin : "default";
    int rc = 0;
    if (text && strcmp(text, "none") == 0) {
        if (pbi_slot_default(slot))
            return pbi_err(err, PB_E_INVAL, "%s: [%s] plugin = none: this slot cannot be empty",
                           origin, slot);
        text = NULL;
    }
    if (!text)
        return check_unused(l, slot, err);
    if (!pbi_slot_is_list(slot))
        return add_use(p, l, slot, text, origin, err);
    char name[512];
    while (!rc && pbi_list_next(&text, name, sizeof name))
        rc = add_use(p, l, slot, name, origin, err);
    return rc ? rc : check_unused(l, slot, err);
}

/* ---- composition ------------------------------------------------------- */

static int has_word(const char *words, const char *w, size_t n)
{
    for (const char *p = words; p && *p;) {
        size_t k = strcspn(p, " ");
        if (k == n && memcmp(p, w, n) == 0)
            return 1;
        p += k + (p[k] == ' ');
    }
    return 0;
}

/* "attention.paged", "attention", or a free word of someone's provides */
static int provides(const pbi_use *u, const char *w, size_t n)
{
    size_t s = strlen(u->slot), k = strlen(u->name);
    if (n >= s && memcmp(w, u->slot, s) == 0 &&
        (n == s || (w[s] == '.' && n == s + 1 + k && memcmp(w + s + 1, u->name, k) == 0)))
        return 1;
    return has_word(u->lib->desc->provides, w, n);
}

/* Names who provides the word, and what sits in that slot now. */
static int misfit(const pbi_pipeline *p, const pbi_use *u, const char *w, int n, pb_err *err)
{
    const pbi_library *const *libs = NULL;
    const char *slot = NULL;
    char who[128] = "", now[700] = "";
    int n_libs = 0;
    for (int i = 0; i < pbi_n_slots; i++)
        if (strncmp(w, pbi_slots[i], strlen(pbi_slots[i])) == 0 && w[strlen(pbi_slots[i])] == '.')
            slot = pbi_slots[i];
    if (!slot && pbi_loader_list(&libs, &n_libs, NULL, NULL) == 0)
        for (int i = 0; i < n_libs; i++)
            if (has_word(libs[i]->desc->provides, w, (size_t)n)) {
                size_t used = strlen(who);
                slot = libs[i]->slot;
                snprintf(who + used, sizeof who - used, "%s%s-%s", used ? ", " : "; provided by ",
                         libs[i]->slot, libs[i]->name);
            }
    const pbi_use *there = slot ? pbi_pipeline_use(p, slot, 0) : NULL;
    if (there)
        snprintf(now, sizeof now, ", but [%s] is %s (%s)", slot, there->name, there->origin);
    else if (slot)
        snprintf(now, sizeof now, ", but [%s] is empty", slot);
    return pbi_err(err, PB_E_INVAL, "%s: [%s] %s needs '%.*s'%s%s", u->origin, u->slot, u->name, n,
                   w, now[0] ? now : ", which nothing in this pipeline provides", who);
}

static int check_composition(const pbi_pipeline *p, pb_err *err)
{
    for (int i = 0; i < p->n_uses; i++)
        for (const char *w = p->uses[i]->lib->desc->needs; w && *w;) {
            size_t n = strcspn(w, " ");
            int ok = n == 0;
            for (int k = 0; k < p->n_uses && !ok; k++)
                ok = provides(p->uses[k], w, n);
            if (!ok)
                return misfit(p, p->uses[i], w, (int)n, err);
            w += n + (w[n] == ' ');
        }
    return 0;
}

/* ---- public ------------------------------------------------------------ */

static int build(pbi_pipeline *p, const pbi_layers *l, pb_err *err)
{
    int rc = resolve(l, "pipeline", NULL, pbi_core_options, "the core", p->path, &p->core,
                     &p->core_settings, &p->n_core_settings, err);
    for (int i = 0; i < pbi_n_slots && !rc; i++)
        rc = fill_slot(p, l, pbi_slots[i], err);
    return rc ? rc : check_composition(p, err);
}

static int parse_n(const char *text, size_t n, const char *path, int n_set, const char *const *set,
                   pbi_pipeline **out, pb_err *err)
{
    pbi_layers l;
    *out = NULL;
    int rc = pbi_layers_read(text, n, path, &l, err);
    if (rc)
        return rc;
    rc = pbi_layers_set(&l, n_set, set, err);
    pbi_pipeline *p = calloc(1, sizeof *p);
    if (p) {
        p->refs = 1;
        p->path = strdup(path);
    }
    if (!p || !p->path)
        rc = pbi_err(err, PB_E_NOMEM, "out of memory");
    if (!rc)
        rc = build(p, &l, err);
    pbi_layers_free(&l);
    if (rc) {
        pbi_pipeline_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

int pbi_pipeline_parse(const char *text, const char *path, int n_set, const char *const *set,
                       pbi_pipeline **out, pb_err *err)
{
    return parse_n(text, strlen(text), path, n_set, set, out, err);
}

int pbi_pipeline_load(const char *path, int n_set, const char *const *set, pbi_pipeline **out,
                      pb_err *err)
{
    *out = NULL;
    char *text = NULL;
    size_t n = 0;
    int rc = pbi_ini_read(path, &text, &n, err);
    if (!rc)
        rc = parse_n(text, n, path, n_set, set, out, err);
    free(text);
    return rc;
}

const pbi_pipeline *pbi_pipeline_retain(const pbi_pipeline *p)
{
    ((pbi_pipeline *)p)->refs++; /* its only mutable part */
    return p;
}

void pbi_pipeline_free(const pbi_pipeline *pipeline)
{
    pbi_pipeline *p = (pbi_pipeline *)pipeline;
    if (!p || --p->refs > 0)
        return;
    for (int i = 0; i < p->n_uses; i++)
        free_use(p->uses[i]);
    free(p->uses);
    free_settings(p->core_settings, p->n_core_settings);
    free(p->path);
    free(p);
}

const pbi_use *pbi_pipeline_use(const pbi_pipeline *p, const char *slot, int i)
{
    for (int k = 0; k < p->n_uses; k++)
        if (strcmp(p->uses[k]->slot, slot) == 0 && i-- == 0)
            return p->uses[k];
    return NULL;
}

/* ---- numeric key ------------------------------------------------------- */

typedef struct text {
    char *buf;
    size_t n, at;
    XXH3_state_t *hash;
} text;

static void append(text *t, const char *s)
{
    size_t len = strlen(s);
    XXH3_64bits_update(t->hash, s, len);
    for (size_t i = 0; i < len && t->at + 1 < t->n; i++)
        t->buf[t->at++] = s[i];
    if (t->n)
        t->buf[t->at] = 0;
}

static void append_settings(text *t, const pbi_setting *s, int n)
{
    for (int i = 0; i < n; i++)
        if (s[i].opt->flags & PB_O_OUTPUT) {
            append(t, " ");
            append(t, s[i].opt->name);
            append(t, "=");
            append(t, s[i].text ? s[i].text : "");
        }
}

static int n_output_options(const pbi_use *u)
{
    int n = 0;
    for (int i = 0; i < u->n_settings; i++)
        n += (u->settings[i].opt->flags & PB_O_OUTPUT) != 0;
    return n;
}

void pbi_pipeline_numeric_key(const pbi_pipeline *p, char *buf, size_t n, uint64_t *hash)
{
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    text t = { .buf = buf, .n = n, .hash = &state };
    const pbi_use *backend = pbi_pipeline_use(p, "backend", 0);
    append(&t, backend ? backend->name : "none");
    if (backend)
        append_settings(&t, backend->settings, backend->n_settings);
    append_settings(&t, p->core_settings, p->n_core_settings);
    for (int i = 0; i < p->n_uses; i++) {
        const pbi_use *u = p->uses[i];
        if (u == backend ||
            ((u->lib->desc->flags & PB_CLASS_MASK) == PB_EXACT && !n_output_options(u)))
            continue;
        append(&t, "; ");
        append(&t, u->slot);
        append(&t, " ");
        append(&t, u->name);
        append_settings(&t, u->settings, u->n_settings);
    }
    if (hash)
        *hash = XXH3_64bits_digest(&state);
}
