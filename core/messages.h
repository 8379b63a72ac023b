/* SPDX-License-Identifier: MIT
 *
 * core/messages.h - what front and engine say to each other: flat records of tokens, one
 * header and trailing arrays, no pointers, so that they cross a ring in shared memory.
 *
 * Not a transport (core/ring.h) and no text: strings stay at the front. Invariant: a message
 * that passed pbi_msg_check may be read without further tests: its counts fit its bytes.
 */
#ifndef PBI_MESSAGES_H
#define PBI_MESSAGES_H
#include "error.h"
#include <patchbay/attention.h>

enum {
    /* front -> engine */
    PBI_MSG_SUBMIT = 1,
    PBI_MSG_ABORT, /* id; the engine answers DONE (reason abort) unless it already did */
    PBI_MSG_RESET, /* all sequences must be done; answered by ACK */
    PBI_MSG_RENEW, /* plugins of a slot are destroyed and created anew; answered by ACK */
    PBI_MSG_ASK,   /* answered by STATS */
    PBI_MSG_QUIT,  /* drop everything and end; answered by ACK */
    /* engine -> front */
    PBI_MSG_TOKENS = 65,
    PBI_MSG_DONE,
    PBI_MSG_STATS,
    PBI_MSG_ACK,
    PBI_MSG_STEP, /* after each step, if the engine was opened so */
    PBI_MSG_FAULT /* the engine cannot go on; the last message */
};

enum { PBI_MSG_ALIGN = 8, PBI_MSG_MAX_EOS = 32, PBI_MSG_MAX_IDS = 4096 };

/* Every message begins with this. bytes: of the whole, a multiple of PBI_MSG_ALIGN. id: the
 * request's, chosen by the front, unique among unanswered ones; ACK repeats it. */
typedef struct pbi_msg {
    uint32_t kind, bytes;
    uint64_t id;
} pbi_msg;

enum {
    PBI_SUBMIT_ALL_LOGITS = 1, /* every row is wanted: no prefix reuse */
    PBI_SUBMIT_IGNORE_EOS = 2,
    PBI_SUBMIT_HASH = 4 /* TOKENS and DONE carry logits_hash */
};

/* tokens[0, n_prompt) is the request's prompt; more than that: tokens that were already
 * emitted (a resubmission after the engine was lost), which count towards max_new.
 * Then int32 tokens[n_tokens], eos[n_eos]. */
typedef struct pbi_msg_submit {
    pbi_msg h;
    uint64_t salt;        /* keeps tenants' caches apart; the engine adds the model */
    uint64_t logits_hash; /* of what was already emitted; 0 at first */
    int64_t max_new;      /* -1: until the context is full */
    int64_t arrival_ns;   /* engine clock */
    pb_params params;     /* complete: n_logprobs, seed resolved by the front */
    int32_t flags, priority, n_tokens, n_prompt, n_eos, reserved;
} pbi_msg_submit;

/* New tokens of a sequence, in order; all were made in one step.
 * Then int32 ids[n], float logprobs[n] if has_logprobs (NaN for forced tokens). */
typedef struct pbi_msg_tokens {
    pbi_msg h;
    uint64_t logits_hash;               /* up to and with these */
    int64_t t_ns, t_admit_ns, n_cached; /* t_admit_ns: first admission */
    int32_t n, has_logprobs;
} pbi_msg_tokens;

enum {
    PBI_DONE_STOP = 1, /* end-of-sequence token, or an output plugin said so */
    PBI_DONE_LENGTH,
    PBI_DONE_CONTEXT,
    PBI_DONE_ABORT,
    PBI_DONE_ERROR
};

typedef struct pbi_msg_done {
    pbi_msg h;
    uint64_t logits_hash;
    int64_t t_ns, t_admit_ns, n_cached; /* prompt tokens not computed at first admission */
    int32_t reason, n_preempted;
    pb_err err; /* PBI_DONE_ERROR */
} pbi_msg_done;

/* Counted since the engine opened or the last reset. */
typedef struct pbi_engine_stats {
    int64_t n_steps, n_rows, n_out_tokens, n_prompt_tokens, n_cached_tokens;
    int64_t n_preempted, n_drafted, n_accepted, n_copies;
    int64_t kv_bytes_arena, kv_bytes_used, kv_bytes_peak, weight_bytes;
    int64_t step_ns, device_ns; /* inside steps; inside the backend */
} pbi_engine_stats;

typedef struct pbi_msg_stats {
    pbi_msg h;
    pbi_engine_stats stats;
} pbi_msg_stats;

typedef struct pbi_msg_step { /* h.id: number of the step */
    pbi_msg h;
    int64_t t_ns, step_ns, kv_used, kv_live;
    int32_t prefill_rows, decode_rows, running, waiting;
} pbi_msg_step;

typedef struct pbi_msg_renew { /* slot "": all of the engine's plugins */
    pbi_msg h;
    char slot[32];
} pbi_msg_renew;

typedef struct pbi_msg_ack { /* of RESET, RENEW, QUIT; err.code 0: done */
    pbi_msg h;
    int32_t kind, reserved; /* of the message that is answered */
    pb_err err;
} pbi_msg_ack;
typedef pbi_msg_ack pbi_msg_fault;

/* Bytes of a message with these counts, 0 if they are too large to be sent. */
size_t pbi_msg_submit_bytes(int64_t n_tokens, int64_t n_eos);
size_t pbi_msg_tokens_bytes(int64_t n, int has_logprobs);
/* The trailing arrays of a checked message. */
const int32_t *pbi_msg_submit_tokens(const pbi_msg_submit *m);
const int32_t *pbi_msg_submit_eos(const pbi_msg_submit *m);
const int32_t *pbi_msg_tokens_ids(const pbi_msg_tokens *m);
const float *pbi_msg_tokens_logprobs(const pbi_msg_tokens *m); /* NULL: none */
/* Writes a message at buf (cap bytes, aligned to 8); returns its bytes, or 0 if cap is too
 * small or a count is out of range. m gives the fixed part; h.kind, h.bytes are set here. */
size_t pbi_msg_put_submit(void *buf, size_t cap, const pbi_msg_submit *m, const int32_t *tokens,
                          const int32_t *eos);
size_t pbi_msg_put_tokens(void *buf, size_t cap, const pbi_msg_tokens *m, const int32_t *ids,
                          const float *logprobs);
/* Checks kind, sizes and counts of n bytes at msg. PB_E_FORMAT names field, value, limit. */
int pbi_msg_check(const void *msg, size_t n, pb_err *err);
/* "stop", "length", "context", "abort", "error" */
const char *pbi_done_name(int32_t reason);
#endif
