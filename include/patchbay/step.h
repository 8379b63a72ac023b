/* SPDX-License-Identifier: MIT
 *
 * patchbay/step.h - pb_step, one forward pass as one flat block of bytes, and
 * pb_draw, how a row of logits becomes a token.
 *
 * A step is ragged: prefill, decode and verification rows mix freely. Columns are
 * byte offsets from the start of the record, not pointers, so that a step may be
 * copied, sent to another process or uploaded with one memcpy and needs no repair.
 * Invariant: all columns lie inside `bytes`; a backend sees nothing but the step.
 */
#ifndef PATCHBAY_STEP_H
#define PATCHBAY_STEP_H

#include <patchbay/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t pb_page; /* index into a group's pool, equal on every rank; page 0 is the
                            sink for padded rows and freed windows */

typedef struct pb_copy {
    int32_t group;
    pb_page src, dst;
    int32_t n_tokens;
} pb_copy;

enum {
    PB_STEP_LOGITS = 1, /* the caller wants the wanted rows' logits on the host */
    PB_STEP_CHECK = 2   /* look for NaN and infinity after every operation */
};

typedef struct pb_step {
    size_t size;  /* sizeof(pb_step) */
    size_t bytes; /* of the whole record */
    uint64_t n;   /* number of the step, from 1 */
    int32_t n_rows, n_seqs, n_out, n_copies, n_groups, flags;
    /* offsets of the columns; 0 = absent */
    uint32_t token;       /* int32 [n_rows] id, or ~i: pick i of the step before */
    uint32_t pos;         /* int32 [n_rows] rope position */
    uint32_t kv_pos;      /* int32 [n_rows] position in the KV cache */
    uint32_t tree;        /* absent, or int32 [n_rows]: parent row of a draft tree */
    uint32_t row_begin;   /* int32 [n_seqs+1] */
    uint32_t slot;        /* int32 [n_seqs] the sequence's slot: for state kept by slot */
    uint32_t adapter;     /* int32 [n_seqs], -1 none */
    uint32_t table_begin; /* int32 [n_groups][n_seqs+1] into table */
    uint32_t table;       /* pb_page: table[begin + kv_pos / page_tokens] */
    uint32_t copy;        /* pb_copy [n_copies]: done before the rows */
    uint32_t out_row;     /* int32 [n_out] rows whose logits are wanted, ascending */
    uint32_t reserved;
} pb_step;

/* The column `name` of step s as a const int32_t pointer. */
#define PB_STEP_COL(s, name) ((const int32_t *)(const void *)((const char *)(s) + (s)->name))
#define PB_STEP_COPIES(s) ((const pb_copy *)(const void *)((const char *)(s) + (s)->copy))

/* One edit of a logit before masks and temperature (penalties, bias):
 * l = l > 0 ? l / penalty : l * penalty; l += add. */
typedef struct pb_edit {
    int32_t id;
    float penalty, add;
} pb_edit;

/* How one wanted row becomes a token; the same record on every backend. Order: edits,
 * allow, temperature, top_k, top_p, min_p, Gumbel-max with noise hash(seed, pos, id);
 * temperature 0: argmax. Ties go to the lower id. Pointers are valid until wait. */
typedef struct pb_draw {
    size_t size;
    uint64_t seed;
    int64_t pos; /* position that the drawn token will have */
    float temperature, top_p, min_p;
    int32_t top_k;      /* 0: off */
    int32_t forced;     /* >= 0: this id, whatever the logits say */
    int32_t n_logprobs; /* -1: none; n: the drawn token's and the n best */
    int32_t n_edits, reserved;
    const pb_edit *edits;  /* ids ascending, each once */
    const uint32_t *allow; /* bit id of word id/32; NULL: all. No bit set: PB_E_INVAL */
} pb_draw;

/* What wait() returns; arrays are the backend's, valid until the next submit. */
typedef struct pb_result {
    size_t size;
    uint64_t step;
    int32_t n_out, faulty_op;   /* faulty_op: index of the op, or -1 */
    const int32_t *ids;         /* [n_out] drawn tokens; NULL without pick */
    const float *logprobs;      /* [n_out] of the drawn tokens before temperature; or NULL */
    const float *logits;        /* [n_out][n_vocab] unedited, if PB_STEP_LOGITS; or NULL */
    int64_t n_vocab, device_ns; /* device_ns: time that the device worked */
} pb_result;

#ifdef __cplusplus
}
#endif
#endif
