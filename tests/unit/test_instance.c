/* SPDX-License-Identifier: MIT
 * tests/unit/test_instance.c - lifecycle, memory account, counters, calls, faults. */
#define _GNU_SOURCE 1
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "account.h"
#include "instance.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- a plugin in this file, as the loader would hand it out ------------- */

typedef struct config {
    int64_t size;
} config;
typedef struct stats {
    int64_t sum, level;
} stats;

static int created, destroyed, started, stopped, last_max_seqs;
static const pb_host *seen_host;
static int64_t *owned;

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    const config *c = cfg;
    owned = host->alloc(host, (size_t)c->size, 0, "state");
    if (!owned) {
        err->code = PB_E_NOMEM;
        snprintf(err->msg, sizeof err->msg, "no memory for state");
        return PB_E_NOMEM;
    }
    created++;
    seen_host = host;
    *self = owned;
    stats *s = host->stats;
    s->sum++;
    s->level++;
    return 0;
}
static int start(void *self, const pb_run *run, pb_err *err)
{
    (void)self, (void)err;
    started++;
    last_max_seqs = run->max_seqs;
    return 0;
}
static void stop(void *self)
{
    (void)self;
    stopped++;
}
static void destroy(void *self)
{
    destroyed++;
    seen_host->free(seen_host, self);
}
static int probe(pb_err *err)
{
    (void)err;
    return 1;
}

static const pb_counter counters[] = { PB_COUNTER(stats, sum, PB_C_ENGAGED, "times", "made"),
                                       PB_COUNTER(stats, level, PB_C_GAUGE, "things", "there"),
                                       PB_COUNTERS_END };
static const pb_plugin plugin = { PB_HEAD,
                                  .slot = "attention",
                                  .name = "mine",
                                  .counters = counters,
                                  .stats_size = sizeof(stats),
                                  .config_size = sizeof(config),
                                  .probe = probe,
                                  .create = create,
                                  .start = start,
                                  .stop = stop,
                                  .destroy = destroy };
static const pbi_library library = { .slot = "attention", .name = "mine", .desc = &plugin };
static config the_config = { .size = 1000 };
static char origin[] = "p.ini:7";
static const pbi_use use = {
    .slot = "attention", .name = "mine", .origin = origin, .lib = &library, .config = &the_config
};

static int setup(void **state)
{
    (void)state;
    created = destroyed = started = stopped = 0;
    the_config.size = 1000;
    return 0;
}

static void test_life(void **state)
{
    pbi_instance *in = NULL;
    pb_err err = { 0 };
    pb_run run = { .size = sizeof run, .max_seqs = 9 };
    int64_t now, peak;
    (void)state;
    assert_int_equal(pbi_instance_new(&use, NULL, &in, &err), 0);
    assert_int_equal(pbi_instance_start(in, &run, &err), 0);
    assert_int_equal(last_max_seqs, 9);
    assert_ptr_equal(pbi_instance_self(in), owned);
    pbi_instance_memory(in, &now, &peak);
    assert_int_equal(now, 1000);
    assert_int_equal(peak, 1000);
    /* amnesia: everything anew, sums go on, levels begin again */
    assert_int_equal(pbi_instance_renew(in, &err), 0);
    assert_int_equal(created, 2);
    assert_int_equal(destroyed, 1);
    assert_int_equal(started, 2);
    assert_int_equal(stopped, 1);
    assert_int_equal(pbi_instance_counter(in, 0), 2);
    assert_int_equal(pbi_instance_counter(in, 1), 1);
    pbi_instance_memory(in, &now, NULL);
    assert_int_equal(now, 1000);
    /* a policy without reset() is made anew; its sums begin again */
    assert_int_equal(pbi_instance_reset(in), 0);
    assert_int_equal(created, 3);
    assert_int_equal(pbi_instance_counter(in, 0), 1);
    pbi_instance_free(in);
    assert_int_equal(destroyed, 3);
    assert_int_equal(stopped, 3);
    pbi_instance_free(NULL);
}

static void test_services(void **state)
{
    static const pb_team team = { .size = sizeof team, .n_threads = 3 };
    static const pb_pages pages = { .size = sizeof pages };
    static const pb_clock clock = { .size = sizeof clock };
    const pbi_services svc = { .team = &team, .pages = &pages, .clock = &clock };
    pbi_instance *in = NULL;
    pb_err err = { 0 };
    (void)state;
    assert_int_equal(pbi_instance_new(&use, &svc, &in, &err), 0);
    assert_ptr_equal(seen_host->get(seen_host, "team/1"), &team);
    assert_ptr_equal(seen_host->get(seen_host, "pages/1"), &pages);
    assert_null(seen_host->get(seen_host, "clock/1")); /* an attention plugin moves no clock */
    assert_null(seen_host->get(seen_host, "kernels/1"));
    assert_null(seen_host->get(seen_host, "nothing/9"));
    int64_t t0 = seen_host->now_ns(seen_host);
    assert_true(seen_host->now_ns(seen_host) >= t0);
    pbi_instance_free(in);
}

