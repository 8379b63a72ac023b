/* SPDX-License-Identifier: MIT
 *
 * core/conform.c - runs checks in forked children, and the checks that hold for a plugin of
 * any slot: loading, tables, lifecycle, failing allocations. Roles: conform_policy.c,
 * conform_attention.c, conform_kernel.c, conform_kvfmt.c, conform_load.c, conform_model.c,
 * conform_backend.c; the file itself: conform_elf.c.
 */
#define _GNU_SOURCE 1
#include "conform.h"
#include "conform_checks.h"
#include "instance.h"
#include "options.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int pbi_say(pbi_lint *l, int status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(l->text, l->n_text, fmt, ap);
    va_end(ap);
    return status;
}

const char *pbi_status_name(int status)
{
    static const char *const names[] = { "pass", "skip", "warn", "FAIL", "CRASH", "TIMEOUT" };
    return status >= PBI_PASS && status <= PBI_TIMEOUT ? names[status] : "?";
}

/* ---- checks of every plugin -------------------------------------------- */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int is_policy(const char *slot)
{
    static const char *const words[] = { "attention", "scheduler",  "sampler",
                                         "spec",      "constraint", "output" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(slot, words[i]))
            return 1;
    return 0;
}

/* What the loader did not refuse, but people will miss. */
static int check_tables(pbi_lint *l)
{
    const pb_plugin *d = l->lib->desc;
    int engaged = 0;
    if (strlen(d->summary) > 80)
        return pbi_say(l, PBI_WARN,
                       "summary has %zu characters; 80 fit a line of `patchbay plugins`",
                       strlen(d->summary));
    if (d->version[0] < '0' || d->version[0] > '9')
        return pbi_say(l, PBI_FAIL, "version '%s' does not begin with a number", d->version);
    for (const pb_option *o = d->options; o && o->name; o++)
        if ((o->type == PB_T_INT || o->type == PB_T_BYTES) && (!o->min || !o->max) &&
            strcmp(o->name, "seed") != 0)
            return pbi_say(l, PBI_WARN, "option %s has no %s; out-of-range values reach the plugin",
                           o->name, o->min ? "maximum" : "minimum");
    for (const pb_counter *c = d->counters; c && c->name; c++)
        engaged += (c->flags & PB_C_ENGAGED) != 0;
    if (is_policy(d->slot) && !engaged)
        return pbi_say(l, PBI_WARN,
                       "no counter is marked PB_C_ENGAGED, so a comparison cannot prove that the "
                       "plugin did anything");
    return PBI_PASS;
}

/* Bench with defaults, for checks that need one; NULL after saying why not. */
static int bench(pbi_lint *l, pbi_rig *r, pbi_pages_bench *pages)
{
    pb_err err = { 0 };
    *r = (pbi_rig){ 0 };
    if (pbi_pages_bench_new(pages, l->lib, &err) || (r->pages = pages->service, 0) ||
        pbi_rig_init(r, l->lib, 0, NULL, &err))
        return pbi_say(l, PBI_FAIL, "with default options: %s", err.msg);
    return PBI_PASS;
}

static int finish(pbi_lint *l, pbi_rig *r, pbi_pages_bench *pages, int status)
{
    pb_err err = { 0 };
    if (pbi_rig_done(r, &err) && status < PBI_FAIL)
        status = pbi_say(l, PBI_FAIL, "%s", err.msg);
    pbi_pages_bench_free(pages);
    return status;
}

/* A plugin may refuse this machine or this bench with a reason; that is no finding. */
static int refused(int rc)
{
    return rc == PB_E_UNSUPPORTED || rc == PB_E_INVAL || rc == PB_E_IO || rc == PB_E_STATE;
}

static int check_lifecycle(pbi_lint *l)
{
    pbi_rig r;
    pbi_pages_bench pages = { 0 };
    pb_err err = { 0 };
    int status = bench(l, &r, &pages), rc = 0;
    for (int i = 0; status == PBI_PASS && i < 50; i++) {
        rc = pbi_rig_create(&r, &err);
        if (!rc && i % 3) /* destroy without start must work as well */
            rc = pbi_rig_start(&r, &err);
        if (!rc && i % 3 == 2 && r.desc->reset) {
            pbi_rig_at(&r, "reset");
            if (r.desc->reset(r.self))
                status = pbi_say(l, PBI_FAIL, "reset() after start() fails");
        }
        int64_t left = pbi_rig_destroy(&r);
        if (rc && refused(rc))
            status = pbi_say(l, PBI_SKIP, "not here: %s", err.msg);
        else if (rc)
            status = pbi_say(l, PBI_FAIL, "round %d: %s", i, err.msg);
        else if (left)
            status = pbi_say(l, PBI_FAIL, "round %d: destroy() left %lld bytes of host memory", i,
                             (long long)left);
    }
    return finish(l, &r, &pages, status);
}

