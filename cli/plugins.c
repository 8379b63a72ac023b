/* SPDX-License-Identifier: MIT
 *
 * cli/plugins.c - patchbay plugins: what the search path offers, what cannot be loaded, and
 * what cannot run on this machine.
 */
#include "cli.h"

#include <inttypes.h>
#include <stdio.h>

typedef struct bad_files {
    json_t *json;
    int n;
} bad_files;

static void on_bad(void *arg, const char *path, const pb_err *why)
{
    bad_files *b = arg;
    json_t *j = json_object();
    b->n++;
    json_object_set_new(j, "path", json_string_nocheck(path));
    json_object_set_new(j, "error", json_string_nocheck(why->msg));
    json_array_append_new(b->json, j);
}

static json_t *plugin_json(const pbi_library *l, int usable, const char *why)
{
    json_t *j = json_object(), *counters = json_array();
    char hex[20];
    snprintf(hex, sizeof hex, "%016" PRIx64, l->hash);
    json_object_set_new(j, "slot", json_string_nocheck(l->slot));
    json_object_set_new(j, "plugin", json_string_nocheck(l->name));
    json_object_set_new(j, "version", json_string_nocheck(l->desc->version));
    json_object_set_new(j, "license", json_string_nocheck(l->desc->license));
    json_object_set_new(j, "summary", json_string_nocheck(l->desc->summary));
    json_object_set_new(j, "class", json_string_nocheck(pbi_class_name(l->desc->flags)));
    json_object_set_new(j, "provides",
                        l->desc->provides ? json_string_nocheck(l->desc->provides) : json_null());
    json_object_set_new(j, "needs",
                        l->desc->needs ? json_string_nocheck(l->desc->needs) : json_null());
    json_object_set_new(j, "path", json_string_nocheck(l->path));
    json_object_set_new(j, "hash", json_string_nocheck(hex));
    json_object_set_new(j, "usable", json_boolean(usable));
    json_object_set_new(j, "why_not", usable ? json_null() : json_string_nocheck(why));
    json_object_set_new(j, "options", pbi_options_json(l->desc->options));
    for (const pb_counter *c = l->desc->counters; c && c->name; c++) {
        json_t *k = json_object();
        json_object_set_new(k, "name", json_string_nocheck(c->name));
        json_object_set_new(k, "unit", c->unit ? json_string_nocheck(c->unit) : json_null());
        json_object_set_new(k, "help", json_string_nocheck(c->help));
        json_array_append_new(counters, k);
    }
    json_object_set_new(j, "counters", counters);
    return j;
}

static void print_plugin(const pbi_library *l, int usable, const char *why)
{
    printf("%-11s %-12s %-8s %-12s %s\n", l->slot, l->name, l->desc->version,
           pbi_class_name(l->desc->flags), l->desc->summary);
    if (!usable)
        printf("%-11s %-12s not usable here: %s\n", "", "", why);
}

int pbi_cmd_plugins(int argc, char **argv)
{
    pbi_common c = { 0 };
    const pbi_arg table[] = { PBI_ARG_JSON(&c), PBI_ARGS_END };
    int n, rc = pbi_args(argc, argv, table, &n);
    if (rc != PBI_GO)
        return rc;
    if (n)
        return pbi_usage(argv[0], "unexpected '%s'", argv[1]);
    const pbi_library *const *libs;
    bad_files bad = { .json = json_array() };
    if (pbi_loader_list(&libs, &n, on_bad, &bad)) {
        json_decref(bad.json);
        return pbi_usage(argv[0], "out of memory");
    }
    json_t *all = json_array();
    for (int i = 0; i < n; i++) {
        pb_err why = { 0 };
        int usable = libs[i]->desc->probe(&why) > 0;
        if (!usable && !why.code)
            pbi_err(&why, PB_E_UNSUPPORTED, "its probe says no");
        if (c.json)
            json_array_append_new(all, plugin_json(libs[i], usable, why.msg));
        else
            print_plugin(libs[i], usable, why.msg);
    }
    if (c.json) {
        json_t *j = json_object();
        json_object_set_new(j, "plugins", all);
        json_object_set_new(j, "broken", bad.json);
        return pbi_print_json(j);
    }
    for (int i = 0; i < bad.n; i++)
        fprintf(stderr, "patchbay plugins: broken: %s\n",
                json_string_value(json_object_get(json_array_get(bad.json, (size_t)i), "error")));
    json_decref(all);
    json_decref(bad.json);
    return 0;
}
