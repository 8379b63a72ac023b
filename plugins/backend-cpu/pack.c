/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/pack.c - from stored rows to packed panels (panel.h), and single elements
 * of a panel.
 *
 * All own rows of the tables share these panels, whatever their instruction set. Invariant: a
 * panel is written by the thread that was asked for it, every byte of it; lanes beyond the last
 * row are zero.
 */
#include "math.h"
#include "panel.h"

#include <stdlib.h>

uint64_t cpu_packed_bytes_of(int32_t type, int64_t rows, int64_t cols)
{
    return (uint64_t)((rows + CPU_ROWS - 1) / CPU_ROWS) * panel_size(type, cols);
}

/* ---- rows of a stack of pieces ------------------------------------------------ */

typedef struct reader {
    const pb_piece *p;
    int32_t n;
    const cpu_stored *t;
    uint8_t *tmp; /* [16] rows, for tensors that have no data in memory */
    size_t tmp_row;
} reader;

static int reader_open(reader *r, const pb_piece *p, int32_t n, int32_t type)
{
    *r = (reader){ .p = p, .n = n, .t = cpu_stored_of(type) };
    for (int32_t i = 0; i < n; i++) {
        const pb_tensor *x = p[i].t;
        if (!r->t || x->type != type || p[i].col0 % r->t->n || p[i].n_cols % r->t->n)
            return PB_E_UNSUPPORTED;
        if (x->row_bytes / (uint64_t)r->t->bytes <
            (uint64_t)(p[i].col0 + p[i].n_cols) / (uint64_t)r->t->n)
            return PB_E_FORMAT; /* a reader that says too little */
        if (!x->data && x->row_bytes > r->tmp_row)
            r->tmp_row = (size_t)x->row_bytes;
    }
    r->tmp = r->tmp_row ? malloc(r->tmp_row * CPU_ROWS) : NULL;
    return r->tmp_row && !r->tmp ? PB_E_NOMEM : 0;
}

/* The stored rows [row0, row0 + 16) of the stack, n of them; they lie until the next call. */
static int reader_rows(const reader *r, int64_t row0, const uint8_t *rows[CPU_ROWS], int *n)
{
    *n = 0;
    for (int32_t i = 0; i < r->n && *n < CPU_ROWS; i++) {
        const pb_piece *p = &r->p[i];
        size_t skip = (size_t)(p->col0 / r->t->n) * (size_t)r->t->bytes;
        for (; row0 < p->n_rows && *n < CPU_ROWS; row0++, (*n)++) {
            const uint8_t *src =
                (const uint8_t *)p->t->data + (uint64_t)(p->row0 + row0) * p->t->row_bytes;
            if (!p->t->data) {
                uint8_t *tmp = r->tmp + (size_t)*n * r->tmp_row;
                int rc = p->t->read(p->t, p->row0 + row0, 1, tmp);
                if (rc)
                    return rc;
                src = tmp;
            }
            rows[*n] = src + skip;
        }
        row0 -= p->n_rows;
        row0 = row0 < 0 ? 0 : row0;
    }
    return 0;
}

/* ---- packing -------------------------------------------------------------------- */

static void put_words(uint32_t *out, const uint8_t *const rows[CPU_ROWS], int n, int64_t cols)
{
    for (int64_t k = 0; k < cols; k += 16) /* a few lines of each row at a time */
        for (int r = 0; r < n; r++)
            for (int64_t j = k; j < k + 16 && j < cols; j++)
                memcpy(&out[j * CPU_ROWS + r], rows[r] + 4 * j, 4);
}

static void put_shorts(uint16_t *out, const uint8_t *const rows[CPU_ROWS], int n, int64_t cols)
{
    for (int64_t k = 0; k < cols; k += 32)
        for (int r = 0; r < n; r++)
            for (int64_t j = k; j < k + 32 && j < cols; j++)
                memcpy(&out[j * CPU_ROWS + r], rows[r] + 2 * j, 2);
}

