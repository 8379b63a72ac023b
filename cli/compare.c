/* SPDX-License-Identifier: MIT
 *
 * cli/compare.c - patchbay compare: pipelines on the same requests, in turns. Reads the command
 * line, runs the trial (compare/trial.h), prints and writes its document.
 */
#define _GNU_SOURCE
#include "cli.h"
#include "compare/bundle.h"
#include "compare/html.h"
#include "compare/result.h"
#include "load.h"
#include "report.h"
#include "requests.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct comparison {
    pbi_common common;
    pbi_texts with, workload_set;
    const char *file, *prompt, *cache, *report, *bundle, *replay, *workload_path;
    int64_t epochs, rounds, max_new, seed;
    double delta, until, max_time; /* percent, percent, seconds */
    pbi_requests requests;
    pbw_workload *workload;
    pbi_pipeline *pipelines[PBC_MAX_ARMS];
    char *names[PBC_MAX_ARMS];
    int n_arms;
    pbc_bundle past; /* of --replay */
} comparison;

/* ---- requests ------------------------------------------------------------ */

/* the same list in every block */
static int draw_list(void *arg, const pbi_arm *like, uint64_t seed, pbi_requests *out, pb_err *err)
{
    const pbi_requests *r = arg;
    (void)like;
    (void)seed;
    for (int64_t i = 0; i < r->n; i++) {
        int rc = pbi_requests_add(out, &r->v[i], err);
        if (rc)
            return rc;
    }
    return 0;
}

static int draw_workload(void *arg, const pbi_arm *like, uint64_t seed, pbi_requests *out,
                         pb_err *err)
{
    const pbw_vocab v = pbi_load_vocab(like);
    return pbw_draw(arg, &v, seed, out, NULL, err);
}

static int read_requests(comparison *c, pb_err *err)
{
    pbi_request q;
    pbi_request_default(&q);
    q.max_new = c->max_new;
    if (c->workload_path)
        return pbw_load(c->workload_path, c->workload_set.n, c->workload_set.s, &c->workload, err);
    if (c->file)
        return pbi_requests_load(&c->requests, c->file, &q, err);
    q.prompt = c->prompt;
    q.n_prompt = strlen(c->prompt);
    return pbi_requests_add(&c->requests, &q, err);
}

/* ---- arms ------------------------------------------------------------------ */

/* "attention=radix,scheduler.chunk=512" into settings, behind those of --set. A comma parts two
 * of them only where "slot=" or "slot.key=" follows. */
static int with_settings(const char *with, pbi_texts *out, char **copy)
{
    char *s = *copy = strdup(with);
    out->s = realloc(out->s, ((size_t)out->n + strlen(with) + 1) * sizeof *out->s);
    if (!s || !out->s)
        return -1;
    out->s[out->n++] = s;
    for (char *p = s; (p = strchr(p, ',')) != NULL;) {
        char *key = p + 1;
        size_t n = strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789_-.");
        if (n && key[n] == '=') {
            *p = 0;
            out->s[out->n++] = key;
        }
        p = key;
    }
    return 0;
}

static int add_arm(comparison *c, const char *path, const char *with, pb_err *err)
{
    if (c->n_arms + 1 >= PBC_MAX_ARMS)
        return pbi_err(err, PB_E_INVAL, "more than %d arms", PBC_MAX_ARMS - 2);
    pbi_common one = c->common;
    char *copy = NULL;
    one.pipeline = path;
    one.set.s = malloc(((size_t)c->common.set.n + 1) * sizeof *one.set.s);
    if (!one.set.s)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    if (c->common.set.n)
        memcpy(one.set.s, c->common.set.s, (size_t)c->common.set.n * sizeof *one.set.s);
    int rc = with && with_settings(with, &one.set, &copy) ? PB_E_NOMEM : 0;
    if (!rc)
        rc = pbi_common_load(&one, &c->pipelines[c->n_arms], err);
    if (!rc) {
        c->names[c->n_arms] = strdup(with ? with : path);
        rc = c->names[c->n_arms] ? 0 : PB_E_NOMEM;
        c->n_arms++;
    }
    free(copy);
    free(one.set.s);
    return rc;
}

