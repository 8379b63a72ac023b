/* SPDX-License-Identifier: MIT
 *
 * workload/traces.c - kinds of workloads that are read from files.
 *
 *   mooncake     JSON lines {"timestamp" (ms), "input_length", "output_length", "hash_ids"}, one
 *                hash for each 512 tokens (kvcache-ai/Mooncake, FAST'25 traces)
 *   azure        CSV TIMESTAMP,ContextTokens,GeneratedTokens (Azure/AzurePublicDataset, 2023)
 *   prompts      JSON lines; one field of each is the prompt, or an array whose first text is;
 *                another may be the answer that is expected
 *   transcripts  one conversation a file ("history" or "messages", as SWE-agent writes them), or
 *                JSON lines of such; each answer of the assistant is a request whose prompt is all
 *                that came before
 *
 * Invariant: every number of a file is checked before it becomes a length.
 */
#include "impl.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOONCAKE_BLOCK = 512, MAX_LENGTH = 1 << 26 };

/* ---- growing lists --------------------------------------------------------- */

static void *grown(void *p, int64_t n, int64_t *cap, size_t one)
{
    if (n < *cap)
        return p;
    int64_t c = *cap ? 2 * *cap : 1024;
    void *q = realloc(p, (size_t)c * one);
    if (q)
        *cap = c;
    return q;
}

static int add_record(pbw_workload *w, const pbw_record *r, pb_err *err)
{
    pbw_record *p = grown(w->records, w->n_records, &w->cap_records, sizeof *p);
    if (!p)
        return pbi_err(err, PB_E_NOMEM, "no memory for %lld records", (long long)w->n_records);
    w->records = p;
    w->records[w->n_records++] = *r;
    return 0;
}

static int add_hash(pbw_workload *w, int64_t h, pb_err *err)
{
    int64_t *p = grown(w->hashes, w->n_hashes, &w->cap_hashes, sizeof *p);
    if (!p)
        return pbi_err(err, PB_E_NOMEM, "no memory for %lld hashes", (long long)w->n_hashes);
    w->hashes = p;
    w->hashes[w->n_hashes++] = h;
    return 0;
}

static int add_text(pbw_workload *w, const char *s, size_t n, pb_err *err)
{
    if (w->n_text + n + 1 > w->cap_text) {
        size_t cap = 2 * (w->n_text + n) + 4096;
        char *p = realloc(w->text, cap);
        if (!p)
            return pbi_err(err, PB_E_NOMEM, "no memory for %zu bytes of text", w->n_text + n);
        w->text = p;
        w->cap_text = cap;
    }
    memcpy(w->text + w->n_text, s, n);
    w->n_text += n;
    w->text[w->n_text] = 0;
    return 0;
}

/* ---- lines ------------------------------------------------------------------ */

static int length_of(const json_t *j, const char *key, int64_t *out, pb_err *err)
{
    const json_t *v = json_object_get(j, key);
    double x = json_number_value(v);
    if (!json_is_number(v) || !(x >= 0 && x <= MAX_LENGTH))
        return pbi_err(err, PB_E_FORMAT, "\"%s\" must be a number in 0..%d", key, MAX_LENGTH);
    *out = (int64_t)x;
    return 0;
}

static int mooncake_line(pbw_workload *w, const json_t *j, pb_err *err)
{
    pbw_record r = { .first = w->n_hashes };
    const json_t *t = json_object_get(j, "timestamp"), *h = json_object_get(j, "hash_ids"), *e;
    size_t i;
    int rc = length_of(j, "input_length", &r.n_prompt, err);
    if (!rc)
        rc = length_of(j, "output_length", &r.n_output, err);
    if (rc)
        return rc;
    r.at_s = json_number_value(t) / 1e3;
    if (!json_is_number(t) || !(r.at_s >= 0 && r.at_s < 1e12))
        return pbi_err(err, PB_E_FORMAT, "\"timestamp\" must be a number from 0");
    r.n = (int64_t)json_array_size(h);
    if (!json_is_array(h) || r.n * MOONCAKE_BLOCK < r.n_prompt)
        return pbi_err(err, PB_E_FORMAT, "\"hash_ids\" has %lld entries; %lld tokens need %lld",
                       (long long)r.n, (long long)r.n_prompt,
                       (long long)((r.n_prompt + MOONCAKE_BLOCK - 1) / MOONCAKE_BLOCK));
    json_array_foreach(h, i, e)
    {
        if (!json_is_integer(e))
            return pbi_err(err, PB_E_FORMAT, "\"hash_ids\"[%zu] is no integer", i);
        rc = add_hash(w, json_integer_value(e), err);
        if (rc)
            return rc;
    }
    return add_record(w, &r, err);
}

