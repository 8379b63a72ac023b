/* SPDX-License-Identifier: MIT
 *
 * compare/plot.c - the figures of a report as SVG. Colours are classes of the page's style sheet
 * (html.c), so that they follow light and dark.
 */
#define _GNU_SOURCE
#include "html.h"

#include <math.h>
#include <string.h>

enum { LEFT = 120, RIGHT = 24, TOP = 28, WIDTH = 720 };

typedef struct axis { /* values lo..hi onto pixels a..b */
    double lo, hi, a, b;
    int log;
} axis;

static double on(const axis *x, double v)
{
    double lo = x->log ? log(x->lo) : x->lo, hi = x->log ? log(x->hi) : x->hi;
    double at = ((x->log ? log(v) : v) - lo) / (hi - lo);
    at = at < 0 ? 0 : at > 1 ? 1 : at;
    return x->a + at * (x->b - x->a);
}

/* a round step that gives 4 to 9 ticks */
static double step_of(double span)
{
    double s = pow(10, floor(log10(span / 4)));
    return span / s > 20 ? 5 * s : span / s > 9 ? 2 * s : s;
}

static void ticks(FILE *f, const axis *x, double y0, double y1)
{
    double s = step_of(x->hi - x->lo);
    int digits = s < 0.01 ? 3 : s < 0.1 ? 2 : s < 1 ? 1 : 0;
    for (double v = ceil(x->lo / s) * s; v <= x->hi + s / 1e6; v += s)
        fprintf(f,
                "<line class=grid x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>"
                "<text class=tick x=\"%.1f\" y=\"%.1f\" text-anchor=middle>%.*f</text>\n",
                on(x, v), on(x, v), y0, y1, on(x, v), y1 + 16, digits, v);
}

static void begin(FILE *f, double height, const char *title)
{
    fprintf(f,
            "<svg viewBox=\"0 0 %d %.0f\" role=img aria-label=\"%s\">\n"
            "<text class=head x=\"0\" y=\"16\">%s</text>\n",
            WIDTH, height, title, title);
}

static void widen(axis *x, double v)
{
    if (!isfinite(v) || v <= 0)
        return;
    x->lo = v < x->lo ? v : x->lo;
    x->hi = v > x->hi ? v : x->hi;
}

static double or_else(double v, double other)
{
    return isfinite(v) ? v : other;
}

void pbc_plot_forest(FILE *f, const json_t *r, const json_t *c)
{
    const json_t *metrics = pbc_at(r, "metrics"), *m;
    axis x = { 0.95, 1.05, LEFT, WIDTH - RIGHT, 1 };
    size_t i;
    double rows = (double)json_array_size(metrics), y1 = TOP + 26 * rows;
    json_array_foreach(metrics, i, m)
    {
        const json_t *v = pbc_at(pbc_at(c, "metrics"), pbc_text(m, "key"));
        widen(&x, pbc_num(v, "ratio"));
        widen(&x, pbc_num(v, "lo"));
        widen(&x, pbc_num(v, "hi"));
        widen(&x, pbc_num(v, "noise_lo"));
        widen(&x, pbc_num(v, "noise_hi"));
    }
    x.lo *= 0.98;
    x.hi *= 1.02;
    begin(f, y1 + 24, "arm / base: ratio and interval; grey: base against itself");
    ticks(f, &x, TOP, y1);
    fprintf(f, "<line class=one x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%.1f\"/>\n", on(&x, 1),
            on(&x, 1), TOP, y1);
    json_array_foreach(metrics, i, m)
    {
        const json_t *v = pbc_at(pbc_at(c, "metrics"), pbc_text(m, "key"));
        double y = TOP + 26 * (double)i + 13, mid = pbc_num(v, "ratio");
        double a = or_else(pbc_num(v, "noise_lo"), 1), b = or_else(pbc_num(v, "noise_hi"), 1);
        fprintf(f, "<text class=label x=\"0\" y=\"%.1f\">", y + 4);
        pbc_escaped(f, pbc_text(m, "name"));
        fprintf(f,
                "</text><rect class=noise x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"16\"/>\n",
                on(&x, a), y - 8, on(&x, b) - on(&x, a));
        if (!isfinite(mid))
            continue;
        fprintf(f,
                "<line class=\"bar %s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>"
                "<circle class=\"dot %s\" cx=\"%.1f\" cy=\"%.1f\" r=\"5\"/>\n",
                pbc_text(v, "verdict"), on(&x, or_else(pbc_num(v, "lo"), mid)),
                on(&x, or_else(pbc_num(v, "hi"), mid)), y, y, pbc_text(v, "verdict"), on(&x, mid),
                y);
    }
    fprintf(f, "</svg>\n");
}

