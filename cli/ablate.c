/* SPDX-License-Identifier: MIT
 *
 * cli/ablate.c - patchbay ablate: a factorial experiment over settings of one pipeline (which of
 * several changes helps, and do they help together?), or with --pairs which of them go together.
 */
#define _GNU_SOURCE
#include "arms.h"
#include "compare/ablation.h"
#include "compare/pairs.h"
#include "load.h"
#include "report.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct ablation {
    pbi_arms a;
    pbi_texts factors;
    const char *base;
    int pairs;
    pbf_design d;
    int arm_of[PBF_MAX_CELLS];
    char *reason[PBF_MAX_CELLS];
} ablation;

/* ---- cells ------------------------------------------------------------------- */

static int read_factors(ablation *x, char **words, int n_words, pb_err *err)
{
    char why[200];
    int bad = 0;
    for (int i = 0; i < x->factors.n && !bad; i++)
        bad = pbf_add(&x->d, x->factors.s[i], why, sizeof why);
    for (int i = 0; i < n_words && !bad; i++)
        bad = pbf_add(&x->d, words[i], why, sizeof why);
    if (!bad && !x->pairs)
        bad = pbf_plan(&x->d, why, sizeof why);
    else if (!bad && !x->d.n_factors)
        bad = snprintf(why, sizeof why, "there is no factor");
    return bad ? pbi_err(err, PB_E_INVAL, "%s", why) : 0;
}

static int refuse(ablation *x, int c, const pb_err *why)
{
    x->d.refused[c] = 1;
    x->arm_of[c] = -1;
    x->reason[c] = strdup(why->msg);
    return x->reason[c] ? 0 : PB_E_NOMEM;
}

/* Does the cell open? Only then it may take part: a trial has no way to leave one out. */
static int try_cell(ablation *x, int c, pbi_arm **holder, pb_err *err)
{
    char *settings = pbf_settings(&x->d, c), *name = pbf_name(&x->d, c);
    pbi_arm *arm = NULL;
    pb_err why = { 0 };
    int n = x->a.n_arms;
    int rc = settings && name ? pbi_arms_add(&x->a, x->base, settings, &why)
                              : pbi_err(&why, PB_E_NOMEM, "out of memory");
    if (!rc) {
        pbi_pipeline *p = x->a.pipelines[n];
        const pbi_arm_options ao = { .model_path = x->a.common.model ? x->a.common.model : "",
                                     .share = *holder && pbi_arm_can_share(*holder, p) ? *holder
                                                                                       : NULL };
        free(x->a.names[n]);
        x->a.names[n] = strdup(name);
        rc = pbi_arm_open(p, &ao, &arm, &why);
        if (rc) {
            pbi_pipeline_free(p);
            free(x->a.names[n]);
            x->a.pipelines[n] = NULL;
            x->a.names[n] = NULL;
            x->a.n_arms = n;
        }
    }
    free(settings);
    free(name);
    if (!*holder)
        *holder = arm;
    else
        pbi_arm_close(arm);
    if (!rc) {
        x->arm_of[c] = n;
        return 0;
    }
    if (!c || rc == PB_E_NOMEM) { /* the base, or trouble of ours */
        *err = why;
        return rc;
    }
    return refuse(x, c, &why);
}

static int try_cells(ablation *x, pb_err *err)
{
    pbi_arm *holder = NULL;
    int rc = 0;
    for (int c = 0; c < x->d.n_cells && !rc; c++)
        rc = try_cell(x, c, &holder, err);
    pbi_arm_close(holder);
    char *settings = rc ? NULL : pbf_settings(&x->d, 0);
    if (!rc)
        rc = settings ? pbi_arms_again(&x->a, x->base, settings, err)
                      : pbi_err(err, PB_E_NOMEM, "out of memory");
    free(settings);
    if (!rc && x->a.n_arms < 2)
        rc = pbi_err(err, PB_E_INVAL, "no cell but the base can run; %s",
                     x->reason[1] ? x->reason[1] : "");
    return rc;
}

/* ---- the experiment ------------------------------------------------------------ */

static void show_progress(void *arg, double done, double left)
{
    char what[64] = "running cells";
    (void)arg;
    if (isfinite(left))
        snprintf(what, sizeof what, "running cells, %.0f s left", left);
    pbi_show_progress(NULL, what, done);
}

static int write_page(const char *path, const json_t *j, int (*page)(FILE *, const json_t *),
                      pb_err *err)
{
    FILE *f = fopen(path, "w");
    int rc = f ? page(f, j) : -1;
    if (f && fclose(f))
        rc = -1;
    return rc ? pbi_err(err, PB_E_IO, "--report %s: %s", path, strerror(errno)) : 0;
}

static const char *requests_name(const ablation *x)
{
    return x->a.workload_path ? x->a.workload_path : x->a.file ? x->a.file : "one prompt";
}

