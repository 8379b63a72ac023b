/* SPDX-License-Identifier: MIT
 *
 * compare/print.c - the verdict on a terminal: tokens first, then speed.
 */
#include "html.h"
#include "result.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

typedef struct paper {
    FILE *f;
    int color;
} paper;

static const char *tint(const paper *p, const char *code)
{
    return p->color ? code : "";
}
#define RED(p) tint(p, "\033[31m")
#define GREEN(p) tint(p, "\033[32m")
#define BOLD(p) tint(p, "\033[1m")
#define PLAIN(p) tint(p, "\033[0m")

/* "1.234", or "-" where there is nothing to say */
static const char *figure(char *buf, size_t n, double x, int digits)
{
    if (isfinite(x))
        snprintf(buf, n, "%.*f", digits, x);
    else
        snprintf(buf, n, "-");
    return buf;
}

static void print_difference(const paper *p, const json_t *d, const char *name)
{
    char a[32], b[32];
    if (json_is_true(pbc_at(d, "logits_only"))) {
        fprintf(p->f, "%sLOGITS DIFFER%s, tokens do not: first in request %.0f\n", RED(p), PLAIN(p),
                pbc_num(d, "request"));
        return;
    }
    fprintf(p->f, "%sTOKENS DIFFER%s in %.0f answers of %s; first: request %.0f, token %.0f\n",
            RED(p), PLAIN(p), pbc_num(d, "answers"), name, pbc_num(d, "request"),
            pbc_num(d, "token"));
    fprintf(p->f, "  after \"%s\": %.0f \"%s\" in the base, %.0f \"%s\" here\n",
            pbc_text(d, "before_text"), pbc_num(d, "base"), pbc_text(d, "base_text"),
            pbc_num(d, "arm"), pbc_text(d, "arm_text"));
    if (json_is_null(pbc_at(d, "repeats_alone")))
        fprintf(p->f, "  the logits there cannot be seen\n");
    else
        fprintf(p->f,
                "  logit of one's own token - the other's: %s in the base, %s here; alone it %s\n",
                figure(a, sizeof a, pbc_num(d, "base_margin"), 4),
                figure(b, sizeof b, pbc_num(d, "arm_margin"), 4),
                json_is_true(pbc_at(d, "repeats_alone"))
                    ? "differs too"
                    : "does NOT differ: other requests matter");
}

static void print_quality(const paper *p, const json_t *q)
{
    char v[3][32];
    if (pbc_num(q, "positions") > 0)
        fprintf(p->f,
                "  next-token distributions at %.0f places of the base's answers: KL %s nats on "
                "average, %s at most;\n  the likeliest token is the same at %s %%\n",
                pbc_num(q, "positions"), figure(v[0], 32, pbc_num(q, "kl_mean"), 5),
                figure(v[1], 32, pbc_num(q, "kl_max"), 4),
                figure(v[2], 32, 100 * pbc_num(q, "same_top_token"), 1));
    else if (*pbc_text(q, "why_not"))
        fprintf(p->f, "  distributions were not compared: %s\n", pbc_text(q, "why_not"));
    if (pbc_num(q, "samples") > 0)
        fprintf(p->f, "  %.0f samples of each %s one distribution (p = %.3f)\n",
                pbc_num(q, "samples"), pbc_num(q, "p") < 0.01 ? "are NOT from" : "could be from",
                pbc_num(q, "p"));
}

static void print_equality(const paper *p, const json_t *c, const char *name, const json_t *r)
{
    const json_t *diff = pbc_at(c, "pipeline_diff"), *d = pbc_at(c, "difference");
    if (json_is_null(d))
        fprintf(p->f, "%ssame tokens%s in every answer of %.0f epochs; logits bitwise the same\n",
                GREEN(p), PLAIN(p), pbc_num(r, "epochs"));
    else
        print_difference(p, d, name);
    if (!json_is_true(pbc_at(diff, "same_numeric_key")))
        fprintf(p->f, "  numeric keys differ, so equal tokens were not promised: %s | %s\n",
                pbc_text(diff, "a_numeric_key"), pbc_text(diff, "b_numeric_key"));
    else if (!json_is_null(d))
        fprintf(p->f, "  numeric keys are equal: this is a fault of a plugin, or of the core\n");
    if (json_is_object(pbc_at(c, "quality")))
        print_quality(p, pbc_at(c, "quality"));
}

