/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-sim/sim.h - what the files of backend-sim share.
 *
 * The device holds one 64-bit word for each KV token and group instead of K and V. The word of
 * position k is a hash of the token, its position and a sum over the words of all positions
 * before k, read through the page table like real keys are; the logits of a row depend on that
 * sum and nothing else. So a wrong page, a missing copy, a bad truncate or stale KV change the
 * tokens that follow, at the cost of one multiply-add for each key. 0 is what memory nobody
 * wrote holds: it stands for NaN and spreads as NaN would.
 */
#ifndef SIM_H
#define SIM_H
#include <patchbay/plugin.h>

enum { SIM_MAX_GROUPS = 8 };

typedef struct sim_config {
    double step_us, row_us, kv_ns, gflops, gbps, echo;
    int64_t granule, kv_bits;
} sim_config;

typedef struct sim_stats {
    int64_t steps, rows, keys, copies, poisoned, device_ns;
} sim_stats;

typedef struct sim {
    const pb_host *host;
    const sim_config *cfg;
    const pb_clock *clock;
    sim_stats *st;
} sim;

struct pb_weight {
    uint64_t bytes;
};

/* The memory lent to the engine that runs: words of whatever pool was made in it last. */
typedef struct sim_arena {
    uint64_t bytes;  /* as asked for: a price, not an allocation */
    uint64_t *words; /* [n_words] */
    size_t n_words;
} sim_arena;

struct pb_kv {
    sim_arena *arena;
    int32_t n_groups;
    pb_kv_plan plan[SIM_MAX_GROUPS];
    size_t first[SIM_MAX_GROUPS]; /* group's first word in the arena */
};

/* What one step costs, from the program. */
typedef struct sim_cost {
    double row_macs, out_macs;  /* of one row; of one wanted row */
    double key_macs, key_bytes; /* of one key for one row; of one key read */
    double weight_bytes;        /* read once a step */
    double moe_bytes, moe_part; /* all experts; the part of them that one row reads */
} sim_cost;

/* Outcome of one step. Two of them: tokens ~i name picks of the step before. */
typedef struct sim_out {
    uint64_t n; /* number of the step, 0 none */
    int32_t n_out, rc, faulty_op, picked, logprobs, has_logits;
    int64_t cost_ns;
    uint64_t *hash; /* [max_out] state of each wanted row; 0 NaN */
    int32_t *last;  /* [max_out] its token */
    int32_t *ids;   /* [max_out] */
    float *logprob; /* [max_out] */
} sim_out;

struct pb_exec {
    sim *dev;
    pb_limits lim;
    int32_t n_groups, n_vocab;
    int32_t window[SIM_MAX_GROUPS], attend_op[SIM_MAX_GROUPS];
    int64_t token_bytes[SIM_MAX_GROUPS];
    sim_cost cost;
    sim_out out[2], *last; /* last: submitted last */
    float *logits;         /* [max_out][n_vocab] of the last step */
    uint64_t *state;       /* [max_rows] */
    float *row;            /* [n_vocab] */
    void *scratch;         /* of pbc_draw */
    float peak;            /* the logit of the likeliest token */
};

/* step.c [step] */
int sim_submit(void *self, struct pb_exec *x, struct pb_kv *kv, const pb_step *s);
int sim_pick(void *self, struct pb_exec *x, int32_t n, const pb_draw *d, size_t stride);
int sim_wait(void *self, struct pb_exec *x, uint64_t step, pb_result *out);
int sim_poison(void *self, struct pb_kv *kv, int32_t group, pb_page page);

/* cost.c [main]: fills x->cost from the program. PB_E_UNSUPPORTED names the operation. */
int sim_cost_of(struct pb_exec *x, const pb_program *p, pb_err *err);
/* Bytes of the stored rectangles. */
uint64_t sim_piece_bytes(const pb_piece *p, int32_t n);
/* Time of a step in ns. keys: KV tokens read; pairs: (row, key) products; bytes copied. */
int64_t sim_cost_ns(const struct pb_exec *x, int32_t n_rows, int32_t n_out, double keys,
                    double pairs, double copied);
int sim_fail(pb_err *err, int code, const char *fmt, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;
#endif
