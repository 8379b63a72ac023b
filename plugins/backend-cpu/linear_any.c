/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/linear_any.c - products in plain C: the rows that define the bits
 * (docs/numerics.md). Slow, and the same on every machine.
 */
#include "math.h"
#include "panel.h"

/* Float product: one chain, k ascending. */
static float dot_f32(int32_t type, const uint8_t *panel, int64_t cols, int lane, const float *x)
{
    const int64_t n = panel_is_float(type) ? 1 : panel_group(type);
    float acc = 0.0f, w[CPU_BLOCK];
    for (int64_t k = 0; k < cols; k += n) {
        if (n == 1)
            w[0] = cpu_float_at(type, panel, (size_t)lane, (size_t)k);
        else
            cpu_group_at(type, panel, cols, (size_t)(k / n), (size_t)lane, w);
        for (int64_t i = 0; i < n; i++)
            acc = CPU_FMA(w[i], x[k + i], acc);
    }
    return acc;
}

/* Quantized product: exact within a group, one chain over groups. */
static float dot_q8(int32_t type, const uint8_t *panel, int64_t cols, int lane, const char *x)
{
    const int64_t n = panel_group(type);
    float acc = 0.0f;
    for (int64_t k0 = 0; k0 < cols; k0 += n) {
        float d, dw, mw;
        int32_t sum = 0, xsum = 0;
        memcpy(&d, x + pb_x_q8_d(cols) + k0 / CPU_BLOCK * 4, 4);
        dw = cpu_scale_at(type, panel, cols, (size_t)(k0 / n), (size_t)lane, &mw);
        for (int64_t k = k0; k < k0 + n; k++) {
            int q = cpu_quant_at(type, panel, (size_t)(k / CPU_BLOCK), (size_t)lane,
                                 (size_t)(k % CPU_BLOCK));
            sum += q * (int8_t)x[k];
            xsum += (int8_t)x[k];
        }
        acc = CPU_FMA(dw * d, (float)sum, acc);
        if (panel_has_min(type))
            acc = CPU_FMA(mw * d, (float)xsum, acc);
    }
    return acc;
}

static void run(int32_t type, int32_t x_format, const pb_linear_args *a, int64_t p0, int64_t p1)
{
    uint64_t bytes = panel_size(type, a->cols);
    for (int64_t p = p0; p < p1; p++) {
        const uint8_t *panel = (const uint8_t *)a->w + (uint64_t)p * bytes;
        for (int32_t i = 0; i < a->n_x; i++) {
            const char *x = (const char *)a->x + (size_t)i * a->x_stride;
            for (int64_t r = p * CPU_ROWS; r < a->rows && r < (p + 1) * CPU_ROWS; r++)
                a->y[i * a->y_stride + r] =
                    x_format == PB_X_Q8 ? dot_q8(type, panel, a->cols, (int)(r % CPU_ROWS), x)
                                        : dot_f32(type, panel, a->cols, (int)(r % CPU_ROWS),
                                                  (const float *)(const void *)x);
        }
    }
}

static int always(void)
{
    return 1;
}

#define ROW(TYPE, X)                                                                               \
    static void run_##TYPE##_##X(const pb_linear_args *a, int64_t p0, int64_t p1)                  \
    {                                                                                              \
        run(PB_##TYPE, PB_X_##X, a, p0, p1);                                                       \
    }                                                                                              \
    static const pb_linear_kernel row_##TYPE##_##X = {                                             \
        .size = sizeof(pb_linear_kernel),                                                          \
        .name = #TYPE "_" #X "_any",                                                               \
        .isa = "any",                                                                              \
        .w_type = PB_##TYPE,                                                                       \
        .x_format = PB_X_##X,                                                                      \
        .panel_rows = CPU_ROWS,                                                                    \
        .usable = always,                                                                          \
        .packed_bytes = bytes_##TYPE,                                                              \
        .pack = pack_##TYPE,                                                                       \
        .run = run_##TYPE##_##X,                                                                   \
        .row = row_##TYPE,                                                                         \
    };

#define FLOATS(TYPE) ROW(TYPE, F32)
#define QUANTS(TYPE) ROW(TYPE, F32) ROW(TYPE, Q8)
CPU_FLOAT_TYPES(CPU_PACKING)
CPU_QUANT_TYPES(CPU_PACKING)
CPU_FLOAT_TYPES(FLOATS)
CPU_QUANT_TYPES(QUANTS)

#define FLOAT_ROWS(TYPE) &row_##TYPE##_F32,
#define QUANT_ROWS(TYPE) &row_##TYPE##_F32, &row_##TYPE##_Q8,
const pb_linear_kernel *const cpu_linear_any[] = { CPU_FLOAT_TYPES(FLOAT_ROWS)
                                                       CPU_QUANT_TYPES(QUANT_ROWS) NULL };
