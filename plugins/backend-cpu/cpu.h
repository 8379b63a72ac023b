/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/cpu.h - what the files of backend-cpu share.
 *
 *   cpu.c      descriptor, arenas                 stored.c      stored types, their blocks
 *   weights.c  weights, packed on the team        pack.c        packed panels (panel.h)
 *   exec.c     compile: buffers and work sizes    linear_any.c  products in plain C
 *   step.c     one step on the thread team        attend_ref.c  KV formats in plain C
 *   layers.c   the operations of a step           elem*.c       elementwise operations
 *   rows.c     table of rows, choice              verify.c      check before the first use
 *   linear_*.c, attend_*.c   rows for one instruction set each
 *
 * Invariant: threads divide outputs, never a chain of additions, and every row of a table gives
 * the bits of the plain-C one (docs/numerics.md); so neither threads, batch, pages nor the
 * instruction set change a result.
 */
#ifndef CPU_H
#define CPU_H
#include <patchbay/plugin.h>

#include <stdatomic.h>

enum { CPU_ROWS = 16, CPU_BLOCK = 32, CPU_MAX_GROUPS = 8, CPU_CHUNK = 64, CPU_FEW = 4 };
enum { CPU_ITEM_ROWS = 16 }; /* rows of an attention item at most */
enum { CPU_ISA_AUTO, CPU_ISA_ANY, CPU_ISA_AVX2, CPU_ISA_AVX512 };
enum { CPU_ACT_Q8, CPU_ACT_F32 };
enum { CPU_KV_F16, CPU_KV_F32 };

typedef struct cpu_config {
    int32_t activations, kv, isa, verify;
} cpu_config;

typedef struct cpu_stats {
    int64_t steps, rows, tokens_copied, rows_verified, plugin_row_ops, device_ns;
} cpu_stats;

/* ---- elementwise operations, one table for each instruction set (elem.inc) ---- */

typedef struct cpu_elem {
    const char *isa;
    int (*usable)(void);
    /* y[i] = (x[i] * r) * w[i], r = 1 / sqrt(mean square + eps) */
    void (*norm)(const float *x, const float *w, float eps, int64_t n, float *y);
    void (*quant)(const float *x, int64_t n, void *out); /* to PB_X_Q8 */
    void (*silu_mul)(float *y, const float *g, const float *u, int64_t n);
    void (*gelu_mul)(float *y, const float *g, const float *u, int64_t n);
    void (*add)(float *y, const float *a, const float *b, int64_t n); /* y = a + b, y may be a */
    void (*scale)(float *y, const float *a, float s, int64_t n);      /* y = a * s */
    void (*cossin)(const double *freq, double pos, int64_t n, float *cs); /* cos[n], sin[n] */
    /* one head: the first 2 n of it are rotated by cs, the rest up to dim copied */
    void (*rope)(float *y, const float *x, const float *cs, int64_t n, int64_t dim, int32_t kind);
    int (*finite)(const float *x, int64_t n);
} cpu_elem;

extern const cpu_elem cpu_elem_any;

/* ---- rows ---------------------------------------------------------------- */

int cpu_has_avx2(void);   /* AVX2, FMA, F16C, and the system saves their registers */
int cpu_has_avx512(void); /* F, BW, VL, DQ and VNNI */

extern const pb_linear_kernel *const cpu_linear_any[],
    *const cpu_linear_avx2[], *const cpu_linear_avx512[]; /* end with NULL */
extern const pb_kvfmt *const cpu_kvfmt_any[], *const cpu_kvfmt_avx2[], *const cpu_kvfmt_avx512[];
extern const cpu_elem cpu_elem_avx2, cpu_elem_avx512;

/* i-th own row, or NULL after the last */
const pb_linear_kernel *cpu_linear_at(int i);
const pb_kvfmt *cpu_kvfmt_at(int i);
const cpu_elem *cpu_elem_at(int i);
int cpu_isa_allowed(int32_t option, const char *isa);

typedef struct cpu cpu;
/* The fastest usable row, own or third-party; NULL: none. */
const pb_linear_kernel *cpu_linear_choose(const cpu *d, int32_t w_type, int32_t x_format);
const pb_kvfmt *cpu_kvfmt_choose(const cpu *d, const char *name);
int cpu_is_extra(const cpu *d, const void *row); /* 1: of a kernels plugin */
/* Compares a row with the plain-C one on a small random problem. 0, or PB_E_PLUGIN and err. */
int cpu_verify_linear(const cpu *d, const pb_linear_kernel *k, pb_err *err);
int cpu_verify_kvfmt(const cpu *d, const pb_kvfmt *f, pb_err *err);

/* ---- stored types and packed panels (stored.c, pack.c; layouts: panel.h) ------------ */

#define CPU_FLOAT_TYPES(F) F(F32) F(F16) F(BF16) F(F8_E4M3) /* meet float inputs only */
#define CPU_QUANT_TYPES(F)                                                                         \
    F(Q8_0)                                                                                        \
    F(Q4_0)                                                                                        \
    F(Q4_1) F(Q5_0) F(Q5_1) F(Q2_K) F(Q3_K) F(Q4_K) F(Q5_K) F(Q6_K) F(IQ4_NL) F(IQ4_XS) F(MXFP4)

