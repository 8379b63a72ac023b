/* SPDX-License-Identifier: MIT
 *
 * core/front.h - the text side of a run: requests in, messages to the engine, tokens back,
 * text and answers out.
 *
 * It sees no plugin and no step. Invariant: an answer depends on its request alone, not on
 * how tokens were batched into messages: text is looked at after every token. What the engine
 * has not answered can be sent again at any time as prompt + emitted tokens.
 *
 * What is refused, with PB_E_INVAL in the answer's err and finish "error", while the other
 * requests go on: no prompt token at all, an id outside of the vocabulary, text for a model
 * without tokenizer, a prompt longer than the context, an empty stop string. Text that is not
 * UTF-8 is no error: its bytes become byte tokens.
 */
#ifndef PBI_FRONT_H
#define PBI_FRONT_H
#include "arm.h"
#include "clock.h"
#include "messages.h"
#include "ring.h"

typedef struct pbi_front pbi_front;

typedef struct pbi_front_options {
    const pbi_tokenizer *tokenizer; /* NULL: ids only, no text */
    const pb_err *no_text;          /* why there is none; may be NULL */
    int32_t n_vocab, context;
    /* lets output plugins lower max_new before a request is sent; 0 or PB_E_*; may be NULL */
    int (*shape)(void *arg, pb_request *r, pb_err *err);
    void *shape_arg;
    uint64_t seed; /* of requests that bring none; 0: left to the sampler */
    int hash_logits;
    pbi_clock *clock;
    pbi_ring *to_engine, *to_front;
} pbi_front_options;

int pbi_front_new(const pbi_front_options *o, pbi_front **out, pb_err *err); /* [main] */
void pbi_front_free(pbi_front *f);                                           /* NULL allowed */

void pbi_front_hash_logits(pbi_front *f, int on);
/* Prepares a run of n requests; out[n] is zeroed and filled until the run ends. All arguments
 * stay the caller's and must last that long. */
int pbi_front_begin(pbi_front *f, int64_t n, const pbi_request *req, pbi_answer *out,
                    const pbi_run_hooks *hooks, pb_err *err);
/* One turn: PB_LOOP_* or PB_E_*; the reason is then in pbi_front_error. */
int pbi_front_turn(pbi_front *f);
const pb_err *pbi_front_error(const pbi_front *f);
/* The engine is gone: reads what it still said, empties the rings, sends all again that was
 * not answered. 1: the lost engine had answered something, 0: nothing, or PB_E_*. */
int pbi_front_engine_lost(pbi_front *f, pb_err *err);
/* Asks the engine to end. */
void pbi_front_quit(pbi_front *f);
/* Ends a run that stopped early: answers without an end get finish "error" and err. */
void pbi_front_give_up(pbi_front *f, const pb_err *why);
/* Counted by the engine since the run began; of the engine that lived last if one was lost. */
void pbi_front_stats(const pbi_front *f, pbi_engine_stats *s, int64_t *n_lost);
/* The levels between this run's steps into t: running, waiting and kv fields. */
void pbi_front_load(const pbi_front *f, pbi_totals *t);
/* Request of a message id of this run, or -1. */
int64_t pbi_front_index(const pbi_front *f, uint64_t id);
#endif
