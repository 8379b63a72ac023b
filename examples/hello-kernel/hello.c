/* SPDX-License-Identifier: MIT
 * A kernel in one small file: the product of Q4_0 weights with q8 activations in plain C. Its
 * bits are those of the definition (docs/numerics.md): an exact int32 sum in each block of 32,
 * then acc = fmaf(dw * dx, sum, acc), blocks ascending. Start here, then make run() fast. */
#include <patchbay/plugin.h>

#include <math.h>
#include <string.h>

enum { B = 32 };
typedef struct block { /* as stored, but with the scale as float */
    float d;
    uint8_t q[B / 2]; /* low halves: values 0..15, high halves: 16..31; 8 means zero */
} block;

static float half(uint16_t h)
{
    float f = (float)((h & 1023) | (h & 0x7c00 ? 1024 : 0)); /* mantissa with its hidden bit */
    f = ldexpf(f, (h >> 10 & 31 ? h >> 10 & 31 : 1) - 25);
    return h & 0x8000 ? -f : f;
}

static int usable(void)
{
    return 1;
}

static uint64_t packed_bytes(int64_t rows, int64_t cols)
{
    return (uint64_t)rows * (uint64_t)(cols / B) * sizeof(block);
}

/* One stored row at a time, so that the rows of a matrix need not fit in memory twice. Other
 * threads pack the rows outside of [row0, row1). */
static int pack(const pb_piece *p, int32_t n, void *dst, int64_t row0, int64_t row1)
{
    unsigned char row[1 << 16];
    int64_t at = 0; /* row of the packed matrix */
    for (int32_t i = 0; i < n; i++)
        for (int64_t r = 0; r < p[i].n_rows; r++, at++) {
            block *out = (block *)dst + at * (p[i].n_cols / B);
            if (at < row0 || at >= row1)
                continue;
            if (p[i].t->row_bytes > sizeof row)
                return PB_E_UNSUPPORTED;
            int rc = p[i].t->read(p[i].t, p[i].row0 + r, 1, row);
            if (rc)
                return rc;
            for (int64_t c = p[i].col0; c < p[i].col0 + p[i].n_cols; c += B, out++) {
                uint16_t d;
                memcpy(&d, row + c / B * 18, 2);
                out->d = half(d);
                memcpy(out->q, row + c / B * 18 + 2, sizeof out->q);
            }
        }
    return 0;
}

static void run(const pb_linear_args *a, int64_t panel0, int64_t panel1)
{
    int64_t n_blocks = a->cols / B;
    for (int64_t r = panel0; r < panel1; r++)
        for (int32_t i = 0; i < a->n_x; i++) {
            const char *x = (const char *)a->x + (size_t)i * a->x_stride;
            const float *dx = (const void *)(x + pb_x_q8_d(a->cols));
            const block *w = (const block *)a->w + r * n_blocks;
            float acc = 0;
            for (int64_t b = 0; b < n_blocks; b++, w++) {
                const signed char *q = (const signed char *)x + b * B;
                int32_t sum = 0;
                for (int k = 0; k < B / 2; k++)
                    sum += ((w->q[k] & 15) - 8) * q[k] + ((w->q[k] >> 4) - 8) * q[k + B / 2];
                acc = fmaf(w->d * dx[b], (float)sum, acc);
            }
            a->y[i * a->y_stride + r] = acc;
        }
}

static void row(const void *packed, int64_t rows, int64_t cols, int64_t r, float *out)
{
    const block *w = (const block *)packed + r * (cols / B);
    (void)rows;
    for (int64_t c = 0; c < cols; c++)
        out[c] =
            w[c / B].d *
            (float)((c % B < B / 2 ? w[c / B].q[c % B] & 15 : w[c / B].q[c % B - 16] >> 4) - 8);
}

static const pb_linear_kernel q4_0 = { .size = sizeof q4_0,
                                       .name = "q4_0_q8_hello",
                                       .isa = "any",
                                       .w_type = PB_Q4_0,
                                       .x_format = PB_X_Q8,
                                       .panel_rows = 1,
                                       .speed = 1000, /* above the fast ones, to be seen */
                                       .usable = usable,
                                       .packed_bytes = packed_bytes,
                                       .pack = pack,
                                       .run = run,
                                       .row = row };
static const pb_linear_kernel *const linear[] = { &q4_0 };
static const pb_kernel_set set = { .size = sizeof set, .n_linear = 1, .linear = linear };

static int create(const pb_host *host, const void *config, void **self, pb_err *err)
{
    return 0; /* rows have no state */
}

static void destroy(void *self)
{
}

static const pb_iface ifaces[] = { { "kernels/1", &set }, { NULL, NULL } };
PB_PLUGIN = { PB_HEAD,
              .flags = PB_EXACT,
              .slot = "kernels",
              .name = "hello",
              .version = "1.0",
              .license = "MIT",
              .summary = "Q4_0 products in plain C",
              .ifaces = ifaces,
              .create = create,
              .destroy = destroy };
