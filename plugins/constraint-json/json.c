/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-json/json.c - the whole answer is JSON that is valid under a schema. Options
 * and life; schema.c translates, machine and masks are constraint-common's. Class: LOSSY - answers
 * differ by intent.
 *
 * Invariant: a mask is a function of the schema and the answer's tokens, drafts included.
 * Test: plugins/constraint-json/test_json.c
 */
#include "../constraint-common/masks.h"
#include "schema.h"

#include <string.h>

typedef struct config {
    int64_t max_states, max_depth, cache, spaces;
    const char *file, *schema;
} config;

static int check(const void *cfg, pb_err *err)
{
    const config *c = cfg;
    if (c->file && c->file[0] && c->schema && c->schema[0])
        return pbc_fail(err, PB_E_INVAL, "file and schema are both given; one of them is enough");
    return 0;
}

static int compile(pbc_masks *k, const config *c, pb_err *err)
{
    char *from_file = NULL;
    const char *text = c->schema && c->schema[0] ? c->schema : "true";
    size_t n = strlen(text);
    if (c->file && c->file[0]) {
        int rc = pbc_read_file(k->host, k->g.who, c->file, &from_file, &n, err);
        if (rc)
            return rc;
        text = from_file;
    }
    int32_t root = schema_translate(&k->g, text, n, c->spaces, err);
    k->host->free(k->host, from_file);
    return root < 0 ? err->code : pbc_masks_compile(k, root, 0, err);
}

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    const config *c = cfg;
    pbc_masks *k = NULL;
    pbc_config common = { .max_states = c->max_states,
                          .max_depth = c->max_depth,
                          .cache = c->cache };
    int rc = pbc_masks_create(host, common, "constraint-json", &k, err);
    if (rc)
        return rc;
    rc = compile(k, c, err);
    if (rc) {
        pbc_masks_destroy(k);
        return rc;
    }
    *self = k;
    return 0;
}

static const pb_option options[] = {
    PB_STR(config, file, "", PB_O_OUTPUT, "a JSON schema as a file, at most 1 MiB"),
    PB_STR(
        config, schema, "", PB_O_OUTPUT,
        "the schema itself, as {\"type\": \"object\", ...}, in one line. Without file and schema "
        "the answer is any JSON value"),
    PB_INT(config, spaces, "1", "0", "16", PB_O_OUTPUT, "characters",
           "most blanks and line feeds at each place that allows them; 0 writes compactly, which "
           "is shorter, though many models write blanks more readily"),
    PBC_STATES(config, "8192"),
    PBC_DEPTH(config),
    PBC_CACHE(config),
    PB_OPTIONS_END
};

static const pb_counter counters[] = { PBC_COUNTERS, PB_COUNTERS_END };

static const pb_constraint constraint = { .size = sizeof constraint, .mask = pbc_masks_mask };
static const pb_iface ifaces[] = { { "constraint/1", &constraint }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .flags = PB_LOSSY,
    .slot = "constraint",
    .name = "json",
    .version = "0.1",
    .license = "MIT",
    .summary = "the whole answer is JSON under a schema",
    .options = options,
    .counters = counters,
    .config_size = sizeof(config),
    .stats_size = sizeof(pbc_stats),
    .ifaces = ifaces,
    .check = check,
    .create = create,
    .start = pbc_masks_start,
    .reset = pbc_masks_reset,
    .stop = pbc_masks_stop,
    .destroy = pbc_masks_destroy,
};
