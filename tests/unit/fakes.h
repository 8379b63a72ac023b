/* SPDX-License-Identifier: MIT
 *
 * tests/unit/fakes.h - plugins of the tests' own: small, and with faults on demand.
 *
 * @donor  attention: a new sequence shares the pages of a running one, also in mid-page; option
 *         bug = 1..7 breaks it in a known way.
 * @mask   constraint: allows about two thirds of the tokens, by position and token before;
 *         option none_at = n: no token at position n.
 * @sched  scheduler: one row for everyone; option bug = 1..8 breaks its contract;
 *         wild = seed: whatever is valid, at random.
 * @cut    output: forces tokens, drops tokens, ends answers, by place and token.
 */
#ifndef FAKES_H
#define FAKES_H
#include <patchbay/plugin.h>

enum {
    BUG_NONE,
    BUG_WRITES_SHARED, /* no copy on write */
    BUG_FORGETS_COPY,  /* a fresh page, but nothing is copied into it */
    BUG_SHORT_COPY,    /* one token too few */
    BUG_UNREF_TWICE,
    BUG_STALE_TABLE, /* names the page that was replaced */
    BUG_SHORT_TABLE, /* one page too few */
    BUG_LEAK         /* release keeps a page */
};
enum {
    SCHED_TWICE = 1, /* a sequence named twice */
    SCHED_STRANGER,  /* no sequence of the view */
    SCHED_TOO_MANY,  /* more tokens than are left */
    SCHED_ZERO,
    SCHED_ROWS,  /* more rows than a step has */
    SCHED_DRAFT, /* drafts without spec */
    SCHED_OLDER, /* a victim that is not younger */
    SCHED_IDLE   /* plans nothing */
};
extern const pb_plugin *const fakes[]; /* ends with NULL */
#endif