static int prompt_line(pbw_workload *w, const json_t *j, pb_err *err)
{
    const char *field = w->c.field;
    const json_t *v = json_object_get(j, field);
    if (json_is_array(v))
        v = json_array_get(v, 0);
    if (!json_is_string(v) || !json_string_length(v))
        return pbi_err(err, PB_E_FORMAT,
                       "there is no text in \"%s\" (field = names the one with the prompt)", field);
    pbw_record r = { .first = (int64_t)w->n_text, .n = (int64_t)json_string_length(v) };
    int rc = add_text(w, json_string_value(v), json_string_length(v), err);
    if (!rc && *w->c.answer) {
        const json_t *e = json_object_get(j, w->c.answer);
        if (!json_is_string(e) || strlen(json_string_value(e)) != json_string_length(e))
            return pbi_err(err, PB_E_FORMAT, "there is no text in \"%s\" (answer = names it)",
                           w->c.answer);
        r.expect = (int64_t)w->n_text + 1;
        rc = add_text(w, json_string_value(e), json_string_length(e) + 1, err);
    }
    return rc ? rc : add_record(w, &r, err);
}

/* ---- transcripts ------------------------------------------------------------ */

/* text, or an array of {"type": "text", "text"} */
static int add_content(pbw_workload *w, const json_t *c, pb_err *err)
{
    size_t i;
    const json_t *e;
    int rc = 0;
    if (json_is_string(c))
        return add_text(w, json_string_value(c), json_string_length(c), err);
    json_array_foreach(c, i, e)
    {
        const json_t *t = json_object_get(e, "text");
        if (json_is_string(t) && !rc)
            rc = add_text(w, json_string_value(t), json_string_length(t), err);
    }
    return rc;
}