/* One stored unit into its lane. */
static void put_unit(int32_t type, const cpu_unit *u, uint8_t *quants, uint8_t *record, size_t lane)
{
    const size_t blocks = (size_t)panel_unit(type) / CPU_BLOCK, words = panel_block(type) / 64;
    const size_t halves = (size_t)panel_halves(type), bytes = (size_t)panel_bytes(type);
    for (size_t b = 0; b < blocks; b++)
        for (size_t i = 0; i < words; i++)
            memcpy(quants + (b * words + i) * 64 + lane * 4, &u->plane[b][i], 4);
    for (size_t i = 0; i < halves; i++)
        memcpy(record + (i * CPU_ROWS + lane) * 2, u->half[i], 2);
    for (size_t i = 0; i < bytes; i++)
        record[halves * 32 + i * CPU_ROWS + lane] = u->bytes[i];
}

/* A block of F8_E4M3: 128 elements, [128][16]. */
static void put_f8(const uint8_t *src, uint8_t *quants, uint8_t *record, size_t lane)
{
    uint32_t nan = 0x7fc00000u;
    memcpy(record + 4 * lane, src, 4);
    for (size_t k = 0; k < 128; k++) {
        quants[k * CPU_ROWS + lane] = src[4 + k];
        if ((src[4 + k] & 0x7f) == 0x7f)
            memcpy(record + 4 * lane, &nan, 4);
    }
}

static void pack_panel(const cpu_stored *t, const uint8_t *const rows[CPU_ROWS], int n,
                       int64_t cols, uint8_t *panel)
{
    const int32_t type = t->type;
    uint64_t scales = panel_scales(type, cols), size = panel_size(type, cols);
    if (n < CPU_ROWS)
        memset(panel, 0, size);
    else
        memset(panel + size - 64, 0, 64); /* what pads it */
    if (panel_is_float(type)) {
        if (type == PB_F32)
            put_words((uint32_t *)(void *)panel, rows, n, cols);
        else
            put_shorts((uint16_t *)(void *)panel, rows, n, cols);
        return;
    }
    size_t per = (size_t)panel_unit(type) / CPU_BLOCK * panel_block(type);
    for (size_t u = 0; u < (size_t)cols / (size_t)panel_unit(type); u++)
        for (int r = 0; r < n; r++) {
            cpu_unit unit;
            if (type == PB_F8_E4M3) {
                put_f8(rows[r] + u * (size_t)t->bytes, panel + u * per,
                       panel + scales + u * panel_record(type), (size_t)r);
                continue;
            }
            cpu_unpack(t, rows[r] + u * (size_t)t->bytes, &unit);
            put_unit(type, &unit, panel + u * per, panel + scales + u * panel_record(type),
                     (size_t)r);
        }
}

int cpu_pack(int32_t type, const pb_piece *p, int32_t n, void *dst, int64_t panel0, int64_t panel1)
{
    reader r;
    const uint8_t *rows[CPU_ROWS];
    uint64_t bytes = panel_size(type, p[0].n_cols);
    int rc = reader_open(&r, p, n, type), got;
    for (int64_t i = panel0; i < panel1 && !rc; i++) {
        rc = reader_rows(&r, i * CPU_ROWS, rows, &got);
        if (!rc)
            pack_panel(r.t, rows, got, p[0].n_cols, (uint8_t *)dst + (uint64_t)i * bytes);
    }
    free(r.tmp);
    return rc;
}

static float half_at(const uint8_t *p, size_t i)
{
    uint16_t h;
    memcpy(&h, p + 2 * i, 2);
    return m_half(h);
}

/* element k of a float type */
static float float_at(int32_t type, const uint8_t *p, size_t k)
{
    float v;
    uint16_t h;
    if (type == PB_F16)
        return half_at(p, k);
    if (type == PB_BF16) {
        memcpy(&h, p + 2 * k, 2);
        return m_float((uint32_t)h << 16);
    }
    memcpy(&v, p + 4 * k, 4);
    return v;
}

int cpu_read_f32(const pb_piece *p, int32_t n, float *out)
{
    reader r;
    const uint8_t *rows[CPU_ROWS];
    int32_t type = p[0].t->type;
    int64_t all = 0;
    int got, rc = panel_is_float(type) ? reader_open(&r, p, n, type) : PB_E_UNSUPPORTED;
    if (rc)
        return rc;
    for (int32_t i = 0; i < n; i++)
        all += p[i].n_rows;
    for (int64_t i = 0; i < all && !rc; i += CPU_ROWS) {
        rc = reader_rows(&r, i, rows, &got);
        for (int j = 0; j < got && !rc; j++)
            for (int64_t k = 0; k < p[0].n_cols; k++)
                *out++ = float_at(type, rows[j], (size_t)k);
    }
    free(r.tmp);
    return rc;
}

