/* SPDX-License-Identifier: MIT
 *
 * core/conform_model.c - model/1 is given metadata that it cannot know, and must answer with a
 * reason, not with a program or a crash.
 */
#define _GNU_SOURCE 1
#include "conform_checks.h"
#include "program.h"

static int try_build(pbi_lint *l, const pb_meta *meta, const char *what)
{
    pbi_rig r = { 0 };
    pb_err err = { 0 };
    pbi_program *p = NULL;
    int status = PBI_PASS, rc = pbi_rig_open(&r, l->lib, 0, NULL, &err);
    const pb_model *m = rc ? NULL : pbi_rig_iface(&r, "model/1");
    if (rc)
        status = pbi_say(l, PBI_FAIL, "with default options: %s", err.msg);
    if (!status && m->match(meta) != 0 && meta->n_kv == 0)
        status = pbi_say(l, PBI_FAIL, "match() claims %s", what);
    err = (pb_err){ 0 };
    if (!status && !pbi_program_new(&p, &err)) {
        pbi_rig_at(&r, "build");
        rc = m->build(r.self, meta, 64, pbi_program_builder(p), &err);
        pbi_rig_at(&r, NULL);
        if (rc >= 0)
            status = pbi_say(l, PBI_FAIL, "build() makes a program of %s", what);
        else if (!err.msg[0])
            status = pbi_say(l, PBI_FAIL, "build() of %s fails without a reason", what);
    }
    if (p)
        pbi_program_free(p);
    if (pbi_rig_done(&r, &err) && !status)
        status = pbi_say(l, PBI_FAIL, "after %s: %s", what, err.msg);
    return status;
}

int pbi_check_model(pbi_lint *l)
{
    static const pb_meta_kv foreign[] = {
        { .key = "general.architecture", .type = PB_M_STR, .n = -1, .s = { "no-such-model", 13 } },
        { .key = "general.name", .type = PB_M_INT, .n = -1, .i = -1 }
    };
    pb_meta meta = { .size = sizeof meta, .naming = "gguf", .path = "lint" };
    int status = try_build(l, &meta, "metadata without entries");
    meta.naming = "hf";
    if (!status)
        status = try_build(l, &meta, "an empty folder of Hugging Face names");
    meta.kv = foreign;
    meta.n_kv = 2;
    if (!status)
        status = try_build(l, &meta, "an unknown architecture");
    return status;
}