typedef struct cpu_stored { /* a type as it is stored: blocks of n elements */
    int32_t type;
    const char *name;
    int32_t n, bytes;
    int32_t n_halves, half[2]; /* f16 scale and minimum: where in a block */
} cpu_stored;

typedef struct cpu_unit { /* a stored block as it lies in a panel */
    uint32_t plane[8][8]; /* of each 32 elements: words of the planes */
    uint8_t half[2][2], bytes[16];
} cpu_unit;

const cpu_stored *cpu_stored_of(int32_t type); /* NULL: no product knows it */
const char *cpu_type_name(int32_t type);       /* of every type that files hold */
void cpu_unpack(const cpu_stored *t, const uint8_t *src, cpu_unit *u); /* not of floats */

uint64_t cpu_packed_bytes_of(int32_t type, int64_t rows, int64_t cols);
int cpu_pack(int32_t type, const pb_piece *p, int32_t n, void *dst, int64_t panel0, int64_t panel1);
void cpu_packed_row(int32_t type, const void *w, int64_t rows, int64_t cols, int64_t r, float *y);
/* of a panel: element k of a row of floats; the number of element k in block b; scale and minimum
 * of a group; the elements of a group as the floats that PB_X_F32 products use */
float cpu_float_at(int32_t type, const uint8_t *panel, size_t lane, size_t k);
int cpu_quant_at(int32_t type, const uint8_t *panel, size_t b, size_t lane, size_t k);
float cpu_scale_at(int32_t type, const uint8_t *panel, int64_t cols, size_t g, size_t lane,
                   float *m);
void cpu_group_at(int32_t type, const uint8_t *panel, int64_t cols, size_t g, size_t lane,
                  float *v);
/* rows of pieces as f32 (PB_ROLE_VECTOR); 0 or PB_E_* */
int cpu_read_f32(const pb_piece *p, int32_t n, float *out);

