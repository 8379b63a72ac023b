/* SPDX-License-Identifier: MIT
 *
 * cli/diff.c - patchbay diff: effective values that differ between two pipelines, and whether
 * a difference may change the output.
 */
#include "cli.h"
#include "layers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One effective value; name is "slot", or "slot.option". */
typedef struct value {
    char name[128];
    const char *text, *origin;
    int changes; /* may change the output */
} value;

typedef struct values {
    value v[2048];
    int n;
} values;

static void add(values *l, const char *slot, const char *name, const char *option, const char *text,
                const char *origin, int changes)
{
    if (l->n == (int)(sizeof l->v / sizeof *l->v))
        return;
    value *v = &l->v[l->n++];
    *v = (value){ .text = text ? text : "", .origin = origin ? origin : "", .changes = changes };
    snprintf(v->name, sizeof v->name, "%s%s%s%s%s", slot, name ? "." : "", name ? name : "",
             option ? "." : "", option ? option : "");
}

/* A backend is the device kind; other plugins say by their class whether they change tokens. */
static int plugin_changes(const pbi_use *u)
{
    return strcmp(u->slot, "backend") == 0 || (u->lib->desc->flags & PB_CLASS_MASK) != PB_EXACT;
}

static void collect(const pbi_pipeline *p, values *l)
{
    l->n = 0;
    for (int i = 0; i < p->n_core_settings; i++)
        add(l, "pipeline", NULL, p->core_settings[i].opt->name, p->core_settings[i].text,
            p->core_settings[i].origin, (p->core_settings[i].opt->flags & PB_O_OUTPUT) != 0);
    for (int i = 0; i < p->n_uses; i++) {
        const pbi_use *u = p->uses[i];
        const char *name = pbi_slot_is_list(u->slot) ? u->name : NULL;
        add(l, u->slot, name, NULL, u->name, u->origin, plugin_changes(u));
        for (int k = 0; k < u->n_settings; k++)
            add(l, u->slot, name, u->settings[k].opt->name, u->settings[k].text,
                u->settings[k].origin, (u->settings[k].opt->flags & PB_O_OUTPUT) != 0);
    }
}

static const value *find(const values *l, const char *name)
{
    for (int i = 0; i < l->n; i++)
        if (strcmp(l->v[i].name, name) == 0)
            return &l->v[i];
    return NULL;
}

static void report(const value *a, const value *b, json_t *all)
{
    const value *any = a ? a : b;
    json_t *j = json_object();
    json_object_set_new(j, "name", json_string_nocheck(any->name));
    json_object_set_new(j, "a", a ? json_string_nocheck(a->text) : json_null());
    json_object_set_new(j, "b", b ? json_string_nocheck(b->text) : json_null());
    json_object_set_new(j, "a_origin", a ? json_string_nocheck(a->origin) : json_null());
    json_object_set_new(j, "b_origin", b ? json_string_nocheck(b->origin) : json_null());
    json_object_set_new(j, "may_change_output",
                        json_boolean((a && a->changes) || (b && b->changes)));
    json_array_append_new(all, j);
}

json_t *pbi_pipeline_diff(const pbi_pipeline *pa, const pbi_pipeline *pb)
{
    values *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    char key_a[2048], key_b[2048];
    json_t *all = json_array(), *j = json_object();
    if (!a || !b) {
        free(a);
        free(b);
        json_decref(all);
        json_decref(j);
        return NULL;
    }
    collect(pa, a);
    collect(pb, b);
    for (int i = 0; i < a->n; i++) {
        const value *v = find(b, a->v[i].name);
        if (!v || strcmp(v->text, a->v[i].text) != 0)
            report(&a->v[i], v, all);
    }
    for (int i = 0; i < b->n; i++)
        if (!find(a, b->v[i].name))
            report(NULL, &b->v[i], all);
    free(a);
    free(b);
    pbi_pipeline_numeric_key(pa, key_a, sizeof key_a, NULL);
    pbi_pipeline_numeric_key(pb, key_b, sizeof key_b, NULL);
    json_object_set_new(j, "differences", all);
    json_object_set_new(j, "same_numeric_key", json_boolean(strcmp(key_a, key_b) == 0));
    json_object_set_new(j, "a_numeric_key", json_string_nocheck(key_a));
    json_object_set_new(j, "b_numeric_key", json_string_nocheck(key_b));
    return j;
}

static const char *text_of(const json_t *j, const char *key)
{
    const char *s = json_string_value(json_object_get(j, key));
    return s ? s : "-";
}

static int print(json_t *j)
{
    const json_t *all = json_object_get(j, "differences"), *d;
    size_t i;
    json_array_foreach(all, i, d) printf(
        "%-28s %-20s %-20s %s\n", text_of(d, "name"), text_of(d, "a"), text_of(d, "b"),
        json_is_true(json_object_get(d, "may_change_output")) ? "may change the output" : "");
    if (!json_array_size(all))
        puts("no difference");
    else
        printf("numeric keys: %s\n", json_is_true(json_object_get(j, "same_numeric_key"))
                                         ? "equal; the same tokens must come out"
                                         : "different; other tokens may come out");
    json_decref(j);
    return 0;
}

int pbi_cmd_diff(int argc, char **argv)
{
    pbi_common c = { 0 };
    const pbi_arg table[] = { PBI_ARG_SET(&c), PBI_ARG_JSON(&c), PBI_ARGS_END };
    int n, rc = pbi_args(argc, argv, table, &n);
    if (rc != PBI_GO)
        return rc;
    if (n != 2)
        return pbi_usage(argv[0], "two pipelines are needed: patchbay diff A.ini B.ini");
    pbi_pipeline *p[2] = { NULL, NULL };
    pb_err err = { 0 };
    rc = 0;
    for (int i = 0; i < 2 && !rc; i++) {
        c.pipeline = argv[i + 1];
        rc = pbi_common_load(&c, &p[i], &err);
    }
    json_t *j = rc ? NULL : pbi_pipeline_diff(p[0], p[1]);
    if (!rc && !j)
        rc = pbi_err(&err, PB_E_NOMEM, "out of memory");
    rc = rc ? pbi_fail(argv[0], &err) : c.json ? pbi_print_json(j) : print(j);
    pbi_pipeline_free(p[0]);
    pbi_pipeline_free(p[1]);
    return rc;
}
