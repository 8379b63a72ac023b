/* SPDX-License-Identifier: MIT
 *
 * cli/suite.c - see suite.h.
 */
#define _GNU_SOURCE
#include "suite.h"
#include "compare/html.h"
#include "compare/result.h"
#include "inifile.h"
#include "options.h"
#include "report.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const known[] = { "claim",  "before", "after", "workload",
                                     "metric", "gone",   "when",  "missing" };
enum { N_KNOWN = sizeof known / sizeof *known, MAX_GONE = 16 };

typedef struct suite {
    const char *dir;
    pbi_ini *ini;
    const pbi_arms *like;
    json_t *claims;
    const char *now; /* for the progress line */
} suite;

/* ---- reading ------------------------------------------------------------------- */

static const char *value(const suite *s, const pbi_ini_section *sec, const char *key)
{
    const pbi_ini_entry *e = pbi_ini_get(s->ini, sec->name, key);
    return e ? e->value : NULL;
}

static int metric_of(const char *key)
{
    for (int m = 0; key && m < PBC_N_METRICS; m++)
        if (!strcmp(pbc_metrics[m].key, key))
            return m;
    return -1;
}

static int check_section(const suite *s, const pbi_ini_section *sec, pb_err *err)
{
    static const char *const need[] = { "before", "after", "workload" };
    const char *metric = value(s, sec, "metric");
    if (!value(s, sec, "claim"))
        return pbi_err(err, PB_E_INVAL, "%s:%d: [%s] has no claim", s->ini->path, sec->line,
                       sec->name);
    if (value(s, sec, "missing"))
        return 0;
    for (int i = 0; i < 3; i++)
        if (!value(s, sec, need[i]))
            return pbi_err(err, PB_E_INVAL, "%s:%d: [%s] has no %s", s->ini->path, sec->line,
                           sec->name, need[i]);
    if (metric_of(metric) < 0)
        return pbi_err(err, PB_E_INVAL,
                       "%s:%d: [%s] metric = %s: requests_per_s, tokens_per_s, ttft_ms, tpot_ms, "
                       "e2e_ms, ttft_p99_ms or itl_p99_ms",
                       s->ini->path, sec->line, sec->name, metric ? metric : "");
    return 0;
}

static int check(const suite *s, pb_err *err)
{
    for (int i = 0; i < s->ini->n_entries; i++) {
        const pbi_ini_entry *e = &s->ini->entries[i];
        int ok = 0;
        for (int k = 0; k < N_KNOWN; k++)
            ok |= !strcmp(known[k], e->key);
        const char *near = ok ? NULL : pbi_nearest(e->key, known, N_KNOWN);
        if (!ok)
            return pbi_err(err, PB_E_INVAL, "%s:%d: unknown key \"%s\"%s%s%s", s->ini->path,
                           e->line, e->key, near ? "; did you mean \"" : "", near ? near : "",
                           near ? "\"?" : "");
    }
    for (int i = 0; i < s->ini->n_sections; i++) {
        int rc = check_section(s, &s->ini->sections[i], err);
        if (rc)
            return rc;
    }
    return s->ini->n_sections ? 0 : pbi_err(err, PB_E_INVAL, "%s: no claim in it", s->ini->path);
}

/* ---- one comparison ---------------------------------------------------------------- */

static void show_progress(void *arg, double done, double left)
{
    const suite *s = arg;
    char what[96];
    if (isfinite(left))
        snprintf(what, sizeof what, "%.40s, %.0f s left of this", s->now, left);
    else
        snprintf(what, sizeof what, "%.40s", s->now);
    pbi_show_progress(NULL, what, done);
}

static char *beside(const suite *s, const char *file)
{
    char *p = NULL;
    return asprintf(&p, "%s/%s", s->dir, file) < 0 ? NULL : p;
}

static int measure(suite *s, pbi_arms *a, const char *before, const char *after, json_t **out,
                   pb_err *err)
{
    pbc_gather g = { 0 };
    pbc_trial *t = NULL;
    int rc = pbi_arms_requests(a, err);
    if (!rc)
        rc = pbi_arms_add(a, before, NULL, err);
    if (!rc)
        rc = pbi_arms_add(a, after, NULL, err);
    if (!rc)
        rc = pbi_arms_again(a, before, NULL, err);
    if (rc)
        return rc;
    pbc_options o = pbi_arms_options(a);
    o.progress = isatty(2) ? show_progress : NULL;
    o.progress_arg = s;
    o.stop = pbi_interrupted;
    o.on_block = pbc_gather_block;
    o.on_block_arg = &g;
    rc = pbc_run(&o, &t, err);
    if (isatty(2))
        pbi_show_progress(NULL, NULL, 1);
    *out = rc ? NULL : pbc_result(t, &g, a->workload_path, a->workload);
    if (!rc && !*out)
        rc = pbi_err(err, PB_E_NOMEM, "out of memory");
    pbc_free(t);
    pbc_gather_clear(&g);
    return rc;
}

