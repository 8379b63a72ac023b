/* SPDX-License-Identifier: MIT
 *
 * cli/compare.c - patchbay compare: pipelines on the same requests, in turns. Reads the command
 * line, runs the trial (compare/trial.h), prints and writes its document.
 */
#define _GNU_SOURCE
#include "arms.h"
#include "compare/bundle.h"
#include "compare/html.h"
#include "compare/result.h"
#include "report.h"
#include "suite.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct comparison {
    pbi_arms a;
    pbi_texts with;
    const char *bundle, *replay, *suite;
    pbc_bundle past; /* of --replay */
} comparison;

static int read_arms(comparison *c, char **paths, int n_paths, pb_err *err)
{
    int rc = 0;
    for (int i = 0; i < n_paths && !rc; i++)
        rc = pbi_arms_add(&c->a, paths[i], NULL, err);
    for (int i = 0; i < c->with.n && !rc; i++)
        rc = pbi_arms_add(&c->a, paths[0], c->with.s[i], err);
    return rc ? rc : pbi_arms_again(&c->a, paths[0], NULL, err);
}

/* ---- the command ------------------------------------------------------- */

static void show_progress(void *arg, double done, double left)
{
    char what[64] = "comparing";
    (void)arg;
    if (isfinite(left))
        snprintf(what, sizeof what, "comparing, %.0f s left", left);
    pbi_show_progress(NULL, what, done);
}

static int write_report(const char *path, const json_t *j, pb_err *err)
{
    FILE *f = fopen(path, "w");
    int rc = f ? pbc_html(f, j) : -1;
    if (f && fclose(f))
        rc = -1;
    return rc ? pbi_err(err, PB_E_IO, "--report %s: %s", path, strerror(errno)) : 0;
}

/* what the command line asks for, or what the bundle did */
static pbc_options options_of(comparison *c, pbc_gather *g)
{
    pbc_options o = c->replay ? c->past.o : pbi_arms_options(&c->a);
    if (c->replay) {
        o.pipelines = c->past.pipelines;
        o.source = pbi_arms_source(c->past.workload, &c->past.requests);
        if (c->a.common.model || !o.model)
            o.model = c->a.common.model ? c->a.common.model : "";
    }
    o.progress = isatty(2) ? show_progress : NULL;
    o.stop = pbi_interrupted;
    o.on_block = pbc_gather_block;
    o.on_block_arg = g;
    return o;
}

/* Files and stdout; the exit status, or PB_E_*. */
static int tell(comparison *c, const pbc_options *o, json_t *j, pb_err *err)
{
    int rc = c->a.report ? write_report(c->a.report, j, err) : 0;
    if (!rc && c->bundle)
        rc = pbc_bundle_write(c->bundle, o, c->a.workload ? NULL : &c->a.requests, c->a.workload, j,
                              err);
    json_t *replay = c->replay ? pbc_replay(&c->past, j, o->model) : NULL, *note;
    size_t i;
    if (replay)
        json_object_set(j, "replay", replay);
    if (!rc && c->a.common.json)
        rc = pbi_print_json(json_incref(j));
    else if (!rc)
        pbc_print(stdout, j, isatty(1));
    if (!rc && replay && !c->a.common.json) {
        printf("replay of %s: the verdict %s\n", c->replay,
               json_is_true(json_object_get(replay, "holds")) ? "holds" : "DOES NOT HOLD");
        json_array_foreach(json_object_get(replay, "notes"), i, note)
            printf("  %s\n", json_string_value(note));
    }
    int holds = !replay || json_is_true(json_object_get(replay, "holds"));
    json_decref(replay);
    return rc ? rc : holds ? pbc_exit_status(j) : PBC_EXIT_NOT_HELD;
}

static int run(comparison *c, pb_err *err)
{
    pbc_gather g = { 0 };
    pbc_trial *t = NULL;
    const pbc_options o = options_of(c, &g);
    int rc = pbc_run(&o, &t, err);
    if (isatty(2))
        pbi_show_progress(NULL, NULL, 1);
    json_t *j = rc ? NULL
                   : pbc_result(t, &g,
                                c->replay            ? c->replay
                                : c->a.workload_path ? c->a.workload_path
                                : c->a.file          ? c->a.file
                                                     : "one prompt",
                                c->replay ? c->past.workload : c->a.workload);
    if (!rc && !j)
        rc = pbi_err(err, PB_E_NOMEM, "no memory for the result");
    if (!rc)
        rc = tell(c, &o, j, err);
    json_decref(j);
    pbc_free(t);
    pbc_gather_clear(&g);
    return rc;
}

static int usage_errors(const comparison *c, int n_words)
{
    if (c->replay)
        return !n_words && !c->with.n && !c->a.file && !c->a.prompt && !c->a.workload_path
                   ? PBI_GO
                   : pbi_usage("compare", "--replay has its own pipelines and requests");
    if (c->suite)
        return !n_words && !c->with.n && !c->a.file && !c->a.prompt && !c->a.workload_path &&
                       !c->bundle
                   ? PBI_GO
                   : pbi_usage("compare", "--suite has its own pipelines and requests");
    if (n_words < 1 || n_words + c->with.n < 2)
        return pbi_usage("compare", "two arms, please: patchbay compare A.ini B.ini, or A.ini "
                                    "--with attention=radix");
    return pbi_arms_usage("compare", &c->a);
}

int pbi_cmd_compare(int argc, char **argv)
{
    comparison c = { .a = { PBI_ARMS_DEFAULTS } };
    pb_err err = { 0 };
    const pbi_arg table[] = {
        PBI_ARMS_ARGS(&c.a),
        { .name = "--with",
          .kind = PBI_ARG_LIST,
          .out = &c.with,
          .value = "SLOT.KEY=VALUE,...",
          .help = "one more arm: the first pipeline with these; may be repeated" },
        { .name = "--bundle",
          .kind = PBI_ARG_TEXT,
          .out = &c.bundle,
          .value = "OUT.pbz",
          .help = "write all that another machine needs to run it again" },
        { .name = "--replay",
          .kind = PBI_ARG_TEXT,
          .out = &c.replay,
          .value = "IN.pbz",
          .help = "run a bundle again, and say whether its verdict holds here" },
        { .name = "--suite",
          .kind = PBI_ARG_TEXT,
          .out = &c.suite,
          .value = "DIR",
          .help = "run all comparisons of DIR/suite.ini; prints a table as Markdown" },
        PBI_ARGS_END,
    };
    int n_words, rc = pbi_args(argc, argv, table, &n_words);
    if (rc == PBI_GO)
        rc = usage_errors(&c, n_words);
    if (rc != PBI_GO)
        return rc;
    pbi_catch_interrupts();
    if (c.suite) {
        rc = pbi_suite(c.suite, &c.a, &err);
        return rc < 0 ? pbi_fail("compare", &err) : rc;
    }
    if (c.replay) {
        rc = pbc_bundle_read(c.replay, &c.past, &err);
    } else {
        rc = pbi_arms_requests(&c.a, &err);
        if (!rc)
            rc = read_arms(&c, argv + 1, n_words, &err);
    }
    if (!rc)
        rc = run(&c, &err);
    pbi_arms_clear(&c.a);
    pbc_bundle_clear(&c.past);
    return rc < 0 ? pbi_fail("compare", &err) : rc;
}
