/* SPDX-License-Identifier: MIT
 *
 * plugins/weights-safetensors/fp8.c - F8_E4M3 weights and the scales that stand beside them in
 * other tensors, shown together as PB_F8_E4M3: each 128 elements of a row behind their scale.
 *
 * The scales of NAME are NAME_scale_inv (DeepSeek-V3, config.json's weight_block_size 128 x 128;
 * it is what a weight is multiplied by) or NAME_scale; none: 1. They are not shown by themselves.
 * Invariant: nothing is computed, except that scales of fewer bits become floats.
 */
#include "st.h"
#include "../weights-common/fail.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 128, STORED = 4 + BLOCK, LONE = 1009, E8M0 = 1007, TAKEN = -1 };

/* A weight and its scales as the files have them. A tensor is matrices one after the other, each
 * of matrix_rows rows and with scale_rows rows of scales, one of these for row_step rows. */
typedef struct scaled {
    pb_tensor w, s; /* s.data is NULL: all scales are 1 */
    int64_t matrix_rows, scale_rows, row_step, scale_cols;
} scaled;

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static int64_t up(int64_t n)
{
    return n / BLOCK + (n % BLOCK != 0);
}

static float scale_of(const scaled *p, int64_t row, int64_t block)
{
    if (!p->s.data)
        return 1;
    int64_t at = row / p->matrix_rows * p->scale_rows + row % p->matrix_rows / p->row_step;
    at = at * p->scale_cols + (p->scale_cols > 1 ? block : 0);
    const unsigned char *s = (const unsigned char *)p->s.data;
    uint32_t bits;
    float f;
    switch (p->s.type) {
    case PB_BF16: bits = (uint32_t)s[2 * at] << 16 | (uint32_t)s[2 * at + 1] << 24; break;
    case E8M0: /* 2^(e - 127) */
        bits = s[at] == 255 ? 0x7fc00000u : s[at] ? (uint32_t)s[at] << 23 : 0x400000u;
        break;
    default: memcpy(&bits, s + 4 * at, 4);
    }
    memcpy(&f, &bits, 4);
    return f;
}

static int read_scaled(const pb_tensor *t, int64_t row0, int64_t n_rows, void *dst)
{
    const scaled *p = t->owner;
    char *out = dst;
    if (row0 < 0 || n_rows < 0 || row0 > t->rows - n_rows)
        return PB_E_INVAL;
    if (st_cut(p->w.owner) || (p->s.data && st_cut(p->s.owner)))
        return PB_E_IO;
    for (int64_t r = row0; r < row0 + n_rows; r++) {
        const char *w = (const char *)p->w.data + (uint64_t)r * p->w.row_bytes;
        for (int64_t b = 0; b < t->cols / BLOCK; b++, out += STORED) {
            float d = scale_of(p, r, b);
            memcpy(out, &d, 4);
            memcpy(out + 4, w + b * BLOCK, BLOCK);
        }
    }
    return 0;
}

/* Which scale is whose; an error if the shapes do not tell. */
static int fit(st_reader *r, scaled *p)
{
    const pb_tensor *w = &p->w, *s = &p->s;
    uint64_t n = (uint64_t)s->rows * (uint64_t)s->cols;
    if (s->type != PB_F32 && s->type != PB_BF16 && s->type != E8M0)
        return fail(r->err, PB_E_UNSUPPORTED,
                    "tensor %s: scales of type %d; F32, BF16 and F8_E8M0 are", s->name,
                    (int)s->type);
    p->matrix_rows = w->dim[1];
    p->scale_cols = s->cols;
    if (s->cols == up(w->cols) && s->dim[1] == up(w->dim[1]) && s->dim[2] == w->dim[2] &&
        s->dim[3] == w->dim[3]) {
        p->scale_rows = s->dim[1];
        p->row_step = BLOCK;
    } else if (n == 1 || n == (uint64_t)w->rows) {
        p->matrix_rows = p->scale_cols = 1;
        p->scale_rows = n > 1;
        p->row_step = 1;
    } else
        return fail(r->err, PB_E_UNSUPPORTED,
                    "tensor %s: %" PRId64 " x %" PRId64 " scales for %" PRId64 " x %" PRId64
                    " weights; known are one for each 128 x 128, for each row, or one",
                    s->name, s->rows, s->cols, w->rows, w->cols);
    return 0;
}

static int pair(st_reader *r, pb_tensor *t, const pb_tensor *s)
{
    scaled *p = st_room(r, sizeof *p);
    if (!p)
        return r->err->code;
    p->w = *t;
    if (s) {
        p->s = *s;
        int rc = fit(r, p);
        if (rc)
            return rc;
    }
    if (t->cols > INT64_MAX / STORED || __builtin_mul_overflow((uint64_t)(t->cols / BLOCK * STORED),
                                                               (uint64_t)t->rows, &(uint64_t){ 0 }))
        return fail(r->err, PB_E_FORMAT, "tensor %s: over 2^64 bytes with its scales", t->name);
    t->row_bytes = (uint64_t)(t->cols / BLOCK * STORED);
    t->data = NULL;
    t->read = read_scaled;
    t->owner = p;
    t->content = mix(t->content, s ? s->content : 1);
    return 0;
}

/* the scales of t, or NULL */
static pb_tensor *scales_of(const st_reader *r, const pb_tensor *t)
{
    static const char *const endings[] = { "_scale_inv", "_scale" };
    char name[ST_NAME + 16];
    pb_tensor *s = NULL;
    for (int k = 0; k < 2 && !s; k++) {
        snprintf(name, sizeof name, "%s%s", t->name, endings[k]);
        s = st_find(r, name);
    }
    return s;
}

int st_fp8(st_reader *r)
{
    int32_t kept = 0;
    int rc = 0;
    for (int32_t i = 0; i < r->n_tensors && !rc; i++) {
        pb_tensor *t = &r->tensors[i], *s;
        if (t->type != PB_F8_E4M3)
            continue;
        if (t->cols % BLOCK || !t->cols) { /* no form to show it in */
            t->type = LONE;
            continue;
        }
        s = scales_of(r, t);
        rc = pair(r, t, s);
        if (s)
            s->n_dims = TAKEN;
    }
    for (int32_t i = 0; i < r->n_tensors; i++)
        if (r->tensors[i].n_dims != TAKEN)
            r->tensors[kept++] = r->tensors[i];
    r->n_tensors = kept;
    return rc;
}