static int run_cells(ablation *x, pb_err *err)
{
    pbc_trial *t = NULL;
    int rc = try_cells(x, err);
    if (rc)
        return rc;
    pbc_options o = pbi_arms_options(&x->a);
    o.min_epochs = pbc_ablation_epochs(&x->d, o.level);
    if (!x->a.epochs && !(o.until > 0))
        o.max_epochs = o.min_epochs;
    o.progress = isatty(2) ? show_progress : NULL;
    o.stop = pbi_interrupted;
    rc = pbc_run(&o, &t, err);
    if (isatty(2))
        pbi_show_progress(NULL, NULL, 1);
    json_t *j = rc ? NULL
                   : pbc_ablation(&x->d, t, x->arm_of, (const char *const *)x->reason, x->base,
                                  requests_name(x));
    if (!rc && !j)
        rc = pbi_err(err, PB_E_NOMEM, "out of memory");
    if (!rc && x->a.report)
        rc = write_page(x->a.report, j, pbc_ablation_html, err);
    int status = rc ? 0 : pbc_ablation_status(j);
    if (!rc && x->a.common.json)
        rc = pbi_print_json(json_incref(j));
    else if (!rc)
        pbc_ablation_print(stdout, j, isatty(1));
    json_decref(j);
    pbc_free(t);
    return rc ? rc : status;
}

/* ---- pairs ------------------------------------------------------------------------ */

static int load(void *arg, const char *settings, pbi_pipeline **out, pb_err *err)
{
    ablation *x = arg;
    pbi_pipeline **slot = &x->a.pipelines[x->a.n_arms];
    int rc = pbi_arms_again(&x->a, x->base, settings, err);
    *out = *slot;
    *slot = NULL;
    return rc;
}

static int run_pairs(ablation *x, pb_err *err)
{
    pbi_requests r = { 0 };
    pbi_pipeline *p = NULL;
    pbi_arm *arm = NULL;
    json_t *j = NULL;
    const pbi_requests *use = &x->a.requests;
    int rc = 0;
    if (x->a.workload) { /* drawn once, for the base's vocabulary */
        const pbi_arm_options ao = { .model_path = x->a.common.model ? x->a.common.model : "" };
        rc = load(x, NULL, &p, err);
        if (!rc)
            rc = pbi_arm_open(p, &ao, &arm, err);
        if (!rc) {
            const pbw_vocab v = pbi_load_vocab(arm);
            rc = pbw_draw(x->a.workload, &v, pbw_seed(x->a.workload), &r, NULL, err);
        }
        pbi_arm_close(arm);
        pbi_pipeline_free(p);
        use = &r;
    }
    if (!rc) {
        const pbc_pairs_options o = { .model = x->a.common.model ? x->a.common.model : "",
                                      .n = use->n,
                                      .requests = use->v,
                                      .load = load,
                                      .load_arg = x,
                                      .stop = pbi_interrupted };
        rc = pbc_pairs(&x->d, &o, &j, err);
    }
    if (!rc && x->a.report)
        rc = write_page(x->a.report, j, pbc_pairs_html, err);
    int status = rc ? 0 : pbc_pairs_status(j);
    if (!rc && x->a.common.json)
        rc = pbi_print_json(json_incref(j));
    else if (!rc)
        pbc_pairs_print(stdout, j);
    json_decref(j);
    pbi_requests_clear(&r);
    return rc ? rc : status;
}

/* ---- the command -------------------------------------------------------------------- */

int pbi_cmd_ablate(int argc, char **argv)
{
    ablation x = { .a = { PBI_ARMS_DEFAULTS } };
    pb_err err = { 0 };
    const pbi_arg table[] = {
        { .name = "--factors",
          .kind = PBI_ARG_LIST,
          .out = &x.factors,
          .value = "SLOT=A|B",
          .help = "a factor and its levels, the first the base; more may follow as words. A level "
                  "may have settings of its own: 'scheduler=continuous|chunked,scheduler.budget=64'"
                  "; an empty one sets nothing" },
        { .name = "--pairs",
          .kind = PBI_ARG_FLAG,
          .out = &x.pairs,
          .help = "measure nothing: run every pair of levels once and say which go together" },
        PBI_ARMS_ARGS(&x.a),
        PBI_ARGS_END,
    };
    int n_words, rc = pbi_args(argc, argv, table, &n_words);
    if (rc == PBI_GO && !n_words)
        rc = pbi_usage("ablate", "which pipeline? patchbay ablate BASE.ini --factors "
                                 "'attention=paged|radix'");
    if (rc == PBI_GO)
        rc = pbi_arms_usage("ablate", &x.a);
    if (rc != PBI_GO)
        return rc;
    x.base = argv[1];
    pbi_catch_interrupts();
    rc = read_factors(&x, argv + 2, n_words - 1, &err);
    if (!rc)
        rc = pbi_arms_requests(&x.a, &err);
    if (!rc)
        rc = x.pairs ? run_pairs(&x, &err) : run_cells(&x, &err);
    for (int c = 0; c < PBF_MAX_CELLS; c++)
        free(x.reason[c]);
    pbf_clear(&x.d);
    pbi_arms_clear(&x.a);
    return rc < 0 ? pbi_fail("ablate", &err) : rc;
}