void pbc_plot_ecdf(FILE *f, const json_t *r, const char *key, const char *title)
{
    const json_t *arms = pbc_at(r, "arms"), *arm, *q;
    axis x = { INFINITY, 0, LEFT, WIDTH - RIGHT, 0 };
    const axis y = { 0, 1, TOP + 200, TOP, 0 };
    size_t i, k;
    json_array_foreach(arms, i, arm) json_array_foreach(pbc_at(pbc_at(arm, "quantiles"), key), k, q)
        widen(&x, json_number_value(q));
    if (!(x.lo < x.hi))
        return;
    x.lo = 0;
    begin(f, TOP + 226 + 18 * (double)json_array_size(arms), title);
    ticks(f, &x, TOP, TOP + 200);
    for (int p = 0; p <= 100; p += 25)
        fprintf(f, "<text class=tick x=\"%d\" y=\"%.1f\" text-anchor=end>%d %%</text>\n", LEFT - 8,
                on(&y, p / 100.0) + 4, p);
    json_array_foreach(arms, i, arm)
    {
        const json_t *v = pbc_at(pbc_at(arm, "quantiles"), key);
        double n = (double)json_array_size(v) - 1;
        fprintf(f, "<polyline class=\"line arm%zu\" points=\"", i % 6);
        json_array_foreach(v, k, q)
            fprintf(f, "%.1f,%.1f ", on(&x, json_number_value(q)), on(&y, (double)k / n));
        fprintf(f, "\"/><line class=\"line arm%zu\" x1=\"%d\" x2=\"%d\" y1=\"%.0f\" y2=\"%.0f\"/>",
                i % 6, LEFT, LEFT + 30, TOP + 232 + 18 * (double)i, TOP + 232 + 18 * (double)i);
        fprintf(f, "<text class=label x=\"%d\" y=\"%.0f\">", LEFT + 38, TOP + 236 + 18 * (double)i);
        pbc_escaped(f, pbc_text(arm, "name"));
        fprintf(f, "</text>\n");
    }
    fprintf(f, "</svg>\n");
}

static void dots(FILE *f, const json_t *v, const axis *x, const axis *y, const char *class)
{
    const json_t *q;
    size_t k;
    json_array_foreach(v, k, q) if (json_is_number(q))
        fprintf(f, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/>\n", class,
                on(x, (double)k + 1), on(y, exp(json_number_value(q))));
}

void pbc_plot_epochs(FILE *f, const json_t *c, const char *key, const char *title)
{
    const json_t *m = pbc_at(pbc_at(c, "metrics"), key), *q;
    const json_t *v = pbc_at(m, "log_ratios"), *noise = pbc_at(m, "noise_log_ratios");
    axis y = { 0.97, 1.03, TOP + 160, TOP, 1 };
    const axis x = { 0, (double)json_array_size(v) + 1, LEFT, WIDTH - RIGHT, 0 };
    size_t k;
    if (!json_array_size(v))
        return;
    json_array_foreach(v, k, q) widen(&y, exp(json_number_value(q)));
    json_array_foreach(noise, k, q) widen(&y, exp(json_number_value(q)));
    begin(f, TOP + 190, title);
    double s = step_of(y.hi - y.lo);
    for (double t = ceil(y.lo / s) * s; t <= y.hi; t += s)
        fprintf(f,
                "<line class=grid x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>"
                "<text class=tick x=\"%d\" y=\"%.1f\" text-anchor=end>%.2f</text>\n",
                LEFT, WIDTH - RIGHT, on(&y, t), on(&y, t), LEFT - 8, on(&y, t) + 4, t);
    fprintf(f, "<line class=one x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>\n", LEFT,
            WIDTH - RIGHT, on(&y, 1), on(&y, 1));
    dots(f, noise, &x, &y, "ring");
    dots(f, v, &x, &y, "dot arm1");
    fprintf(f,
            "<text class=tick x=\"%d\" y=\"%d\">epoch 1 .. %zu; rings: base against itself"
            "</text></svg>\n",
            LEFT, TOP + 180, json_array_size(v));
}

/* ---- steps and plugins --------------------------------------------------------- */

static double largest(const json_t *v)
{
    const json_t *q;
    double most = 0;
    size_t k;
    json_array_foreach(v, k, q) most = json_number_value(q) > most ? json_number_value(q) : most;
    return most;
}

/* One strip: a line of values over time, steps held until the next. */
static void strip(FILE *f, const json_t *t, const json_t *v, const axis *x, const axis *y,
                  const char *class)
{
    const json_t *q;
    size_t k;
    double before = 0;
    fprintf(f, "<polyline class=\"%s\" points=\"", class);
    json_array_foreach(v, k, q)
    {
        double at = on(x, json_number_value(json_array_get(t, k)));
        fprintf(f, "%.1f,%.1f ", at, on(y, k ? before : json_number_value(q)));
        before = json_number_value(q);
        fprintf(f, "%.1f,%.1f ", at, on(y, before));
    }
    fputs("\"/>\n", f);
}

