/* SPDX-License-Identifier: MIT
 *
 * tests/unit/test_around.c - what lies around the engine: thread team, clock, ring. With
 * threads and with forked peers, also ones that are killed.
 */
#define _GNU_SOURCE 1
#include "clock.h"
#include "ring.h"
#include "team.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- team -------------------------------------------------------------- */

enum { CELLS = 64, PHASES = 40 };

typedef struct phases {
    const pb_team *team;
    uint64_t cell[2][CELLS];
    atomic_int seen; /* bit per thread */
    int wrong_count;
} phases;

/* Each phase reads what all threads wrote in the one before: a barrier that lets one through
 * early gives a wrong sum. */
static void phase_work(void *arg, int32_t thread, int32_t n)
{
    phases *p = arg;
    atomic_fetch_or(&p->seen, 1 << thread);
    if (n != p->team->n_threads)
        p->wrong_count = 1;
    for (int k = 0; k < PHASES; k++) {
        const uint64_t *from = p->cell[k % 2];
        uint64_t *to = p->cell[(k + 1) % 2];
        for (int i = thread; i < CELLS; i += n)
            to[i] = 3 * from[(i + 1) % CELLS] + from[(i + 7) % CELLS] % 1000 + (uint64_t)k;
        p->team->barrier(p->team->h);
    }
}

static void phases_run(const pb_team *team, phases *p)
{
    *p = (phases){ .team = team };
    for (int i = 0; i < CELLS; i++)
        p->cell[0][i] = (uint64_t)i;
    team->run(team->h, phase_work, p);
}

static int threads_alive(void)
{
    char line[256];
    int n = -1;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "Threads: %d", &n) == 1)
            break;
    if (f)
        fclose(f);
    return n;
}

static void team_counts_change_nothing(void **state)
{
    (void)state;
    phases one, many;
    for (int32_t n = 1; n <= 9; n += 2) {
        pbi_team *t;
        pb_err err;
        assert_int_equal(pbi_team_new(n, &t, &err), 0);
        const pb_team *s = pbi_team_service(t);
        for (int round = 0; round < 40; round++) {
            phases_run(s, &many);
            if (n == 1)
                one = many;
            assert_memory_equal(many.cell, one.cell, sizeof one.cell);
            assert_int_equal(many.seen, (1 << n) - 1);
            assert_int_equal(many.wrong_count, 0);
        }
        pbi_team_free(t);
    }
}

static void team_starts_at_its_first_run(void **state)
{
    (void)state;
    pbi_team *t;
    pb_err err;
    phases p;
    int before = threads_alive();
    assert_int_equal(pbi_team_new(4, &t, &err), 0);
    assert_int_equal(threads_alive(), before);
    phases_run(pbi_team_service(t), &p);
    assert_int_equal(threads_alive(), before + 3);
    pbi_team_rest(t);
    assert_int_equal(threads_alive(), before);
    pbi_team_rest(t);
    phases_run(pbi_team_service(t), &p);
    assert_int_equal(p.seen, 15);
    assert_int_equal(threads_alive(), before + 3);
    pbi_team_free(t);
    assert_int_equal(threads_alive(), before);
}

