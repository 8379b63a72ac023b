/* SPDX-License-Identifier: MIT
 *
 * patchbay/kernel.h - interface kernels/1: single CPU operations and KV formats,
 * loadable one by one. backend-cpu's own kernels are rows of the same form.
 *
 * A row owns its packing and never sees a thread: run() gets a range of output
 * panels. Invariant: each row's output equals, bit for bit, the plain-C reference
 * of docs/numerics.md; the backend checks that before it uses a row.
 */
#ifndef PATCHBAY_KERNEL_H
#define PATCHBAY_KERNEL_H

#include <patchbay/program.h>
#include <patchbay/step.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Activation formats of a linear kernel.
 * PB_X_F32: float [cols].
 * PB_X_Q8: blocks of 32: int8_t q[cols], then float d[cols/32], then int32_t s[cols/32]
 * (s = sum of the block's q); x ~ d * q, q in [-127, 127]. cols % 32 == 0. */
enum { PB_X_F32 = 1, PB_X_Q8 = 2 };

/* Bytes of one row of activations, a multiple of 64. */
static inline size_t pb_x_bytes(int32_t format, int64_t cols)
{
    size_t n = (size_t)cols;
    n = format == PB_X_Q8 ? n + n / 32 * 8 : n * 4;
    return (n + 63) / 64 * 64;
}
static inline size_t pb_x_q8_d(int64_t cols)
{
    return (size_t)cols;
}
static inline size_t pb_x_q8_s(int64_t cols)
{
    return (size_t)cols + (size_t)cols / 32 * 4;
}

/* y[i][r] = sum_k x[i][k] * w[r][k] for panels [panel0, panel1) of panel_rows rows;
 * rows beyond `rows` in the last panel are not written. */
typedef struct pb_linear_args {
    size_t size;
    const void *w; /* packed by the same row's pack(), 64-byte aligned */
    int64_t rows, cols;
    const void *x; /* [n_x] activation rows, x_stride bytes apart, 64-byte aligned */
    size_t x_stride;
    int32_t n_x, reserved;
    float *y; /* [n_x][y_stride floats] */
    int64_t y_stride;
} pb_linear_args;

typedef struct pb_linear_kernel {
    size_t size;
    const char *name; /* "q8_0_q8_avx512vnni" */
    const char *isa;  /* "any", "avx2", "avx512": for [backend] isa = */
    int32_t w_type, x_format, panel_rows,
        max_rows;            /* max_rows: n_x that run() takes at most; 0 any */
    int32_t speed, reserved; /* among usable rows with equal (w_type, x_format) the highest runs */
    int (*usable)(void);     /* 1 if this machine can run it; no SIMD before this */
    uint64_t (*packed_bytes)(int64_t rows, int64_t cols);
    /* [any] Reads the stored rows of the pieces, writes panels [panel0, panel1) of dst, which has
     * packed_bytes for all of them and is 64-byte aligned. Other threads write the other panels
     * at the same time; the bytes that were there mean nothing. 0 or PB_E_* */
    int (*pack)(const pb_piece *p, int32_t n, void *dst, int64_t panel0, int64_t panel1);
    void (*run)(const pb_linear_args *a, int64_t panel0, int64_t panel1); /* [any] */
    /* [any] row r of a packed matrix as f32 [cols] (EMBED) */
    void (*row)(const void *packed, int64_t rows, int64_t cols, int64_t r, float *out);
} pb_linear_kernel;

/* One unit of attention work: rows [row0, row0+n_rows), at most 16, of one sequence, one KV head
 * (all its query heads), spans [span0, span0+n_spans) of PB_SPAN keys. */
enum { PB_TILE = 64, PB_SPAN = 512 };
typedef struct pb_attend_item {
    int32_t seq, row0, n_rows, kv_head, span0, n_spans;
} pb_attend_item;

typedef struct pb_attend_args {
    size_t size;
    const pb_kv_shape *shape;
    const pb_step *step;
    int32_t group, n_heads, page_tokens, window;
    float scale, softcap;
    char *kv;           /* page 0 of this layer */
    size_t page_stride; /* bytes from a page to the next */
    /* f32, after norm and rope: q [n_rows][n_heads*head_dim], k [n_rows][n_kv*head_dim],
     * v [n_rows][n_kv*v_dim], y [n_rows][n_heads*v_dim]; strides in floats */
    const float *q, *k, *v;
    float *y;
    int64_t q_stride, k_stride, v_stride, y_stride;
    const pb_attend_item *items;
    void *scratch; /* per thread, scratch_bytes() of the format */
    /* NULL: an item holds all spans of its rows, attend() merges them and writes y. Else item i
     * leaves them unmerged, for the backend to merge: query head h (of the KV head) of its row r
     * and its span s at part + i * part_stride + ((r * heads + h) * n_spans + s) * (v_dim + 2):
     * float m (maximum; -infinity when no key is visible, the rest is then not read), l, o[v_dim].
     */
    float *part;
    int64_t part_stride; /* floats */
} pb_attend_args;

typedef struct pb_kvfmt {
    size_t size;
    const char *name; /* "f16" */
    const char *isa;
    int32_t speed, granule; /* page_tokens must be a multiple of granule */
    int (*usable)(void);
    /* bytes of one layer of one page; a group's page is n_layers of them, layer-major */
    uint64_t (*layer_bytes)(const pb_kv_shape *s, int32_t page_tokens);
    size_t (*scratch_bytes)(const pb_kv_shape *s, int32_t n_heads, int32_t max_ctx);
    void (*write)(const pb_attend_args *a, int32_t row0, int32_t row1);    /* [any] */
    void (*attend)(const pb_attend_args *a, int32_t item0, int32_t item1); /* [any] */
    /* [any] the first n_tokens of one layer of a page */
    void (*copy)(const pb_kv_shape *s, int32_t page_tokens, const void *src, void *dst,
                 int32_t n_tokens);
} pb_kvfmt;

/* kernels/1, and the answer of host->get("kernels/1"): rows of all kernels plugins. */
typedef struct pb_kernel_set {
    size_t size;
    int32_t n_linear, n_kvfmt;
    const pb_linear_kernel *const *linear;
    const pb_kvfmt *const *kvfmt;
} pb_kernel_set;

#ifdef __cplusplus
}
#endif
#endif