static int read_arms(comparison *c, char **paths, int n_paths, pb_err *err)
{
    int rc = 0;
    for (int i = 0; i < n_paths && !rc; i++)
        rc = add_arm(c, paths[i], NULL, err);
    for (int i = 0; i < c->with.n && !rc; i++)
        rc = add_arm(c, paths[0], c->with.s[i], err);
    if (rc)
        return rc;
    c->common.pipeline = paths[0]; /* the second instance of the base */
    return pbi_common_load(&c->common, &c->pipelines[c->n_arms], err);
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
    pbc_options o = c->past.o;
    if (!c->replay) {
        o = (pbc_options){ .n_arms = c->n_arms,
                           .names = (const char *const *)c->names,
                           .max_epochs = (int)c->epochs,
                           .blocks = (int)c->rounds,
                           .cache = !strcmp(c->cache, "warm")      ? PBC_WARM
                                    : !strcmp(c->cache, "natural") ? PBC_NATURAL
                                                                   : PBC_COLD,
                           .level = 0.035,
                           .delta = c->delta / 100,
                           .until = c->until / 100,
                           .max_time_s = c->max_time,
                           .seed = (uint64_t)c->seed };
        o.min_epochs = pbc_least_epochs(&o);
        if (!o.max_epochs)
            o.max_epochs = c->until > 0 ? 200 : o.min_epochs;
    }
    if (c->common.model || !o.model)
        o.model = c->common.model ? c->common.model : "";
    o.pipelines = c->replay ? c->past.pipelines : c->pipelines;
    pbi_requests *r = c->replay ? &c->past.requests : &c->requests;
    pbw_workload *w = c->replay ? c->past.workload : c->workload;
    o.source =
        w ? (pbc_source){ w, draw_workload, pbw_open_loop(w) } : (pbc_source){ r, draw_list, 0 };
    for (int64_t i = 0; i < r->n && !w; i++)
        o.source.open_loop |= r->v[i].arrival_ns > 0;
    o.progress = isatty(2) ? show_progress : NULL;
    o.stop = pbi_interrupted;
    o.on_block = pbc_gather_block;
    o.on_block_arg = g;
    return o;
}

/* Files and stdout; the exit status, or PB_E_*. */
static int tell(comparison *c, const pbc_options *o, json_t *j, pb_err *err)
{
    int rc = c->report ? write_report(c->report, j, err) : 0;
    if (!rc && c->bundle)
        rc = pbc_bundle_write(c->bundle, o, c->workload ? NULL : &c->requests, c->workload, j, err);
    json_t *replay = c->replay ? pbc_replay(&c->past, j, o->model) : NULL, *note;
    size_t i;
    if (replay)
        json_object_set(j, "replay", replay);
    if (!rc && c->common.json)
        rc = pbi_print_json(json_incref(j));
    else if (!rc)
        pbc_print(stdout, j, isatty(1));
    if (!rc && replay && !c->common.json) {
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
                                c->replay          ? c->replay
                                : c->workload_path ? c->workload_path
                                : c->file          ? c->file
                                                   : "one prompt",
                                c->replay ? c->past.workload : c->workload);
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
        return !n_words && !c->with.n && !c->file && !c->prompt && !c->workload_path
                   ? PBI_GO
                   : pbi_usage("compare", "--replay has its own pipelines and requests");
    if (n_words < 1 || n_words + c->with.n < 2)
        return pbi_usage("compare", "two arms, please: patchbay compare A.ini B.ini, or A.ini "
                                    "--with attention=radix");
    if ((c->file != NULL) + (c->prompt != NULL) + (c->workload_path != NULL) != 1)
        return pbi_usage("compare", "give one of -w W.ini, -f FILE.jsonl or -p TEXT");
    if (c->rounds < 1 || c->rounds > 1000)
        return pbi_usage("compare", "--rounds %" PRId64 " is outside of 1..1000", c->rounds);
    if (c->epochs < 0 || c->epochs > PBC_MAX_EPOCHS)
        return pbi_usage("compare", "--epochs %" PRId64 " is outside of 1..%d", c->epochs,
                         PBC_MAX_EPOCHS);
    if (strcmp(c->cache, "cold") && strcmp(c->cache, "warm") && strcmp(c->cache, "natural"))
        return pbi_usage("compare", "--cache %s: cold, warm or natural", c->cache);
    if (!(c->delta >= 0 && c->delta < 100) || !(c->until >= 0 && c->until < 100) ||
        !(c->max_time >= 0))
        return pbi_usage("compare",
                         "--delta and --until are percent in 0..100, --max-time seconds");
    return PBI_GO;
}