/* gone: settings of the workload, parted by spaces; NULL: none */
static int compare(suite *s, const pbi_ini_section *sec, const char *gone, json_t **out,
                   pb_err *err)
{
    pbi_arms a = *s->like;
    const char *set[MAX_GONE + 64];
    char *before = beside(s, value(s, sec, "before")), *after = beside(s, value(s, sec, "after"));
    char *workload = beside(s, value(s, sec, "workload")), *words = strdup(gone ? gone : ""), *at;
    int n = 0,
        rc = before && after && workload && words ? 0 : pbi_err(err, PB_E_NOMEM, "out of memory");
    for (char *w = rc ? NULL : strtok_r(words, " ", &at); w && n < MAX_GONE;
         w = strtok_r(NULL, " ", &at))
        set[n++] = w;
    for (int i = 0; i < s->like->workload_set.n && i < 64; i++)
        set[n++] = s->like->workload_set.s[i];
    a.workload_path = workload;
    a.workload_set = (pbi_texts){ set, n };
    if (!rc)
        rc = measure(s, &a, before, after, out, err);
    pbi_arms_clear(&a);
    free(before);
    free(after);
    free(workload);
    free(words);
    return rc ? pbi_err_prefix(err, "%s:%d: [%s]", s->ini->path, sec->line, sec->name) : 0;
}

static int one_claim(suite *s, const pbi_ini_section *sec, pb_err *err)
{
    json_t *j = json_object(), *main = NULL, *control = NULL;
    const char *gone = value(s, sec, "gone");
    int rc = 0;
    s->now = sec->name;
    if (!value(s, sec, "missing"))
        rc = compare(s, sec, NULL, &main, err);
    if (!rc && gone && !pbi_interrupted(NULL))
        rc = compare(s, sec, gone, &control, err);
    json_object_set_new(j, "name", json_string(sec->name));
    for (int k = 0; k < N_KNOWN; k++)
        if (value(s, sec, known[k]))
            json_object_set_new(j, known[k], json_string(value(s, sec, known[k])));
    json_object_set_new(j, "comparison", main ? main : json_null());
    json_object_set_new(j, "control", control ? control : json_null());
    json_array_append_new(s->claims, j);
    return rc;
}

/* ---- showing ---------------------------------------------------------------------------- */

static const json_t *metric_json(const json_t *claim, const char *which)
{
    const json_t *c = json_array_get(pbc_at(pbc_at(claim, which), "comparisons"), 0);
    return pbc_at(pbc_at(c, "metrics"), pbc_text(claim, "metric"));
}

static void ratio(FILE *f, const json_t *m)
{
    double x = pbc_num(m, "ratio"), lo = pbc_num(m, "lo"), hi = pbc_num(m, "hi");
    if (!isfinite(x))
        fputs("-", f);
    else if (isfinite(lo))
        fprintf(f, "%.2f [%.2f, %.2f] %s", x, lo, hi, pbc_text(m, "verdict"));
    else
        fprintf(f, "%.2f, %s", x, pbc_text(m, "verdict"));
}

static const char *tokens(const json_t *claim)
{
    const json_t *c = json_array_get(pbc_at(pbc_at(claim, "comparison"), "comparisons"), 0);
    if (!c)
        return "";
    if (json_array_size(pbc_at(c, "never_engaged")))
        return "NEVER ENGAGED";
    if (json_is_true(pbc_at(c, "same_logits")))
        return "the same";
    return json_is_true(pbc_at(pbc_at(c, "pipeline_diff"), "same_numeric_key"))
               ? "DIFFERENT"
               : "others, as declared";
}

static double median(const json_t *claim, int arm)
{
    const json_t *a = json_array_get(pbc_at(pbc_at(claim, "comparison"), "arms"), (size_t)arm);
    return pbc_num(pbc_at(pbc_at(a, "metrics"), pbc_text(claim, "metric")), "median");
}

static void conditions(FILE *f, const json_t *doc)
{
    const json_t *c, *r = NULL;
    size_t i;
    json_array_foreach(pbc_at(doc, "claims"), i,
                       c) if (!r && json_is_object(pbc_at(c, "comparison"))) r =
        pbc_at(c, "comparison");
    const json_t *o = pbc_at(r, "options"), *m = pbc_at(r, "machine");
    const char *model = strrchr(pbc_text(o, "model"), '/');
    if (!r)
        return;
    fprintf(f,
            "Model `%s`; %s, %.0f processors; %.0f epochs of %.0f rounds, %s cache, seed %.0f. "
            "Each ratio is with the optimization over without it, arms interleaved, with the "
            "interval of the signed-rank test over epochs (3.5 %% shared by seven metrics). Tokens "
            "and logits of every answer were compared.\n",
            model ? model + 1 : pbc_text(o, "model"), pbc_text(m, "processor"),
            pbc_num(m, "processors"), pbc_num(r, "epochs"), pbc_num(o, "blocks"),
            pbc_text(o, "cache"), pbc_num(o, "seed"));
}