/* Every allocation may fail; then nothing stays behind and the message says where. */
static void test_no_memory(void **state)
{
    pbi_instance *in = NULL;
    pb_err err = { 0 };
    (void)state;
    the_config.size = INT64_MAX;
    assert_int_equal(pbi_instance_new(&use, NULL, &in, &err), PB_E_NOMEM);
    assert_null(in);
    assert_string_equal(err.msg, "p.ini:7: [attention] mine: no memory for state");
    the_config.size = 64;
    assert_int_equal(pbi_instance_new(&use, NULL, &in, &err), 0);
    pbi_instance_fail_alloc(in, 2);
    void *a = seen_host->alloc(seen_host, 10, 0, "a");
    assert_non_null(a);
    assert_null(seen_host->alloc(seen_host, 10, 0, "b"));
    void *c = seen_host->alloc(seen_host, 10, 0, "c");
    assert_non_null(c);
    seen_host->free(seen_host, a);
    seen_host->free(seen_host, c);
    pbi_instance_free(in);
}

static void test_account(void **state)
{
    int64_t now = 0, peak = 0;
    pbi_account a = { .now = &now, .peak = &peak };
    char *p[300];
    (void)state;
    for (size_t i = 0; i < 300; i++) {
        size_t align = (size_t)1 << (i % 13);
        p[i] = pbi_account_alloc(&a, i * 37, align, "x");
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % align, 0);
        for (size_t k = 0; k < i * 37; k++)
            assert_int_equal(p[i][k], 0);
        memset(p[i], 0xAA, i * 37);
    }
    assert_int_equal(now, 37 * 299 * 300 / 2);
    for (size_t i = 0; i < 300; i += 2)
        pbi_account_free(&a, p[i]);
    /* large blocks are whole huge pages, zeroed and aligned */
    char *big = pbi_account_alloc(&a, (5u << 20) + 3, 0, "big");
    assert_non_null(big);
    assert_int_equal((uintptr_t)big % (2u << 20), 0);
    for (size_t i = 0; i < (5u << 20) + 3; i += 4099)
        assert_int_equal(big[i], 0);
    char *wide = pbi_account_alloc(&a, 3u << 20, 8u << 20, "wide");
    assert_int_equal((uintptr_t)wide % (8u << 20), 0);
    pbi_account_free(&a, big);
    pbi_account_free(&a, wide);
    pbi_account_free(&a, NULL);
    /* impossible requests are refused, not wrapped around */
    assert_null(pbi_account_alloc(&a, SIZE_MAX - 5, 0, "huge"));
    assert_null(pbi_account_alloc(&a, SIZE_MAX / 8, (size_t)1 << 40, "huge"));
    assert_null(pbi_account_alloc(&a, 8, 48, "odd alignment"));
    setenv("PATCHBAY_LOG", "error", 1);
    int64_t left = now;
    assert_int_equal(pbi_account_drain(&a), left);
    unsetenv("PATCHBAY_LOG");
    assert_int_equal(now, 0);
    assert_true(peak > 37 * 299 * 300 / 2);
}

/* ---- calls ------------------------------------------------------------- */

static void test_calls(void **state)
{
    pbi_instance *in = NULL;
    pb_err err = { 0 };
    int ran = 0;
    (void)state;
    assert_int_equal(pbi_instance_new(&use, NULL, &in, &err), 0);
    pbi_call_stat *st = pbi_call_stat_get(in, "reserve");
    assert_ptr_equal(st, pbi_call_stat_get(in, "reserve"));
    PBI_CALL(st, ran = pbi_call_now == &st->call);
    assert_true(ran);
    assert_null(pbi_call_now);
    assert_int_equal(st->n, 0); /* tracing is off */
    pbi_trace_enable(1);
    PBI_CALL(st, usleep(2000));
    pbi_trace_enable(0);
    assert_int_equal(st->n, 1);
    assert_true(st->ns >= 2000000);
    int listed = 0;
    for (const pbi_call_stat *s = pbi_call_stats(in); s; s = s->next)
        listed +=
            strcmp(s->call.function, "reserve") == 0 || strcmp(s->call.function, "create") == 0;
    assert_int_equal(listed, 2);
    /* more functions than there is room for share one record */
    static char names[100][8];
    for (int i = 0; i < 100; i++) {
        snprintf(names[i], sizeof names[i], "f%d", i);
        assert_non_null(pbi_call_stat_get(in, names[i]));
    }
    assert_ptr_equal(pbi_call_stat_get(in, "f98"), pbi_call_stat_get(in, "f99"));
    assert_int_equal(pbi_calls_logged(in), 0);
    pbi_calls_log("sampler,attention");
    assert_int_equal(pbi_calls_logged(in), 1);
    pbi_calls_log("sampler,attentio");
    assert_int_equal(pbi_calls_logged(in), 0);
    pbi_calls_log("all");
    assert_int_equal(pbi_calls_logged(in), 1);
    pbi_calls_log(NULL);
    pbi_instance_free(in);
}

