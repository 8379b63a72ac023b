/* SPDX-License-Identifier: MIT
 *
 * compare/pairs.c - see pairs.h.
 */
#define _GNU_SOURCE
#include "pairs.h"
#include "html.h"
#include "result.h"

#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { MAX_SINGLES = PBF_MAX_FACTORS * (PBF_MAX_LEVELS - 1) };

typedef struct outcome {
    int rc;
    uint64_t hash;  /* of all answers: ids, ends, logits */
    char key[2048]; /* numeric key */
    pb_err err;
} outcome;

static const char *const status_names[] = { "", "same", "changes", "runs", "refused", "DIFFERENT" };

/* ---- runs --------------------------------------------------------------------- */

static uint64_t hash_answers(const pbi_answer *a, int64_t n)
{
    uint64_t h = 1;
    for (int64_t i = 0; i < n; i++) {
        h = XXH3_64bits_withSeed(a[i].ids, (size_t)a[i].n_ids * sizeof *a[i].ids, h);
        h = XXH3_64bits_withSeed(&a[i].logits_hash, sizeof a[i].logits_hash, h);
        h = XXH3_64bits_withSeed(a[i].finish, strlen(a[i].finish), h);
    }
    return h;
}

static int run_requests(pbi_arm *arm, const pbc_pairs_options *o, outcome *out)
{
    const pbi_run_hooks hooks = { .stop = o->stop };
    pbi_answer *a = calloc((size_t)o->n, sizeof *a);
    if (!a)
        return pbi_err(&out->err, PB_E_NOMEM, "no memory for answers");
    int rc = pbi_arm_run(arm, o->n, o->requests, a, &hooks, NULL, &out->err);
    for (int64_t i = 0; i < o->n && !rc; i++)
        if (a[i].err.code) {
            rc = a[i].err.code;
            out->err = a[i].err;
        }
    if (!rc)
        out->hash = hash_answers(a, o->n);
    for (int64_t i = 0; i < o->n; i++)
        pbi_answer_clear(&a[i]);
    free(a);
    return rc;
}

/* share: an open arm whose device is used where it can be, or NULL; keep: the arm stays open */
static void run_one(const pbc_pairs_options *o, const char *settings, pbi_arm *share,
                    pbi_arm **keep, outcome *out)
{
    pbi_pipeline *p = NULL;
    pbi_arm *arm = NULL;
    *out = (outcome){ 0 };
    out->rc = o->load(o->load_arg, settings, &p, &out->err);
    if (!out->rc) {
        const pbi_arm_options ao = { .model_path = o->model,
                                     .hash_logits = 1,
                                     .share = share && pbi_arm_can_share(share, p) ? share : NULL };
        pbi_pipeline_numeric_key(p, out->key, sizeof out->key, NULL);
        out->rc = pbi_arm_open(p, &ao, &arm, &out->err);
    }
    if (!out->rc)
        out->rc = run_requests(arm, o, out);
    if (keep && !out->rc)
        *keep = arm;
    else
        pbi_arm_close(arm);
    pbi_pipeline_free(p);
}

/* ---- verdicts ------------------------------------------------------------------- */

static json_t *pair_json(int a, int b, int status, const outcome *x)
{
    return json_pack("{s:i,s:i,s:s,s:o}", "a", a, "b", b, "status", status_names[status], "reason",
                     x && x->rc && *x->err.msg ? json_string(x->err.msg) : json_null());
}

/* A single level: does it change tokens, and does it say so? */
static int judge_single(const outcome *base, const outcome *x)
{
    if (x->rc)
        return PBC_PAIR_REFUSED;
    if (x->hash == base->hash)
        return PBC_PAIR_SAME;
    return strcmp(x->key, base->key) ? PBC_PAIR_CHANGES : PBC_PAIR_DIFFERENT;
}

static int judge_pair(const outcome *base, const outcome *a, const outcome *b, const outcome *x)
{
    int ca = a->hash != base->hash, cb = b->hash != base->hash;
    if (x->rc)
        return PBC_PAIR_REFUSED;
    if (ca && cb)
        return PBC_PAIR_RUNS;
    if (x->hash != (ca ? a->hash : cb ? b->hash : base->hash))
        return PBC_PAIR_DIFFERENT;
    return ca || cb ? PBC_PAIR_CHANGES : PBC_PAIR_SAME;
}

typedef struct single {
    int f, level;
    outcome is;
} single;

static char *both(const pbf_design *d, const single *a, const single *b)
{
    char *s = NULL;
    const char *x = d->factor[a->f].settings[a->level], *y = d->factor[b->f].settings[b->level];
    return asprintf(&s, "%s%s%s", x, *x && *y ? "," : "", y) < 0 ? NULL : s;
}

