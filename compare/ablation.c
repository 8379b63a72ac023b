/* SPDX-License-Identifier: MIT
 *
 * compare/ablation.c - see ablation.h.
 */
#define _GNU_SOURCE
#include "ablation.h"
#include "html.h"
#include "report.h"
#include "result.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const int pbc_judged[PBC_N_JUDGED] = { PBC_REQ_S, PBC_TTFT, PBC_E2E, PBC_ITL_P99 };

int pbc_n_effects(const pbf_design *d)
{
    int n = 0;
    for (int f = 0; f < d->n_factors; f++) {
        n += d->factor[f].n - 1;
        for (int g = f + 1; g < d->n_factors; g++)
            n += (d->factor[f].n - 1) * (d->factor[g].n - 1);
    }
    return n;
}

int pbc_ablation_epochs(const pbf_design *d, double level)
{
    int n = pbc_least_n(level / (PBC_N_JUDGED * pbc_n_effects(d)));
    return n < 8 ? 8 : n;
}

/* ---- the document ----------------------------------------------------------- */

typedef struct effect {
    int f, b, g, c; /* g = -1: main effect */
} effect;

static double value_of(const pbf_design *d, const effect *e, const double *y)
{
    return e->g < 0 ? pbf_effect(d, e->f, e->b, y) : pbf_interaction(d, e->f, e->b, e->g, e->c, y);
}

/* One value an epoch, then an interval over epochs. */
static json_t *judged(const pbf_design *d, const pbc_trial *t, const int *arm_of, const effect *e)
{
    double level = t->o.level / (PBC_N_JUDGED * pbc_n_effects(d));
    json_t *all = json_object();
    for (int k = 0; k < PBC_N_JUDGED; k++) {
        const pbc_metric *m = &pbc_metrics[pbc_judged[k]];
        double v[PBC_MAX_EPOCHS], y[PBF_MAX_CELLS];
        pbc_interval r;
        for (int i = 0; i < t->n_epochs; i++) {
            for (int c = 0; c < d->n_cells; c++)
                y[c] = arm_of[c] < 0 ? NAN : t->log_ratio[arm_of[c]][pbc_judged[k]][i];
            v[i] = value_of(d, e, y);
        }
        if (pbc_interval_of(v, t->n_epochs, level, &r))
            r = (pbc_interval){ 0, NAN, NAN, NAN };
        int verdict = pbc_verdict(&r, NULL, t->o.delta, m->more_is_better);
        json_object_set_new(all, m->key,
                            json_pack("{s:o,s:o,s:o,s:s}", "ratio", pbi_number(r.mid), "lo",
                                      pbi_number(r.lo), "hi", pbi_number(r.hi), "verdict",
                                      pbc_verdict_name(verdict)));
    }
    return all;
}

static const char *level_name(const pbf_design *d, int f, int l)
{
    return *d->factor[f].level[l] ? d->factor[f].level[l] : "none";
}

static json_t *aliases(const pbf_design *d, const effect *e)
{
    json_t *all = json_array();
    for (int h = 0; h < d->n_factors; h++)
        for (int i = h + 1; i < d->n_factors; i++)
            if ((h != e->f || i != e->g) && pbf_aliased(d, e->f, e->g, h, i)) {
                char s[160];
                snprintf(s, sizeof s, "%.70s x %.70s", d->factor[h].name, d->factor[i].name);
                json_array_append_new(all, json_string(s));
            }
    return all;
}

static json_t *effect_json(const pbf_design *d, const pbc_trial *t, const int *arm_of,
                           const effect *e)
{
    json_t *j = json_pack("{s:s,s:s,s:s}", "factor", d->factor[e->f].name, "from",
                          level_name(d, e->f, 0), "to", level_name(d, e->f, e->b));
    if (e->g >= 0) {
        json_object_set_new(j, "with", json_string(d->factor[e->g].name));
        json_object_set_new(j, "with_to", json_string(level_name(d, e->g, e->c)));
        json_object_set_new(j, "not_told_from", aliases(d, e));
    }
    json_object_set_new(j, "metrics", judged(d, t, arm_of, e));
    return j;
}