void pbc_plot_timeline(FILE *f, const json_t *arm, double last_ms)
{
    static const struct {
        const char *name, *key[2], *legend[2];
        double unit;
    } rows[] = {
        { "rows of a step", { "prefill_rows", "decode_rows" }, { "prefill", "decode" }, 1 },
        { "sequences", { "waiting", "running" }, { "waiting", "running" }, 1 },
        { "KV taken, MiB", { "kv_bytes", NULL }, { "", "" }, 1048576 },
    };
    const json_t *line = pbc_at(arm, "timeline"), *t = pbc_at(line, "ms");
    const axis x = { 0, last_ms > 0 ? last_ms : 1, LEFT, WIDTH - RIGHT, 0 };
    char title[160];
    if (json_array_size(t) < 2)
        return;
    snprintf(title, sizeof title, "steps of the first timed block");
    begin(f, TOP + 3 * 92 + 26, title);
    ticks(f, &x, TOP, TOP + 3 * 92);
    for (int i = 0; i < 3; i++) {
        const json_t *a = pbc_at(line, rows[i].key[0]);
        const json_t *b = rows[i].key[1] ? pbc_at(line, rows[i].key[1]) : NULL;
        double most = largest(a) > largest(b) ? largest(a) : largest(b), top = TOP + 92.0 * i;
        const axis y = { 0, most > 0 ? most : 1, top + 84, top + 12, 0 };
        fprintf(f,
                "<text class=label x=\"0\" y=\"%.0f\">%s</text><text class=tick x=\"%d\" "
                "y=\"%.0f\" text-anchor=end>%.0f</text>\n",
                top + 30, rows[i].name, LEFT - 8, top + 16, most / rows[i].unit);
        for (int k = 0; k < 2 && rows[i].key[1]; k++)
            fprintf(f,
                    "<line class=\"line arm%d\" x1=\"0\" x2=\"16\" y1=\"%.0f\" y2=\"%.0f\"/>"
                    "<text class=tick x=\"22\" y=\"%.0f\">%s</text>\n",
                    !k, top + 44 + 16 * k, top + 44 + 16 * k, top + 48 + 16 * k, rows[i].legend[k]);
        strip(f, t, a, &x, &y, rows[i].key[1] ? "line arm1" : "line arm0");
        if (b)
            strip(f, t, b, &x, &y, "line arm0");
    }
    fprintf(f, "<text class=tick x=\"%d\" y=\"%d\">ms</text></svg>\n", WIDTH - RIGHT + 4,
            TOP + 3 * 92 + 16);
}

static double plugin_ms(const json_t *plugin)
{
    json_t *calls = (json_t *)pbc_at(plugin, "calls"), *v;
    const char *key;
    double ms = 0;
    json_object_foreach(calls, key, v) if (strcmp(key, "run")) /* the loop holds all others */
        ms += pbc_num(v, "ms");
    return ms;
}

void pbc_plot_plugins(FILE *f, const json_t *arm)
{
    const json_t *plugins = pbc_at(arm, "plugins"), *p;
    double most = 0, y = TOP;
    size_t i;
    json_array_foreach(plugins, i, p) most = plugin_ms(p) > most ? plugin_ms(p) : most;
    if (!(most > 0))
        return;
    /* a backend computes, policies decide: thousandths apart, so the scale is logarithmic */
    const axis x = { most / 1e5, most, LEFT + 60, WIDTH - RIGHT - 60, 1 };
    begin(f, TOP + 20 * (double)json_array_size(plugins) + 8,
          "time inside of plugins, ms (logarithmic)");
    json_array_foreach(plugins, i, p)
    {
        double ms = plugin_ms(p);
        if (!(ms > 0))
            continue;
        fprintf(f, "<text class=label x=\"0\" y=\"%.0f\">", y + 13);
        pbc_escaped(f, pbc_text(p, "slot"));
        fputc('-', f);
        pbc_escaped(f, pbc_text(p, "name"));
        fprintf(f,
                "</text><rect class=noise x=\"%.1f\" y=\"%.0f\" width=\"%.1f\" height=\"14\"/>"
                "<text class=tick x=\"%.1f\" y=\"%.0f\">%.3f</text>\n",
                x.a, y + 2, on(&x, ms < x.lo ? x.lo : ms) - x.a, on(&x, ms) + 6, y + 13, ms);
        y += 20;
    }
    fprintf(f, "</svg>\n");
}