static int conversation(pbw_workload *w, const json_t *j, pb_err *err)
{
    const json_t *list = json_object_get(j, "messages"), *m;
    int64_t first = (int64_t)w->n_text, before = 0;
    size_t i;
    int rc = 0;
    if (!list)
        list = json_object_get(j, "history");
    if (!json_is_array(list))
        return pbi_err(err, PB_E_FORMAT, "a conversation has an array \"messages\" or \"history\"");
    json_array_foreach(list, i, m)
    {
        const char *role = json_string_value(json_object_get(m, "role"));
        if (!role)
            return pbi_err(err, PB_E_FORMAT, "message %zu has no \"role\"", i);
        rc = add_text(w, role, strlen(role), err);
        if (!rc)
            rc = add_text(w, ":\n", 2, err);
        if (!rc && (!strcmp(role, "assistant") || !strcmp(role, "ai"))) {
            pbw_record r = { .first = first, .n = (int64_t)w->n_text - first, .after = before };
            rc = add_record(w, &r, err);
            before = w->n_records;
        }
        if (!rc)
            rc = add_content(w, json_object_get(m, "content"), err);
        if (!rc)
            rc = add_text(w, "\n\n", 2, err);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- CSV --------------------------------------------------------------------- */

/* Seconds of "2023-11-16 18:17:03.9799600" since some day; days are counted as by Hinnant,
 * "chrono-compatible low-level date algorithms". */
static int csv_time(const char *s, double *out)
{
    int y, mo, d, h, mi;
    double sec;
    if (sscanf(s, "%4d-%2d-%2d %2d:%2d:%lf", &y, &mo, &d, &h, &mi, &sec) != 6 || y < 1900 ||
        mo < 1 || mo > 12 || d < 1 || d > 31 || h < 0 || h > 23 || mi < 0 || mi > 59 ||
        !(sec >= 0 && sec < 61))
        return -1;
    y -= mo <= 2;
    int64_t era = y / 400, yoe = y - era * 400;
    int64_t doy = (153 * (mo + (mo > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    int64_t day = era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy;
    *out = (double)day * 86400 + h * 3600 + mi * 60 + sec;
    return 0;
}

static int azure_line(pbw_workload *w, const char *s, pb_err *err)
{
    pbw_record r = { 0 };
    long long in, out;
    const char *comma = strchr(s, ',');
    if (!strncmp(s, "TIMESTAMP,", 10))
        return 0;
    if (!comma || csv_time(s, &r.at_s) || sscanf(comma, ",%lld,%lld", &in, &out) != 2 || in < 0 ||
        in > MAX_LENGTH || out < 0 || out > MAX_LENGTH)
        return pbi_err(err, PB_E_FORMAT, "expected YYYY-MM-DD HH:MM:SS,context,generated");
    r.n_prompt = in;
    r.n_output = out;
    return add_record(w, &r, err);
}

/* ---- the file ------------------------------------------------------------------ */

static int json_line(pbw_workload *w, const char *s, size_t n, pb_err *err)
{
    json_error_t je;
    json_t *j = json_loadb(s, n, 0, &je);
    int rc;
    if (!json_is_object(j)) {
        json_decref(j);
        return pbi_err(err, PB_E_FORMAT, "%s", j ? "not an object" : je.text);
    }
    switch (w->c.kind) {
    case PBW_MOONCAKE: rc = mooncake_line(w, j, err); break;
    case PBW_PROMPTS: rc = prompt_line(w, j, err); break;
    default: rc = conversation(w, j, err); break;
    }
    json_decref(j);
    return rc;
}

static int lines(pbw_workload *w, pb_err *err)
{
    const char *p = w->data, *end = w->data + w->n_data;
    for (int64_t line = 1; p < end; line++) {
        const char *nl = memchr(p, '\n', (size_t)(end - p)), *e = nl ? nl : end;
        size_t n = (size_t)(e - p);
        char row[256];
        int rc = 0;
        if (n && p[n - 1] == '\r')
            n--;
        if (w->c.kind == PBW_AZURE) {
            snprintf(row, sizeof row, "%.*s", (int)(n < 200 ? n : 200), p);
            rc = n ? azure_line(w, row, err) : 0;
        } else if (n) {
            rc = json_line(w, p, n, err);
        }
        if (rc)
            return pbi_err_prefix(err, "%s:%lld", w->c.file, (long long)line);
        p = e + 1;
    }
    return 0;
}

int pbw_read_records(pbw_workload *w, pb_err *err)
{
    json_error_t je;
    json_t *whole = w->c.kind == PBW_TRANSCRIPTS ? json_loadb(w->data, w->n_data, 0, &je) : NULL;
    int rc;
    if (whole) { /* one conversation in a file of many lines */
        rc = conversation(w, whole, err);
        if (rc)
            pbi_err_prefix(err, "%s", w->c.file);
    } else {
        rc = lines(w, err);
    }
    json_decref(whole);
    if (!rc && !w->n_records)
        rc = pbi_err(err, PB_E_FORMAT, "%s: there is no request in it", w->c.file);
    return rc;
}

/* ---- drawing -------------------------------------------------------------------- */

/* Blocks that were seen, for the share that a cache of any size could reuse. */
typedef struct seen {
    int64_t *key, cap, n_hit, n_all;
} seen;

static int was_seen(seen *s, int64_t h)
{
    int64_t mask = s->cap - 1, at = (int64_t)(pbw_mix(1, (uint64_t)h, 0) & (uint64_t)mask);
    while (s->key[at] && s->key[at] != h + 1)
        at = (at + 1) & mask;
    int old = s->key[at] != 0;
    s->key[at] = h + 1;
    return old;
}

static void count_reuse(pbw_draws *d, const pbw_record *r, int64_t block, int64_t total, seen *s)
{
    int64_t hit = 0;
    int prefix = 1;
    for (int64_t b = 0; b * block < total; b++) {
        prefix &= was_seen(s, d->w->hashes[r->first + b]);
        if (prefix)
            hit = (b + 1) * block < total ? (b + 1) * block : total;
    }
    s->n_hit += hit;
    s->n_all += total;
}

static int emit_blocks(pbw_draws *d, const pbw_record *r, double at_s, seen *s)
{
    const pbw_workload *w = d->w;
    int64_t block = MOONCAKE_BLOCK / w->c.divide, left, index;
    int64_t total = (r->n_prompt + w->c.divide - 1) / w->c.divide;
    int64_t out = (r->n_output + w->c.divide - 1) / w->c.divide;
    total = left = total > 0 ? total : 1;
    pbw_part *p = calloc((size_t)r->n + 1, sizeof *p);
    int n = 0;
    if (!p)
        return pbi_err(d->err, PB_E_NOMEM, "no memory for %lld blocks", (long long)r->n);
    for (; left > 0 && n < r->n; n++, left -= block)
        p[n] = (pbw_part){ pbw_mix((uint64_t)w->c.seed, 5, (uint64_t)w->hashes[r->first + n]),
                           left < block ? left : block };
    if (!n)
        p[n++] = (pbw_part){ 5, total };
    int rc = pbw_emit(d, n, p, out > 0 ? out : 1, at_s, 0, 0, &index);
    free(p);
    if (!rc && index >= 0 && r->n)
        count_reuse(d, r, block, total, s);
    return rc;
}

static int emit_lengths(pbw_draws *d, const pbw_record *r, int64_t i, double at_s)
{
    int64_t n = (r->n_prompt + d->w->c.divide - 1) / d->w->c.divide;
    int64_t out = (r->n_output + d->w->c.divide - 1) / d->w->c.divide;
    pbw_part p = { pbw_mix(d->seed, 6, (uint64_t)i), n > 0 ? n : 1 };
    return pbw_emit(d, 1, &p, out > 0 ? out : 1, at_s, 0, 0, NULL);
}

/* index: of the record in this draw's requests + 1; 0: not drawn */
static int emit_record(pbw_draws *d, int64_t i, double from_s, int64_t *index, seen *s)
{
    const pbw_workload *w = d->w;
    const pbw_record *r = &w->records[i];
    double at_s = (r->at_s - from_s) / w->c.speed;
    int64_t after = r->after ? index[r->after - 1] : 0, at = -1;
    if (w->c.kind == PBW_MOONCAKE)
        return emit_blocks(d, r, at_s, s);
    if (w->c.kind == PBW_AZURE)
        return emit_lengths(d, r, i, at_s);
    int rc = pbw_emit_text(d, w->text + r->first, (size_t)r->n,
                           r->expect ? w->text + r->expect - 1 : NULL,
                           pbw_between(&d->rng, w->output), at_s, after, w->c.think_ms, &at);
    index[i] = at + 1;
    return rc;
}

int pbw_draw_records(pbw_draws *d)
{
    const pbw_workload *w = d->w;
    int64_t n = w->c.requests && w->c.requests < w->n_records ? w->c.requests : w->n_records;
    pbw_range where = { 0, w->n_records - n };
    int64_t start = w->c.start >= 0 ? w->c.start : pbw_between(&d->rng, where);
    seen s = { .cap = 1024 };
    int rc = 0;
    if (start > w->n_records - n)
        return pbi_err(d->err, PB_E_INVAL, "%s: start = %lld, but %s has %lld requests", w->path,
                       (long long)start, w->c.file, (long long)w->n_records);
    while (s.cap < 2 * w->n_hashes)
        s.cap *= 2;
    s.key = calloc((size_t)s.cap, sizeof *s.key);
    int64_t *index = calloc((size_t)w->n_records + 1, sizeof *index);
    if (!s.key || !index)
        rc = pbi_err(d->err, PB_E_NOMEM, "no memory for %lld records", (long long)w->n_records);
    for (int64_t i = start; i < start + n && !rc; i++)
        rc = emit_record(d, i, w->records[start].at_s, index, &s);
    if (s.n_all)
        d->drawn->reuse = (double)s.n_hit / (double)s.n_all;
    free(index);
    free(s.key);
    return rc;
}
