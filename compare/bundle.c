/* SPDX-License-Identifier: MIT
 *
 * compare/bundle.c - see bundle.h.
 */
#define _GNU_SOURCE
#include "bundle.h"
#include "cli.h"
#include "html.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static const char format[] = "patchbay-bundle/1";

/* ---- the model ------------------------------------------------------------- */

/* XXH3 of a file as 16 digits; "" for a folder, or what cannot be read */
static void hash_file(const char *path, char out[17])
{
    struct stat st;
    FILE *f = stat(path, &st) == 0 && S_ISREG(st.st_mode) ? fopen(path, "rb") : NULL;
    XXH3_state_t *x = XXH3_createState();
    size_t cap = 1 << 20, n;
    char *buf = malloc(cap);
    out[0] = 0;
    if (f && x && buf) {
        XXH3_64bits_reset(x);
        while ((n = fread(buf, 1, cap, f)) > 0)
            XXH3_64bits_update(x, buf, n);
        if (!ferror(f))
            snprintf(out, 17, "%016" PRIx64, (uint64_t)XXH3_64bits_digest(x));
    }
    if (f)
        fclose(f);
    XXH3_freeState(x);
    free(buf);
}

/* ---- writing ----------------------------------------------------------------- */

static json_t *ini_of(const pbi_pipeline *p)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return NULL;
    pbi_print_pipeline(f, p);
    json_t *j = fclose(f) ? NULL : json_stringn(text, n);
    free(text);
    return j;
}

static json_t *workload_of(const pbw_workload *w)
{
    char *text = pbw_text(w);
    size_t n;
    const char *data = pbw_data(w, &n);
    json_t *j =
        text ? json_pack("{s:s,s:o*}", "ini", text, "data", data ? json_stringn(data, n) : NULL)
             : NULL;
    int lost = data && !json_object_get(j, "data"); /* not UTF-8 */
    free(text);
    if (!lost)
        return j;
    json_decref(j);
    return NULL;
}

static json_t *document(const pbc_options *o, const pbi_requests *requests, const pbw_workload *w,
                        const json_t *result)
{
    json_t *j = json_object(), *arms = json_array(), *list = json_array();
    char hash[17];
    int bad = 0;
    hash_file(o->model, hash);
    for (int a = 0; a <= o->n_arms; a++)
        bad |= json_array_append_new(arms, json_pack("{s:s,s:o*}", "name",
                                                     a < o->n_arms ? o->names[a] : "A/A", "ini",
                                                     ini_of(o->pipelines[a])));
    for (int64_t i = 0; requests && i < requests->n; i++)
        bad |= json_array_append_new(list, pbi_request_json(&requests->v[i]));
    bad |= json_object_set_new(j, "format", json_string(format));
    bad |= json_object_set_new(j, "model_hash", json_string(hash));
    bad |= json_object_set_new(j, "arms", arms);
    bad |= json_object_set_new(j, "requests", list);
    if (w)
        bad |= json_object_set_new(j, "workload", workload_of(w));
    bad |= json_object_set(j, "result", (json_t *)result);
    if (!bad)
        return j;
    json_decref(j);
    return NULL;
}

int pbc_bundle_write(const char *path, const pbc_options *o, const pbi_requests *requests,
                     const pbw_workload *workload, const json_t *result, pb_err *err)
{
    json_t *j = document(o, requests, workload, result);
    if (!j)
        return pbi_err(err, PB_E_INVAL, "--bundle %s: a prompt is not UTF-8, or memory is short",
                       path);
    int rc = json_dump_file(j, path, JSON_COMPACT);
    json_decref(j);
    return rc ? pbi_err(err, PB_E_IO, "--bundle %s: %s", path, strerror(errno)) : 0;
}

/* ---- reading ------------------------------------------------------------------ */

static int bad(pb_err *err, const char *path, const char *what)
{
    return pbi_err(err, PB_E_FORMAT, "%s: no bundle of patchbay compare: %s", path, what);
}