/* Also a team that has run already, and a grandchild. */
static void team_survives_forks(void **state)
{
    (void)state;
    for (int ran = 0; ran < 2; ran++) {
        pbi_team *t;
        pb_err err;
        phases mine, theirs;
        int status;
        assert_int_equal(pbi_team_new(3, &t, &err), 0);
        const pb_team *s = pbi_team_service(t);
        if (ran)
            phases_run(s, &mine);
        pid_t pid = fork();
        if (!pid) {
            phases first;
            alarm(20);
            phases_run(s, &first);
            pid_t inner = fork();
            if (!inner)
                alarm(20);
            phases_run(s, &theirs);
            int bad = memcmp(first.cell, theirs.cell, sizeof first.cell) != 0 || theirs.seen != 7;
            if (inner && (waitpid(inner, &status, 0) != inner || status))
                bad = 2;
            pbi_team_free(t);
            _exit(bad);
        }
        phases_run(s, &mine);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        if (!(pid = fork())) { /* one that never runs has no threads to wait for */
            alarm(5);
            pbi_team_free(t);
            _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        phases_run(s, &theirs);
        assert_memory_equal(mine.cell, theirs.cell, sizeof mine.cell);
        pbi_team_free(t);
    }
}

/* A waiting team burns no processor for long, with threads to spare or too many. */
static void team_sleeps(void **state)
{
    (void)state;
    for (int32_t n = 2; n <= 8; n += 6) {
        pbi_team *t;
        pb_err err;
        phases p;
        struct timespec a, b, pause = { .tv_nsec = 200000000 };
        assert_int_equal(pbi_team_new(n, &t, &err), 0);
        phases_run(pbi_team_service(t), &p);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
        nanosleep(&pause, NULL);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
        int64_t used = ((int64_t)b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec;
        assert_true(used < 40000000);
        pbi_team_free(t);
    }
}

static void team_refuses_nonsense(void **state)
{
    (void)state;
    pbi_team *t = NULL;
    pb_err err = { 0 };
    assert_int_not_equal(pbi_team_new(-1, &t, &err), 0);
    assert_true(err.msg[0]);
    assert_int_not_equal(pbi_team_new(1 << 20, &t, &err), 0);
    assert_int_equal(pbi_team_new(0, &t, &err), 0);
    assert_int_equal(pbi_team_service(t)->n_threads, pbi_team_processors());
    pbi_team_free(t);
    pbi_team_free(NULL);
}

/* ---- clock ------------------------------------------------------------- */

static void clock_real_and_virtual(void **state)
{
    (void)state;
    pbi_clock *c;
    pb_err err;
    assert_int_equal(pbi_clock_new(0, &c, &err), 0);
    const pb_clock *s = pbi_clock_service(c);
    int64_t a = pbi_clock_now(c);
    assert_int_equal(s->advance(s->h, 1000000000000), PB_E_STATE);
    pbi_clock_reach(c, a + 1000000000000);
    int64_t b = pbi_clock_now(c);
    assert_true(b >= a && b < a + 60000000000);
    assert_false(pbi_clock_is_virtual(c));
    pbi_clock_free(c);

    int status;
    assert_int_equal(pbi_clock_new(1, &c, &err), 0);
    s = pbi_clock_service(c);
    assert_true(pbi_clock_is_virtual(c));
    assert_int_equal(pbi_clock_now(c), 0);
    assert_int_equal(s->advance(s->h, 7), 0);
    assert_int_equal(s->advance(s->h, -1), PB_E_INVAL);
    pbi_clock_reach(c, 5); /* never back */
    assert_int_equal(pbi_clock_now(c), 7);
    pid_t pid = fork();
    if (!pid) {
        s->advance(s->h, 100);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    assert_int_equal(pbi_clock_now(c), 107);
    pbi_clock_reach(c, 200);
    assert_int_equal(pbi_clock_now(c), 200);
    pbi_clock_free(c);
    pbi_clock_free(NULL);
}

/* ---- ring -------------------------------------------------------------- */

static uint64_t random64(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull; /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* message k: its length and bytes follow from k */
static size_t make_message(uint64_t k, size_t max, unsigned char *out)
{
    uint64_t r = k * 2654435761u + 1;
    size_t n = (size_t)(random64(&r) % (k % 16 ? 64 : max + 1));
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)random64(&r);
    return n;
}

static int right_message(uint64_t k, size_t max, const void *got, size_t bytes)
{
    static unsigned char want[8192];
    size_t n = make_message(k, max, want);
    return n == bytes && !memcmp(got, want, n) && (uintptr_t)got % 8 == 0;
}

static void ring_limits(void **state)
{
    (void)state;
    pbi_ring *r;
    pb_err err;
    size_t bytes;
    static unsigned char big[8192];
    assert_int_equal(pbi_ring_new(4096, &r, &err), 0);
    size_t max = pbi_ring_max(r);
    assert_true(max >= 1024 && max < 4096);
    assert_int_equal(pbi_ring_put(r, big, max + 1), PB_E_INVAL);
    assert_null(pbi_ring_peek(r, &bytes));
    pbi_ring_pop(r); /* of an empty ring: nothing */
    /* the longest message goes in from any position, also behind a skip */
    for (size_t at = 0; at < 700; at++) {
        assert_int_equal(pbi_ring_put(r, big, 13), 0);
        assert_non_null(pbi_ring_peek(r, &bytes));
        pbi_ring_pop(r);
        assert_int_equal(pbi_ring_put(r, big, max), 0);
        assert_non_null(pbi_ring_peek(r, &bytes));
        assert_int_equal(bytes, max);
        pbi_ring_pop(r);
    }
    /* full: nothing is written, nothing that lies there is harmed */
    uint64_t n = 0, k = 0;
    while (pbi_ring_put(r, &n, sizeof n) == 0)
        n++;
    assert_true(n >= 200);
    for (int i = 0; i < 10; i++)
        assert_int_equal(pbi_ring_put(r, big, 64), PB_E_FULL);
    for (const void *m; (m = pbi_ring_peek(r, &bytes)) != NULL; k++) {
        assert_int_equal(bytes, sizeof k);
        assert_memory_equal(m, &k, sizeof k);
        pbi_ring_pop(r);
    }
    assert_int_equal(k, n);
    pbi_ring_put(r, big, 100);
    pbi_ring_reset(r);
    assert_null(pbi_ring_peek(r, &bytes));
    assert_int_equal(pbi_ring_put(r, big, max), 0);
    pbi_ring_free(r);
    pbi_ring_free(NULL);
}

typedef struct writer {
    pbi_ring *r;
    uint64_t n;
    size_t max; /* bytes of a message */
} writer;

static void *write_all(void *arg)
{
    const writer *w = arg;
    unsigned char m[8192];
    for (uint64_t k = 0; k < w->n; k++) {
        size_t n = make_message(k, w->max, m);
        while (pbi_ring_put(w->r, m, n))
            sched_yield();
    }
    return NULL;
}

/* 0, or 1 + the message that was wrong */
static uint64_t read_all(const writer *w)
{
    for (uint64_t k = 0; k < w->n;) {
        size_t bytes;
        const void *m = pbi_ring_peek(w->r, &bytes);
        if (!m) {
            sched_yield();
            continue;
        }
        if (!right_message(k, w->max, m, bytes))
            return 1 + k;
        pbi_ring_pop(w->r);
        k++;
    }
    return 0;
}

static void ring_between_threads_and_processes(void **state)
{
    (void)state;
    pb_err err;
    for (int forked = 0; forked < 2; forked++) {
        writer w = { .n = 40000 };
        pthread_t thread;
        pid_t pid = 0;
        int status;
        assert_int_equal(pbi_ring_new(4096, &w.r, &err), 0);
        w.max = pbi_ring_max(w.r);
        if (!forked)
            assert_int_equal(pthread_create(&thread, NULL, write_all, &w), 0);
        else if (!(pid = fork())) {
            alarm(30);
            write_all(&w);
            _exit(0);
        }
        assert_int_equal(read_all(&w), 0);
        if (!forked)
            pthread_join(thread, NULL);
        else {
            waitpid(pid, &status, 0);
            assert_int_equal(status, 0);
        }
        pbi_ring_free(w.r);
    }
}

/* A writer that is killed anywhere leaves whole messages, in order, and a usable ring. */
static void ring_survives_its_writer(void **state)
{
    (void)state;
    writer w = { .n = UINT64_MAX, .max = 4000 };
    pb_err err;
    size_t bytes;
    uint64_t seed = 5;
    assert_int_equal(pbi_ring_new(1 << 16, &w.r, &err), 0);
    for (int round = 0; round < 40; round++) {
        struct timespec ts = { .tv_nsec = (long)(random64(&seed) % 2000000) };
        const void *m;
        uint64_t k = 0;
        pid_t pid = fork();
        if (!pid) {
            alarm(30);
            write_all(&w);
            _exit(0);
        }
        nanosleep(&ts, NULL);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        for (; (m = pbi_ring_peek(w.r, &bytes)) != NULL && k < 300; k++) {
            assert_true(right_message(k, w.max, m, bytes));
            pbi_ring_pop(w.r);
        }
        pbi_ring_reset(w.r);
        assert_null(pbi_ring_peek(w.r, &bytes));
    }
    pbi_ring_free(w.r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(team_counts_change_nothing),
        cmocka_unit_test(team_starts_at_its_first_run),
        cmocka_unit_test(team_survives_forks),
        cmocka_unit_test(team_sleeps),
        cmocka_unit_test(team_refuses_nonsense),
        cmocka_unit_test(clock_real_and_virtual),
        cmocka_unit_test(ring_limits),
        cmocka_unit_test(ring_between_threads_and_processes),
        cmocka_unit_test(ring_survives_its_writer),
    };
    alarm(120); /* a hang is a failure */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
