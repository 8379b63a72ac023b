/* SPDX-License-Identifier: MIT
 *
 * cli/requests.c - requests from the command line and from JSON lines.
 */
#include "requests.h"
#include "options.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int pbi_read_file(const char *path, char **text, size_t *n, pb_err *err)
{
    int is_stdin = !strcmp(path, "-");
    FILE *f = is_stdin ? stdin : fopen(path, "rb");
    char *buf = NULL;
    size_t cap = 0, k = 0;
    if (!f)
        return pbi_err(err, errno == ENOENT ? PB_E_INVAL : PB_E_IO, "cannot open %s: %s", path,
                       strerror(errno));
    for (;;) {
        if (k + 1 >= cap) {
            char *p = realloc(buf, cap = cap ? 2 * cap : 8192);
            if (!p)
                break;
            buf = p;
        }
        size_t got = fread(buf + k, 1, cap - k - 1, f);
        k += got;
        if (!got) {
            int bad = ferror(f), why = errno;
            if (!is_stdin)
                fclose(f);
            if (bad) {
                free(buf);
                return pbi_err(err, PB_E_IO, "cannot read %s: %s", path, strerror(why));
            }
            buf[k] = 0;
            *text = buf;
            *n = k;
            return 0;
        }
    }
    free(buf);
    if (!is_stdin)
        fclose(f);
    return pbi_err(err, PB_E_NOMEM, "no memory for %s", path);
}

/* ---- ids --------------------------------------------------------------- */

static int ids_of_array(const json_t *a, int32_t *v, size_t *k, pb_err *err)
{
    for (size_t i = 0; i < json_array_size(a); i++) {
        const json_t *e = json_array_get(a, i);
        json_int_t x = json_integer_value(e);
        if (!json_is_integer(e) || x < 0 || x > INT32_MAX)
            return pbi_err(err, PB_E_INVAL, "element %zu of the list is no token id", i);
        v[(*k)++] = (int32_t)x;
    }
    return 0;
}

static int ids_of_words(const char *p, const char *e, int32_t *v, size_t *k, pb_err *err)
{
    while (p < e) {
        char word[24] = "";
        size_t len = strcspn(p, ", \t\r\n");
        int64_t x;
        if (!len) {
            p++;
            continue;
        }
        memcpy(word, p, len < sizeof word ? len : sizeof word - 1);
        if (len >= sizeof word || pbi_parse_int(word, &x) || x < 0 || x > INT32_MAX)
            return pbi_err(err, PB_E_INVAL, "\"%.20s\" is no token id", word);
        v[(*k)++] = (int32_t)x;
        p += len;
    }
    return 0;
}

int pbi_parse_ids(const char *s, size_t n, int32_t **ids, size_t *n_ids, pb_err *err)
{
    size_t lead = strspn(s, " \t\r\n"), k = 0;
    int32_t *v = malloc((n / 2 + 2) * sizeof *v);
    int rc = v ? 0 : pbi_err(err, PB_E_NOMEM, "no memory for ids");
    if (!rc && (s[lead] == '[' || s[lead] == '{')) {
        json_error_t je;
        json_t *j = json_loadb(s, n, 0, &je);
        json_t *a = json_is_object(j) ? json_object_get(j, "ids") : j;
        rc = json_is_array(a)
                 ? ids_of_array(a, v, &k, err)
                 : pbi_err(err, PB_E_INVAL, "ids: %s",
                           j ? "neither an array nor an object with \"ids\"" : je.text);
        json_decref(j);
    } else if (!rc)
        rc = ids_of_words(s, s + n, v, &k, err);
    if (rc) {
        free(v);
        return rc;
    }
    *ids = v;
    *n_ids = k;
    return 0;
}

/* ---- the list ---------------------------------------------------------- */