static int read_requests(const json_t *list, const char *path, pbc_bundle *b, pb_err *err)
{
    pbi_request like;
    const json_t *q;
    size_t i;
    int rc = 0;
    pbi_request_default(&like);
    json_array_foreach(list, i, q)
    {
        char name[256], *line = json_dumps(q, JSON_COMPACT);
        snprintf(name, sizeof name, "%.200s, request %zu", path, i);
        rc = line ? pbi_requests_lines(&b->requests, name, line, strlen(line), &like, err)
                  : bad(err, path, "a request is none");
        free(line);
        if (rc)
            return rc;
    }
    return b->requests.n ? 0 : bad(err, path, "it has no request");
}

static int read_workload(const json_t *w, const char *path, pbc_bundle *b, pb_err *err)
{
    const json_t *ini = pbc_at(w, "ini"), *data = pbc_at(w, "data");
    if (!json_is_string(ini))
        return bad(err, path, "its workload");
    return pbw_parse(json_string_value(ini), json_string_length(ini), path, 0, NULL,
                     json_is_string(data) ? json_string_value(data) : "", json_string_length(data),
                     &b->workload, err);
}

static int read_arms(const json_t *arms, const char *path, pbc_bundle *b, pb_err *err)
{
    size_t n = json_array_size(arms);
    if (n < 3 || n > PBC_MAX_ARMS)
        return bad(err, path, "its number of arms");
    for (size_t a = 0; a < n; a++) {
        const json_t *arm = json_array_get(arms, a);
        const char *ini = json_string_value(pbc_at(arm, "ini"));
        if (!ini)
            return bad(err, path, "an arm has no pipeline");
        b->names[a] = pbc_text(arm, "name");
        int rc = pbi_pipeline_parse(ini, b->names[a], 0, NULL, &b->pipelines[a], err);
        if (rc)
            return rc;
    }
    b->n_arms = (int)n - 1;
    return 0;
}

/* a whole number of an object within limits */
static int whole(const json_t *j, const char *key, int lo, int hi, int *out)
{
    const json_t *v = pbc_at(j, key);
    if (!json_is_integer(v) || json_integer_value(v) < lo || json_integer_value(v) > hi)
        return -1;
    *out = (int)json_integer_value(v);
    return 0;
}

static int read_options(const json_t *o, const char *path, pbc_bundle *b, pb_err *err)
{
    const char *cache = pbc_text(o, "cache");
    b->o = (pbc_options){ .model = pbc_text(o, "model"),
                          .n_arms = b->n_arms,
                          .names = b->names,
                          .cache = !strcmp(cache, "warm")      ? PBC_WARM
                                   : !strcmp(cache, "natural") ? PBC_NATURAL
                                                               : PBC_COLD,
                          .level = pbc_num(o, "level"),
                          .delta = pbc_num(o, "delta"),
                          .until = pbc_num(o, "until"),
                          .max_time_s = pbc_num(o, "max_time_s"),
                          .seed = (uint64_t)json_integer_value(pbc_at(o, "seed")) };
    if (whole(o, "min_epochs", 0, PBC_MAX_EPOCHS, &b->o.min_epochs) ||
        whole(o, "max_epochs", 1, PBC_MAX_EPOCHS, &b->o.max_epochs) ||
        whole(o, "blocks", 1, 1000, &b->o.blocks) || !(b->o.level > 0 && b->o.level < 1) ||
        !(b->o.delta >= 0 && b->o.delta < 1) || !(b->o.until >= 0 && b->o.until < 1) ||
        !(b->o.max_time_s >= 0))
        return bad(err, path, "its options");
    return 0;
}

int pbc_bundle_read(const char *path, pbc_bundle *out, pb_err *err)
{
    json_error_t je;
    char *text;
    size_t n;
    *out = (pbc_bundle){ 0 };
    int rc = pbi_read_file(path, &text, &n, err);
    if (rc)
        return rc;
    out->doc = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
    free(text);
    if (!out->doc)
        return pbi_err(err, PB_E_FORMAT, "%s:%d: %s", path, je.line, je.text);
    if (strcmp(pbc_text(out->doc, "format"), format))
        return bad(err, path, "its format is not patchbay-bundle/1");
    rc = read_arms(pbc_at(out->doc, "arms"), path, out, err);
    if (!rc)
        rc = pbc_at(out->doc, "workload")
                 ? read_workload(pbc_at(out->doc, "workload"), path, out, err)
                 : read_requests(pbc_at(out->doc, "requests"), path, out, err);
    return rc ? rc : read_options(pbc_at(pbc_at(out->doc, "result"), "options"), path, out, err);
}