int pbc_pairs(const pbf_design *d, const pbc_pairs_options *o, json_t **out, pb_err *err)
{
    single *v = calloc(MAX_SINGLES, sizeof *v);
    json_t *j = json_object(), *levels = json_array(), *pairs = json_array();
    outcome base;
    pbi_arm *holder = NULL;
    int n = 0, rc = v ? 0 : pbi_err(err, PB_E_NOMEM, "out of memory");
    if (!rc) {
        run_one(o, NULL, NULL, &holder, &base);
        rc = base.rc;
        if (rc)
            *err = base.err;
    }
    for (int f = 0; f < d->n_factors && !rc; f++)
        for (int l = 1; l < d->factor[f].n; l++) {
            single *s = &v[n];
            *s = (single){ .f = f, .level = l };
            run_one(o, d->factor[f].settings[l], holder, NULL, &s->is);
            json_array_append_new(levels, json_pack("{s:s,s:s}", "factor", d->factor[f].name,
                                                    "level", d->factor[f].level[l]));
            json_array_append_new(pairs, pair_json(n, n, judge_single(&base, &s->is), &s->is));
            n++;
        }
    for (int a = 0; a < n && !rc; a++)
        for (int b = a + 1; b < n && !(o->stop && o->stop(NULL)); b++) {
            if (v[a].f == v[b].f)
                continue;
            outcome x;
            char *settings = both(d, &v[a], &v[b]);
            if (!settings)
                continue;
            if (v[a].is.rc || v[b].is.rc) /* said where it stands alone */
                x = (outcome){ .rc = PB_E_INVAL };
            else
                run_one(o, settings, holder, NULL, &x);
            free(settings);
            json_array_append_new(pairs,
                                  pair_json(a, b, judge_pair(&base, &v[a].is, &v[b].is, &x), &x));
        }
    pbi_arm_close(holder);
    free(v);
    json_object_set_new(j, "format", json_string("patchbay-pairs/1"));
    json_object_set_new(j, "levels", levels);
    json_object_set_new(j, "pairs", pairs);
    *out = j;
    return rc;
}

int pbc_pairs_status(const json_t *doc)
{
    const json_t *p;
    size_t i;
    json_array_foreach(
        pbc_at(doc, "pairs"), i,
        p) if (!strcmp(pbc_text(p, "status"), "DIFFERENT")) return PBC_EXIT_DIFFERENT;
    return 0;
}

/* ---- showing --------------------------------------------------------------------- */

static const json_t *find(const json_t *doc, size_t a, size_t b)
{
    const json_t *p;
    size_t i;
    json_array_foreach(pbc_at(doc, "pairs"), i,
                       p) if ((size_t)json_integer_value(pbc_at(p, "a")) == (a < b ? a : b) &&
                              (size_t)json_integer_value(pbc_at(p, "b")) ==
                                  (a < b ? b : a)) return p;
    return NULL;
}

/* what a cell shows; note counts refusals, which are explained below the table */
static void cell(const json_t *p, char *buf, size_t n, int *note)
{
    const char *s = p ? pbc_text(p, "status") : "";
    snprintf(buf, n, "%s",
             !strcmp(s, "same")      ? "="
             : !strcmp(s, "changes") ? "c"
             : !strcmp(s, "runs")    ? "r"
                                     : s);
    if (!strcmp(s, "refused") && json_is_string(pbc_at(p, "reason")))
        snprintf(buf, n, "x%d", ++*note);
    else if (!strcmp(s, "refused"))
        snprintf(buf, n, "x");
}

/* the part of a level that names it: what comes before the first comma */
static void level_name(const json_t *l, char *buf, size_t n)
{
    const char *s = pbc_text(l, "level");
    snprintf(buf, n, "%s=%.*s", pbc_text(l, "factor"), (int)strcspn(s, ","), s);
}

void pbc_pairs_print(FILE *f, const json_t *doc)
{
    const json_t *levels = pbc_at(doc, "levels"), *l;
    size_t n = json_array_size(levels), i, k;
    int note = 0;
    char name[128], text[32];
    fprintf(f, "| |");
    for (i = 0; i < n; i++)
        fprintf(f, " %zu |", i + 1);
    fprintf(f, "\n|---|");
    for (i = 0; i < n; i++)
        fprintf(f, "---|");
    fputc('\n', f);
    json_array_foreach(levels, i, l)
    {
        level_name(l, name, sizeof name);
        fprintf(f, "| %zu `%s` |", i + 1, name);
        for (k = 0; k <= i; k++) {
            cell(find(doc, i, k), text, sizeof text, &note);
            fprintf(f, " %s |", text);
        }
        for (; k < n; k++)
            fprintf(f, " |");
        fputc('\n', f);
    }
    fputs("\n`=` the base's tokens and logits; `c` the tokens of the one that changes them, as it "
          "declares; `r` runs, both change them; `x` refused; "
          "`DIFFERENT` a fault.\n",
          f);
    if (note)
        fputc('\n', f);
    note = 0;
    for (i = 0; i < n; i++)
        for (k = 0; k <= i; k++) {
            const json_t *p = find(doc, i, k);
            if (p && json_is_string(pbc_at(p, "reason")))
                fprintf(f, "- x%d: %s\n", ++note, pbc_text(p, "reason"));
        }
}

int pbc_pairs_html(FILE *f, const json_t *doc)
{
    const json_t *levels = pbc_at(doc, "levels"), *l;
    size_t n = json_array_size(levels), i, k;
    char name[128];
    pbc_page_begin(f, "Compatibility");
    fputs("<p>Every pair of levels was run. Hover over a refusal for its reason.</p><div "
          "class=wide><table>\n<tr><th>",
          f);
    for (i = 0; i < n; i++)
        fprintf(f, "<th>%zu", i + 1);
    fputs("</tr>\n", f);
    json_array_foreach(levels, i, l)
    {
        level_name(l, name, sizeof name);
        fprintf(f, "<tr><td>%zu ", i + 1);
        pbc_escaped(f, name);
        for (k = 0; k <= i; k++) {
            const json_t *p = find(doc, i, k);
            const char *s = p ? pbc_text(p, "status") : "";
            fprintf(f, "<td class=t title=\"");
            pbc_escaped(f, p ? pbc_text(p, "reason") : "");
            fprintf(f, "\"><span class=%s>%s</span>",
                    !strcmp(s, "DIFFERENT") || !strcmp(s, "refused") ? "no" : "yes", s);
        }
        fputs("</tr>\n", f);
    }
    fputs("</table></div>\n", f);
    pbc_page_end(f);
    return ferror(f) || fflush(f) ? -1 : 0;
}
