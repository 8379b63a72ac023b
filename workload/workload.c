/* SPDX-License-Identifier: MIT
 *
 * workload/workload.c - the INI file of a workload: keys, their ranges, and to which kinds they
 * belong.
 */
#define _GNU_SOURCE
#include "impl.h"
#include "inifile.h"
#include "options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    U = 1 << PBW_UNIFORM,
    S = 1 << PBW_SHARED_PREFIX,
    X = 1 << PBW_MIX,
    C = 1 << PBW_MULTI_TURN,
    P = 1 << PBW_PROMPTS,
    T = 1 << PBW_TRANSCRIPTS,
    M = 1 << PBW_MOONCAKE,
    A = 1 << PBW_AZURE,
    MADE = U | S | X | C,
    FILES = P | T | M | A,
    ALL = MADE | FILES
};

static const char kinds[] =
    "uniform|shared-prefix|mix|multi-turn|prompts|transcripts|mooncake|azure";

typedef struct key {
    pb_option o;
    uint32_t of;   /* kinds that have it */
    uint32_t need; /* kinds that cannot do without */
    int is_range;  /* text "n" or "lo..hi" */
    size_t range;  /* of the pbw_range in pbw_workload */
} key;

#define AT(f) offsetof(pbw_config, f)
#define OPT(name_, type_, field, def_, min_, max_, choices_, unit_, help_)                         \
    {                                                                                              \
        .name = name_, .type = type_, .offset = AT(field), .def = def_, .min = min_, .max = max_,  \
        .choices = choices_, .unit = unit_, .help = help_                                          \
    }
#define RANGE(name_, field, def_, kinds_, help_)                                                   \
    {                                                                                              \
        .o = OPT(name_, PB_T_STR, field, def_, NULL, NULL, NULL, "tokens", help_), .of = kinds_,   \
        .is_range = 1, .range = offsetof(pbw_workload, field)                                      \
    }

