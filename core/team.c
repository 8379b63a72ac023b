/* SPDX-License-Identifier: MIT
 *
 * core/team.c - threads that run a phase together: woken by a counter, meeting at barriers.
 *
 * A waiting thread spins for a moment, since the next phase of a decode step is microseconds
 * away, then sleeps on a futex. With more threads than processors it does not spin. Invariant:
 * the caller of run() is thread 0 and leaves last.
 */
#define _GNU_SOURCE
#include "team.h"
#include "error.h"
#include "instance.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_THREADS = 1024, SPINS = 2000 /* about 50 to 100 microseconds */ };
enum { SPINS_TO_YIELD = 100 };

struct pbi_team {
    pb_team service;
    int32_t n, spins;
    pid_t owner; /* process whose threads these are; 0: not started */
    pthread_t *thread;
    void (*fn)(void *arg, int32_t thread, int32_t n_threads);
    void *arg;
    const pbi_call *call; /* of the thread that runs the team: faults of workers are its plugin's */
    _Alignas(64) atomic_uint round; /* grows with each run */
    atomic_int quit;
    _Alignas(64) atomic_uint busy; /* workers that have not finished this round */
    _Alignas(64) atomic_uint arrived;
    _Alignas(64) atomic_uint gate; /* grows when all have arrived at a barrier */
    atomic_uint sleepers;          /* threads in a futex, so that waking is free without them */
};

static void pause_once(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* Returns when *word is no longer old. */
static void wait_change(pbi_team *t, atomic_uint *word, unsigned old)
{
    for (int i = 0; i < t->spins; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != old)
            return;
        pause_once();
        /* The one waited for may have been put on this very processor: let it run. */
        if (i % SPINS_TO_YIELD == SPINS_TO_YIELD - 1)
            sched_yield();
    }
    atomic_fetch_add(&t->sleepers, 1);
    while (atomic_load(word) == old)
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&t->sleepers, 1);
}

/* The change of *word was made before. Sequentially consistent with wait_change: either the
 * sleeper is seen here or it sees the change. */
static void wake(pbi_team *t, atomic_uint *word)
{
    if (atomic_load(&t->sleepers))
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

typedef struct worker {
    pbi_team *t;
    int32_t index;
    unsigned round;
} worker;

static void *work(void *p)
{
    worker w = *(worker *)p;
    pbi_team *t = w.t;
    free(p);
    for (;;) {
        wait_change(t, &t->round, w.round);
        w.round++;
        if (atomic_load(&t->quit))
            return NULL;
        pbi_fp_restore();
        pbi_call_now = t->call;
        t->fn(t->arg, w.index, t->n);
        pbi_call_now = NULL;
        if (atomic_fetch_sub(&t->busy, 1) == 1)
            wake(t, &t->busy);
    }
}

/* Signals are the main thread's affair. A thread that cannot start leaves the team smaller:
 * results do not depend on it, but it is said once. */
static void start(pbi_team *t)
{
    sigset_t all, old;
    t->owner = getpid();
    atomic_store(&t->round, 0);
    atomic_store(&t->sleepers, 0);
    atomic_store(&t->arrived, 0);
    atomic_store(&t->quit, 0);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    for (int32_t i = 1; i < t->n; i++) {
        worker *w = malloc(sizeof *w);
        if (w)
            *w = (worker){ .t = t, .index = i };
        if (!w || pthread_create(&t->thread[i], NULL, work, w)) {
            static const char text[] = "patchbay: fewer threads than asked for could be started\n";
            free(w);
            t->n = i;
            (void)!write(2, text, sizeof text - 1);
            break;
        }
    }
    t->service.n_threads = t->n;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void team_run(void *h, void (*fn)(void *arg, int32_t thread, int32_t n_threads), void *arg)
{
    pbi_team *t = h;
    if (t->n > 1 && t->owner != getpid())
        start(t);
    if (t->n == 1) {
        fn(arg, 0, 1);
        return;
    }
    t->fn = fn;
    t->arg = arg;
    t->call = pbi_call_now;
    atomic_store(&t->busy, (unsigned)t->n - 1);
    atomic_fetch_add(&t->round, 1);
    wake(t, &t->round);
    fn(arg, 0, t->n);
    for (unsigned left; (left = atomic_load_explicit(&t->busy, memory_order_acquire)) != 0;)
        wait_change(t, &t->busy, left);
}

static void team_barrier(void *h)
{
    pbi_team *t = h;
    if (t->n == 1)
        return;
    unsigned gate = atomic_load(&t->gate);
    if (atomic_fetch_add(&t->arrived, 1) + 1 == (unsigned)t->n) {
        atomic_store(&t->arrived, 0);
        atomic_fetch_add(&t->gate, 1);
        wake(t, &t->gate);
    } else
        wait_change(t, &t->gate, gate);
}

int32_t pbi_team_processors(void)
{
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set) && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 && n < MAX_THREADS ? (int32_t)n : 1;
}

int pbi_team_new(int32_t n_threads, pbi_team **out, pb_err *err)
{
    int32_t have = pbi_team_processors(), n = n_threads ? n_threads : have;
    if (n < 1 || n > MAX_THREADS)
        return pbi_err(err, PB_E_INVAL, "%d threads are outside of 1..%d", (int)n, MAX_THREADS);
    pbi_team *t = aligned_alloc(64, (sizeof *t + 63) / 64 * 64);
    pthread_t *threads = calloc((size_t)n, sizeof *threads);
    if (!t || !threads) {
        free(t);
        free(threads);
        return pbi_err(err, PB_E_NOMEM, "no memory for %d threads", (int)n);
    }
    *t = (pbi_team){ .n = n, .spins = n <= have ? SPINS : 0, .thread = threads };
    t->service = (pb_team){
        .size = sizeof(pb_team), .h = t, .n_threads = n, .run = team_run, .barrier = team_barrier
    };
    *out = t;
    return 0;
}

void pbi_team_rest(pbi_team *t)
{
    if (!t->owner || t->owner != getpid())
        return;
    atomic_store(&t->quit, 1);
    atomic_fetch_add(&t->round, 1);
    wake(t, &t->round);
    for (int32_t i = 1; i < t->n; i++)
        pthread_join(t->thread[i], NULL);
    t->owner = 0;
}

void pbi_team_free(pbi_team *t)
{
    if (!t)
        return;
    pbi_team_rest(t);
    free(t->thread);
    free(t);
}

const pb_team *pbi_team_service(const pbi_team *t)
{
    return &t->service;
}
