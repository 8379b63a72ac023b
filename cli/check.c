/* SPDX-License-Identifier: MIT
 *
 * cli/check.c - patchbay check: is a pipeline complete, in range and composable? Reads no
 * weights and creates no plugin. Goes on after a bad file; the exit status is the first one's.
 * A plugin that cannot run on this machine is a note, not a mistake: a pipeline for a GPU may be
 * checked where there is none.
 */
#include "cli.h"

#include <stdio.h>

/* Plugins whose probe says no; NULL p: none. */
static json_t *unusable(const pbi_pipeline *p, int quiet)
{
    json_t *all = json_array();
    for (int i = 0; p && i < p->n_uses; i++) {
        const pbi_use *u = p->uses[i];
        pb_err why = { 0 };
        if (u->lib->desc->probe(&why) > 0)
            continue;
        if (!quiet)
            fprintf(stderr, "%s: note: %s-%s cannot run on this machine%s%s\n", p->path, u->slot,
                    u->name, why.msg[0] ? ": " : "", why.msg);
        json_array_append_new(all, json_sprintf("%s-%s: %s", u->slot, u->name, why.msg));
    }
    return all;
}

static json_t *result_json(const char *path, const pb_err *err, const char *key, json_t *not_here)
{
    json_t *j = json_object();
    json_object_set_new(j, "path", json_string_nocheck(path));
    json_object_set_new(j, "ok", json_boolean(!err->code));
    if (err->code) {
        json_object_set_new(j, "kind", json_string_nocheck(pbi_err_kind(err->code)));
        json_object_set_new(j, "error", json_string_nocheck(err->msg));
    } else {
        json_object_set(j, "not_usable_here", not_here);
        json_object_set_new(j, "numeric_key", json_string_nocheck(key));
    }
    return j;
}

int pbi_cmd_check(int argc, char **argv)
{
    pbi_common c = { 0 };
    const pbi_arg table[] = { PBI_ARG_SET(&c), PBI_ARG_JSON(&c), PBI_ARGS_END };
    int n, status = 0, rc = pbi_args(argc, argv, table, &n);
    if (rc != PBI_GO)
        return rc;
    if (!n)
        return pbi_usage(argv[0], "which pipeline? patchbay check P.ini...");
    json_t *all = json_array();
    for (int i = 1; i <= n; i++) {
        pbi_pipeline *p = NULL;
        pb_err err = { 0 };
        char key[2048] = "";
        c.pipeline = argv[i];
        rc = pbi_common_load(&c, &p, &err);
        if (!rc)
            pbi_pipeline_numeric_key(p, key, sizeof key, NULL);
        else if (!status)
            status = pbi_err_exit(rc);
        json_t *not_here = unusable(p, c.json);
        if (c.json)
            json_array_append_new(all, result_json(argv[i], &err, key, not_here));
        else if (rc)
            pbi_fail(argv[0], &err);
        else
            printf("%s: ok (%s)\n", argv[i], key);
        json_decref(not_here);
        pbi_pipeline_free(p);
    }
    if (c.json)
        rc = pbi_print_json(all);
    else {
        json_decref(all);
        rc = 0;
    }
    return status ? status : rc;
}
