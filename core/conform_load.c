/* SPDX-License-Identifier: MIT
 *
 * core/conform_load.c - weights/1 is given files that are no model: it must answer with a
 * reason, not with a crash.
 */
#define _GNU_SOURCE 1
#include "conform_checks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* open() of a path that holds no model: an error with a reason. */
static int must_refuse(pbi_lint *l, const char *path, const char *what)
{
    pbi_rig r = { 0 };
    pb_err err = { 0 };
    int rc = pbi_rig_open(&r, l->lib, 0, NULL, &err), status = PBI_PASS;
    if (rc) {
        status = pbi_say(l, PBI_FAIL, "with default options: %s", err.msg);
    } else {
        const pb_weights *w = pbi_rig_iface(&r, "weights/1");
        err = (pb_err){ 0 };
        pbi_rig_at(&r, "open");
        rc = w->open(r.self, path, &err);
        pbi_rig_at(&r, NULL);
        if (rc >= 0)
            status = pbi_say(l, PBI_FAIL, "open() accepts %s", what);
        else if (!err.msg[0])
            status = pbi_say(l, PBI_FAIL, "open() of %s fails without a reason", what);
    }
    if (pbi_rig_done(&r, &err) && !status)
        status = pbi_say(l, PBI_FAIL, "after %s: %s", what, err.msg);
    return status;
}

static int write_file(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f)
        return -1;
    size_t k = fwrite(bytes, 1, n, f);
    return fclose(f) || k != n ? -1 : 0;
}

/* A model without a file (synthetic) has no wrong path. */
static int takes_no_file(pbi_lint *l)
{
    pbi_rig r = { 0 };
    pb_err err = { 0 };
    int none = 0;
    if (!pbi_rig_open(&r, l->lib, 0, NULL, &err)) {
        const pb_weights *w = pbi_rig_iface(&r, "weights/1");
        none = w->open(r.self, "", &err) == 0;
    }
    pbi_rig_done(&r, &err);
    return none;
}

int pbi_check_weights(pbi_lint *l)
{
    char dir[] = "/tmp/patchbay-lint-XXXXXX", path[64];
    unsigned char junk[4096];
    uint64_t rng = l->seed;
    if (takes_no_file(l))
        return pbi_say(l, PBI_SKIP, "needs no file");
    if (!mkdtemp(dir))
        return pbi_say(l, PBI_SKIP, "no temporary folder");
    snprintf(path, sizeof path, "%s/model", dir);
    int status = must_refuse(l, path, "a missing file");
    if (!status)
        status = must_refuse(l, dir, "a folder without a model");
    if (!status && !write_file(path, "", 0))
        status = must_refuse(l, path, "an empty file");
    for (int round = 0; round < 30 && !status; round++) {
        /* the first bytes of a GGUF, of a safetensors, of a JSON file, and of none */
        static const char magic[4][9] = { "GGUF\3\0\0\0", "\x80\0\0\0\0\0\0\0", "{\"a\":\"b\"",
                                          "" };
        for (size_t i = 0; i < sizeof junk; i++)
            junk[i] = (unsigned char)pbi_rig_random(&rng);
        if (round % 4 < 3)
            memcpy(junk, magic[round % 4], 8);
        if (!write_file(path, junk, (size_t)pbi_rig_below(&rng, sizeof junk) + 1))
            status = must_refuse(l, path, "a file of random bytes");
    }
    unlink(path);
    rmdir(dir);
    return status;
}