/* Two arms of a comparison live in one process. */
static int check_instances(pbi_lint *l)
{
    pbi_rig a, b;
    pbi_pages_bench pa = { 0 }, pb = { 0 };
    pb_err err = { 0 };
    if (l->lib->desc->flags & PB_F_ONE_PER_PROCESS)
        return pbi_say(l, PBI_SKIP, "declares PB_F_ONE_PER_PROCESS");
    int status = bench(l, &a, &pa), other = bench(l, &b, &pb);
    status = status > other ? status : other;
    if (status == PBI_PASS) {
        int rc = pbi_rig_create(&a, &err);
        if (!rc)
            rc = pbi_rig_create(&b, &err);
        if (!rc)
            rc = pbi_rig_start(&b, &err);
        if (!rc)
            rc = pbi_rig_start(&a, &err);
        if (!rc && a.self && a.self == b.self)
            status = pbi_say(l, PBI_FAIL, "two instances share one self");
        int64_t left = pbi_rig_destroy(&a);
        if (!rc && left && !status)
            status =
                pbi_say(l, PBI_FAIL, "of two instances the first left %lld bytes", (long long)left);
        if (!rc && !status && b.desc->reset && b.desc->reset(b.self))
            status = pbi_say(l, PBI_FAIL, "reset() fails after another instance was destroyed");
        if (rc)
            status = pbi_say(l, refused(rc) ? PBI_SKIP : PBI_FAIL, "%s", err.msg);
    }
    status = finish(l, &a, &pa, status);
    return finish(l, &b, &pb, status);
}

/* Fails the n-th allocation, n = 1, 2, ...: PB_E_NOMEM, no leak, no crash, until none fails. */
static int check_nomem(pbi_lint *l)
{
    pbi_rig r;
    pbi_pages_bench pages = { 0 };
    pb_err err = { 0 };
    int status = bench(l, &r, &pages);
    for (int n = 1; status == PBI_PASS && n < 1000; n++) {
        r.account.fail_at = n;
        int rc = pbi_rig_create(&r, &err);
        if (!rc)
            rc = pbi_rig_start(&r, &err);
        int fired = r.account.fail_at == 0;
        r.account.fail_at = 0;
        int64_t left = pbi_rig_destroy(&r);
        if (left)
            status = pbi_say(l, PBI_FAIL, "when allocation %d fails, %lld bytes leak", n,
                             (long long)left);
        else if (fired && rc == 0)
            status = pbi_say(l, PBI_WARN, "allocation %d fails and nobody is told", n);
        else if (fired && rc != PB_E_NOMEM)
            status = pbi_say(l, PBI_FAIL,
                             "when allocation %d fails: code %d instead of PB_E_NOMEM "
                             "(%s)",
                             n, rc, err.msg);
        if (!fired)
            break;
    }
    return finish(l, &r, &pages, status);
}

/* One random value in an option's range, as text. */
static void random_value(const pb_option *o, uint64_t *rng, char *buf, size_t n)
{
    int64_t lo = 0, hi = 1000;
    double flo = 0, fhi = 10;
    if (o->type == PB_T_BOOL) {
        snprintf(buf, n, "%s", pbi_rig_below(rng, 2) ? "yes" : "no");
    } else if (o->type == PB_T_ENUM) {
        const char *p = o->choices;
        int n_words = 1;
        for (const char *q = p; *q; q++)
            n_words += *q == '|';
        for (int64_t k = pbi_rig_below(rng, n_words); k > 0; k--)
            p = strchr(p, '|') + 1;
        snprintf(buf, n, "%.*s", (int)strcspn(p, "|"), p);
    } else if (o->type == PB_T_FLOAT) {
        if (o->min)
            pbi_parse_float(o->min, &flo);
        if (o->max)
            pbi_parse_float(o->max, &fhi);
        double u = (double)(pbi_rig_random(rng) >> 11) / 9007199254740992.0;
        snprintf(buf, n, "%.9g", flo + (fhi - flo) * u);
    } else if (o->type == PB_T_INT || o->type == PB_T_BYTES) {
        if (o->min)
            pbi_parse_bytes(o->min, &lo);
        if (o->max)
            pbi_parse_bytes(o->max, &hi);
        if (hi > lo + (1 << 20)) /* large values only cost memory */
            hi = lo + (1 << 20);
        int64_t v = lo + pbi_rig_below(rng, hi - lo + 1);
        for (int64_t p = 1; o->flags & PB_O_POW2; p *= 2)
            if (p >= v || p * 2 > hi) {
                v = p >= lo ? p : lo;
                break;
            }
        snprintf(buf, n, "%lld", (long long)v);
    } else {
        snprintf(buf, n, "%s", o->def ? o->def : "");
    }
}