/* ---- reading a panel -------------------------------------------------------------- */

int cpu_quant_at(int32_t type, const uint8_t *panel, size_t b, size_t lane, size_t k)
{
    const size_t low = (size_t)panel_low(type), high = (size_t)panel_high(type), g = k / 4;
    const uint8_t *p = panel + b * panel_block(type) + lane * 4 + k % 4;
    int q;
    if (low == 8)
        q = p[64 * g];
    else if (low == 4)
        q = p[64 * (g % 4)] >> g / 4 * 4 & 15;
    else
        q = p[64 * (g / 4)] >> g % 4 * 2 & 3;
    p += 64 * low;
    if (high == 1)
        q |= (p[0] >> g & 1) << low;
    else if (high == 2)
        q |= (p[64 * (g / 4)] >> g % 4 * 2 & 3) << low;
    return panel_table(type) ? panel_table(type)[q] : q - panel_zero(type);
}

float cpu_scale_at(int32_t type, const uint8_t *panel, int64_t cols, size_t g, size_t lane,
                   float *m)
{
    const size_t per = (size_t)(panel_unit(type) / panel_group(type));
    const uint8_t *r = panel + panel_scales(type, cols) + g / per * panel_record(type);
    const uint8_t *c = r + 32 * (size_t)panel_halves(type) + lane; /* bytes */
    if (type == PB_F8_E4M3) {
        memcpy(m, r + 4 * lane, 4);
        return *m * 256.0f; /* of halves */
    }
    *m = panel_has_min(type) ? half_at(r, CPU_ROWS + lane) : 0.0f;
    g %= per;
    switch (type) {
    case PB_MXFP4: return panel_exponent(c[0]);
    case PB_Q4_K:
    case PB_Q5_K:
        *m *= (float)c[(2 * g + 1) * CPU_ROWS];
        return half_at(r, lane) * (float)c[2 * g * CPU_ROWS];
    case PB_Q2_K:
        *m *= (float)(c[g * CPU_ROWS] >> 4);
        return half_at(r, lane) * (float)(c[g * CPU_ROWS] & 15);
    case PB_Q3_K:
    case PB_Q6_K:
    case PB_IQ4_XS: return half_at(r, lane) * (float)(int8_t)c[g * CPU_ROWS];
    default: return half_at(r, lane);
    }
}

void cpu_group_at(int32_t type, const uint8_t *panel, int64_t cols, size_t g, size_t lane, float *v)
{
    const size_t n = (size_t)panel_group(type);
    float m, d = cpu_scale_at(type, panel, cols, g, lane, &m);
    for (size_t i = 0, k = g * n; i < n; i++, k++) {
        if (type == PB_F8_E4M3) {
            v[i] = d * m_half(panel_e4m3(panel[k * CPU_ROWS + lane]));
            continue;
        }
        float q = (float)cpu_quant_at(type, panel, k / CPU_BLOCK, lane, k % CPU_BLOCK);
        v[i] = panel_has_min(type) ? CPU_FMA(d, q, m) : d * q;
    }
}

float cpu_float_at(int32_t type, const uint8_t *panel, size_t lane, size_t k)
{
    return float_at(type, panel, k * CPU_ROWS + lane);
}

void cpu_packed_row(int32_t type, const void *w, int64_t rows, int64_t cols, int64_t r, float *y)
{
    const uint8_t *panel = (const uint8_t *)w + (uint64_t)(r / CPU_ROWS) * panel_size(type, cols);
    const size_t lane = (size_t)(r % CPU_ROWS), n = (size_t)cols;
    (void)rows;
    if (panel_is_float(type)) {
        for (size_t k = 0; k < n; k++)
            y[k] = cpu_float_at(type, panel, lane, k);
        return;
    }
    for (size_t g = 0, per = (size_t)panel_group(type); g < n / per; g++)
        cpu_group_at(type, panel, cols, g, lane, y + g * per);
}