static void markdown(FILE *f, const json_t *doc)
{
    const json_t *c;
    size_t i;
    fputs("# The article's optimizations, measured\n\n"
          "Made by `patchbay compare --suite conf/article -m MODEL.gguf`; each row is a pair of "
          "commented pipelines\nand a workload in `conf/article/`.\n\n",
          f);
    conditions(f, doc);
    fputs("\n| claim | metric | without | with | ratio | tokens | gone when | ratio then |\n"
          "|---|---|---|---|---|---|---|---|\n",
          f);
    json_array_foreach(pbc_at(doc, "claims"), i, c)
    {
        fprintf(f, "| %s ", pbc_text(c, "claim"));
        if (!json_is_object(pbc_at(c, "comparison"))) {
            fprintf(f, "| | | | not measured: %s | | | |\n",
                    *pbc_text(c, "missing") ? pbc_text(c, "missing") : "interrupted");
            continue;
        }
        fprintf(f, "| %s | %.2f | %.2f | ", pbc_text(c, "metric"), median(c, 0), median(c, 1));
        ratio(f, metric_json(c, "comparison"));
        fprintf(f, " | %s | %s | ", tokens(c), pbc_text(c, "when"));
        ratio(f, metric_json(c, "control"));
        fputs(" |\n", f);
    }
}

static int page(const char *path, const json_t *doc, pb_err *err)
{
    FILE *f = fopen(path, "w");
    const json_t *c;
    size_t i;
    if (!f)
        return pbi_err(err, PB_E_IO, "--report %s: %s", path, strerror(errno));
    pbc_page_begin(f, "Claims, measured");
    fputs("<div class=wide><table><tr><th>claim<th class=t>metric<th class=t>ratio<th class=t>"
          "tokens<th class=t>gone when<th class=t>ratio then</tr>\n",
          f);
    json_array_foreach(pbc_at(doc, "claims"), i, c)
    {
        fputs("<tr><td>", f);
        pbc_escaped(f, pbc_text(c, "claim"));
        fputs("<td class=t>", f);
        pbc_escaped(f, pbc_text(c, "metric"));
        fputs("<td class=t>", f);
        if (json_is_object(pbc_at(c, "comparison")))
            ratio(f, metric_json(c, "comparison"));
        else
            pbc_escaped(f, pbc_text(c, "missing"));
        fprintf(f, "<td class=t>%s<td class=t>", tokens(c));
        pbc_escaped(f, pbc_text(c, "when"));
        fputs("<td class=t>", f);
        ratio(f, metric_json(c, "control"));
        fputs("</tr>\n", f);
    }
    fputs("</table></div>\n", f);
    json_array_foreach(pbc_at(doc, "claims"), i, c)
    {
        if (!json_is_object(pbc_at(c, "comparison")))
            continue;
        fputs("<h1>", f);
        pbc_escaped(f, pbc_text(c, "claim"));
        fputs("</h1>\n", f);
        pbc_html_body(f, pbc_at(c, "comparison"));
    }
    pbc_page_end(f);
    int bad = ferror(f);
    return fclose(f) || bad ? pbi_err(err, PB_E_IO, "--report %s: %s", path, strerror(errno)) : 0;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static int status(const json_t *doc)
{
    const json_t *c;
    size_t i;
    int worst = 0;
    json_array_foreach(pbc_at(doc, "claims"), i, c)
    {
        const char *t = tokens(c);
        if (!strcmp(t, "DIFFERENT"))
            return PBC_EXIT_DIFFERENT;
        if (!strcmp(t, "NEVER ENGAGED"))
            worst = PBC_EXIT_IDLE;
    }
    return worst;
}

int pbi_suite(const char *dir, const pbi_arms *like, pb_err *err)
{
    suite s = { .dir = dir, .like = like, .claims = json_array() };
    char *path = beside(&s, "suite.ini");
    json_t *doc = NULL;
    int rc = path ? pbi_ini_load(path, &s.ini, err) : pbi_err(err, PB_E_NOMEM, "out of memory");
    if (!rc)
        rc = check(&s, err);
    for (int i = 0; !rc && i < s.ini->n_sections && !pbi_interrupted(NULL); i++)
        rc = one_claim(&s, &s.ini->sections[i], err);
    doc = json_pack("{s:s,s:o}", "format", "patchbay-suite/1", "claims", s.claims);
    if (!rc && like->report)
        rc = page(like->report, doc, err);
    if (!rc && like->common.json)
        rc = pbi_print_json(json_incref(doc));
    else if (!rc)
        markdown(stdout, doc);
    if (!rc)
        rc = status(doc);
    json_decref(doc);
    pbi_ini_free(s.ini);
    free(path);
    return rc;
}
