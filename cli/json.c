/* SPDX-License-Identifier: MIT
 * cli/json.c - pipelines, plugins and option tables as JSON. Test: tests/e2e/cli.sh. */
#include "cli.h"
#include "options.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int pbi_print_json(json_t *value)
{
    int bad = !value || json_dumpf(value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) ||
              putchar('\n') == EOF || fflush(stdout);
    json_decref(value);
    if (bad)
        fprintf(stderr, "patchbay: system: cannot write JSON to stdout\n");
    return bad ? 6 : 0;
}

const char *pbi_class_name(uint32_t flags)
{
    static const char *const names[] = { "exact", "numeric", "distribution", "lossy" };
    return names[flags & PB_CLASS_MASK];
}

static json_t *text(const char *s)
{
    return s ? json_string_nocheck(s) : json_null();
}

json_t *pbi_options_json(const pb_option *table)
{
    static const char *const types[] = { "", "bool", "int", "bytes", "float", "str", "enum" };
    json_t *all = json_array();
    for (const pb_option *o = table; o && o->name; o++) {
        char range[256];
        pbi_option_range(o, range, sizeof range);
        json_t *j = json_object();
        json_object_set_new(j, "name", text(o->name));
        json_object_set_new(j, "type", text(types[o->type]));
        json_object_set_new(j, "default", text(o->def));
        json_object_set_new(j, "range", text(range));
        json_object_set_new(j, "unit", text(o->unit));
        json_object_set_new(j, "help", text(o->help));
        json_object_set_new(j, "required", json_boolean(o->flags & PB_O_REQUIRED));
        json_object_set_new(j, "may_change_output", json_boolean(o->flags & PB_O_OUTPUT));
        json_object_set_new(j, "deprecated", json_boolean(o->flags & PB_O_DEPRECATED));
        json_array_append_new(all, j);
    }
    return all;
}

static json_t *settings_json(const pbi_setting *s, int n)
{
    json_t *all = json_object();
    for (int i = 0; i < n; i++) {
        json_t *j = json_object();
        json_object_set_new(j, "value", text(s[i].text));
        json_object_set_new(j, "origin", text(s[i].origin));
        json_object_set_new(j, "may_change_output", json_boolean(s[i].opt->flags & PB_O_OUTPUT));
        json_object_set_new(all, s[i].opt->name, j);
    }
    return all;
}

json_t *pbi_pipeline_json(const pbi_pipeline *p)
{
    char key[2048], hex[20];
    uint64_t hash;
    pbi_pipeline_numeric_key(p, key, sizeof key, &hash);
    snprintf(hex, sizeof hex, "%016" PRIx64, hash);
    json_t *j = json_object(), *uses = json_array();
    json_object_set_new(j, "path", text(p->path));
    json_object_set_new(j, "numeric_key", text(key));
    json_object_set_new(j, "numeric_key_hash", text(hex));
    json_object_set_new(j, "options", settings_json(p->core_settings, p->n_core_settings));
    for (int i = 0; i < p->n_uses; i++) {
        const pbi_use *u = p->uses[i];
        json_t *k = json_object();
        snprintf(hex, sizeof hex, "%016" PRIx64, u->lib->hash);
        json_object_set_new(k, "slot", text(u->slot));
        json_object_set_new(k, "plugin", text(u->name));
        json_object_set_new(k, "version", text(u->lib->desc->version));
        json_object_set_new(k, "class", text(pbi_class_name(u->lib->desc->flags)));
        json_object_set_new(k, "path", text(u->lib->path));
        json_object_set_new(k, "hash", text(hex));
        json_object_set_new(k, "origin", text(u->origin));
        json_object_set_new(k, "options", settings_json(u->settings, u->n_settings));
        json_array_append_new(uses, k);
    }
    json_object_set_new(j, "plugins", uses);
    return j;
}
