/* SPDX-License-Identifier: MIT
 *
 * tests/e2e/test_piped.c - a step is all that a device needs: every step of a running engine and
 * its draws go down a pipe to another process, which has a runner of its own, no engine and no
 * policy, and must draw the same tokens from the same logits, bit by bit.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../unit/pipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N = 5, MAX_STEP = 1 << 20, MAX_DRAWS = 256 };

static int send_all(int fd, const void *p, size_t n)
{
    for (const char *c = p; n;) {
        ssize_t k = write(fd, c, n);
        if (k <= 0)
            return -1;
        c += k;
        n -= (size_t)k;
    }
    return 0;
}

static int receive_all(int fd, void *p, size_t n)
{
    for (char *c = p; n;) {
        ssize_t k = read(fd, c, n);
        if (k <= 0)
            return -1;
        c += k;
        n -= (size_t)k;
    }
    return 0;
}

static pipe_config config(const char *backend, const char *attention)
{
    pipe_config c = pipe_default();
    c.backend = backend;
    c.attention = attention;
    c.weights = "synthetic layers=2 width=64 heads=4 kv_heads=2 ffn=128 vocab=300 type=q8_0";
    c.n_vocab = 300;
    c.max_ctx = 128;
    c.max_rows = 24;
    c.kv_tokens = 400;
    c.sampler = "chain temperature=1";
    c.spec = "ngram min_n=1";
    return c;
}

/* what comes back for each step */
typedef struct verdict {
    int32_t n_out, rc;
    uint64_t logits;
    int32_t ids[MAX_DRAWS];
} verdict;

static uint64_t hash_of(const void *p, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (const unsigned char *c = p; n--; c++)
        h = (h ^ *c) * 0x100000001b3u;
    return h;
}

static void fill(verdict *v, const pb_result *r)
{
    v->n_out = r->n_out;
    v->logits = r->logits ? hash_of(r->logits, (size_t)(r->n_out * r->n_vocab) * 4) : 0;
    for (int32_t i = 0; i < r->n_out && r->ids && i < MAX_DRAWS; i++)
        v->ids[i] = r->ids[i];
}

/* The other process: opens everything anew, shares nothing but the pipe. */
static int other_process(int fd, const pipe_config *c, int twist)
{
    pb_err err = { 0 };
    pipe_t *p;
    pbi_runner *run;
    pb_step *s = aligned_alloc(64, MAX_STEP);
    static pb_draw draws[MAX_DRAWS];
    uint64_t head[2];
    if (!s || pipe_open(c, &p, &err))
        return 2;
    pbi_runner_options o = *pbi_runner_opts(pipe_runner(p));
    o.attention = NULL;
    o.n_plan = pbi_runner_groups(pipe_runner(p));
    o.plan = pbi_runner_plan(pipe_runner(p));
    o.own_arena = 1;
    if (pbi_runner_open(&o, &run, &err))
        return 3;
    while (!receive_all(fd, head, sizeof head)) {
        verdict v = { 0 };
        pb_result r = { 0 };
        if (head[0] > MAX_STEP || head[1] > MAX_DRAWS || receive_all(fd, s, head[0]) ||
            receive_all(fd, draws, head[1] * sizeof *draws))
            return 4;
        if (twist && s->n == 9) /* a wrong token must be seen */
            ((int32_t *)(void *)(uintptr_t)PB_STEP_COL(s, token))[0] ^= 1;
        v.rc = pbi_runner_check(run, s, NULL, &err);
        if (!v.rc)
            v.rc = pbi_runner_submit(run, s, &err);
        if (!v.rc && head[1])
            v.rc = pbi_runner_pick(run, (int32_t)head[1], draws, sizeof *draws, &err);
        if (!v.rc)
            v.rc = pbi_runner_wait(run, s->n, &r, &err);
        if (!v.rc)
            fill(&v, &r);
        if (send_all(fd, &v, sizeof v))
            return 5;
    }
    pbi_runner_close(run);
    pipe_close(p);
    free(s);
    return 0;
}