/* the functions of a row for one stored type */
#define CPU_PACKING(TYPE)                                                                          \
    static uint64_t bytes_##TYPE(int64_t rows, int64_t cols)                                       \
    {                                                                                              \
        return cpu_packed_bytes_of(PB_##TYPE, rows, cols);                                         \
    }                                                                                              \
    static int pack_##TYPE(const pb_piece *p, int32_t n, void *dst, int64_t panel0,                \
                           int64_t panel1)                                                         \
    {                                                                                              \
        return cpu_pack(PB_##TYPE, p, n, dst, panel0, panel1);                                     \
    }                                                                                              \
    static void row_##TYPE(const void *w, int64_t rows, int64_t cols, int64_t r, float *y)         \
    {                                                                                              \
        cpu_packed_row(PB_##TYPE, w, rows, cols, r, y);                                            \
    }

#define CPU_ALIGN64(n) (((n) + 63) / 64 * 64)

/* ---- KV layout: what all own formats share --------------------------------- */

/* One layer of a page, KV head by KV head: K as [page_tokens/16][head_dim][16 keys], then V as
 * [page_tokens][v_dim]; so 16 keys are the lanes of a score, and a value's elements those of an
 * output. The functions give element indices. */
static inline size_t cpu_head_at(const pb_kv_shape *s, int32_t page_tokens, int32_t head)
{
    return (size_t)head * (size_t)page_tokens * (size_t)(s->head_dim + s->v_dim);
}
static inline size_t cpu_k_at(const pb_kv_shape *s, int32_t tok, int32_t d)
{
    return ((size_t)(tok / 16) * (size_t)s->head_dim + (size_t)d) * 16 + (size_t)(tok % 16);
}
static inline size_t cpu_v_at(const pb_kv_shape *s, int32_t page_tokens, int32_t tok)
{
    return (size_t)page_tokens * (size_t)s->head_dim + (size_t)tok * (size_t)s->v_dim;
}

/* page table of a sequence in the args' group */
static inline const pb_page *cpu_table(const pb_attend_args *a, int32_t seq)
{
    const int32_t *begin =
        PB_STEP_COL(a->step, table_begin) + (size_t)a->group * (size_t)(a->step->n_seqs + 1);
    return PB_STEP_COL(a->step, table) + begin[seq];
}

/* first and one past the last key that the row at position p sees */
static inline int32_t cpu_first_key(int32_t window, int32_t p)
{
    return window > 0 && p >= window ? p - window + 1 : 0;
}

/* Merges the spans of one row and query head, first to last: m, l, o[v_dim] each, stride floats
 * from one to the next. */
void cpu_merge_spans(const float *part, int64_t stride, int32_t n_spans, int32_t v_dim, float *y);
uint64_t cpu_kv_layer_bytes(const pb_kv_shape *s, int32_t page_tokens, size_t elem);
void cpu_kv_copy(const pb_kv_shape *s, int32_t page_tokens, const void *src, void *dst,
                 int32_t n_tokens, size_t elem);

/* ---- device, program, pool ------------------------------------------------ */

typedef struct cpu_slab cpu_slab;

struct cpu {
    const pb_host *host;
    const cpu_config *cfg;
    cpu_stats *st;
    const pb_team *team;
    const pb_kernel_set *extra; /* rows of kernels plugins; or NULL */
    const cpu_elem *elem;
    const pb_kvfmt *kvfmt;
    int kvfmt_extra; /* it is a kernels plugin's */
    cpu_slab *slabs;
    /* rows that were verified, so that each is once */
    const void *verified[64];
    int n_verified;
};

struct pb_weight {
    int32_t role, type;
    int64_t rows, cols;
    const pb_linear_kernel *k; /* NULL: a vector */
    int extra;                 /* k is of a kernels plugin */
    void *data;                /* packed, or float [rows * cols] */
    cpu_slab *slab;
};

/* One distinct set of rope angles of a program. */
typedef struct cpu_rope {
    int64_t n;    /* pairs */
    double *freq; /* [n] angle of position 1 */
    float *cs;    /* [max_rows][2 n] of the step */
} cpu_rope;

typedef struct cpu_val {
    float *data;
    int64_t stride; /* floats, a multiple of 16 */
    int32_t width, picked;
} cpu_val;

typedef struct cpu_counter { /* one cache line each: work that threads take in turns */
    _Alignas(64) atomic_int next;
} cpu_counter;

struct pb_exec {
    cpu *dev;
    const pb_program *p;
    pb_limits lim;
    int n_threads;
    cpu_val *val;  /* [n_vals] */
    void **buffer; /* what values lie in, by liveness */
    int n_buffers;
    int32_t *rope_of; /* [n_ops] index into rope, or -1 */
    cpu_rope *rope;
    int n_rope;
    float *xn;        /* [max_rows][xn_stride] normalised inputs */
    char *xq;         /* [max_rows][xq_bytes] quantized inputs */
    float *xn_own;    /* [n_threads][CPU_FEW][xn_stride] the same when rows are few: */
    char *xq_own;     /* each thread then prepares all of them, which saves a barrier */
    float *gate, *up; /* [CPU_CHUNK][up_stride] second product of *_MUL */
    float *q, *k;     /* [max_rows][q_stride, k_stride] after norm and rope */
    int64_t xn_stride, up_stride, q_stride, k_stride;
    size_t xq_bytes;
    char *scratch; /* [n_threads][scratch_bytes] */
    size_t scratch_bytes;
    float *part;                           /* unmerged spans of one operation */
    pb_attend_item *items[CPU_MAX_GROUPS]; /* of the step */
    int32_t n_items[CPU_MAX_GROUPS];
    int32_t split;     /* items are single rows and spans */
    cpu_counter *work; /* [n_ops] */
    int32_t *token;    /* [max_rows] ids, picks of the step before resolved */
    int32_t *ids;      /* [max_out] */
    float *logprob;
    int *pick_rc;
    char *draw_scratch;
    size_t draw_bytes;
    /* the step in flight */
    uint64_t step;
    int32_t n_out, picked, has_logprobs, has_logits, faulty_op, rc;
    atomic_int bad; /* 1 + index of the first op with NaN or infinity */
    int64_t ns;
};

struct pb_kv {
    char *mem;
    int32_t n_groups;
    pb_kv_plan plan[CPU_MAX_GROUPS];
    char *group[CPU_MAX_GROUPS];
    uint64_t layer_bytes[CPU_MAX_GROUPS], page_bytes[CPU_MAX_GROUPS];
};

/* cpu.c */
int cpu_fail(pb_err *err, int code, const char *fmt, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;
/* weights.c */
int cpu_weight(void *self, int32_t role, int32_t n, const pb_piece *p, struct pb_weight **out,
               uint64_t *bytes, pb_err *err);
void cpu_weight_free(void *self, struct pb_weight *w);
void cpu_weights_end(cpu *d); /* frees what weights were not */
/* exec.c */
int cpu_compile(void *self, const pb_program *p, const pb_limits *lim, struct pb_exec **out,
                pb_err *err);
void cpu_exec_free(void *self, struct pb_exec *x);
/* step.c */
int cpu_submit(void *self, struct pb_exec *x, struct pb_kv *kv, const pb_step *s);
int cpu_pick(void *self, struct pb_exec *x, int32_t n, const pb_draw *d, size_t stride);
int cpu_wait(void *self, struct pb_exec *x, uint64_t step, pb_result *out);
/* layers.c: operations, called by all threads of the team */
typedef struct cpu_run {
    struct pb_exec *x;
    struct pb_kv *kv;
    const pb_step *s;
    int32_t thread, n_threads;
} cpu_run;
void cpu_op_linear(const cpu_run *r, int32_t op);
void cpu_op_attend(const cpu_run *r, int32_t op);
void cpu_op_small(const cpu_run *r, int32_t op); /* EMBED NORM ADD ROWS */
void cpu_barrier(const cpu_run *r);
/* [*a, *b) of n units for this thread, in multiples of unit */
void cpu_share(const cpu_run *r, int64_t n, int64_t unit, int64_t *a, int64_t *b);
int32_t cpu_rows_of(const cpu_run *r, pb_val v);
#endif