/* how: 0 all at their minimum, 1 all at their maximum, else random */
static int config_texts(const pb_plugin *d, int how, uint64_t *rng, char texts[][128],
                        const char **set, int cap)
{
    int n = 0;
    for (const pb_option *o = d->options; o && o->name && n < cap; o++) {
        const char *bound = how == 0 ? o->min : how == 1 ? o->max : NULL;
        char v[64];
        if (o->type == PB_T_STR)
            continue;
        if (bound && !(o->flags & PB_O_POW2))
            snprintf(v, sizeof v, "%.60s", bound);
        else
            random_value(o, rng, v, sizeof v);
        snprintf(texts[n], 128, "%.60s=%.60s", o->name, v);
        set[n] = texts[n];
        n++;
    }
    return n;
}

static int check_configs(pbi_lint *l)
{
    enum { MAX_SET = 64, ROUNDS = 40 };
    const pb_plugin *d = l->lib->desc;
    uint64_t rng = l->seed;
    int status = PBI_PASS;
    if (!d->options || !d->options[0].name)
        return pbi_say(l, PBI_SKIP, "no options");
    for (int i = 0; status == PBI_PASS && i < ROUNDS; i++) {
        char texts[MAX_SET][128];
        const char *set[MAX_SET];
        pbi_rig r = { 0 };
        pbi_pages_bench pages = { 0 };
        pb_err err = { 0 };
        int n = config_texts(d, i, &rng, texts, set, MAX_SET);
        int rc = pbi_pages_bench_new(&pages, l->lib, &err);
        r.pages = pages.service;
        if (!rc)
            rc = pbi_rig_init(&r, l->lib, n, set, &err);
        if (rc && rc != PB_E_INVAL)
            status = pbi_say(l, PBI_FAIL, "configuration %d: %s", i, err.msg);
        if (!rc) {
            rc = pbi_rig_create(&r, &err);
            if (!rc)
                rc = pbi_rig_start(&r, &err);
            if (rc == PB_E_PLUGIN || rc == PB_E_INTERNAL)
                status = pbi_say(l, PBI_FAIL, "configuration %d (%s, ...): %s", i, set[0], err.msg);
        }
        status = finish(l, &r, &pages, status);
    }
    return status;
}

static int check_load(pbi_lint *l)
{
    pb_err err = { 0 };
    const pbi_library *lib;
    double t = seconds();
    if (pbi_loader_open_file(l->path, &lib, &err))
        return pbi_say(l, PBI_FAIL, "%s", err.msg);
    t = seconds() - t;
    if (t > 0.1)
        return pbi_say(l, PBI_WARN, "loading took %.0f ms; the limit is 100 ms", t * 1e3);
    return PBI_PASS;
}

const pbi_check pbi_checks[] = {
    { "elf", NULL, "exports, imports, run path, constructors", 1, pbi_check_elf },
    { "load", NULL, "the loader accepts it, in under 100 ms", 1, check_load },
    { "tables", NULL, "texts of options and counters help people", 0, check_tables },
    { "lifecycle", NULL, "create, start, reset, stop, destroy, many times, no leak", 0,
      check_lifecycle },
    { "instances", NULL, "two instances do not disturb each other", 0, check_instances },
    { "nomem", NULL, "every failing allocation is reported and leaks nothing", 0, check_nomem },
    { "configs", NULL, "options at their bounds and at random", 0, check_configs },
    { "attention", "attention", "pages against a model of their content", 0, pbi_check_attention },
    { "scheduler", "scheduler", "plans are valid and every sequence finishes", 0,
      pbi_check_scheduler },
    { "sampler", "sampler", "draws are in range and do not depend on the batch", 0,
      pbi_check_sampler },
    { "constraint", "constraint", "masks only forbid and do not depend on the batch", 0,
      pbi_check_constraint },
    { "spec", "spec", "proposals keep to their limits and do not depend on the batch", 0,
      pbi_check_spec },
    { "output", "output", "verdicts keep to their limits", 0, pbi_check_output },
    { "linear", "kernels", "products equal the plain-C reference bit by bit", 0, pbi_check_linear },
    { "kvfmt", "kernels", "KV formats: equal bits on any page, in any step, after copies", 0,
      pbi_check_kvfmt },
    { "backend", "backend", "a small program: equal bits in any batch, honest refusals", 0,
      pbi_check_backend },
    { "model", "model", "foreign and broken metadata are refused with a reason", 0,
      pbi_check_model },
    { "weights", "weights", "missing and broken files are refused with a reason", 0,
      pbi_check_weights },
};
const int pbi_n_checks = sizeof pbi_checks / sizeof *pbi_checks;

