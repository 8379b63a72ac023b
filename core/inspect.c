/* SPDX-License-Identifier: MIT
 *
 * core/inspect.c - is this descriptor one that the core can work with?
 * Every refusal says which field, which value, and what would be right. Test:
 * tests/broken.
 */
#include "inspect.h"
#include "loader.h"
#include "options.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_ENTRIES = 256, MAX_BLOCK = 1 << 20 };

int pbi_inspect_head(const pb_plugin *d, size_t size_avail, pb_err *err)
{
    if (size_avail < 2 * sizeof(uint32_t) || d->magic != PB_MAGIC)
        return pbi_err(err, PB_E_PLUGIN,
                       "symbol pb_plugin_v0 is no plugin descriptor (magic %08x, expected %08x); "
                       "define it with PB_PLUGIN and PB_HEAD",
                       size_avail < 2 * sizeof(uint32_t) ? 0 : d->magic, PB_MAGIC);
    if (d->size != sizeof(pb_plugin) || size_avail < sizeof(pb_plugin))
        return pbi_err(err, PB_E_PLUGIN,
                       "its descriptor has %u bytes, this patchbay's has %zu (ABI %d.%d); rebuild "
                       "the plugin against this patchbay's headers",
                       d->size, sizeof(pb_plugin), PB_ABI_MAJOR, PB_ABI_MINOR);
    if (d->abi_minor != PB_ABI_MINOR)
        return pbi_err(err, PB_E_PLUGIN,
                       "built for plugin ABI %d.%u, this patchbay speaks %d.%d; rebuild the plugin "
                       "against this patchbay's headers",
                       PB_ABI_MAJOR, d->abi_minor, PB_ABI_MAJOR, PB_ABI_MINOR);
    if (d->layout != PB_LAYOUT)
        return pbi_err(err, PB_E_PLUGIN,
                       "built against other headers: layout %016llx, this patchbay has %016llx; "
                       "rebuild the plugin against this patchbay's headers",
                       (unsigned long long)d->layout, (unsigned long long)PB_LAYOUT);
    return 0;
}

static int is_name(const char *s, int dash)
{
    if (!s || *s < 'a' || *s > 'z')
        return 0;
    for (; *s; s++)
        if (!((*s >= 'a' && *s <= 'z') || (*s >= '0' && *s <= '9') || *s == '_' ||
              (dash && *s == '-')))
            return 0;
    return 1;
}

int pbi_inspect_identity(const pb_plugin *d, pb_err *err)
{
    if (!d->slot || !pbi_slot_iface(d->slot))
        return pbi_err(err, PB_E_PLUGIN, "slot '%.40s' is unknown", d->slot ? d->slot : "(NULL)");
    if (!is_name(d->name, 1) || strlen(d->name) > 40)
        return pbi_err(err, PB_E_PLUGIN, "name '%.60s' is not of the form [a-z][a-z0-9_-]*",
                       d->name ? d->name : "(NULL)");
    const char *const text[] = { d->version, d->license, d->summary };
    static const char *const field[] = { "version", "license", "summary" };
    for (int i = 0; i < 3; i++)
        if (!text[i] || !*text[i])
            return pbi_err(err, PB_E_PLUGIN, "field %s is missing", field[i]);
    if (d->option_size != sizeof(pb_option) || d->counter_size != sizeof(pb_counter))
        return pbi_err(err, PB_E_PLUGIN, "option_size %u, counter_size %u: expected %zu and %zu",
                       d->option_size, d->counter_size, sizeof(pb_option), sizeof(pb_counter));
    if (d->config_size > MAX_BLOCK || d->stats_size > MAX_BLOCK)
        return pbi_err(err, PB_E_PLUGIN, "config_size %u, stats_size %u: the limit is %d",
                       d->config_size, d->stats_size, MAX_BLOCK);
    return 0;
}

static size_t field_bytes(uint32_t type)
{
    return type == PB_T_BOOL || type == PB_T_ENUM ? sizeof(int32_t)
           : type == PB_T_STR                     ? sizeof(char *)
                                                  : sizeof(int64_t);
}

/* The default, and the bounds themselves, must be what a user may type. */
static int check_default(const pb_option *o, pb_err *err)
{
    union {
        int64_t i;
        double f;
        const char *s;
    } config;
    pb_option at0 = *o;
    at0.offset = 0;
    const char *const text[] = { o->def, o->min, o->max };
    static const char *const what[] = { "default", "minimum", "maximum" };
    if (!o->def && o->type != PB_T_STR && !(o->flags & PB_O_REQUIRED))
        return pbi_err(err, PB_E_PLUGIN, "option %s has no default and is not PB_O_REQUIRED",
                       o->name);
    for (int i = 0; i < 3; i++) {
        if (i) /* a bound need not be a power of two */
            at0.flags &= ~(uint32_t)PB_O_POW2;
        pb_err why = { 0 };
        if (text[i] && o->type != PB_T_STR && pbi_option_set(&at0, text[i], &config, &why))
            return pbi_err(err, PB_E_PLUGIN, "option %s: its %s is not valid: %.300s", o->name,
                           what[i], why.msg);
    }
    return 0;
}