static const key keys[] = {
    { OPT("kind", PB_T_ENUM, kind, NULL, NULL, NULL, kinds, NULL, "what requests look like"), ALL,
      ALL, 0, 0 },
    { OPT("requests", PB_T_INT, requests, "0", "0", "10000000", NULL, NULL,
          "how many; 0: all that the file has"),
      ALL, MADE, 0, 0 },
    { OPT("arrivals", PB_T_ENUM, arrivals, "closed", NULL, NULL,
          "closed|poisson|gamma|constant|trace|once", NULL,
          "closed: a client sends its next request when it has its answer; poisson, gamma, "
          "constant: at a rate; trace: the file's times; once: all at the beginning"),
      ALL, 0, 0, 0 },
    { OPT("clients", PB_T_INT, clients, "8", "1", "1000000", NULL, NULL,
          "of a closed loop: requests that are unanswered at a time"),
      ALL, 0, 0, 0 },
    { OPT("rate", PB_T_FLOAT, rate, "1", "0.000001", "1000000", NULL, "requests/s",
          "of poisson, gamma and constant arrivals"),
      ALL, 0, 0, 0 },
    { OPT("burstiness", PB_T_FLOAT, burstiness, "1", "0.01", "1000", NULL, NULL,
          "shape of gamma arrivals: 1 is poisson, less comes in bursts, more is even"),
      ALL, 0, 0, 0 },
    { OPT("seed", PB_T_INT, seed, "1", "0", NULL, NULL, NULL,
          "of what requests share; and of the rest in patchbay run"),
      ALL, 0, 0, 0 },
    { OPT("ignore_eos", PB_T_BOOL, ignore_eos, "on", NULL, NULL, NULL, NULL,
          "answers are exactly as long as said; off: the model may end them"),
      ALL, 0, 0, 0 },
    { OPT("temperature", PB_T_FLOAT, temperature, "nan", NULL, "100", NULL, NULL,
          "of the sampler; without it: the pipeline's"),
      ALL, 0, 0, 0 },
    { OPT("too_long", PB_T_ENUM, too_long, "refuse", NULL, NULL, "skip|cut|refuse", NULL,
          "a request that is longer than the context"),
      ALL, 0, 0, 0 },
    { OPT("content", PB_T_ENUM, content, "ids", NULL, NULL, "ids|words", NULL,
          "ids: random tokens, exact lengths; words: English words, about one token each"),
      MADE | M | A, 0, 0, 0 },
    RANGE("prompt", prompt, "64", U | X, "length of a prompt"),
    RANGE("output", output, "32", MADE | P | T, "new tokens"),
    { OPT("groups", PB_T_INT, groups, "8", "1", "1000000", NULL, NULL,
          "how many prefixes there are; each request has one of them"),
      S | C, 0, 0, 0 },
    RANGE("prefix", prefix, "512", S, "what the requests of a group share"),
    RANGE("own", own, "64", S, "what follows and is shared with none"),
    { OPT("long_share", PB_T_FLOAT, long_share, "0.1", "0", "1", NULL, NULL,
          "share of requests that are long"),
      X, 0, 0, 0 },
    RANGE("long_prompt", long_prompt, "1024", X, "prompt of a long request"),
    RANGE("long_output", long_output, "16", X, "new tokens of a long request"),
    { OPT("turns", PB_T_INT, turns, "4", "1", "64", NULL, NULL, "requests of a conversation"), C, 0,
      0, 0 },
    RANGE("system", system, "128", C, "what the conversations of a group share"),
    RANGE("first", first, "64", C, "the first user's turn"),
    RANGE("turn", turn, "32", C, "each further one"),
    { OPT("think_ms", PB_T_FLOAT, think_ms, "0", "0", "1000000000", NULL, "ms",
          "from an answer to the next turn"),
      C | T, 0, 0, 0 },
    { OPT("file", PB_T_STR, file, NULL, NULL, NULL, NULL, NULL,
          "the trace; a relative name is looked for beside this file"),
      FILES, FILES, 0, 0 },
    { OPT("field", PB_T_STR, field, "prompt", NULL, NULL, NULL, NULL,
          "the key that has the prompt"),
      P, 0, 0, 0 },
    { OPT("answer", PB_T_STR, answer, "", NULL, NULL, NULL, NULL,
          "the key that has the expected answer: answers are scored"),
      P, 0, 0, 0 },
    { OPT("match", PB_T_ENUM, match, "contains", NULL, NULL, "contains|number", NULL,
          "an answer is right if it contains the expected one, or if its last number is that "
          "one's"),
      P, 0, 0, 0 },
    { OPT("divide", PB_T_INT, divide, "1", "1", "65536", NULL, NULL,
          "all lengths by this, rounded up; for mooncake a divisor of 512"),
      M | A, 0, 0, 0 },
    { OPT("speed", PB_T_FLOAT, speed, "1", "0.000001", "1000000", NULL, NULL,
          "how much faster than in the file time runs"),
      M | A, 0, 0, 0 },
    { OPT("start", PB_T_INT, start, "-1", "-1", NULL, NULL, NULL,
          "first request of the file that is used; -1: drawn"),
      FILES, 0, 0, 0 },
};
enum { N_KEYS = sizeof keys / sizeof *keys };

/* ---- names ------------------------------------------------------------------- */

static const char *const kind_names[PBW_N_KINDS] = { "uniform",    "shared-prefix", "mix",
                                                     "multi-turn", "prompts",       "transcripts",
                                                     "mooncake",   "azure" };

const char *pbw_kind(const pbw_workload *w)
{
    return kind_names[w->c.kind];
}

static void kind_list(uint32_t of, char *buf, size_t n)
{
    size_t at = 0;
    buf[0] = 0;
    for (int32_t k = 0; k < PBW_N_KINDS; k++) {
        if (!(of >> k & 1))
            continue;
        at +=
            (size_t)snprintf(buf + at, at < n ? n - at : 0, "%s%s", at ? ", " : "", kind_names[k]);
        if (at >= n)
            return;
    }
}