int pbi_requests_own(pbi_requests *r, void *p, pb_err *err)
{
    if (r->n_owned == r->cap_owned) {
        size_t cap = r->cap_owned ? 2 * r->cap_owned : 16;
        void **q = realloc(r->owned, cap * sizeof *q);
        if (!q) {
            free(p);
            return pbi_err(err, PB_E_NOMEM, "no memory for requests");
        }
        r->owned = q;
        r->cap_owned = cap;
    }
    r->owned[r->n_owned++] = p;
    return 0;
}

int pbi_requests_add(pbi_requests *r, const pbi_request *q, pb_err *err)
{
    if (r->n == r->cap) {
        int64_t cap = r->cap ? 2 * r->cap : 16;
        pbi_request *v = realloc(r->v, (size_t)cap * sizeof *v);
        if (!v)
            return pbi_err(err, PB_E_NOMEM, "no memory for requests");
        r->v = v;
        r->cap = cap;
    }
    r->v[r->n++] = *q;
    return 0;
}

int pbi_requests_ids(pbi_requests *r, const char *text, const pbi_request *like, pb_err *err)
{
    pbi_request q = *like;
    int32_t *ids;
    size_t n;
    int rc = pbi_parse_ids(text, strlen(text), &ids, &n, err);
    if (rc || (rc = pbi_requests_own(r, ids, err)) != 0)
        return rc;
    q.prompt = NULL;
    q.ids = ids;
    q.n_ids = (int64_t)n;
    return pbi_requests_add(r, &q, err);
}

void pbi_requests_clear(pbi_requests *r)
{
    for (size_t i = 0; i < r->n_owned; i++)
        free(r->owned[i]);
    free(r->owned);
    free(r->v);
    *r = (pbi_requests){ 0 };
}

/* ---- JSON lines -------------------------------------------------------- */

/* keys with one number, truth value or text; kind tells the type of the field */
enum { INT64, INT32, TRUTH, FLOAT32, MILLIS, UINT64 };
static const struct {
    const char *key;
    int kind;
    size_t offset;
} fields[] = {
    { "max_tokens", INT64, offsetof(pbi_request, max_new) },
    { "priority", INT32, offsetof(pbi_request, priority) },
    { "salt", UINT64, offsetof(pbi_request, salt) },
    { "ignore_eos", TRUTH, offsetof(pbi_request, ignore_eos) },
    { "special", TRUTH, offsetof(pbi_request, special) },
    { "no_bos", TRUTH, offsetof(pbi_request, no_bos) },
    { "arrival_ms", MILLIS, offsetof(pbi_request, arrival_ns) },
    { "seed", UINT64, offsetof(pbi_request, params.seed) },
    { "temperature", FLOAT32, offsetof(pbi_request, params.temperature) },
    { "top_p", FLOAT32, offsetof(pbi_request, params.top_p) },
    { "min_p", FLOAT32, offsetof(pbi_request, params.min_p) },
    { "repeat_penalty", FLOAT32, offsetof(pbi_request, params.repeat_penalty) },
    { "presence_penalty", FLOAT32, offsetof(pbi_request, params.presence_penalty) },
    { "frequency_penalty", FLOAT32, offsetof(pbi_request, params.frequency_penalty) },
    { "top_k", INT32, offsetof(pbi_request, params.top_k) },
    { "logprobs", INT32, offsetof(pbi_request, params.n_logprobs) },
};