static json_t *cell_json(const pbf_design *d, const pbc_trial *t, int c, int arm,
                         const char *reason)
{
    json_t *j = json_object(), *levels = json_array(), *m = json_object();
    char *name = pbf_name(d, c);
    for (int f = 0; f < d->n_factors; f++)
        json_array_append_new(levels, json_string(level_name(d, f, d->level[c][f])));
    json_object_set_new(j, "name", json_string(name ? name : ""));
    json_object_set_new(j, "levels", levels);
    json_object_set_new(j, "runs", json_boolean(arm >= 0));
    json_object_set_new(j, "reason", reason ? json_string(reason) : json_null());
    if (t && arm >= 0) {
        char a[2048], b[2048];
        const pbc_difference *x = &t->diff[arm];
        pbi_pipeline_numeric_key(t->o.pipelines[0], a, sizeof a, NULL);
        pbi_pipeline_numeric_key(t->o.pipelines[arm], b, sizeof b, NULL);
        json_object_set_new(j, "same_numeric_key", json_boolean(!strcmp(a, b)));
        json_object_set_new(j, "same_tokens", json_boolean(!x->found || x->logits_only));
        json_object_set_new(j, "same_logits", json_boolean(!x->found));
        json_object_set_new(j, "different_answers", json_integer(x->n_answers));
        int from = 0;
        const pbi_use *idle = pbc_idle_use(t, arm, &from);
        json_object_set_new(j, "never_engaged",
                            idle ? json_sprintf("%s-%s", idle->slot, idle->name) : json_null());
        for (int k = 0; k < PBC_N_JUDGED; k++) {
            double copy[PBC_MAX_EPOCHS];
            pbi_dist dist;
            memcpy(copy, t->value[arm][pbc_judged[k]], (size_t)t->n_epochs * sizeof *copy);
            pbi_dist_of(copy, t->n_epochs, &dist);
            json_object_set_new(m, pbc_metrics[pbc_judged[k]].key, pbi_number(dist.p50));
        }
    }
    json_object_set_new(j, "metrics", m);
    free(name);
    return j;
}

json_t *pbc_ablation(const pbf_design *d, const pbc_trial *t, const int *arm_of,
                     const char *const *reason, const char *base, const char *workload)
{
    json_t *j = json_object(), *cells = json_array(), *effects = json_array();
    json_t *factors = json_array(), *metrics = json_array();
    for (int f = 0; f < d->n_factors; f++) {
        json_t *levels = json_array();
        for (int l = 0; l < d->factor[f].n; l++)
            json_array_append_new(levels, json_string(level_name(d, f, l)));
        json_array_append_new(factors,
                              json_pack("{s:s,s:o}", "name", d->factor[f].name, "levels", levels));
    }
    for (int k = 0; k < PBC_N_JUDGED; k++)
        json_array_append_new(metrics,
                              json_pack("{s:s,s:s,s:s}", "key", pbc_metrics[pbc_judged[k]].key,
                                        "name", pbc_metrics[pbc_judged[k]].name, "unit",
                                        pbc_metrics[pbc_judged[k]].unit));
    for (int c = 0; c < d->n_cells; c++)
        json_array_append_new(cells, cell_json(d, t, c, arm_of[c], reason[c]));
    for (int f = 0; t && f < d->n_factors; f++)
        for (int b = 1; b < d->factor[f].n; b++)
            json_array_append_new(effects, effect_json(d, t, arm_of, &(effect){ f, b, -1, 0 }));
    for (int f = 0; t && f < d->n_factors; f++)
        for (int g = f + 1; g < d->n_factors; g++)
            for (int b = 1; b < d->factor[f].n; b++)
                for (int c = 1; c < d->factor[g].n; c++)
                    json_array_append_new(effects,
                                          effect_json(d, t, arm_of, &(effect){ f, b, g, c }));
    json_object_set_new(j, "format", json_string("patchbay-ablation/1"));
    json_object_set_new(j, "base", json_string(base));
    json_object_set_new(j, "workload", json_string(workload));
    json_object_set_new(j, "model", json_string(t ? t->o.model : ""));
    json_object_set_new(j, "epochs", json_integer(t ? t->n_epochs : 0));
    json_object_set_new(j, "least_epochs",
                        json_integer(t ? pbc_ablation_epochs(d, t->o.level) : 0));
    json_object_set_new(j, "fraction", json_integer(d->fraction));
    json_object_set_new(j, "factors", factors);
    json_object_set_new(j, "metrics", metrics);
    json_object_set_new(j, "cells", cells);
    json_object_set_new(j, "effects", effects);
    return j;
}