static const key *find_key(const char *name)
{
    for (int i = 0; i < N_KEYS; i++)
        if (!strcmp(keys[i].o.name, name))
            return &keys[i];
    return NULL;
}

static int unknown_key(const char *name, pb_err *err)
{
    const char *names[N_KEYS];
    for (int i = 0; i < N_KEYS; i++)
        names[i] = keys[i].o.name;
    const char *near = pbi_nearest(name, names, N_KEYS);
    return pbi_err(err, PB_E_INVAL, "unknown key \"%.60s\"%s%s%s", name,
                   near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

/* ---- values -------------------------------------------------------------------- */

static int parse_range(const char *name, const char *text, pbw_range *out, pb_err *err)
{
    const char *dots = strstr(text, "..");
    char lo[32];
    snprintf(lo, sizeof lo, "%.*s", dots ? (int)(dots - text < 31 ? dots - text : 31) : 31, text);
    if (pbi_parse_int(lo, &out->lo) || pbi_parse_int(dots ? dots + 2 : lo, &out->hi) ||
        out->lo < 0 || out->hi < out->lo || out->hi > 1 << 26)
        return pbi_err(err, PB_E_INVAL, "%s = %.60s: a number of tokens, or lo..hi, in 0..67108864",
                       name, text);
    return 0;
}

static int set_value(pbw_workload *w, const char *name, const char *text, pb_err *err)
{
    const key *k = find_key(name);
    char *own = k ? strdup(text) : NULL;
    char **v = own ? realloc(w->values, ((size_t)w->n_values + 1) * sizeof *v) : NULL;
    if (!k)
        return unknown_key(name, err);
    if (!v) {
        free(own);
        return pbi_err(err, PB_E_NOMEM, "no memory for a value");
    }
    w->values = v;
    w->values[w->n_values++] = own;
    int rc = pbi_option_set(&k->o, own, &w->c, err);
    if (!rc && k->is_range)
        rc = parse_range(name, own, (pbw_range *)(void *)((char *)w + k->range), err);
    return rc;
}

static int defaults(pbw_workload *w, pb_err *err)
{
    int rc = 0;
    for (int i = 0; i < N_KEYS && !rc; i++)
        if (keys[i].o.def && strcmp(keys[i].o.def, "nan"))
            rc = set_value(w, keys[i].o.name, keys[i].o.def, err);
    w->c.temperature = NAN;
    return rc;
}

static int belongs(const pbw_workload *w, const char *name, pb_err *err)
{
    const key *k = find_key(name);
    char of[160];
    if (k->of >> w->c.kind & 1)
        return 0;
    kind_list(k->of, of, sizeof of);
    return pbi_err(err, PB_E_INVAL, "kind = %s has no key \"%s\"; it belongs to %s", pbw_kind(w),
                   name, of);
}

/* what no single key shows */
static int check_whole(const pbw_workload *w, const unsigned char *given, pb_err *err)
{
    const char *kind = pbw_kind(w);
    for (int i = 0; i < N_KEYS; i++)
        if (keys[i].need >> w->c.kind & 1 && !given[i])
            return pbi_err(err, PB_E_INVAL, "%s: kind = %s needs the key \"%s\"", w->path, kind,
                           keys[i].o.name);
    if (w->c.arrivals == PBW_TRACE && w->c.kind != PBW_MOONCAKE && w->c.kind != PBW_AZURE)
        return pbi_err(err, PB_E_INVAL, "%s: arrivals = trace: kind = %s has no times", w->path,
                       kind);
    if (w->c.kind == PBW_MOONCAKE && 512 % w->c.divide)
        return pbi_err(err, PB_E_INVAL,
                       "%s: divide = %lld: the blocks of 512 tokens need a divisor of 512", w->path,
                       (long long)w->c.divide);
    if (w->c.kind < PBW_PROMPTS && !w->c.requests)
        return pbi_err(err, PB_E_INVAL, "%s: requests = 0: only files have an end", w->path);
    if (w->output.lo < 1 && w->c.kind < PBW_MOONCAKE)
        return pbi_err(err, PB_E_INVAL, "%s: output = %s: at least 1", w->path, w->c.output);
    if ((w->c.kind == PBW_UNIFORM || w->c.kind == PBW_MIX) && w->prompt.lo < 1)
        return pbi_err(err, PB_E_INVAL, "%s: prompt = %s: at least 1", w->path, w->c.prompt);
    if (w->c.kind == PBW_SHARED_PREFIX && w->prefix.lo + w->own.lo < 1)
        return pbi_err(err, PB_E_INVAL, "%s: prefix and own may both be 0: empty prompts", w->path);
    return 0;
}

/* ---- files --------------------------------------------------------------------- */

/* the name itself, or the one beside the INI file */
static int read_data(pbw_workload *w, pb_err *err)
{
    const char *slash = strrchr(w->path, '/');
    char *beside = NULL;
    if (w->c.file[0] != '/' && slash &&
        asprintf(&beside, "%.*s/%s", (int)(slash - w->path), w->path, w->c.file) < 0)
        return pbi_err(err, PB_E_NOMEM, "no memory for a name");
    int rc = pbi_read_file(beside ? beside : w->c.file, &w->data, &w->n_data, err);
    if (rc && beside) { /* also from where the command was given, for --set file= */
        pb_err other = { 0 };
        if (!pbi_read_file(w->c.file, &w->data, &w->n_data, &other))
            rc = 0;
    }
    free(beside);
    return rc ? pbi_err_prefix(err, "%s: file", w->path) : 0;
}

/* ---- the whole -------------------------------------------------------------------- */

static int settings(pbw_workload *w, const pbi_ini *ini, int n_set, const char *const *set,
                    unsigned char *given, pb_err *err)
{
    int rc = 0;
    for (int pass = 0; pass < 2 && !rc; pass++) { /* the kind first: it decides about the others */
        for (int i = 0; i < ini->n_entries && !rc; i++) {
            const pbi_ini_entry *e = &ini->entries[i];
            int is_kind = !strcmp(e->key, "kind");
            if (strcmp(ini->sections[e->section].name, "workload"))
                rc = pbi_err(err, PB_E_INVAL, "section [%s]: a workload has [workload] only",
                             ini->sections[e->section].name);
            else if (is_kind == !pass)
                rc = set_value(w, e->key, e->value, err);
            if (!rc && pass && !is_kind)
                rc = belongs(w, e->key, err);
            if (rc)
                return pbi_err_prefix(err, "%s:%d", w->path, e->line);
            if (is_kind == !pass)
                given[find_key(e->key) - keys] = 1;
        }
        for (int i = 0; i < n_set && !rc; i++) {
            const char *eq = strchr(set[i], '=');
            char name[64];
            snprintf(name, sizeof name, "%.*s", eq ? (int)(eq - set[i] < 63 ? eq - set[i] : 63) : 0,
                     set[i]);
            int is_kind = !strcmp(name, "kind");
            if (!eq)
                rc = pbi_err(err, PB_E_INVAL, "\"%.60s\" is not key=value", set[i]);
            else if (is_kind == !pass)
                rc = set_value(w, name, eq + 1, err);
            if (!rc && pass && !is_kind)
                rc = belongs(w, name, err);
            if (rc)
                return pbi_err_prefix(err, "workload setting");
            if (is_kind == !pass)
                given[find_key(name) - keys] = 1;
        }
        if (!pass && !given[0])
            return pbi_err(err, PB_E_INVAL, "%s: the key \"kind\" is missing: %s", w->path, kinds);
    }
    return rc;
}

int pbw_parse(const char *text, size_t n, const char *path, int n_set, const char *const *set,
              const char *data, size_t n_data, pbw_workload **out, pb_err *err)
{
    pbw_workload *w = calloc(1, sizeof *w);
    pbi_ini *ini = NULL;
    unsigned char given[N_KEYS] = { 0 };
    if (!w || !(w->path = strdup(path))) {
        free(w);
        return pbi_err(err, PB_E_NOMEM, "no memory for a workload");
    }
    int rc = pbi_ini_parse(text, n, path, &ini, err);
    if (!rc)
        rc = defaults(w, err);
    if (!rc)
        rc = settings(w, ini, n_set, set, given, err);
    if (!rc)
        rc = check_whole(w, given, err);
    pbi_ini_free(ini);
    if (!rc && w->c.kind >= PBW_PROMPTS) {
        if (data) {
            w->data = malloc(n_data + 1);
            w->n_data = n_data;
            rc = w->data ? 0 : pbi_err(err, PB_E_NOMEM, "no memory for %zu bytes", n_data);
            if (!rc)
                memcpy(w->data, data, n_data);
        } else {
            rc = read_data(w, err);
        }
        if (!rc)
            rc = pbw_read_records(w, err);
    }
    if (rc) {
        pbw_free(w);
        return rc;
    }
    *out = w;
    return 0;
}

int pbw_load(const char *path, int n_set, const char *const *set, pbw_workload **out, pb_err *err)
{
    char *text;
    size_t n;
    int rc = pbi_ini_read(path, &text, &n, err);
    if (rc)
        return rc;
    rc = pbw_parse(text, n, path, n_set, set, NULL, 0, out, err);
    free(text);
    return rc;
}

void pbw_free(pbw_workload *w)
{
    if (!w)
        return;
    for (int i = 0; i < w->n_values; i++)
        free(w->values[i]);
    free(w->values);
    free(w->path);
    free(w->data);
    free(w->records);
    free(w->hashes);
    free(w->text);
    free(w);
}

/* ---- views ------------------------------------------------------------------------- */

int pbw_open_loop(const pbw_workload *w)
{
    return w->c.arrivals != PBW_CLOSED && w->c.arrivals != PBW_ONCE;
}

uint64_t pbw_seed(const pbw_workload *w)
{
    return (uint64_t)w->c.seed;
}

const char *pbw_data(const pbw_workload *w, size_t *n)
{
    *n = w->n_data;
    return w->data;
}

/* 1 if the value is the one without the key */
static int unset(const key *k, const pbw_workload *w)
{
    return !strcmp(k->o.name, "temperature") && isnan(w->c.temperature);
}

char *pbw_text(const pbw_workload *w)
{
    char *text = NULL, value[4096];
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return NULL;
    fprintf(f, "[workload]\n");
    for (int i = 0; i < N_KEYS; i++) {
        if (!(keys[i].of >> w->c.kind & 1) || unset(&keys[i], w))
            continue;
        pbi_option_format(&keys[i].o, &w->c, value, sizeof value);
        fprintf(f, "%s = %s\n", keys[i].o.name, value);
    }
    if (fclose(f)) {
        free(text);
        return NULL;
    }
    return text;
}

void pbw_help(FILE *f)
{
    char of[160], range[128];
    fprintf(f, "A workload is an INI file with a section [workload]. Keys:\n\n");
    for (int i = 0; i < N_KEYS; i++) {
        const key *k = &keys[i];
        kind_list(k->of, of, sizeof of);
        if (k->is_range)
            snprintf(range, sizeof range, "n or lo..hi");
        else
            pbi_option_range(&k->o, range, sizeof range);
        fprintf(f, "  %s = %s%s%s%s%s\n      %s%s%s\n", k->o.name, range, k->o.unit ? " " : "",
                k->o.unit ? k->o.unit : "", k->o.def ? "; default " : "", k->o.def ? k->o.def : "",
                k->o.help, k->of == ALL ? "" : "\n      of ", k->of == ALL ? "" : of);
    }
}