static int set_field(size_t f, const json_t *v, pbi_request *q, pb_err *err)
{
    char *at = (char *)q + fields[f].offset;
    const char *key = fields[f].key;
    json_int_t i = json_integer_value(v);
    double d = json_number_value(v);
    switch (fields[f].kind) {
    case TRUTH:
        if (!json_is_boolean(v))
            return pbi_err(err, PB_E_INVAL, "\"%s\" must be true or false", key);
        *(int *)(void *)at = json_is_true(v);
        return 0;
    case FLOAT32:
        if (!json_is_number(v) || !(d >= -1e30 && d <= 1e30))
            return pbi_err(err, PB_E_INVAL, "\"%s\" must be a number", key);
        *(float *)(void *)at = (float)d;
        return 0;
    case MILLIS:
        if (!json_is_number(v) || !(d >= 0 && d <= 1e12))
            return pbi_err(err, PB_E_INVAL, "\"%s\" must be a number from 0", key);
        *(int64_t *)(void *)at = (int64_t)(d * 1e6);
        return 0;
    default:
        if (!json_is_integer(v) ||
            i < (fields[f].kind == INT64   ? -1
                 : fields[f].kind == INT32 ? INT32_MIN
                                           : 0) ||
            (fields[f].kind == INT32 && i > INT32_MAX))
            return pbi_err(err, PB_E_INVAL, "\"%s\" must be a whole number%s", key,
                           fields[f].kind == INT32 ? "" : " from 0");
        if (fields[f].kind == INT32)
            *(int32_t *)(void *)at = (int32_t)i;
        else
            memcpy(at, &i, sizeof(int64_t));
        if (!strcmp(key, "seed"))
            q->params.has_seed = 1;
        return 0;
    }
}

static int copy_text(pbi_requests *r, const json_t *v, const char **s, size_t *n, pb_err *err)
{
    *n = json_string_length(v);
    char *p = malloc(*n + 1);
    if (!p)
        return pbi_err(err, PB_E_NOMEM, "no memory for a text of %zu bytes", *n);
    memcpy(p, json_string_value(v), *n + 1);
    *s = p;
    return pbi_requests_own(r, p, err);
}

static int set_stop(pbi_requests *r, json_t *v, pbi_request *q, pb_err *err)
{
    size_t n = json_is_array(v) ? json_array_size(v) : 1, len;
    const char **list = calloc(n + 1, sizeof *list);
    int rc = list ? pbi_requests_own(r, list, err)
                  : pbi_err(err, PB_E_NOMEM, "no memory for stop strings");
    if (rc)
        return rc;
    for (size_t i = 0; i < n && !rc; i++) {
        const json_t *e = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_string(e) || !json_string_length(e))
            return pbi_err(err, PB_E_INVAL, "\"stop\" must be a text or an array of texts");
        rc = copy_text(r, e, &list[i], &len, err);
    }
    q->stop = list;
    q->n_stop = (int)n;
    return rc;
}

static int set_ids(pbi_requests *r, const json_t *v, pbi_request *q, pb_err *err)
{
    size_t k = 0;
    int32_t *ids = json_is_array(v) ? malloc((json_array_size(v) + 1) * sizeof *ids) : NULL;
    if (!ids)
        return pbi_err(err, PB_E_INVAL, "\"ids\" must be an array of token ids");
    int rc = pbi_requests_own(r, ids, err);
    if (!rc)
        rc = ids_of_array(v, ids, &k, err);
    q->ids = ids;
    q->n_ids = (int64_t)k;
    return rc;
}