int pbc_ablation_status(const json_t *doc)
{
    const json_t *c;
    size_t i;
    json_array_foreach(
        pbc_at(doc, "cells"), i,
        c) if (json_is_false(pbc_at(c, "same_logits")) &&
               json_is_true(pbc_at(c, "same_numeric_key"))) return PBC_EXIT_DIFFERENT;
    return 0;
}

/* ---- text ---------------------------------------------------------------------- */

static const char *tokens_of(const json_t *c)
{
    if (!json_is_true(pbc_at(c, "runs")))
        return "refused";
    if (json_is_string(pbc_at(c, "never_engaged")))
        return "never engaged";
    if (json_is_true(pbc_at(c, "same_logits")))
        return "same";
    return json_is_true(pbc_at(c, "same_numeric_key")) ? "DIFFERENT" : "other key";
}

/* "attention=radix" or "attention=radix x scheduler=chunked" */
static void effect_name(const json_t *e, char *buf, size_t n)
{
    int at = snprintf(buf, n, "%s=%s", pbc_text(e, "factor"), pbc_text(e, "to"));
    if (pbc_at(e, "with") && (size_t)at < n)
        snprintf(buf + at, n - (size_t)at, " x %s=%s", pbc_text(e, "with"), pbc_text(e, "with_to"));
}

static void figure(FILE *f, double x, int width, int digits)
{
    if (isfinite(x))
        fprintf(f, "%*.*f", width, digits, x);
    else
        fprintf(f, "%*s", width, "-");
}

static void print_cells(FILE *f, const json_t *doc)
{
    const json_t *c, *m;
    size_t i, k;
    fprintf(f, "%-44s %-13s", "cell", "tokens");
    json_array_foreach(pbc_at(doc, "metrics"), k, m) fprintf(f, " %11s", pbc_text(m, "name"));
    fputc('\n', f);
    json_array_foreach(pbc_at(doc, "cells"), i, c)
    {
        fprintf(f, "%-44s %-13s", pbc_text(c, "name"), tokens_of(c));
        if (json_is_string(pbc_at(c, "reason")))
            fprintf(f, " %s", pbc_text(c, "reason"));
        else
            json_array_foreach(pbc_at(doc, "metrics"), k, m)
                figure(f, pbc_num(pbc_at(c, "metrics"), pbc_text(m, "key")), 12, 2);
        fputc('\n', f);
    }
}

static void print_effects(FILE *f, const json_t *doc, int with, int color)
{
    const json_t *e, *m;
    size_t i, k;
    char name[200];
    json_array_foreach(pbc_at(doc, "effects"), i, e)
    {
        if ((pbc_at(e, "with") != NULL) != with)
            continue;
        effect_name(e, name, sizeof name);
        json_array_foreach(pbc_at(doc, "metrics"), k, m)
        {
            const json_t *x = pbc_at(pbc_at(e, "metrics"), pbc_text(m, "key"));
            const char *v = pbc_text(x, "verdict");
            const char *tint = !color                 ? ""
                               : !strcmp(v, "faster") ? "\033[32m"
                               : !strcmp(v, "slower") ? "\033[31m"
                                                      : "";
            fprintf(f, "%-44s %-9s", k ? "" : name, pbc_text(m, "name"));
            figure(f, pbc_num(x, "ratio"), 7, 3);
            fputs(" [", f);
            figure(f, pbc_num(x, "lo"), 6, 3);
            fputs(", ", f);
            figure(f, pbc_num(x, "hi"), 6, 3);
            fprintf(f, "]  %s%s%s\n", tint, v, *tint ? "\033[0m" : "");
        }
        json_array_foreach(pbc_at(e, "not_told_from"), k, m)
            fprintf(f, "    cannot be told from %s in this fraction\n", json_string_value(m));
    }
}

void pbc_ablation_print(FILE *f, const json_t *doc, int color)
{
    fprintf(f, "base: %s; %s; %.0f epochs", pbc_text(doc, "base"), pbc_text(doc, "workload"),
            pbc_num(doc, "epochs"));
    if (pbc_num(doc, "fraction") > 1)
        fprintf(f, "; one of %.0f cells was run", pbc_num(doc, "fraction"));
    fputs("\n\n", f);
    print_cells(f, doc);
    if (!json_array_size(pbc_at(doc, "effects")))
        return;
    fputs("\nEffects: the ratio that a level brings against the first, averaged over the others\n",
          f);
    print_effects(f, doc, 0, color);
    fputs("\nInteractions: how many times stronger the first acts where the second is set\n", f);
    print_effects(f, doc, 1, color);
    if (pbc_num(doc, "epochs") < pbc_num(doc, "least_epochs"))
        fprintf(f, "\n%.0f epochs give no interval at this level, %.0f do: --epochs\n",
                pbc_num(doc, "epochs"), pbc_num(doc, "least_epochs"));
}

