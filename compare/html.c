/* SPDX-License-Identifier: MIT
 *
 * compare/html.c - the page of a comparison: the verdict first, then what it rests on. Figures:
 * plot.c.
 */
#define _GNU_SOURCE
#include "html.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const json_t *pbc_at(const json_t *j, const char *key)
{
    return json_object_get(j, key);
}

double pbc_num(const json_t *j, const char *key)
{
    const json_t *v = json_object_get(j, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

const char *pbc_text(const json_t *j, const char *key)
{
    const char *s = json_string_value(json_object_get(j, key));
    return s ? s : "";
}

void pbc_escaped(FILE *f, const char *s)
{
    for (; *s; s++) {
        const char *e = *s == '<'    ? "&lt;"
                        : *s == '>'  ? "&gt;"
                        : *s == '&'  ? "&amp;"
                        : *s == '"'  ? "&quot;"
                        : *s == '\'' ? "&#39;"
                                     : NULL;
        if (e)
            fputs(e, f);
        else
            fputc(*s, f);
    }
}

static const char style[] =
    ":root{--bg:#fff;--fg:#1c2024;--dim:#687076;--rule:#dfe3e6;--noise:#c8cdd2;--good:#18794e;"
    "--bad:#c62a2f;--a0:#0b68cb;--a1:#c4560b;--a2:#8e8c99;--a3:#7c3aad;--a4:#0d7d74;--a5:#a0527a}"
    "@media(prefers-color-scheme:dark){:root{--bg:#16181a;--fg:#e6e8ea;--dim:#9ba1a6;"
    "--rule:#313538;--noise:#4a5055;--good:#4cc38a;--bad:#ff6369;--a0:#52a9ff;--a1:#ff9b52;"
    "--a2:#908e96;--a3:#bf7af0;--a4:#3cc7ba;--a5:#e58fb9}}"
    "body{background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif;max-width:60rem;"
    "margin:2rem auto;padding:0 1rem}h1{font-size:1.5rem}h2{margin-top:2.5rem;border-bottom:1px "
    "solid var(--rule)}table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}"
    "td,th{padding:.2rem .6rem;text-align:right;border-bottom:1px solid var(--rule)}"
    "table{margin:.8rem 0}td:first-child,th:first-child{text-align:left}td.t,th.t{text-align:left}"
    "code,pre{font-family:ui-monospace,monospace;font-size:.9em;overflow-wrap:anywhere}"
    ".faster,.yes{color:var(--good);font-weight:600}.slower,.no{color:var(--bad);font-weight:600}"
    ".dim{color:var(--dim)}.wide{overflow-x:auto}svg{width:100%;height:auto;margin:1rem 0}"
    "svg text{fill:var(--fg);font-size:12px}svg .head{font-weight:600;font-size:13px}"
    "svg .tick{fill:var(--dim);font-size:11px}.grid{stroke:var(--rule)}.one{stroke:var(--dim);"
    "stroke-dasharray:4 3}.noise{fill:var(--noise);opacity:.5}.bar{stroke:var(--dim);"
    "stroke-width:3}.bar.faster{stroke:var(--good)}.bar.slower{stroke:var(--bad)}"
    ".dot{fill:var(--dim)}.dot.faster{fill:var(--good)}.dot.slower{fill:var(--bad)}"
    ".dot.arm1{fill:var(--a1)}.ring{fill:none;stroke:var(--a2);stroke-width:1.5}"
    ".line{fill:none;stroke-width:2}.arm0{stroke:var(--a0)}.arm1{stroke:var(--a1)}"
    ".arm2{stroke:var(--a2)}.arm3{stroke:var(--a3)}.arm4{stroke:var(--a4)}.arm5{stroke:var(--a5)}";

static void number(FILE *f, double x, int digits)
{
    if (isfinite(x))
        fprintf(f, "%.*f", digits, x);
    else
        fputs("-", f);
}

static const json_t *arm_of(const json_t *r, const json_t *c)
{
    return json_array_get(pbc_at(r, "arms"), (size_t)pbc_num(c, "arm"));
}

/* ---- the verdict ----------------------------------------------------------- */

static void sentence(FILE *f, const json_t *r, const json_t *c)
{
    const json_t *m = pbc_at(pbc_at(c, "metrics"), "requests_per_s");
    const char *verdict = pbc_text(m, "verdict");
    double ratio = pbc_num(m, "ratio");
    fputs("<p><strong>", f);
    pbc_escaped(f, pbc_text(arm_of(r, c), "name"));
    fputs("</strong>: ", f);
    if (json_is_true(pbc_at(c, "same_logits")))
        fputs("<span class=yes>the same tokens and logits</span>", f);
    else if (json_is_true(pbc_at(c, "same_tokens")))
        fputs("<span class=no>the same tokens, other logits</span>", f);
    else
        fprintf(f, "<span class=no>OTHER TOKENS</span> in %.0f answers",
                pbc_num(pbc_at(c, "difference"), "answers"));
    if (json_array_size(pbc_at(c, "never_engaged")))
        fputs("; <span class=no>what differs NEVER ENGAGED</span>", f);
    if (!strcmp(verdict, "faster") || !strcmp(verdict, "slower"))
        fprintf(f, "; <span class=%s>%s</span>: %.2f times the requests/s (%.3f to %.3f).</p>\n",
                verdict, verdict, ratio, pbc_num(m, "lo"), pbc_num(m, "hi"));
    else
        fprintf(f, "; requests/s: %s%s.</p>\n", verdict,
                strcmp(verdict, "tie") ? "" : ", no difference that matters");
}

static void metrics_table(FILE *f, const json_t *r, const json_t *c)
{
    const json_t *base = pbc_at(json_array_get(pbc_at(r, "arms"), 0), "metrics"), *m;
    const json_t *arm = pbc_at(arm_of(r, c), "metrics");
    size_t i;
    fputs("<div class=wide><table><tr><th>metric<th>base<th>arm<th>ratio<th>interval<th>A/A<th "
          "class=t>verdict</tr>\n",
          f);
    json_array_foreach(pbc_at(r, "metrics"), i, m)
    {
        const char *key = pbc_text(m, "key");
        const json_t *x = pbc_at(pbc_at(c, "metrics"), key);
        fprintf(f, "<tr><td>%s, %s<td>", pbc_text(m, "name"), pbc_text(m, "unit"));
        number(f, pbc_num(pbc_at(base, key), "median"), 3);
        fputs("<td>", f);
        number(f, pbc_num(pbc_at(arm, key), "median"), 3);
        fputs("<td>", f);
        number(f, pbc_num(x, "ratio"), 3);
        fputs("<td>", f);
        number(f, pbc_num(x, "lo"), 3);
        fputs(" .. ", f);
        number(f, pbc_num(x, "hi"), 3);
        fputs("<td>", f);
        number(f, pbc_num(x, "noise_lo"), 3);
        fputs(" .. ", f);
        number(f, pbc_num(x, "noise_hi"), 3);
        fprintf(f, "<td class=t><span class=%s>%s</span></tr>\n", pbc_text(x, "verdict"),
                pbc_text(x, "verdict"));
    }
    fputs("</table></div>\n", f);
}

static void difference(FILE *f, const json_t *d)
{
    if (!json_is_object(d))
        return;
    fprintf(f, "<p>First difference: request %.0f, token %.0f, ", pbc_num(d, "request"),
            pbc_num(d, "token"));
    fputs("after <code>", f);
    pbc_escaped(f, pbc_text(d, "before_text"));
    fprintf(f, "</code>: %.0f <code>", pbc_num(d, "base"));
    pbc_escaped(f, pbc_text(d, "base_text"));
    fprintf(f, "</code> in the base, %.0f <code>", pbc_num(d, "arm"));
    pbc_escaped(f, pbc_text(d, "arm_text"));
    fputs("</code> in the arm. Logit of one's own token above the other's: ", f);
    number(f, pbc_num(d, "base_margin"), 4);
    fputs(" and ", f);
    number(f, pbc_num(d, "arm_margin"), 4);
    fprintf(f, ". %s</p>\n",
            json_is_null(pbc_at(d, "repeats_alone")) ? "It was not run again alone."
            : json_is_true(pbc_at(d, "repeats_alone"))
                ? "Run alone, it differs too."
                : "Run alone, it does not differ: other requests matter.");
}

static void settings(FILE *f, const json_t *c)
{
    const json_t *diff = pbc_at(c, "pipeline_diff"), *d;
    size_t i;
    fputs("<div class=wide><table><tr><th>differs in<th class=t>base<th class=t>arm<th class=t>"
          "written at<th class=t></tr>\n",
          f);
    json_array_foreach(pbc_at(diff, "differences"), i, d)
    {
        const char *const keys[] = { "name", "a", "b", "b_origin" };
        fputs("<tr>", f);
        for (int k = 0; k < 4; k++) {
            fputs(k ? "<td class=t><code>" : "<td><code>", f);
            pbc_escaped(f, pbc_text(d, keys[k]));
            fputs("</code>", f);
        }
        fprintf(f, "<td class=t>%s</tr>\n",
                json_is_true(pbc_at(d, "may_change_output")) ? "may change tokens" : "");
    }
    fputs("</table></div>\n", f);
    if (!json_is_true(pbc_at(diff, "same_numeric_key")))
        fputs("<p>The numeric keys differ, so equal tokens were not promised.</p>\n", f);
}

static void quality(FILE *f, const json_t *q)
{
    if (pbc_num(q, "positions") > 0) {
        fprintf(f, "<p>Next-token distributions at %.0f places of the base's answers: KL ",
                pbc_num(q, "positions"));
        number(f, pbc_num(q, "kl_mean"), 5);
        fputs(" nats on average, ", f);
        number(f, pbc_num(q, "kl_max"), 4);
        fputs(" at most; the likeliest token is the same at ", f);
        number(f, 100 * pbc_num(q, "same_top_token"), 1);
        fputs(" %.</p>\n", f);
    }
    if (pbc_num(q, "samples") > 0)
        fprintf(f, "<p>%.0f samples of each %s one distribution (p = %.3f).</p>\n",
                pbc_num(q, "samples"),
                pbc_num(q, "p") < 0.01 ? "are <span class=no>not from</span>" : "could be from",
                pbc_num(q, "p"));
}

static void never_engaged(FILE *f, const json_t *c)
{
    const json_t *u, *n;
    size_t i, k;
    json_array_foreach(pbc_at(c, "never_engaged"), i, u)
    {
        fputs("<p><span class=no>Never engaged</span>: ", f);
        pbc_escaped(f, pbc_text(u, "slot"));
        fputs(" ", f);
        pbc_escaped(f, pbc_text(u, "name"));
        fputs("; these counters stayed at zero:", f);
        json_array_foreach(pbc_at(u, "counters"), k, n)
        {
            fputs(" ", f);
            pbc_escaped(f, json_string_value(n));
        }
        fputs(". The requests give it nothing to do.</p>\n", f);
    }
}

/* ---- the evidence ------------------------------------------------------------- */

static void arms_table(FILE *f, const json_t *r)
{
    static const char *const keys[] = { "prompt_tokens", "cached_tokens", "output_tokens",
                                        "preempted",     "failed",        "kv_bytes_peak",
                                        "weight_bytes" };
    const json_t *a;
    size_t i;
    fputs(
        "<div class=wide><table><tr><th>all timed blocks<th>prompt tok<th>cached<th>output tok<th>"
        "preempted<th>failed<th>KV bytes<th>weight bytes</tr>\n",
        f);
    json_array_foreach(pbc_at(r, "arms"), i, a)
    {
        fputs("<tr><td>", f);
        pbc_escaped(f, pbc_text(a, "name"));
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            fprintf(f, "<td>%.0f", pbc_num(a, keys[k]));
        fputs("</tr>\n", f);
    }
    fputs("</table></div>\n", f);
}

static double last_ms(const json_t *r)
{
    double most = 0;
    const json_t *a;
    size_t i;
    json_array_foreach(pbc_at(r, "arms"), i, a)
    {
        const json_t *t = pbc_at(pbc_at(a, "timeline"), "ms");
        double ms = json_number_value(json_array_get(t, json_array_size(t) - 1));
        most = json_array_size(t) && ms > most ? ms : most;
    }
    return most;
}

static void plugins(FILE *f, const json_t *r, const json_t *arm)
{
    const json_t *p, *v;
    const char *key;
    size_t i;
    fputs("<h3>", f);
    pbc_escaped(f, pbc_text(arm, "name"));
    fputs("</h3><div class=wide><table><tr><th>plugin<th>memory, bytes<th>in calls of the untimed "
          "block, ms<th class=t>"
          "counters of the last epoch</tr>\n",
          f);
    json_array_foreach(pbc_at(arm, "plugins"), i, p)
    {
        double ms = 0;
        void *it;
        for (it = json_object_iter((json_t *)pbc_at(p, "calls")); it;
             it = json_object_iter_next((json_t *)pbc_at(p, "calls"), it))
            ms += pbc_num(json_object_iter_value(it), "ms");
        fprintf(f, "<tr><td>%s ", pbc_text(p, "slot"));
        pbc_escaped(f, pbc_text(p, "name"));
        fprintf(f, "<td>%.0f<td>%.2f<td class=t>", pbc_num(p, "memory_peak_bytes"), ms);
        json_object_foreach((json_t *)pbc_at(p, "counters"), key, v)
        {
            pbc_escaped(f, key);
            fprintf(f, " %.0f &ensp;", json_number_value(v));
        }
        fputs("</tr>\n", f);
    }
    fputs("</table></div>\n", f);
    pbc_plot_timeline(f, arm, last_ms(r));
    pbc_plot_plugins(f, arm);
}

static void pipeline(FILE *f, const json_t *arm)
{
    char *s = json_dumps(pbc_at(arm, "pipeline"), JSON_INDENT(1));
    fputs("<details><summary>", f);
    pbc_escaped(f, pbc_text(arm, "name"));
    fputs(": every effective value and where it comes from; hashes of plugins</summary><pre>", f);
    pbc_escaped(f, s ? s : "");
    fputs("</pre></details>\n", f);
    free(s);
}

static void conditions(FILE *f, const json_t *r)
{
    const json_t *o = pbc_at(r, "options"), *m = pbc_at(r, "machine");
    fputs("<p>Model <code>", f);
    pbc_escaped(f, pbc_text(o, "model"));
    fputs("</code>, requests <code>", f);
    pbc_escaped(f, pbc_text(r, "workload"));
    fprintf(f,
            "</code>: %.0f in a block. %.0f epochs (%s), %.0f timed rounds each, %s cache, seed "
            "%.0f, %.0f s. Interval: signed rank over epochs, %.1f %% shared by metrics and arms; "
            "a tie lies within %.1f %%.</p><p>",
            pbc_num(r, "requests"), pbc_num(r, "epochs"), pbc_text(r, "ended"),
            pbc_num(o, "blocks"), pbc_text(o, "cache"), pbc_num(o, "seed"), pbc_num(r, "seconds"),
            100 * pbc_num(o, "level"), 100 * pbc_num(o, "delta"));
    pbc_escaped(f, pbc_text(m, "processor"));
    fprintf(f, ", %.0f processors, %.1f GiB, ", pbc_num(m, "processors"),
            pbc_num(m, "memory_bytes") / 1073741824.0);
    pbc_escaped(f, pbc_text(m, "system"));
    fputs(" ", f);
    pbc_escaped(f, pbc_text(m, "release"));
    fprintf(f, ". Of %zu blocks %.0f were disturbed by other load, %.0f not steady.</p>\n",
            json_array_size(pbc_at(r, "rows")), pbc_num(r, "rows_disturbed"),
            pbc_num(r, "rows_unsteady"));
    if (pbc_num(r, "left_out") > 0)
        fprintf(f,
                "<p>%.0f requests of a block are longer than the context and were left out.</p>\n",
                pbc_num(r, "left_out"));
    if (json_is_string(pbc_at(r, "workload_ini"))) {
        fputs("<details><summary>the workload</summary><pre>", f);
        pbc_escaped(f, pbc_text(r, "workload_ini"));
        fputs("</pre></details>\n", f);
    }
}

void pbc_page_begin(FILE *f, const char *title)
{
    fprintf(f,
            "<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=viewport "
            "content=\"width=device-width\"><link rel=icon href=\"data:,\"><title>patchbay: "
            "%s</title><style>%s</style>\n<h1>%s</h1>\n",
            title, style, title);
}

void pbc_page_end(FILE *f)
{
    fputs("<p class=dim>Ratios are arm over base. TTFT first token - arrival; TPOT (E2E - TTFT) / "
          "(n - 1); E2E last token - arrival; ITL each token - the one before. Terms: "
          "patchbay-compare(1).</p>\n</html>\n",
          f);
}

void pbc_html_body(FILE *f, const json_t *r)
{
    const json_t *c, *a;
    size_t i;
    json_array_foreach(pbc_at(r, "comparisons"), i, c) sentence(f, r, c);
    if (json_is_object(pbc_at(r, "a_a_difference")))
        fputs("<p class=no>THE BASE DIFFERS FROM ITSELF: no verdict on tokens can be trusted.</p>",
              f);
    if (pbc_num(r, "epochs") < pbc_num(r, "least_epochs"))
        fprintf(f, "<p class=no>%.0f epochs give no interval at this level; %.0f would.</p>\n",
                pbc_num(r, "epochs"), pbc_num(r, "least_epochs"));
    conditions(f, r);
    json_array_foreach(pbc_at(r, "comparisons"), i, c)
    {
        fputs("<h2>", f);
        pbc_escaped(f, pbc_text(arm_of(r, c), "name"));
        fputs("</h2>\n", f);
        metrics_table(f, r, c);
        difference(f, pbc_at(c, "difference"));
        quality(f, pbc_at(c, "quality"));
        never_engaged(f, c);
        settings(f, c);
        pbc_plot_forest(f, r, c);
        pbc_plot_epochs(f, c, "requests_per_s", "requests/s, arm / base, by epoch");
        pbc_plot_epochs(f, c, "e2e_ms", "E2E, arm / base, by epoch");
    }
    fputs("<h2>Distributions</h2>\n", f);
    pbc_plot_ecdf(f, r, "ttft_ms", "share of answers whose TTFT was below, ms");
    pbc_plot_ecdf(f, r, "e2e_ms", "share of answers whose E2E was below, ms");
    fputs("<h2>Arms</h2>\n", f);
    arms_table(f, r);
    json_array_foreach(pbc_at(r, "arms"), i, a) plugins(f, r, a);
    fputs("<h2>Pipelines</h2>\n", f);
    json_array_foreach(pbc_at(r, "arms"), i, a) pipeline(f, a);
}

int pbc_html(FILE *f, const json_t *r)
{
    pbc_page_begin(f, "Comparison");
    pbc_html_body(f, r);
    pbc_page_end(f);
    return ferror(f) || fflush(f) ? -1 : 0;
}