static void comparison_clear(comparison *c)
{
    for (int i = 0; i < PBC_MAX_ARMS; i++) {
        pbi_pipeline_free(c->pipelines[i]);
        free(c->names[i]);
    }
    pbi_requests_clear(&c->requests);
    pbw_free(c->workload);
    pbc_bundle_clear(&c->past);
}

int pbi_cmd_compare(int argc, char **argv)
{
    comparison c = { .rounds = 1, .max_new = 64, .seed = 1, .delta = 2, .cache = "cold" };
    pb_err err = { 0 };
    const pbi_arg table[] = {
        PBI_ARG_MODEL(&c.common),
        PBI_ARG_SET(&c.common),
        { .name = "--with",
          .kind = PBI_ARG_LIST,
          .out = &c.with,
          .value = "SLOT.KEY=VALUE,...",
          .help = "one more arm: the first pipeline with these; may be repeated" },
        { .name = "--workload",
          .alias = "-w",
          .kind = PBI_ARG_TEXT,
          .out = &c.workload_path,
          .value = "W.ini",
          .help = "requests drawn anew for each round (patchbay help workloads)" },
        { .name = "--workload-set",
          .kind = PBI_ARG_LIST,
          .out = &c.workload_set,
          .value = "KEY=VALUE",
          .help = "override one value of the workload; may be repeated" },
        { .name = "--file",
          .alias = "-f",
          .kind = PBI_ARG_TEXT,
          .out = &c.file,
          .value = "FILE.jsonl",
          .help = "requests, one JSON object a line" },
        { .name = "--prompt",
          .alias = "-p",
          .kind = PBI_ARG_TEXT,
          .out = &c.prompt,
          .value = "TEXT",
          .help = "one request" },
        { .name = "--max-tokens",
          .alias = "-n",
          .kind = PBI_ARG_INT,
          .out = &c.max_new,
          .value = "N",
          .help = "new tokens of a request that does not say (64)" },
        { .name = "--epochs",
          .kind = PBI_ARG_INT,
          .out = &c.epochs,
          .value = "N",
          .help = "times that all arms are created anew: the unit of the interval; 0: as many as "
                  "an interval needs" },
        { .name = "--rounds",
          .kind = PBI_ARG_INT,
          .out = &c.rounds,
          .value = "N",
          .help = "timed blocks of each arm in an epoch (1)" },
        { .name = "--until",
          .kind = PBI_ARG_FLOAT,
          .out = &c.until,
          .value = "PERCENT",
          .help = "go on until the interval of requests/s is this narrow, to either side" },
        { .name = "--max-time",
          .kind = PBI_ARG_FLOAT,
          .out = &c.max_time,
          .value = "SECONDS",
          .help = "begin no epoch after that" },
        { .name = "--cache",
          .kind = PBI_ARG_TEXT,
          .out = &c.cache,
          .value = "STATE",
          .help =
              "before a block: cold (empty), warm (the same requests ran before) or natural (as "
              "the block before left it)" },
        { .name = "--seed",
          .kind = PBI_ARG_INT,
          .out = &c.seed,
          .value = "N",
          .help = "of the order in which the arms run (1)" },
        { .name = "--delta",
          .kind = PBI_ARG_FLOAT,
          .out = &c.delta,
          .value = "PERCENT",
          .help = "a tie is an interval within 1 +- this (2)" },
        { .name = "--report",
          .kind = PBI_ARG_TEXT,
          .out = &c.report,
          .value = "OUT.html",
          .help = "write a page with figures" },
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
        PBI_ARG_JSON(&c.common),
        PBI_ARGS_END,
    };
    int n_words, rc = pbi_args(argc, argv, table, &n_words);
    if (rc == PBI_GO)
        rc = usage_errors(&c, n_words);
    if (rc != PBI_GO)
        return rc;
    pbi_catch_interrupts();
    if (c.replay) {
        rc = pbc_bundle_read(c.replay, &c.past, &err);
    } else {
        rc = read_requests(&c, &err);
        if (!rc)
            rc = read_arms(&c, argv + 1, n_words, &err);
    }
    if (!rc)
        rc = run(&c, &err);
    comparison_clear(&c);
    return rc < 0 ? pbi_fail("compare", &err) : rc;
}
