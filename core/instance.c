/* SPDX-License-Identifier: MIT
 *
 * core/instance.c - the life of a plugin: probe, create, start, reset, stop, destroy, and
 * the host services that it sees.
 *
 * Counters, the memory account and the call statistics of an instance lie in one shared
 * mapping, so that a front process can read what an engine process counts after a fork.
 * Test: tests/unit/test_instance.c.
 */
#define _GNU_SOURCE 1
#include "instance.h"
#include "account.h"
#include "calls.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

struct pbi_instance {
    pb_host host; /* host.h points back here */
    const pbi_use *use;
    const pbi_services *svc;
    void *self;
    int created, started;
    pb_run run;
    pbi_account account;
    pbi_shared *shared; /* followed by the stats block */
    size_t shared_bytes;
};

/* ---- host services ----------------------------------------------------- */

static pbi_instance *of(const pb_host *host)
{
    return host->h;
}

static void *host_alloc(const pb_host *host, size_t bytes, size_t align, const char *tag)
{
    return pbi_account_alloc(&of(host)->account, bytes, align, tag);
}

static void host_free(const pb_host *host, void *p)
{
    pbi_account_free(&of(host)->account, p);
}

static int64_t host_now(const pb_host *host)
{
    const pbi_services *svc = of(host)->svc;
    if (svc && svc->now_ns)
        return svc->now_ns(svc->now_arg);
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void host_log(const pb_host *host, int32_t level, const char *msg)
{
    const pbi_use *u = of(host)->use;
    pbi_log(level, u->slot, u->name, msg ? msg : "(NULL)");
}

static const void *host_get(const pb_host *host, const char *id)
{
    const pbi_instance *in = host->h;
    const pbi_services *svc = in->svc;
    int backend = strcmp(in->use->slot, "backend") == 0;
    if (!svc || !id)
        return NULL;
    if (strcmp(id, "team/1") == 0)
        return svc->team;
    if (strcmp(id, "text/1") == 0)
        return svc->text;
    if (strcmp(id, "pages/1") == 0)
        return strcmp(in->use->slot, "attention") == 0 ? svc->pages : NULL;
    if (strcmp(id, "kernels/1") == 0)
        return backend ? svc->kernels : NULL;
    if (strcmp(id, "clock/1") == 0)
        return backend ? svc->clock : NULL;
    return NULL;
}

/* ---- lifecycle --------------------------------------------------------- */

static const pb_plugin *desc(const pbi_instance *in)
{
    return in->use->lib->desc;
}

static int blame(const pbi_instance *in, int code, pb_err *err)
{
    if (err && !err->code)
        pbi_err(err, code, "failed with %d (%s) and no message", code, pbi_err_kind(code));
    pbi_err_prefix(err, "%s: [%s] %s", in->use->origin, in->use->slot, in->use->name);
    return code;
}

static int create(pbi_instance *in, pb_err *err)
{
    int rc = 0;
    pb_err local = { 0 };
    if (!err)
        err = &local;
    err->code = 0;
    PBI_CALL(pbi_call_stat_get(in, "create"),
             rc = desc(in)->create(&in->host, in->use->config, &in->self, err));
    if (rc > 0)
        rc = pbi_err(err, PB_E_PLUGIN, "create() returned %d, which is no error code", rc);
    if (rc) {
        pbi_account_drain(&in->account); /* a failed create has no destroy */
        return blame(in, rc, err);
    }
    in->created = 1;
    return 0;
}

static void destroy(pbi_instance *in)
{
    if (in->started)
        PBI_CALL(pbi_call_stat_get(in, "stop"), desc(in)->stop(in->self));
    if (in->created)
        PBI_CALL(pbi_call_stat_get(in, "destroy"), desc(in)->destroy(in->self));
    in->started = in->created = 0;
    in->self = NULL;
    pbi_account_drain(&in->account);
}

static int probe(pbi_instance *in, pb_err *err)
{
    int ok = 0;
    pb_err local = { 0 };
    if (!err)
        err = &local;
    err->code = 0;
    PBI_CALL(pbi_call_stat_get(in, "probe"), ok = desc(in)->probe(err));
    if (ok > 0)
        return 0;
    if (!err->code)
        pbi_err(err, PB_E_UNSUPPORTED, "cannot run on this machine");
    return blame(in, PB_E_UNSUPPORTED, err);
}

int pbi_instance_new(const pbi_use *use, const pbi_services *svc, pbi_instance **out, pb_err *err)
{
    *out = NULL;
    pbi_instance *in = calloc(1, sizeof *in);
    if (!in)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    size_t head = (sizeof(pbi_shared) + 63) / 64 * 64;
    in->use = use;
    in->svc = svc;
    in->shared_bytes = head + use->lib->desc->stats_size;
    in->shared =
        mmap(NULL, in->shared_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (in->shared == MAP_FAILED) {
        free(in);
        return pbi_err(err, PB_E_NOMEM, "[%s] %s: no memory for %zu bytes of counters", use->slot,
                       use->name, (size_t)use->lib->desc->stats_size);
    }
    in->account = (pbi_account){ .now = &in->shared->now,
                                 .peak = &in->shared->peak,
                                 .owner_slot = use->slot,
                                 .owner_name = use->name };
    in->host = (pb_host){ .size = sizeof in->host,
                          .h = in,
                          .stats = use->lib->desc->stats_size ? (char *)in->shared + head : NULL,
                          .alloc = host_alloc,
                          .free = host_free,
                          .now_ns = host_now,
                          .log = host_log,
                          .get = host_get };
    int rc = probe(in, err);
    if (!rc)
        rc = create(in, err);
    if (rc) {
        pbi_instance_free(in);
        return rc;
    }
    *out = in;
    return 0;
}

int pbi_instance_start(pbi_instance *in, const pb_run *run, pb_err *err)
{
    int rc = 0;
    pb_err local = { 0 };
    if (!err)
        err = &local;
    err->code = 0;
    if (in->started)
        return blame(in, pbi_err(err, PB_E_STATE, "started twice"), err);
    in->run = *run;
    PBI_CALL(pbi_call_stat_get(in, "start"), rc = desc(in)->start(in->self, &in->run, err));
    if (rc > 0)
        rc = pbi_err(err, PB_E_PLUGIN, "start() returned %d, which is no error code", rc);
    if (rc)
        return blame(in, rc, err);
    in->started = 1;
    return 0;
}

/* Sums go on over a renewal, levels begin again. */
static void clear_stats(pbi_instance *in, int sums)
{
    for (const pb_counter *c = desc(in)->counters; c && c->name; c++)
        if (in->host.stats && (sums || c->flags & PB_C_GAUGE))
            memset((char *)in->host.stats + c->offset, 0, sizeof(int64_t));
}

/* Policies without reset() are made anew; what is loaded (weights, programs) has no past. */
static int is_policy(const char *slot)
{
    static const char *const kept[] = { "model",   "weights",  "backend",
                                        "kernels", "parallel", "process" };
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (strcmp(slot, kept[i]) == 0)
            return 0;
    return 1;
}

int pbi_instance_reset(pbi_instance *in)
{
    int rc = 0;
    clear_stats(in, 1);
    pbi_shared_clear_calls(in->shared);
    if (desc(in)->reset) {
        PBI_CALL(pbi_call_stat_get(in, "reset"), rc = desc(in)->reset(in->self));
        return rc;
    }
    if (!is_policy(in->use->slot))
        return 0;
    pb_err err = { 0 };
    rc = pbi_instance_renew(in, &err);
    if (rc)
        pbi_log(PB_LOG_ERROR, NULL, NULL, err.msg);
    return rc;
}

int pbi_instance_renew(pbi_instance *in, pb_err *err)
{
    int was_started = in->started;
    pb_run run = in->run;
    destroy(in);
    clear_stats(in, 0);
    int rc = create(in, err);
    if (!rc && was_started)
        rc = pbi_instance_start(in, &run, err);
    return rc;
}

void pbi_instance_free(pbi_instance *in)
{
    if (!in)
        return;
    destroy(in);
    munmap(in->shared, in->shared_bytes);
    free(in);
}

/* ---- views ------------------------------------------------------------- */

void *pbi_instance_self(const pbi_instance *in)
{
    return in->self;
}

const void *pbi_instance_iface(const pbi_instance *in, const char *id)
{
    return pbi_library_iface(in->use->lib, id);
}

const pbi_use *pbi_instance_use(const pbi_instance *in)
{
    return in->use;
}

int64_t pbi_instance_counter(const pbi_instance *in, int i)
{
    int64_t v = 0;
    memcpy(&v, (const char *)in->host.stats + desc(in)->counters[i].offset, sizeof v);
    return v;
}

void pbi_instance_memory(const pbi_instance *in, int64_t *now, int64_t *peak)
{
    if (now)
        *now = in->shared->now;
    if (peak)
        *peak = in->shared->peak;
}

void pbi_instance_fail_alloc(pbi_instance *in, int64_t n)
{
    in->account.fail_at = n;
}

pbi_shared *pbi_instance_shared(pbi_instance *in)
{
    return in->shared;
}
