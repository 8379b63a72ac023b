/* SPDX-License-Identifier: MIT
 *
 * patchbay/program.h - the model as a program: a list of eight fused operations
 * over activation values, written once at load and compiled by a backend.
 *
 * It is not a graph library: no shapes are inferred beyond [rows][width], no
 * operation is executed here. Invariant: every value is written by exactly one
 * operation before it is read, and every weight is named by an index into
 * pb_program.weights, so that a program is plain data.
 */
#ifndef PATCHBAY_PROGRAM_H
#define PATCHBAY_PROGRAM_H

#include <patchbay/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t pb_val; /* activation f32 [n_rows][width]; -1: none */
typedef int32_t pb_wid; /* index into pb_program.weights; -1: none */

struct pb_weight; /* a backend's packed weight; opaque to all others */

/* A tensor as a weights plugin presents it. Row-major, dim[0] contiguous. */
typedef struct pb_tensor {
    const char *name;
    int32_t type, n_dims;
    int64_t dim[4];             /* dim[0] = columns; unused dims are 1 */
    int64_t rows, cols;         /* rows = dim[1]*dim[2]*dim[3] */
    uint64_t row_bytes, offset; /* offset in the file, for messages */
    uint64_t content;           /* identity of the bytes: equal content, equal bytes */
    const void *data;           /* [rows][row_bytes], or NULL: use read */
    /* copies n_rows stored rows to dst; 0 or PB_E_*. Never NULL. [any] */
    int (*read)(const struct pb_tensor *t, int64_t row0, int64_t n_rows, void *dst);
    void *owner;
} pb_tensor;

/* A rectangle of a tensor. Several pieces stack by rows into one weight: fused
 * qkv, Phi-3's slices, expert stacks and tensor-parallel shards are this one form. */
typedef struct pb_piece {
    const pb_tensor *t;
    int64_t row0, n_rows, col0, n_cols;
} pb_piece;

enum {
    PB_ROLE_LINEAR = 1, /* matrix [rows][cols] of a product; also readable by EMBED */
    PB_ROLE_VECTOR = 2  /* 1-D parameters kept as f32: norms, biases, rope factors */
};

typedef struct pb_weight_use {
    int32_t role, n_pieces;
    const pb_piece *pieces;   /* owned by the program */
    int64_t rows, cols;       /* of the stack; a vector has rows = 1 */
    struct pb_weight *packed; /* set by the core's store before compile */
} pb_weight_use;

enum { PB_KV_GQA = 1, PB_KV_LATENT = 2 };

/* A group of layers whose K and V share one page table. */
typedef struct pb_kv_shape {
    size_t size;
    int32_t kind, n_layers, window; /* window: 0 = all positions */
    int32_t n_kv_heads, head_dim, v_dim;
} pb_kv_shape;

enum { PB_ACT_NONE = 0, PB_ACT_SILU_MUL = 1, PB_ACT_GELU_MUL = 2 };
enum { PB_ROPE_NONE = 0, PB_ROPE_PAIRS = 1, PB_ROPE_HALVES = 2 };
enum {
    PB_OP_EMBED = 1,
    PB_OP_LINEAR,
    PB_OP_ATTEND,
    PB_OP_MOE,
    PB_OP_NORM,
    PB_OP_ADD,
    PB_OP_ROWS,
    PB_OP_CUSTOM
};

/* y[row] = table[token[row]] * scale */
typedef struct pb_op_embed {
    pb_val y;
    pb_wid table; /* PB_ROLE_LINEAR [vocab][width] */
    float scale;
} pb_op_embed;

/* y_i = post_norm(act(norm(x) W_i^T + b_i)) + residual; one x, up to 4 W, so that x
 * is normalised and quantized once. *_MUL: n_w = 2, y[0] = act(W_0 x) * (W_1 x). */
typedef struct pb_op_linear {
    pb_val x, residual, y[4]; /* residual: -1 or a value of y[0]'s width */
    pb_wid w[4], b[4], pre_norm, post_norm;
    float eps;
    int32_t n_w, act, sum_ranks;
} pb_op_linear;

/* rope q and k, write k and v to the cache, attend over the cache.
 * q [rows][n_heads*head_dim], k [rows][n_kv_heads*head_dim], v [rows][n_kv_heads*v_dim] */
typedef struct pb_op_attend {
    pb_val q, k, v, y;
    int32_t group, layer; /* layer within the group */
    int32_t n_heads, n_kv_heads, head_dim, v_dim, window;
    int32_t rope, rope_dims;      /* PB_ROLE of pairing; rotated leading dims of a head */
    float scale, softcap, eps;    /* softcap 0: none */
    double rope_base, rope_scale; /* angle = pos * rope_scale * base^(-2i/dims) / factor[i] */
    pb_wid rope_factors, q_norm, k_norm;
} pb_op_attend;

/* top-k routed experts; expert stacks are one weight each, [n_experts*rows][cols]. */
typedef struct pb_op_moe {
    pb_val x, residual, y;
    pb_wid router, gate, up, down, pre_norm, bias;
    float eps, scale;
    int32_t n_experts, n_used, act, norm_weights;
} pb_op_moe;

typedef struct pb_op_norm {
    pb_val x, y;
    pb_wid w;
    float eps;
} pb_op_norm;
typedef struct pb_op_add {
    pb_val a, b, y;
} pb_op_add;
typedef struct pb_op_rows {
    pb_val x, y;
} pb_op_rows; /* y = the wanted rows of x (pb_step.out_row) */
typedef struct pb_op_custom {
    const char *id;
    pb_val x[4], y[4];
    pb_wid w[4];
} pb_op_custom;

typedef struct pb_op {
    int32_t kind, layer; /* layer: -1 outside of layers; for messages and taps */
    const char *name;    /* unique: "blk.3.qkv" */
    union {
        pb_op_embed embed;
        pb_op_linear linear;
        pb_op_attend attend;
        pb_op_moe moe;
        pb_op_norm norm;
        pb_op_add add;
        pb_op_rows rows;
        pb_op_custom custom;
    } u;
} pb_op;

typedef struct pb_val_info {
    const char *name;
    int32_t width, picked; /* picked: one row for each wanted row, not for each row */
} pb_val_info;

typedef struct pb_program {
    size_t size;
    int32_t n_ops, n_vals, n_weights, n_groups;
    const pb_op *ops;
    const pb_val_info *vals;
    pb_weight_use *weights;
    const pb_kv_shape *groups;
    int32_t n_vocab, ctx_train;
    pb_val logits, reserved; /* [wanted rows][n_vocab] */
} pb_program;

#ifdef __cplusplus
}
#endif
#endif