/* ---- in a child -------------------------------------------------------- */

typedef struct shared {
    pbi_finding f;
    char function[64]; /* of the plugin, while it runs */
    char text[600];
} shared;

static shared *child_shared; /* in the child, for its signal handler */

static void on_crash(int sig)
{
    const pbi_call *c = pbi_call_now;
    if (child_shared && c && c->function) {
        size_t n = strlen(c->function);
        if (n >= sizeof child_shared->function)
            n = sizeof child_shared->function - 1;
        memcpy(child_shared->function, c->function, n);
    }
    signal(sig, SIG_DFL);
    raise(sig);
}

static void run_here(const pbi_check *c, const char *path, uint64_t seed, shared *s)
{
    pbi_lint l = { .path = path, .seed = seed, .text = s->text, .n_text = sizeof s->text };
    pb_err err = { 0 };
    if (!c->before_load) {
        if (pbi_loader_open_file(path, &l.lib, &err)) {
            s->f.status = pbi_say(&l, PBI_FAIL, "%s", err.msg);
            return;
        }
        snprintf(s->f.slot, sizeof s->f.slot, "%s", l.lib->slot);
        snprintf(s->f.name, sizeof s->f.name, "%s", l.lib->name);
        if (c->slot && strcmp(c->slot, l.lib->slot) != 0) {
            s->f.status = pbi_say(&l, PBI_SKIP, "of another slot");
            return;
        }
        if (l.lib->desc->probe(&err) <= 0) {
            s->f.status = pbi_say(&l, PBI_SKIP, "cannot run on this machine: %s", err.msg);
            return;
        }
    }
    s->f.status = c->run(&l);
}

static void in_child(const pbi_check *c, const char *path, uint64_t seed, int timeout_s, shared *s)
{
    static const int fatal[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM };
    child_shared = s;
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
        signal(fatal[i], on_crash);
    setenv("PATCHBAY_LOG", "error", 0); /* what plugins log is no finding */
    alarm((unsigned)timeout_s);
    s->f.status = PBI_CRASH; /* unless it returns */
    run_here(c, path, seed, s);
    fflush(NULL);
    _exit(0);
}

static void judge_child(int wait_status, int timeout_s, shared *s)
{
    const char *at = s->function[0] ? s->function : "no call";
    if (WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGALRM) {
        s->f.status = PBI_TIMEOUT;
        snprintf(s->text, sizeof s->text, "no end after %d s in %s", timeout_s, at);
    } else if (WIFSIGNALED(wait_status)) {
        s->f.status = PBI_CRASH;
        snprintf(s->text, sizeof s->text, "%s in %s", strsignal(WTERMSIG(wait_status)), at);
    } else if (s->f.status == PBI_CRASH) {
        snprintf(s->text, sizeof s->text, "ended the process with status %d in %s",
                 WEXITSTATUS(wait_status), at);
    }
}

void pbi_conform_run(const pbi_check *c, const char *path, uint64_t seed, int in_process,
                     int timeout_s, pbi_finding *out)
{
    double t = seconds();
    shared here = { 0 }, *s = &here;
    *out = (pbi_finding){ .check = c, .status = PBI_FAIL };
    if (in_process) {
        run_here(c, path, seed, s);
    } else {
        s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        fflush(NULL);
        pid_t pid = s == MAP_FAILED ? -1 : fork();
        int wait_status = 0;
        if (pid < 0) {
            snprintf(out->text, sizeof out->text, "cannot fork a child for the check");
            return;
        }
        if (pid == 0)
            in_child(c, path, seed, timeout_s, s);
        waitpid(pid, &wait_status, 0);
        judge_child(wait_status, timeout_s, s);
    }
    *out = s->f;
    out->check = c;
    out->seconds = seconds() - t;
    if (out->status != PBI_PASS)
        snprintf(out->text, sizeof out->text, "%s", s->text);
    if (!in_process)
        munmap(s, sizeof *s);
}
