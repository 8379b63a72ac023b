/* SPDX-License-Identifier: MIT
 *
 * patchbay/process.h - interface process/1 (where the front's and the engine's loop
 * run) and parallel/1 (ranks and collectives).
 *
 * Front and engine talk only by flat messages on rings in memory that survives a
 * fork, also inline; a process plugin places the two loops and watches them.
 * Invariant: when run() is called nothing has started a thread, so it may fork.
 */
#ifndef PATCHBAY_PROCESS_H
#define PATCHBAY_PROCESS_H

#include <patchbay/base.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PB_LOOP_DONE = 2, PB_LOOP_BUSY = 1, PB_LOOP_IDLE = 0 };

typedef struct pb_loops {
    size_t size;
    void *h;
    /* One turn each; never blocks. PB_LOOP_* or PB_E_*. Front: DONE = all requests
     * answered. Engine: DONE = told to quit and drained. */
    int (*front)(void *h);
    int (*engine)(void *h);
    /* Front side, after the engine's process died: empties the rings and submits every
     * unanswered request again as prompt + emitted tokens. 1: that engine answered
     * something; 0: nothing, so that another may do no better; or PB_E_*. */
    int (*engine_lost)(void *h, pb_err *err);
    void (*quit)(void *h);  /* front side: asks the engine loop to end */
    void (*relax)(void *h); /* called when a turn was idle: spin, then sleep shortly */
} pb_loops;

typedef struct pb_process {
    size_t size;
    int (*run)(void *self, const pb_loops *l, pb_err *err); /* until the front is done */
} pb_process;

/* parallel/1. Every element is summed in rank order at any size, so that a sum does not
 * depend on the message. [step], same order on every rank. */
typedef struct pb_comm {
    size_t size;
    int32_t rank, n_ranks;
    int (*broadcast)(void *self, void *buf, size_t bytes, int32_t root);
    int (*barrier)(void *self);
    int (*all_reduce)(void *self, void *buf, int64_t n, int32_t dtype, void *stream);
    int (*all_gather)(void *self, const void *in, void *out, size_t bytes, void *stream);
} pb_comm;

#ifdef __cplusplus
}
#endif
#endif