static int check_option(const pb_plugin *d, int i, pb_err *err)
{
    const pb_option *o = &d->options[i];
    if (!is_name(o->name, 0) || strcmp(o->name, "plugin") == 0)
        return pbi_err(err, PB_E_PLUGIN,
                       "option name '%.60s' is not [a-z][a-z0-9_]* or is 'plugin'", o->name);
    if (o->type < PB_T_BOOL || o->type > PB_T_ENUM)
        return pbi_err(err, PB_E_PLUGIN, "option %s: unknown type %u", o->name, o->type);
    size_t n = field_bytes(o->type);
    if (o->offset > d->config_size || d->config_size - o->offset < n || o->offset % n)
        return pbi_err(err, PB_E_PLUGIN, "option %s: offset %zu in a config of %u bytes", o->name,
                       o->offset, d->config_size);
    if (!o->help || !*o->help)
        return pbi_err(err, PB_E_PLUGIN, "option %s has no help text", o->name);
    if (o->type == PB_T_ENUM && (!o->choices || !*o->choices))
        return pbi_err(err, PB_E_PLUGIN, "option %s has no choices", o->name);
    for (int k = 0; k < i; k++) {
        const pb_option *p = &d->options[k];
        if (strcmp(p->name, o->name) == 0)
            return pbi_err(err, PB_E_PLUGIN, "option %s occurs twice in the table", o->name);
        if (p->offset < o->offset + n && o->offset < p->offset + field_bytes(p->type))
            return pbi_err(err, PB_E_PLUGIN, "options %s and %s share bytes of the config", p->name,
                           o->name);
    }
    return check_default(o, err);
}

static int check_tables(const pb_plugin *d, pb_err *err)
{
    int rc = 0;
    for (int i = 0; !rc && d->options && d->options[i].name; i++)
        rc = i < MAX_ENTRIES ? check_option(d, i, err)
                             : pbi_err(err, PB_E_PLUGIN,
                                       "more than %d options; does the table end "
                                       "with PB_OPTIONS_END?",
                                       MAX_ENTRIES);
    for (int i = 0; !rc && d->counters && d->counters[i].name; i++) {
        const pb_counter *c = &d->counters[i];
        if (i >= MAX_ENTRIES)
            rc = pbi_err(err, PB_E_PLUGIN,
                         "more than %d counters; does the table end with "
                         "PB_COUNTERS_END?",
                         MAX_ENTRIES);
        else if (!is_name(c->name, 0) || !c->help || !*c->help)
            rc = pbi_err(err, PB_E_PLUGIN, "counter '%.60s' lacks a proper name or help", c->name);
        else if (c->offset > d->stats_size || d->stats_size - c->offset < sizeof(int64_t) ||
                 c->offset % sizeof(int64_t))
            rc = pbi_err(err, PB_E_PLUGIN, "counter %s: offset %zu in a stats block of %u bytes",
                         c->name, c->offset, d->stats_size);
        for (int k = 0; k < i && !rc; k++)
            if (strcmp(d->counters[k].name, c->name) == 0)
                rc = pbi_err(err, PB_E_PLUGIN, "counter %s occurs twice in the table", c->name);
    }
    return rc;
}

/* ---- lifecycle defaults ------------------------------------------------ */

static int probe_yes(pb_err *err)
{
    return 1;
}
static int check_yes(const void *config, pb_err *err)
{
    return 0;
}
static int start_nothing(void *self, const pb_run *run, pb_err *err)
{
    return 0;
}
static void stop_nothing(void *self)
{
}

static int copy_ifaces(pb_plugin *c, pb_err *err)
{
    int n = 0, offered = 0;
    const char *want = pbi_slot_iface(c->slot);
    for (; c->ifaces && c->ifaces[n].id && n < MAX_ENTRIES; n++)
        offered |= strcmp(c->ifaces[n].id, want) == 0;
    if (!offered)
        return pbi_err(err, PB_E_PLUGIN, "slot %s needs interface %s, which it does not offer",
                       c->slot, want);
    pb_iface *copy = calloc((size_t)n + 1, sizeof *copy);
    if (!copy)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    for (int i = 0; i < n; i++) {
        copy[i].id = c->ifaces[i].id;
        int rc = c->ifaces[i].vtbl
                     ? pbi_iface_normalise(copy[i].id, c->ifaces[i].vtbl, &copy[i].vtbl, err)
                     : pbi_err(err, PB_E_PLUGIN, "interface %s has no vtable", copy[i].id);
        if (rc) {
            while (i-- > 0)
                if (copy[i].vtbl != c->ifaces[i].vtbl)
                    free((void *)(uintptr_t)copy[i].vtbl);
            free(copy);
            return rc;
        }
    }
    c->ifaces = copy;
    return 0;
}

int pbi_inspect(const pb_plugin *d, const pb_plugin **out, pb_err *err)
{
    int rc = pbi_inspect_identity(d, err);
    if (!rc)
        rc = check_tables(d, err);
    if (rc)
        return rc;
    if (!d->create)
        return pbi_err(err, PB_E_PLUGIN, "lacks the mandatory function create()");
    if (!d->destroy)
        return pbi_err(err, PB_E_PLUGIN, "lacks the mandatory function destroy()");
    pb_plugin *c = malloc(sizeof *c);
    if (!c)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    *c = *d;
    if (!c->probe)
        c->probe = probe_yes;
    if (!c->check)
        c->check = check_yes;
    if (!c->start)
        c->start = start_nothing;
    if (!c->stop)
        c->stop = stop_nothing;
    /* reset stays NULL when missing: the instance is then created anew */
    rc = copy_ifaces(c, err);
    if (rc) {
        free(c);
        return rc;
    }
    *out = c;
    return 0;
}
