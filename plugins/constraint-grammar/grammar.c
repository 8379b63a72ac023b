/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-grammar/grammar.c - the whole answer derives from a GBNF grammar, recursion
 * included. Options and life; syntax is gbnf.c's, machine and masks are constraint-common's.
 * Class: LOSSY - answers differ by intent.
 *
 * Invariant: a mask is a function of the grammar and the answer's tokens, drafts included.
 * Test: plugins/constraint-grammar/test_grammar.c
 */
#include "../constraint-common/masks.h"
#include "gbnf.h"

#include <string.h>

typedef struct config {
    int64_t max_states, max_depth, cache;
    const char *file, *text;
} config;

static int check(const void *cfg, pb_err *err)
{
    const config *c = cfg;
    if (c->file && c->file[0] && c->text && c->text[0])
        return pbc_fail(err, PB_E_INVAL, "file and text are both given; one of them is enough");
    return 0;
}

static int compile(pbc_masks *k, const config *c, pb_err *err)
{
    static const char any[] = "root ::= [^\\n]+";
    char *from_file = NULL;
    const char *text = c->text && c->text[0] ? c->text : any;
    size_t n = strlen(text);
    if (c->file && c->file[0]) {
        int rc = pbc_read_file(k->host, k->g.who, c->file, &from_file, &n, err);
        if (rc)
            return rc;
        text = from_file;
    }
    int32_t root = gbnf_parse(&k->g, text, n, "root", err);
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
    int rc = pbc_masks_create(host, common, "constraint-grammar", &k, err);
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
    PB_STR(config, file, "", PB_O_OUTPUT,
           "a GBNF file; its rule root is what the whole answer must be. At most 1 MiB"),
    PB_STR(
        config, text, "", PB_O_OUTPUT,
        "the grammar itself, for one that fits a line: root ::= \"yes\" | \"no\". Without file and "
        "text the answer is one line of anything"),
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
    .name = "grammar",
    .version = "0.1",
    .license = "MIT",
    .summary = "the whole answer derives from a GBNF grammar",
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