static void print_settings(const paper *p, const json_t *c)
{
    const json_t *all = pbc_at(pbc_at(c, "pipeline_diff"), "differences"), *d;
    size_t i, slots = 0;
    char seen[16][32];
    fprintf(p->f, "differs in:");
    json_array_foreach(all, i, d)
    {
        char slot[32];
        size_t k = 0, n = strcspn(pbc_text(d, "name"), ".");
        snprintf(slot, sizeof slot, "%.*s", (int)n, pbc_text(d, "name"));
        while (k < slots && strcmp(seen[k], slot))
            k++;
        if (k == slots && slots < 16)
            memcpy(seen[slots++], slot, sizeof slot);
        if (i < 6 && !json_is_null(pbc_at(d, "b")))
            fprintf(p->f, "%s %s = %s", i ? "," : "", pbc_text(d, "name"), pbc_text(d, "b"));
    }
    fprintf(p->f, "%s%s\n", json_array_size(all) > 6 ? ", ..." : "",
            json_array_size(all) ? "" : " nothing");
    if (slots > 1)
        fprintf(p->f, "  %zu slots differ: the verdict is on all of them together\n", slots);
}

static void print_metrics(const paper *p, const json_t *r, const json_t *c)
{
    const json_t *arms = pbc_at(r, "arms"), *m;
    const json_t *base = pbc_at(json_array_get(arms, 0), "metrics");
    const json_t *arm = pbc_at(json_array_get(arms, (size_t)pbc_num(c, "arm")), "metrics");
    size_t i;
    fprintf(p->f, "%-13s %11s %11s   %-22s %-16s %s\n", "", "base", "arm", "ratio, interval", "A/A",
            "verdict");
    json_array_foreach(pbc_at(r, "metrics"), i, m)
    {
        const char *key = pbc_text(m, "key"),
                   *verdict = pbc_text(pbc_at(pbc_at(c, "metrics"), key), "verdict");
        const json_t *x = pbc_at(pbc_at(c, "metrics"), key);
        char v[7][32];
        int good = strcmp(verdict, "faster") == 0, bad = strcmp(verdict, "slower") == 0;
        fprintf(p->f, "%-9s %-3s %11s %11s   %6s [%5s, %5s]   [%5s, %5s]   %s%s%s\n",
                pbc_text(m, "name"), pbc_text(m, "unit"),
                figure(v[0], 32, pbc_num(pbc_at(base, key), "median"), 3),
                figure(v[1], 32, pbc_num(pbc_at(arm, key), "median"), 3),
                figure(v[2], 32, pbc_num(x, "ratio"), 3), figure(v[3], 32, pbc_num(x, "lo"), 3),
                figure(v[4], 32, pbc_num(x, "hi"), 3), figure(v[5], 32, pbc_num(x, "noise_lo"), 3),
                figure(v[6], 32, pbc_num(x, "noise_hi"), 3),
                good  ? GREEN(p)
                : bad ? RED(p)
                      : "",
                verdict, good || bad ? PLAIN(p) : "");
    }
}

