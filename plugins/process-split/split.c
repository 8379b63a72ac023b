/* SPDX-License-Identifier: MIT
 *
 * plugins/process-split/split.c - the engine in a forked child, the front in the parent;
 * messages cross rings in shared memory. If the child dies, another is forked and the front
 * sends again what was not answered.
 *
 * Weights were packed before, so that the child shares their pages. Each run forks anew: caches
 * of one run are not those of the next. Invariant: the parent never touches the engine, so that
 * each child begins with the state that was built. Class: EXACT.
 */
#define _GNU_SOURCE
#include <patchbay/plugin.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct config {
    int64_t max_restarts;
} config;

typedef struct stats { /* in memory that the child shares */
    int64_t forks, lost, engine_pid;
} stats;

typedef struct split {
    const pb_host *host;
    const config *c;
    stats *st;
} split;

static int fail(pb_err *err, int code, const char *what)
{
    if (err) {
        err->code = code;
        snprintf(err->msg, sizeof err->msg, "process-split: %s", what);
    }
    return code;
}

/* The child: Ctrl-C is the front's affair, and without a parent there is no one to answer. */
static void engine_process(const pb_loops *l, pid_t parent)
{
    signal(SIGINT, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    for (;;) {
        int rc = l->engine(l->h);
        if (rc == PB_LOOP_DONE)
            _exit(0);
        if (rc < 0)
            _exit(3); /* the reason went out as a message */
        if (rc == PB_LOOP_IDLE)
            l->relax(l->h);
    }
}

static int start(split *s, const pb_loops *l, pid_t *pid, pb_err *err)
{
    pid_t parent = getpid();
    *pid = fork();
    if (*pid < 0)
        return fail(err, PB_E_IO, strerror(errno));
    if (!*pid)
        engine_process(l, parent);
    s->st->forks++;
    s->st->engine_pid = *pid;
    return 0;
}

/* how a dead child ended, in words */
static void ended(int status, char *out, size_t n)
{
    if (WIFSIGNALED(status))
        snprintf(out, n, "killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(out, n, "exit status %d", WEXITSTATUS(status));
}

/* The child is dead and the front is not done: 0 to go on with a new one. */
static int restart(split *s, const pb_loops *l, int status, int *fruitless, pid_t *pid, pb_err *err)
{
    char how[96], msg[256];
    int rc = l->front(l->h); /* what it said last, perhaps why it ended */
    if (rc < 0 || rc == PB_LOOP_DONE)
        return rc;
    ended(status, how, sizeof how);
    s->st->lost++;
    rc = l->engine_lost(l->h, err);
    if (rc < 0)
        return rc;
    *fruitless = rc ? 0 : *fruitless + 1;
    if (*fruitless > s->c->max_restarts) {
        snprintf(msg, sizeof msg, "the engine process ended %d times without an answer, last: %s",
                 *fruitless, how);
        return fail(err, PB_E_LOST, msg);
    }
    snprintf(msg, sizeof msg, "the engine process ended (%s); starting another", how);
    s->host->log(s->host, PB_LOG_WARN, msg);
    return start(s, l, pid, err);
}

static void end_child(const pb_loops *l, pid_t pid, int kindly)
{
    int status;
    if (kindly)
        l->quit(l->h);
    for (int i = 0; kindly && i < 5000; i++) { /* 5 s at most */
        pid_t r = waitpid(pid, &status, WNOHANG);
        if (r == pid || (r < 0 && errno != EINTR))
            return;
        usleep(i < 100 ? 100 : 1000);
    }
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
}

static int run(void *self, const pb_loops *l, pb_err *err)
{
    split *s = self;
    pid_t pid = 0;
    int fruitless = 0, status, rc = start(s, l, &pid, err);
    if (rc)
        return rc;
    for (;;) {
        int front = l->front(l->h);
        if (front == PB_LOOP_BUSY)
            continue;
        if (front < 0 || front == PB_LOOP_DONE) {
            end_child(l, pid, front == PB_LOOP_DONE);
            return front < 0 ? front : 0;
        }
        if (waitpid(pid, &status, WNOHANG) == pid) {
            rc = restart(s, l, status, &fruitless, &pid, err);
            if (rc)
                return rc == PB_LOOP_DONE ? 0 : rc;
        } else
            l->relax(l->h);
    }
}

static int create(const pb_host *host, const void *c, void **self, pb_err *err)
{
    split *s = host->alloc(host, sizeof *s, 0, "split");
    if (!s)
        return fail(err, PB_E_NOMEM, "no memory");
    *s = (split){ .host = host, .c = c, .st = host->stats };
    *self = s;
    return 0;
}

static void destroy(void *self)
{
    split *s = self;
    s->host->free(s->host, s);
}

static const pb_option options[] = {
    PB_INT(config, max_restarts, "3", "0", "1000000", 0, NULL,
           "engine processes that may end one after the other without any progress"),
    PB_OPTIONS_END
};
static const pb_counter counters[] = {
    PB_COUNTER(stats, forks, PB_C_ENGAGED, "processes", "engine processes that were started"),
    PB_COUNTER(stats, lost, 0, "processes", "engine processes that died under load"),
    PB_COUNTER(stats, engine_pid, PB_C_GAUGE, NULL, "process id of the engine that runs now"),
    PB_COUNTERS_END
};
static const pb_process process = { .size = sizeof(pb_process), .run = run };
static const pb_iface ifaces[] = { { "process/1", &process }, { NULL, NULL } };

PB_PLUGIN = { PB_HEAD,
              .flags = PB_EXACT,
              .slot = "process",
              .name = "split",
              .version = "0.1",
              .license = "MIT",
              .summary = "the engine in a process of its own, forked and watched",
              .provides = "process.fork",
              .options = options,
              .counters = counters,
              .config_size = sizeof(config),
              .stats_size = sizeof(stats),
              .ifaces = ifaces,
              .create = create,
              .destroy = destroy };
