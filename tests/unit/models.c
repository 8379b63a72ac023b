/* SPDX-License-Identifier: MIT
 *
 * tests/unit/models.c - see models.h.
 */
#include "models.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const pbi_services none;
static const pb_run run = { .size = sizeof run, .max_seqs = 1, .max_rows = 64, .max_ctx = 64 };

static const char *data_root(void)
{
    static char root[4096];
    const char *env = getenv("PATCHBAY_DATA"), *src = getenv("PATCHBAY_SRC");
    if (env)
        return env;
    snprintf(root, sizeof root, "%s/../shared/data", src ? src : ".");
    return root;
}

const char *data_path(const char *under)
{
    static char path[8192];
    snprintf(path, sizeof path, "%s/%s", data_root(), under);
    return path;
}

int data_absent(void)
{
    if (!access(data_root(), R_OK))
        return 0;
    print_message("skipped: no test material at %s (set PATCHBAY_DATA)\n", data_root());
    return 1;
}

int weights_open(plug *w, const char *name, const char *const *options, const char *path,
                 const pb_meta **meta, pb_err *err)
{
    plug_open(w, "weights", name, options, &none, &run);
    const pb_weights *v = w->vtbl;
    int rc = v->open(plug_self(w), path, err);
    *meta = v->meta(plug_self(w));
    if (!rc)
        assert_non_null(*meta);
    return rc;
}

int model_build(plug *m, const pb_meta *meta, pbi_program **out, pb_err *err)
{
    plug_open(m, "model", "llama", NULL, &none, &run);
    const pb_model *v = m->vtbl;
    assert_int_equal(pbi_program_new(out, err), 0);
    return v->build(plug_self(m), meta, 64, pbi_program_builder(*out), err);
}

const pb_tensor *meta_tensor(const pb_meta *m, const char *name)
{
    for (int32_t i = 0; i < m->n_tensors; i++)
        if (!strcmp(m->tensors[i].name, name))
            return &m->tensors[i];
    return NULL;
}

const pb_meta_kv *meta_key(const pb_meta *m, const char *key)
{
    for (int32_t i = 0; i < m->n_kv; i++)
        if (!strcmp(m->kv[i].key, key))
            return &m->kv[i];
    return NULL;
}