static void print_counts(const paper *p, const json_t *r, const json_t *c)
{
    static const char *const keys[] = { "cached_tokens", "kv_bytes_peak", "preempted" };
    static const char *const names[] = { "cached tok", "KV bytes", "preempted" };
    const json_t *arms = pbc_at(r, "arms");
    const json_t *a = json_array_get(arms, 0), *b = json_array_get(arms, (size_t)pbc_num(c, "arm"));
    if (isfinite(pbc_num(a, "score")))
        fprintf(p->f, "%-13s %9.1f %% %9.1f %%   of the answers are as expected\n", "score",
                100 * pbc_num(a, "score"), 100 * pbc_num(b, "score"));
    for (int i = 0; i < 3; i++) {
        char v[32];
        double x = pbc_num(a, keys[i]), y = pbc_num(b, keys[i]);
        if (x > 0 || y > 0)
            fprintf(p->f, "%-13s %11.0f %11.0f   %6s\n", names[i], x, y,
                    figure(v, 32, x > 0 ? y / x : NAN, 3));
    }
}

static void print_arm(const paper *p, const json_t *r, const json_t *c)
{
    const json_t *arm = json_array_get(pbc_at(r, "arms"), (size_t)pbc_num(c, "arm")), *idle;
    const char *name = pbc_text(arm, "name");
    size_t i;
    fprintf(p->f, "\n%s%s%s ", BOLD(p), name, PLAIN(p));
    print_settings(p, c);
    print_equality(p, c, name, r);
    json_array_foreach(pbc_at(c, "never_engaged"), i, idle)
    {
        const json_t *n;
        size_t k;
        fprintf(p->f, "%sNEVER ENGAGED%s: [%s] %s did nothing on these requests; still 0:", RED(p),
                PLAIN(p), pbc_text(idle, "slot"), pbc_text(idle, "name"));
        json_array_foreach(pbc_at(idle, "counters"), k, n)
            fprintf(p->f, " %s", json_string_value(n));
        fputc('\n', p->f);
    }
    if (pbc_num(arm, "failed") > 0)
        fprintf(p->f, "%.0f answers failed\n", pbc_num(arm, "failed"));
    print_metrics(p, r, c);
    print_counts(p, r, c);
}

void pbc_print(FILE *f, const json_t *r, int color)
{
    const paper paper_ = { f, color }, *p = &paper_;
    const json_t *o = pbc_at(r, "options"), *c, *aa = pbc_at(r, "a_a_difference");
    size_t i;
    double rows = (double)json_array_size(pbc_at(r, "rows"));
    fprintf(f, "base: %s\n", pbc_text(json_array_get(pbc_at(r, "arms"), 0), "name"));
    fprintf(
        f, "%s: %.0f requests a block, %.0f epochs of %.0f rounds, %s cache, seed %.0f; %.0f s%s\n",
        pbc_text(r, "workload"), pbc_num(r, "requests"), pbc_num(r, "epochs"), pbc_num(o, "blocks"),
        pbc_text(o, "cache"), pbc_num(o, "seed"), pbc_num(r, "seconds"),
        strcmp(pbc_text(r, "ended"), "interrupted") ? "" : ", INTERRUPTED");
    json_array_foreach(pbc_at(r, "comparisons"), i, c) print_arm(p, r, c);
    fputc('\n', f);
    if (!json_is_null(aa)) {
        fprintf(f, "%sTHE BASE DIFFERS FROM ITSELF%s: ", RED(p), PLAIN(p));
        print_difference(p, aa, "A/A");
    }
    if (pbc_num(r, "epochs") < pbc_num(r, "least_epochs"))
        fprintf(f, "%.0f epochs give no interval at this level, %.0f do: --epochs\n",
                pbc_num(r, "epochs"), pbc_num(r, "least_epochs"));
    if (pbc_num(r, "left_out") > 0)
        fprintf(f, "%.0f requests of a block are longer than the context and were left out\n",
                pbc_num(r, "left_out"));
    if (pbc_num(r, "rows_disturbed") > 0)
        fprintf(f, "%.0f of %.0f blocks were disturbed by other load on this machine\n",
                pbc_num(r, "rows_disturbed"), rows);
    if (pbc_num(r, "rows_unsteady") > 0)
        fprintf(f, "%.0f of %.0f blocks are not steady: too short, or the queue grows\n",
                pbc_num(r, "rows_unsteady"), rows);
}