static int set_key(pbi_requests *r, const char *key, json_t *v, pbi_request *q, pb_err *err)
{
    const char *known[32];
    int n = 0;
    if (!strcmp(key, "prompt"))
        return json_is_string(v) ? copy_text(r, v, &q->prompt, &q->n_prompt, err)
                                 : pbi_err(err, PB_E_INVAL, "\"prompt\" must be a text");
    if (!strcmp(key, "ids"))
        return set_ids(r, v, q, err);
    if (!strcmp(key, "stop"))
        return set_stop(r, v, q, err);
    for (size_t f = 0; f < sizeof fields / sizeof *fields; f++) {
        if (!strcmp(key, fields[f].key))
            return set_field(f, v, q, err);
        known[n++] = fields[f].key;
    }
    known[n++] = "prompt";
    known[n++] = "ids";
    known[n++] = "stop";
    const char *near = pbi_nearest(key, known, n);
    return pbi_err(err, PB_E_INVAL, "unknown key \"%.60s\"%s%s%s", key,
                   near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

static int one_line(pbi_requests *r, const char *s, size_t n, const pbi_request *like, pb_err *err)
{
    json_error_t je;
    json_t *j = json_loadb(s, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je), *v;
    pbi_request q = *like;
    const char *key;
    int rc = 0;
    if (!j)
        return pbi_err(err, PB_E_INVAL, "column %d: %s", je.column, je.text);
    if (!json_is_object(j))
        rc = pbi_err(err, PB_E_INVAL, "a request is an object {\"prompt\": ...}");
    json_object_foreach(j, key, v)
    {
        if (!rc)
            rc = set_key(r, key, v, &q, err);
    }
    if (!rc && (q.prompt != NULL) == (q.ids != NULL))
        rc = pbi_err(err, PB_E_INVAL, "a request has either \"prompt\" or \"ids\"");
    if (!rc)
        rc = pbi_params_check(&q.params, err);
    json_decref(j);
    return rc ? rc : pbi_requests_add(r, &q, err);
}

int pbi_requests_lines(pbi_requests *r, const char *name, const char *text, size_t n,
                       const pbi_request *like, pb_err *err)
{
    int line = 1, rc = 0;
    for (const char *p = text, *e = text + n; p < e && !rc; line++) {
        const char *nl = memchr(p, '\n', (size_t)(e - p)), *end = nl ? nl : e;
        size_t lead = 0;
        while (p + lead < end && strchr(" \t\r", p[lead]))
            lead++;
        if (p + lead < end) {
            rc = one_line(r, p, (size_t)(end - p), like, err);
            if (rc)
                pbi_err_prefix(err, "%s:%d", name, line);
        }
        p = end + 1;
    }
    if (!rc && !r->n)
        rc = pbi_err(err, PB_E_INVAL, "%s has no request", name);
    return rc;
}

int pbi_requests_load(pbi_requests *r, const char *path, const pbi_request *like, pb_err *err)
{
    char *text;
    size_t n;
    int rc = pbi_read_file(path, &text, &n, err);
    if (rc)
        return rc;
    rc = pbi_requests_lines(r, path, text, n, like, err);
    free(text);
    return rc;
}

static int add_field(json_t *j, size_t f, const pbi_request *q)
{
    const char *at = (const char *)q + fields[f].offset;
    int64_t i = 0;
    float x;
    json_t *v;
    switch (fields[f].kind) {
    case TRUTH: v = json_boolean(*(const int *)(const void *)at); break;
    case FLOAT32:
        memcpy(&x, at, sizeof x);
        if (x != x) /* unset */
            return 0;
        v = json_real((double)x);
        break;
    case INT32:
        i = *(const int32_t *)(const void *)at;
        if (i == INT32_MIN || (!strcmp(fields[f].key, "logprobs") && i < 0))
            return 0;
        v = json_integer(i);
        break;
    default:
        memcpy(&i, at, sizeof i);
        if (!strcmp(fields[f].key, "seed") && !q->params.has_seed)
            return 0;
        v = fields[f].kind == MILLIS ? json_real((double)i / 1e6) : json_integer(i);
    }
    return json_object_set_new(j, fields[f].key, v);
}

json_t *pbi_request_json(const pbi_request *q)
{
    json_t *j = json_object(), *a = json_array();
    int bad = 0;
    for (int64_t i = 0; i < q->n_ids && !q->prompt; i++)
        bad |= json_array_append_new(a, json_integer(q->ids[i]));
    if (q->prompt) {
        bad |= json_object_set_new(j, "prompt", json_stringn(q->prompt, q->n_prompt));
        json_decref(a);
    } else {
        bad |= json_object_set_new(j, "ids", a);
    }
    for (size_t f = 0; f < sizeof fields / sizeof *fields; f++)
        bad |= add_field(j, f, q);
    if (q->n_stop > 0) {
        json_t *stops = json_array();
        for (int i = 0; i < q->n_stop; i++)
            bad |= json_array_append_new(stops, json_string(q->stop[i]));
        bad |= json_object_set_new(j, "stop", stops);
    }
    if (!bad)
        return j;
    json_decref(j);
    return NULL;
}
