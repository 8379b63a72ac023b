/* SPDX-License-Identifier: MIT
 *
 * cli/arms.c - see arms.h.
 */
#define _GNU_SOURCE
#include "arms.h"
#include "load.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- requests ------------------------------------------------------------ */

/* the same list in every block */
static int draw_list(void *arg, const pbi_arm *like, uint64_t seed, pbi_requests *out, pb_err *err)
{
    const pbi_requests *r = arg;
    (void)like;
    (void)seed;
    for (int64_t i = 0; i < r->n; i++) {
        int rc = pbi_requests_add(out, &r->v[i], err);
        if (rc)
            return rc;
    }
    return 0;
}

static int draw_workload(void *arg, const pbi_arm *like, uint64_t seed, pbi_requests *out,
                         pb_err *err)
{
    const pbw_vocab v = pbi_load_vocab(like);
    return pbw_draw(arg, &v, seed, out, NULL, err);
}

int pbi_arms_requests(pbi_arms *c, pb_err *err)
{
    pbi_request q;
    pbi_request_default(&q);
    q.max_new = c->max_new;
    if (c->workload_path)
        return pbw_load(c->workload_path, c->workload_set.n, c->workload_set.s, &c->workload, err);
    if (c->file)
        return pbi_requests_load(&c->requests, c->file, &q, err);
    q.prompt = c->prompt;
    q.n_prompt = strlen(c->prompt);
    return pbi_requests_add(&c->requests, &q, err);
}

/* ---- arms ------------------------------------------------------------------ */

/* "attention=radix,scheduler.chunk=512" into settings, behind those of --set. A comma parts two
 * of them only where "slot=" or "slot.key=" follows. */
static int with_settings(const char *with, pbi_texts *out, char **copy)
{
    char *s = *copy = strdup(with);
    out->s = realloc(out->s, ((size_t)out->n + strlen(with) + 1) * sizeof *out->s);
    if (!s || !out->s)
        return -1;
    out->s[out->n++] = s;
    for (char *p = s; (p = strchr(p, ',')) != NULL;) {
        char *key = p + 1;
        size_t n = strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789_-.");
        if (n && key[n] == '=') {
            *p = 0;
            out->s[out->n++] = key;
        }
        p = key;
    }
    return 0;
}

static int load_with(const pbi_arms *c, const char *path, const char *with, pbi_pipeline **out,
                     pb_err *err)
{
    pbi_common one = c->common;
    char *copy = NULL;
    one.pipeline = path;
    one.set.s = malloc(((size_t)c->common.set.n + 1) * sizeof *one.set.s);
    if (!one.set.s)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    if (c->common.set.n)
        memcpy(one.set.s, c->common.set.s, (size_t)c->common.set.n * sizeof *one.set.s);
    int rc = with && *with && with_settings(with, &one.set, &copy) ? PB_E_NOMEM : 0;
    if (!rc)
        rc = pbi_common_load(&one, out, err);
    free(copy);
    free(one.set.s);
    return rc;
}

int pbi_arms_add(pbi_arms *c, const char *path, const char *with, pb_err *err)
{
    if (c->n_arms + 1 >= PBC_MAX_ARMS)
        return pbi_err(err, PB_E_INVAL, "more than %d arms", PBC_MAX_ARMS - 2);
    int rc = load_with(c, path, with, &c->pipelines[c->n_arms], err);
    if (rc)
        return rc;
    c->names[c->n_arms] = strdup(with ? with : path);
    return c->names[c->n_arms++] ? 0 : pbi_err(err, PB_E_NOMEM, "out of memory");
}

int pbi_arms_again(pbi_arms *c, const char *path, const char *with, pb_err *err)
{
    return load_with(c, path, with, &c->pipelines[c->n_arms], err);
}

pbc_source pbi_arms_source(pbw_workload *w, pbi_requests *r)
{
    pbc_source s =
        w ? (pbc_source){ w, draw_workload, pbw_open_loop(w) } : (pbc_source){ r, draw_list, 0 };
    for (int64_t i = 0; i < r->n && !w; i++)
        s.open_loop |= r->v[i].arrival_ns > 0;
    return s;
}

pbc_options pbi_arms_options(pbi_arms *c)
{
    pbc_options o = { .n_arms = c->n_arms,
                      .names = (const char *const *)c->names,
                      .pipelines = c->pipelines,
                      .model = c->common.model ? c->common.model : "",
                      .max_epochs = (int)c->epochs,
                      .blocks = (int)c->rounds,
                      .cache = !strcmp(c->cache, "warm")      ? PBC_WARM
                               : !strcmp(c->cache, "natural") ? PBC_NATURAL
                                                              : PBC_COLD,
                      .level = 0.035,
                      .delta = c->delta / 100,
                      .until = c->until / 100,
                      .max_time_s = c->max_time,
                      .seed = (uint64_t)c->seed,
                      .source = pbi_arms_source(c->workload, &c->requests) };
    o.min_epochs = pbc_least_epochs(&o);
    if (!o.max_epochs)
        o.max_epochs = c->until > 0 ? 200 : o.min_epochs;
    return o;
}

int pbi_arms_usage(const char *command, const pbi_arms *c)
{
    if ((c->file != NULL) + (c->prompt != NULL) + (c->workload_path != NULL) != 1)
        return pbi_usage(command, "give one of -w W.ini, -f FILE.jsonl or -p TEXT");
    if (c->rounds < 1 || c->rounds > 1000)
        return pbi_usage(command, "--rounds %" PRId64 " is outside of 1..1000", c->rounds);
    if (c->epochs < 0 || c->epochs > PBC_MAX_EPOCHS)
        return pbi_usage(command, "--epochs %" PRId64 " is outside of 1..%d", c->epochs,
                         PBC_MAX_EPOCHS);
    if (strcmp(c->cache, "cold") && strcmp(c->cache, "warm") && strcmp(c->cache, "natural"))
        return pbi_usage(command, "--cache %s: cold, warm or natural", c->cache);
    if (!(c->delta >= 0 && c->delta < 100) || !(c->until >= 0 && c->until < 100) ||
        !(c->max_time >= 0))
        return pbi_usage(command, "--delta and --until are percent in 0..100, --max-time seconds");
    return PBI_GO;
}

void pbi_arms_clear(pbi_arms *c)
{
    for (int i = 0; i < PBC_MAX_ARMS; i++) {
        pbi_pipeline_free(c->pipelines[i]);
        free(c->names[i]);
    }
    pbi_requests_clear(&c->requests);
    pbw_free(c->workload);
}
