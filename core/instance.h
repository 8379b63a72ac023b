/* SPDX-License-Identifier: MIT
 *
 * core/instance.h - a live plugin: its self, its host services, its memory account, its
 * call statistics; and PBI_CALL, the one way in which the core calls a plugin.
 */
#ifndef PBI_INSTANCE_H
#define PBI_INSTANCE_H
#include "fpmode.h"
#include "error.h"
#include "pipeline.h"
#include <stdatomic.h>

/* What the core offers behind host->get; entries may be NULL. Outlives its instances. */
typedef struct pbi_services {
    const pb_team *team;
    const pb_pages *pages;
    const pb_kernel_set *kernels;
    const pb_clock *clock;
    const pb_text *text;
    int64_t (*now_ns)(void *arg); /* NULL: monotonic clock */
    void *now_arg;
} pbi_services;

typedef struct pbi_instance pbi_instance;
/* Creates (not starts) an instance. use and svc must outlive it. Errors are prefixed with
 * slot, name and origin. PB_E_PLUGIN if the plugin breaks its contract. [main] */
int pbi_instance_new(const pbi_use *use, const pbi_services *svc, pbi_instance **out, pb_err *err);
int pbi_instance_start(pbi_instance *in, const pb_run *run, pb_err *err);
int pbi_instance_reset(pbi_instance *in);
void pbi_instance_free(
    pbi_instance *in); /* stop, destroy; NULL allowed; leaks are reported at WARN */
/* Destroy and create + start anew with the same config (amnesia, hot swap). The interface
 * pointers stay valid, self changes. */
int pbi_instance_renew(pbi_instance *in, pb_err *err);

void *pbi_instance_self(const pbi_instance *in);
const void *pbi_instance_iface(const pbi_instance *in, const char *id);
const pbi_use *pbi_instance_use(const pbi_instance *in);
/* i-th counter's value; memory now and at most, in bytes */
int64_t pbi_instance_counter(const pbi_instance *in, int i);
void pbi_instance_memory(const pbi_instance *in, int64_t *now, int64_t *peak);
/* tests: the n-th allocation from now fails; 0 = off */
void pbi_instance_fail_alloc(pbi_instance *in, int64_t n);

/* ---- calls ------------------------------------------------------------ */

/* One word set around each call, read by the signal handler and the watchdog. */
typedef struct pbi_call {
    const char *slot, *name, *function;
} pbi_call;
extern _Thread_local const pbi_call *volatile pbi_call_now;

/* Cumulated time and count of a call site's function, for the trace layer. */
typedef struct pbi_call_stat {
    pbi_call call;
    _Atomic int64_t n, ns;
    struct pbi_call_stat *next;
} pbi_call_stat;
/* Finds or makes the record of (instance, function). function is a literal. */
pbi_call_stat *pbi_call_stat_get(pbi_instance *in, const char *function);
const pbi_call_stat *pbi_call_stats(const pbi_instance *in); /* list */
/* run --calls=slot[,slot]: print each call of these slots to stderr with decoded arguments */
void pbi_calls_log(const char *slots);
int pbi_calls_logged(const pbi_instance *in);
/* prints "attention-paged.reserve(seq 3, n_end 64) -> 0" */
void pbi_calls_print(const pbi_instance *in, const char *function, int64_t result, const char *fmt,
                     ...) PBI_PRINTF(4, 5);
int64_t pbi_trace_now(void); /* ns; 0 when tracing is off */
void pbi_trace_enable(int on);
/* Installs handlers of SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT that write which plugin and
 * function ran, then let the signal kill the process. */
void pbi_fault_handler_install(void);

/* The call under way left rounding or the treatment of denormals changed: puts it right and
 * remembers the first that did. */
void pbi_call_spoiled(void);
/* That call since the last question, of this thread; NULL: none. */
const pbi_call *pbi_call_spoiler(void);

/* st: a pbi_call_stat *; evaluates expr as the call. Trace costs nothing but a branch when off. */
#define PBI_CALL(st, expr)                                                                         \
    do {                                                                                           \
        const pbi_call *pbi_prev_ = pbi_call_now;                                                  \
        int64_t pbi_t0_ = pbi_trace_now();                                                         \
        pbi_call_now = &(st)->call;                                                                \
        expr;                                                                                      \
        if (pbi_fp_get() & PBI_FP_BITS)                                                            \
            pbi_call_spoiled();                                                                    \
        pbi_call_now = pbi_prev_;                                                                  \
        if (pbi_t0_) {                                                                             \
            atomic_fetch_add_explicit(&(st)->ns, pbi_trace_now() - pbi_t0_, memory_order_relaxed); \
            atomic_fetch_add_explicit(&(st)->n, 1, memory_order_relaxed);                          \
        }                                                                                          \
    } while (0)
#endif