/* ---- HTML ------------------------------------------------------------------------ */

static void html_number(FILE *f, double x)
{
    fputs("<td>", f);
    figure(f, x, 0, 3);
}

static void html_cells(FILE *f, const json_t *doc)
{
    const json_t *c, *m;
    size_t i, k;
    fputs("<h2>Cells</h2><div class=wide><table><tr><th>cell<th class=t>tokens", f);
    json_array_foreach(pbc_at(doc, "metrics"), k, m)
        fprintf(f, "<th>%s, %s", pbc_text(m, "name"), pbc_text(m, "unit"));
    fputs("</tr>\n", f);
    json_array_foreach(pbc_at(doc, "cells"), i, c)
    {
        const char *t = tokens_of(c);
        fputs("<tr><td>", f);
        pbc_escaped(f, pbc_text(c, "name"));
        fprintf(f, "<td class=t><span class=%s>%s</span>",
                !strcmp(t, "same")        ? "yes"
                : !strcmp(t, "DIFFERENT") ? "no"
                                          : "dim",
                t);
        if (json_is_string(pbc_at(c, "reason"))) {
            fprintf(f, "<td class=t colspan=%zu>", json_array_size(pbc_at(doc, "metrics")));
            pbc_escaped(f, pbc_text(c, "reason"));
        } else {
            json_array_foreach(pbc_at(doc, "metrics"), k, m)
                html_number(f, pbc_num(pbc_at(c, "metrics"), pbc_text(m, "key")));
        }
        fputs("</tr>\n", f);
    }
    fputs("</table></div>\n", f);
}

static void html_effects(FILE *f, const json_t *doc, int with)
{
    const json_t *e, *m;
    size_t i, k;
    char name[200];
    fputs("<div class=wide><table><tr><th>effect<th class=t>metric<th>ratio<th>interval<th "
          "class=t>verdict</tr>\n",
          f);
    json_array_foreach(pbc_at(doc, "effects"), i, e)
    {
        if ((pbc_at(e, "with") != NULL) != with)
            continue;
        effect_name(e, name, sizeof name);
        json_array_foreach(pbc_at(doc, "metrics"), k, m)
        {
            const json_t *x = pbc_at(pbc_at(e, "metrics"), pbc_text(m, "key"));
            fputs("<tr><td>", f);
            pbc_escaped(f, k ? "" : name);
            fprintf(f, "<td class=t>%s", pbc_text(m, "name"));
            html_number(f, pbc_num(x, "ratio"));
            html_number(f, pbc_num(x, "lo"));
            fputs(" .. ", f);
            figure(f, pbc_num(x, "hi"), 0, 3);
            fprintf(f, "<td class=t><span class=%s>%s</span></tr>\n", pbc_text(x, "verdict"),
                    pbc_text(x, "verdict"));
        }
    }
    fputs("</table></div>\n", f);
}

int pbc_ablation_html(FILE *f, const json_t *doc)
{
    pbc_page_begin(f, "Ablation");
    fputs("<p>Base <code>", f);
    pbc_escaped(f, pbc_text(doc, "base"));
    fputs("</code>, model <code>", f);
    pbc_escaped(f, pbc_text(doc, "model"));
    fputs("</code>, requests <code>", f);
    pbc_escaped(f, pbc_text(doc, "workload"));
    fprintf(f, "</code>; %.0f epochs.", pbc_num(doc, "epochs"));
    if (pbc_num(doc, "fraction") > 1)
        fprintf(f, " One of %.0f cells was run; interactions are confounded with each other.",
                pbc_num(doc, "fraction"));
    fputs("</p>\n", f);
    html_cells(f, doc);
    fputs("<h2>Effects</h2><p>The ratio that a level brings against its factor's first level, "
          "averaged over all settings of the others.</p>\n",
          f);
    html_effects(f, doc, 0);
    fputs("<h2>Interactions</h2><p>How many times stronger the first acts where the second is set: "
          "1 where they do not matter to each other.</p>\n",
          f);
    html_effects(f, doc, 1);
    pbc_page_end(f);
    return ferror(f) || fflush(f) ? -1 : 0;
}
