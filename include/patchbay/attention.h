/* SPDX-License-Identifier: MIT
 *
 * patchbay/attention.h - pb_seq, the host service pages/1, and interface attention/1.
 *
 * An attention plugin decides which page holds which position, and what is reused.
 * It sees integers only: no device memory, layer, head or dtype, so that a swap of
 * the plugin runs through the same kernels. Invariants: what a plugin remembers
 * about a sequence can be rebuilt from the sequence; a page with more than one
 * reference is never written; source pages of copies stay pinned until the step ran.
 */
#ifndef PATCHBAY_ATTENTION_H
#define PATCHBAY_ATTENTION_H

#include <patchbay/step.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PB_SEQ_WAITING = 1, PB_SEQ_RUNNING = 2, PB_SEQ_DONE = 3 };
enum { PB_SEQ_ALL_LOGITS = 1 /* every row's logits are wanted (score): no prefix reuse */ };

/* What a request asks of the sampler. Unset fields (NaN, or INT32_MIN) leave it to the
 * sampler plugin's options. */
typedef struct pb_params {
    size_t size;
    uint64_t seed;
    float temperature, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty;
    int32_t top_k, n_logprobs; /* n_logprobs: -1 none */
    int32_t has_seed, reserved;
} pb_params;

/* A sequence, owned by the core; plugins get const views. */
typedef struct pb_seq {
    size_t size;
    uint64_t id, cache_key; /* cache_key = hash(model, adapter, salt): KV is shared under an equal
                               key only */
    int32_t slot, state, priority, flags; /* slot: dense, < max_seqs, -1 while waiting */
    const int32_t *tokens;                /* [n_tokens] prompt, then output */
    int64_t n_tokens, n_prompt;
    int64_t n_valid; /* tokens whose KV is on the device */
    int64_t n_left;  /* n_tokens - n_valid: still to feed */
    int64_t max_new; /* limit on n_tokens - n_prompt */
    int64_t t_arrival_ns;
    const pb_params *params;
} pb_seq;

/* pages/1: the pool. Mechanism, no policy; accounting, poison, leak check and the
 * clean-up of a swap live in the core. All functions [step]. */
typedef struct pb_pages {
    size_t size;
    void *h;
    int (*take)(void *h, int32_t g, int32_t n,
                pb_page *out); /* all or nothing; refs = 1; PB_E_FULL */
    void (*ref)(void *h, int32_t g, pb_page p);
    void (*unref)(void *h, int32_t g, pb_page p); /* at 0 the page is free */
    int32_t (*refs)(void *h, int32_t g, pb_page p);
    int32_t (*n_free)(void *h, int32_t g);
    /* Copies the first n_tokens of src to dst before the next step's rows; src is pinned
     * until that step ran. */
    void (*copy)(void *h, int32_t g, pb_page src, pb_page dst, int32_t n_tokens);
} pb_pages;

typedef struct pb_kv_group { /* filled by model + backend */
    size_t size;
    int32_t kind, n_layers, window, granule; /* granule: page sizes are multiples of it */
    int64_t token_bytes;                     /* of all layers of the group */
} pb_kv_group;

typedef struct pb_kv_plan {
    int32_t page_tokens;
    pb_page n_pages; /* with the sink, page 0 */
} pb_kv_plan;

/* why a sequence is released */
enum { PB_REL_FINISHED = 1, PB_REL_ABORTED, PB_REL_PREEMPTED, PB_REL_FAILED, PB_REL_SWAPPED };

typedef struct pb_attention {
    size_t size;
    /* [main] Divides budget bytes into pages; equal arguments, equal plan. Called after each
     * start() of an instance and before all others, so that it learns its groups. */
    int (*plan)(void *self, int32_t n_groups, const pb_kv_group *g, int64_t budget, int32_t max_ctx,
                pb_kv_plan *out, pb_err *err);
    /* [step] Pure: tokens of s reusable now; *n_inflight: being computed by others. */
    int64_t (*match)(void *self, const pb_seq *s, int64_t *n_inflight);
    /* [step] s becomes running: lock its reusable prefix. Returns n_cached <= n_tokens - 1
     * (0 with PB_SEQ_ALL_LOGITS); the core sets n_valid to it. */
    int64_t (*attach)(void *self, const pb_seq *s);
    /* [step] Makes [n_valid, n_end) private and writable: takes pages, copies on write,
     * evicts own idle pages. PB_E_FULL: nothing changed. */
    int (*reserve)(void *self, const pb_seq *s, int64_t n_end);
    /* [step] Writes the page ids of s in group g, first position first; returns their
     * number (<= cap). They cover at least what was reserved. */
    int32_t (*table)(void *self, const pb_seq *s, int32_t g, pb_page *out, int32_t cap);
    /* [step] The step succeeded, [0, n) holds the KV of tokens[0..n): full pages may be
     * published. */
    void (*commit)(void *self, const pb_seq *s, int64_t n);
    /* [step] Gives back whole pages above n; shared pages unharmed. */
    void (*truncate)(void *self, const pb_seq *s, int64_t n);
    /* [step] Idempotent. s->n_valid tokens are good; nothing half-written may stay. */
    void (*release)(void *self, const pb_seq *s, int32_t why);
    /* [step] When idle: my references equal the pool's. */
    int (*check)(void *self, pb_err *err);
    /* [step] Optional. Pages of group g that reserve would evict if it needed them: with the
     * pool's free ones they are the room that a scheduler sees. */
    int32_t (*idle)(void *self, int32_t g);
} pb_attention;

#ifdef __cplusplus
}
#endif
#endif
