/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-regex/regex.c - the whole answer matches a regular expression, which is
 * compiled once to a DFA over bytes. Only options and life are here; the parser, the machine and
 * the masks are constraint-common's. Class: LOSSY - answers differ by intent.
 *
 * Invariant: a mask is a function of the pattern and the answer's tokens, drafts included.
 * Test: plugins/constraint-regex/test_regex.c
 */
#include "../constraint-common/masks.h"
#include "../constraint-common/regex.h"

#include <string.h>

enum { DEPTH = 1 << 30 /* nesting is the pattern's own and finite */ };

typedef struct config {
    int64_t max_states, cache;
    const char *pattern;
} config;

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    const config *c = cfg;
    pbc_masks *k = NULL;
    pbc_config common = { .max_states = c->max_states, .max_depth = DEPTH, .cache = c->cache };
    int rc = pbc_masks_create(host, common, "constraint-regex", &k, err);
    if (rc)
        return rc;
    int32_t root = pbc_regex(&k->g, c->pattern, strlen(c->pattern), 0, err);
    rc = root < 0 ? err->code : pbc_masks_compile(k, root, 1, err);
    if (rc) {
        pbc_masks_destroy(k);
        return rc;
    }
    *self = k;
    return 0;
}

static const pb_option options[] = {
    PB_STR(
        config, pattern, ".+", PB_O_OUTPUT,
        "what the whole answer must match: literals, ., [classes], \\d \\w \\s, groups, |, * + ? "
        "{m,n}; ^ and $ are implied. \\d{4}-\\d{2}-\\d{2} is a date, (yes|no) a choice; .+ is one "
        "line. No look-around or back references"),
    PBC_STATES(config, "4096"), PBC_CACHE(config), PB_OPTIONS_END
};

static const pb_counter counters[] = { PBC_COUNTERS, PB_COUNTERS_END };

static const pb_constraint constraint = { .size = sizeof constraint, .mask = pbc_masks_mask };
static const pb_iface ifaces[] = { { "constraint/1", &constraint }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .flags = PB_LOSSY,
    .slot = "constraint",
    .name = "regex",
    .version = "0.1",
    .license = "MIT",
    .summary = "the whole answer matches a regular expression",
    .options = options,
    .counters = counters,
    .config_size = sizeof(config),
    .stats_size = sizeof(pbc_stats),
    .ifaces = ifaces,
    .create = create,
    .start = pbc_masks_start,
    .reset = pbc_masks_reset,
    .stop = pbc_masks_stop,
    .destroy = pbc_masks_destroy,
};