/* What an engine process counts is seen by the process that it was forked from. */
static void test_counters_survive_fork(void **state)
{
    pbi_instance *in = NULL;
    pb_err err = { 0 };
    int64_t peak;
    (void)state;
    assert_int_equal(pbi_instance_new(&use, NULL, &in, &err), 0);
    pid_t pid = fork();
    if (pid == 0) {
        stats *s = seen_host->stats;
        s->sum = 77;
        seen_host->alloc(seen_host, 50000, 0, "child");
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    assert_int_equal(pbi_instance_counter(in, 0), 77);
    pbi_instance_memory(in, NULL, &peak);
    assert_int_equal(peak, 51000);
    pbi_instance_free(in);
}

/* ---- plugins that misbehave -------------------------------------------- */

static void open_broken(const char *name, pbi_use *out, config *c)
{
    char dir[1024];
    const pbi_library *lib = NULL;
    pb_err err = { 0 };
    const char *build = getenv("PATCHBAY_BUILD");
    snprintf(dir, sizeof dir, "%s/tests/broken/.libs", build ? build : ".");
    setenv("PATCHBAY_PLUGIN_PATH", dir, 1);
    if (pbi_loader_open("sampler", name, &lib, &err))
        fail_msg("%s", err.msg);
    memset(c, 0, sizeof *c);
    *out = (pbi_use){
        .slot = lib->slot, .name = lib->name, .origin = origin, .lib = lib, .config = c
    };
}

/* Runs fn in a child; returns its status and what it wrote to stderr. */
static int in_child(void (*fn)(void), char *out, size_t n)
{
    int fd[2], status;
    assert_int_equal(pipe(fd), 0);
    pid_t pid = fork();
    if (pid == 0) {
        static const int sigs[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT };
        for (size_t i = 0; i < sizeof sigs / sizeof *sigs; i++)
            signal(sigs[i], SIG_DFL); /* not the test library's */
        dup2(fd[1], 2);
        fn();
        _exit(0);
    }
    close(fd[1]);
    size_t at = 0;
    for (ssize_t k; at + 1 < n && (k = read(fd[0], out + at, n - 1 - at)) > 0;)
        at += (size_t)k;
    out[at] = 0;
    close(fd[0]);
    waitpid(pid, &status, 0);
    return status;
}

static void crash(void)
{
    static config c[2];
    pbi_use u;
    pbi_instance *in;
    pb_err err = { 0 };
    open_broken("crash", &u, c);
    pbi_fault_handler_install();
    pbi_instance_new(&u, NULL, &in, &err);
}

static void crash_alone(void)
{
    pbi_fault_handler_install();
    raise(SIGILL);
}

static void test_fault(void **state)
{
    char out[8192];
    (void)state;
    int status = in_child(crash, out, sizeof out);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status));
    if (!strstr(out, "patchbay: segmentation fault in plugin sampler-crash, function create()\n"))
        fail_msg("%s", out);
    status = in_child(crash_alone, out, sizeof out);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status));
    if (!strstr(out, "patchbay: illegal instruction outside of any plugin\n"))
        fail_msg("%s", out);
}

static void leak(void)
{
    static config c[2];
    pbi_use u;
    pbi_instance *in;
    pb_err err = { 0 };
    open_broken("leak", &u, c);
    if (pbi_instance_new(&u, NULL, &in, &err) == 0)
        pbi_instance_free(in);
}

static void test_leak(void **state)
{
    char out[2048];
    (void)state;
    assert_int_equal(in_child(leak, out, sizeof out), 0);
    assert_string_equal(out,
                        "patchbay: sampler-leak: did not free 1000 bytes ('lost and found')\n");
}

static void test_silent_and_probe(void **state)
{
    config c[2];
    pbi_use u;
    pbi_instance *in = NULL;
    pb_err err = { 0 };
    (void)state;
    open_broken("silent", &u, c);
    assert_int_equal(pbi_instance_new(&u, NULL, &in, &err), PB_E_STATE);
    assert_non_null(strstr(err.msg, "p.ini:7: [sampler] silent: failed with -7"));
    open_broken("probe", &u, c);
    assert_int_equal(pbi_instance_new(&u, NULL, &in, &err), PB_E_UNSUPPORTED);
    assert_string_equal(err.msg, "p.ini:7: [sampler] probe: no such device here");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_life, setup),
        cmocka_unit_test_setup(test_services, setup),
        cmocka_unit_test_setup(test_no_memory, setup),
        cmocka_unit_test(test_account),
        cmocka_unit_test_setup(test_calls, setup),
        cmocka_unit_test_setup(test_counters_survive_fork, setup),
        cmocka_unit_test(test_fault),
        cmocka_unit_test(test_leak),
        cmocka_unit_test(test_silent_and_probe),
    };
    return cmocka_run_group_tests_name("instance", tests, NULL, NULL);
}