typedef struct mirror {
    int fd, n_draws;
    char *step;
    size_t bytes;
    pb_draw draws[MAX_DRAWS];
    int n_same, n_other, n_logits;
} mirror;

static void on_step(void *arg, const pb_step *s)
{
    mirror *m = arg;
    m->step = realloc(m->step, s->bytes);
    memcpy(m->step, s, m->bytes = s->bytes);
    m->n_draws = 0;
}

static void on_draws(void *arg, int32_t n, const pb_draw *d, size_t stride)
{
    mirror *m = arg;
    assert_true(n <= MAX_DRAWS && stride == sizeof *d);
    for (int32_t i = 0; i < n; i++) /* without masks and edits a draw holds no pointer */
        assert_true(!d[i].allow && !d[i].n_edits);
    memcpy(m->draws, d, (size_t)n * sizeof *d);
    m->n_draws = n;
}

static void on_result(void *arg, const pb_step *s, const pb_result *r)
{
    mirror *m = arg;
    verdict mine = { 0 }, theirs;
    uint64_t head[2] = { m->bytes, (uint64_t)m->n_draws };
    (void)s;
    if (send_all(m->fd, head, sizeof head) || send_all(m->fd, m->step, m->bytes) ||
        send_all(m->fd, m->draws, (size_t)m->n_draws * sizeof *m->draws) ||
        receive_all(m->fd, &theirs, sizeof theirs))
        fail_msg("the other process is gone");
    assert_int_equal(theirs.rc, 0);
    fill(&mine, r);
    if (!m->n_draws)
        memset(mine.ids, 0, sizeof mine.ids), memset(theirs.ids, 0, sizeof theirs.ids);
    m->n_logits += mine.logits != 0;
    if (memcmp(&mine, &theirs, sizeof mine))
        m->n_other++;
    else
        m->n_same++;
}

/* twist: the other process changes one token of one step */
static void run_piped(const char *backend, const char *attention, int twist, mirror *m)
{
    pipe_config c = config(backend, attention);
    pipe_request q[N];
    pipe_answer a[N];
    int32_t prompt[N][40];
    pipe_t *p;
    pb_err err = { 0 };
    int fd[2], status;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    fflush(NULL);
    pid_t child = fork();
    if (!child) {
        close(fd[0]);
        _exit(other_process(fd[1], &c, twist));
    }
    close(fd[1]);
    *m = (mirror){ .fd = fd[0] };
    c.hooks = (pbi_engine_hooks){
        .arg = m, .on_step = on_step, .on_draws = on_draws, .on_result = on_result
    };
    c.preempt_every = 11;
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < 40; k++)
            prompt[i][k] = 5 + (k < 20 ? k * 7 : k * 5 + i * 31) % 280;
        q[i] = pipe_request_default();
        q[i].ids = prompt[i];
        q[i].n = 24 + 3 * i;
        q[i].max_new = 20;
        q[i].flags = PBI_SUBMIT_HASH;
        q[i].params.seed = (uint64_t)i;
        q[i].params.has_seed = 1;
    }
    if (pipe_open(&c, &p, &err) || pipe_run(p, N, q, a, &err))
        fail_msg("%s", err.msg);
    pipe_answers_free(a, N);
    pipe_close(p);
    close(fd[0]);
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    free(m->step);
}

static void steps_down_a_pipe(void **state)
{
    static const char *const backends[] = { "sim", "cpu" };
    static const char *const attentions[] = { "contiguous", "paged page_size=16",
                                              "radix page_size=16" };
    (void)state;
    for (int b = 0; b < 2; b++)
        for (int i = 0; i < 3; i++) {
            mirror m;
            run_piped(backends[b], attentions[i], 0, &m);
            assert_true(m.n_same > 30);
            assert_true(m.n_logits > 30);
            assert_int_equal(m.n_other, 0);
        }
}

static void a_wrong_token_is_seen(void **state)
{
    mirror m;
    (void)state;
    run_piped("cpu", "paged page_size=16", 1, &m);
    assert_true(m.n_other > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(steps_down_a_pipe),
                                        cmocka_unit_test(a_wrong_token_is_seen) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