void pbc_bundle_clear(pbc_bundle *b)
{
    for (int a = 0; a < PBC_MAX_ARMS; a++)
        pbi_pipeline_free(b->pipelines[a]);
    pbi_requests_clear(&b->requests);
    pbw_free(b->workload);
    json_decref(b->doc);
}

/* ---- does it hold? ---------------------------------------------------------------- */

static void note(json_t *notes, const char *fmt, ...) PBI_PRINTF(2, 3);
static void note(json_t *notes, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    json_array_append_new(notes, json_string(text));
}

/* plugins whose hash is not that of then */
static void note_plugins(json_t *notes, const json_t *then, const json_t *now)
{
    const json_t *a = pbc_at(pbc_at(then, "pipeline"), "plugins"), *p;
    const json_t *b = pbc_at(pbc_at(now, "pipeline"), "plugins");
    size_t i;
    json_array_foreach(a, i, p)
    {
        const json_t *q = json_array_get(b, i);
        if (strcmp(pbc_text(p, "hash"), pbc_text(q, "hash")))
            note(notes, "%s: plugin %s-%s is another build", pbc_text(then, "name"),
                 pbc_text(p, "slot"), pbc_text(p, "name"));
    }
}

static int judge(json_t *notes, const char *arm, const json_t *metric, const json_t *then,
                 const json_t *now)
{
    const char *key = pbc_text(metric, "key");
    const char *a = pbc_text(pbc_at(then, key), "verdict");
    const char *b = pbc_text(pbc_at(now, key), "verdict");
    int opposite = (!strcmp(a, "faster") && !strcmp(b, "slower")) ||
                   (!strcmp(a, "slower") && !strcmp(b, "faster"));
    if (strcmp(a, b))
        note(notes, "%s: %s was %s (ratio %.3f), is %s (%.3f)", arm, pbc_text(metric, "name"), a,
             pbc_num(pbc_at(then, key), "ratio"), b, pbc_num(pbc_at(now, key), "ratio"));
    return !opposite;
}

json_t *pbc_replay(const pbc_bundle *b, const json_t *now, const char *model)
{
    const json_t *then = pbc_at(b->doc, "result"), *c, *m;
    json_t *notes = json_array();
    char hash[17];
    size_t i, k;
    int holds = 1;
    hash_file(model, hash);
    if (strcmp(hash, pbc_text(b->doc, "model_hash")))
        note(notes, "the model %s is not the file that was measured then", model);
    for (int a = 0; a < b->n_arms; a++)
        note_plugins(notes, json_array_get(pbc_at(then, "arms"), (size_t)a),
                     json_array_get(pbc_at(now, "arms"), (size_t)a));
    json_array_foreach(pbc_at(then, "comparisons"), i, c)
    {
        const json_t *d = json_array_get(pbc_at(now, "comparisons"), i);
        const char *arm = b->names[i + 1];
        if (json_is_true(pbc_at(c, "same_tokens")) != json_is_true(pbc_at(d, "same_tokens"))) {
            note(notes, "%s: tokens were %s, are %s", arm,
                 json_is_true(pbc_at(c, "same_tokens")) ? "the same" : "different",
                 json_is_true(pbc_at(d, "same_tokens")) ? "the same" : "different");
            holds = 0;
        }
        json_array_foreach(pbc_at(then, "metrics"), k, m) holds &=
            judge(notes, arm, m, pbc_at(c, "metrics"), pbc_at(d, "metrics"));
    }
    return json_pack("{s:b,s:o}", "holds", holds, "notes", notes);
}
