/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/attend_ref.c - the KV formats f16 and f32 in plain C: the definition of
 * attention's bits (docs/numerics.md), one row and query head at a time.
 *
 * It is not fast. Invariant: an element in the cache depends on its token alone, and only keys
 * that a row may see are read at all.
 */
#include "cpu.h"
#include "math.h"

enum { LANES = 16 };

/* ---- elements ------------------------------------------------------------- */

static float get(const char *base, size_t i, size_t elem)
{
    if (elem == 2) {
        uint16_t h;
        memcpy(&h, base + 2 * i, 2);
        return m_half(h);
    }
    float x;
    memcpy(&x, base + 4 * i, 4);
    return x;
}

static void put(char *base, size_t i, size_t elem, float x)
{
    if (elem == 2) {
        uint16_t h = m_to_half(x);
        memcpy(base + 2 * i, &h, 2);
    } else {
        memcpy(base + 4 * i, &x, 4);
    }
}

uint64_t cpu_kv_layer_bytes(const pb_kv_shape *s, int32_t page_tokens, size_t elem)
{
    return (uint64_t)s->n_kv_heads * (uint64_t)page_tokens * (uint64_t)(s->head_dim + s->v_dim) *
           elem;
}

/* Whole groups of 16 keys: lanes beyond n_tokens are garbage on both sides. */
void cpu_kv_copy(const pb_kv_shape *s, int32_t page_tokens, const void *src, void *dst,
                 int32_t n_tokens, size_t elem)
{
    size_t keys = (size_t)(n_tokens + 15) / 16 * 16;
    for (int32_t h = 0; h < s->n_kv_heads; h++) {
        size_t k = cpu_head_at(s, page_tokens, h) * elem;
        size_t v = k + cpu_v_at(s, page_tokens, 0) * elem;
        memcpy((char *)dst + k, (const char *)src + k, keys * (size_t)s->head_dim * elem);
        memcpy((char *)dst + v, (const char *)src + v, (size_t)n_tokens * (size_t)s->v_dim * elem);
    }
}

static int32_t seq_of(const pb_step *s, int32_t row)
{
    const int32_t *begin = PB_STEP_COL(s, row_begin);
    int32_t q = 0;
    while (begin[q + 1] <= row)
        q++;
    return q;
}

static void write_rows(const pb_attend_args *a, int32_t row0, int32_t row1, size_t elem)
{
    const pb_kv_shape *s = a->shape;
    for (int32_t r = row0; r < row1; r++) {
        int32_t p = PB_STEP_COL(a->step, kv_pos)[r], tok = p % a->page_tokens;
        pb_page page = cpu_table(a, seq_of(a->step, r))[p / a->page_tokens];
        char *base = a->kv + (size_t)page * a->page_stride;
        for (int32_t h = 0; h < s->n_kv_heads; h++) {
            size_t at = cpu_head_at(s, a->page_tokens, h);
            const float *k = a->k + r * a->k_stride + h * s->head_dim;
            const float *v = a->v + r * a->v_stride + h * s->v_dim;
            for (int32_t d = 0; d < s->head_dim; d++)
                put(base, at + cpu_k_at(s, tok, d), elem, k[d]);
            for (int32_t d = 0; d < s->v_dim; d++)
                put(base, at + cpu_v_at(s, a->page_tokens, tok) + (size_t)d, elem, v[d]);
        }
    }
}

/* ---- attention ---------------------------------------------------------------- */

/* One row and query head. */
typedef struct query {
    const float *q; /* scaled */
    int32_t first, last, head;
    const pb_page *table;
    float m, l[LANES], *o; /* of the span; o [v_dim] */
} query;

static float score(const pb_attend_args *a, const query *u, int32_t key, size_t elem)
{
    const pb_kv_shape *s = a->shape;
    const char *base = a->kv + (size_t)u->table[key / a->page_tokens] * a->page_stride;
    size_t at = cpu_head_at(s, a->page_tokens, u->head);
    float x = 0.0f;
    for (int32_t d = 0; d < s->head_dim; d++)
        x = CPU_FMA(u->q[d], get(base, at + cpu_k_at(s, key % a->page_tokens, d), elem), x);
    return a->softcap > 0.0f ? a->softcap * m_tanh(x / a->softcap) : x;
}

/* Online softmax over one tile of keys [t0, t0 + 64). */
static void tile(const pb_attend_args *a, query *u, int32_t t0, size_t elem)
{
    const pb_kv_shape *s = a->shape;
    float p[PB_TILE], m = u->m, c;
    int32_t j0 = u->first > t0 ? u->first - t0 : 0;
    int32_t j1 = u->last - t0 < PB_TILE - 1 ? u->last - t0 + 1 : PB_TILE;
    for (int32_t j = 0; j < PB_TILE; j++) {
        p[j] = -__builtin_inff();
        if (j >= j0 && j < j1)
            p[j] = score(a, u, t0 + j, elem);
        m = p[j] > m ? p[j] : m;
    }
    c = m_exp(u->m - m); /* the first tile: of -infinity, 0 */
    for (int32_t j = 0; j < PB_TILE; j++)
        p[j] = j >= j0 && j < j1 ? m_exp(p[j] - m) : 0.0f;
    for (int32_t i = 0; i < LANES; i++) {
        float t = ((p[i] + p[i + 16]) + p[i + 32]) + p[i + 48];
        u->l[i] = CPU_FMA(u->l[i], c, t);
    }
    for (int32_t d = 0; d < s->v_dim; d++)
        u->o[d] *= c;
    for (int32_t j = j0; j < j1; j++) {
        const char *base = a->kv + (size_t)u->table[(t0 + j) / a->page_tokens] * a->page_stride;
        size_t at = cpu_head_at(s, a->page_tokens, u->head) +
                    cpu_v_at(s, a->page_tokens, (t0 + j) % a->page_tokens);
        for (int32_t d = 0; d < s->v_dim; d++)
            u->o[d] = CPU_FMA(p[j], get(base, at + (size_t)d, elem), u->o[d]);
    }
    u->m = m;
}

/* One span: out = m, l, o[v_dim]. */
static void span(const pb_attend_args *a, query *u, int32_t n, size_t elem, float *out)
{
    u->m = -__builtin_inff();
    u->o = out + 2;
    for (int32_t i = 0; i < LANES; i++)
        u->l[i] = 0.0f;
    for (int32_t d = 0; d < a->shape->v_dim; d++)
        u->o[d] = 0.0f;
    for (int32_t t0 = n * PB_SPAN; t0 < (n + 1) * PB_SPAN; t0 += PB_TILE)
        if (t0 <= u->last && t0 + PB_TILE > u->first)
            tile(a, u, t0, elem);
    for (int32_t half = LANES / 2; half > 0; half /= 2)
        for (int32_t i = 0; i < half; i++)
            u->l[i] += u->l[i + half];
    out[0] = u->m;
    out[1] = u->l[0];
}

void cpu_merge_spans(const float *part, int64_t stride, int32_t n_spans, int32_t v_dim, float *y)
{
    float m = -__builtin_inff(), l = 0.0f;
    for (int32_t d = 0; d < v_dim; d++)
        y[d] = 0.0f;
    for (int32_t s = 0; s < n_spans; s++, part += stride) {
        if (part[0] == -__builtin_inff())
            continue;
        float top = part[0] > m ? part[0] : m;
        float a = m_exp(m - top), b = m_exp(part[0] - top);
        l = CPU_FMA(part[1], b, l * a);
        for (int32_t d = 0; d < v_dim; d++)
            y[d] = CPU_FMA(part[2 + d], b, y[d] * a);
        m = top;
    }
    float inv = 1.0f / l;
    for (int32_t d = 0; d < v_dim; d++)
        y[d] *= inv;
}

static size_t scratch_bytes(const pb_kv_shape *s, int32_t n_heads, int32_t max_ctx)
{
    size_t spans = (size_t)max_ctx / PB_SPAN + 1;
    (void)n_heads;
    return CPU_ALIGN64((size_t)s->head_dim * 4 + spans * (size_t)(s->v_dim + 2) * 4);
}

static void attend(const pb_attend_args *a, int32_t item0, int32_t item1, size_t elem)
{
    const pb_kv_shape *s = a->shape;
    int32_t heads = a->n_heads / s->n_kv_heads;
    float *q = a->scratch, *tmp = q + s->head_dim;
    for (int32_t i = item0; i < item1; i++) {
        const pb_attend_item *it = &a->items[i];
        for (int32_t n = 0; n < it->n_rows * heads; n++) {
            int32_t r = it->row0 + n / heads, h = it->kv_head * heads + n % heads;
            query u = { .q = q, .head = it->kv_head, .table = cpu_table(a, it->seq) };
            u.last = PB_STEP_COL(a->step, kv_pos)[r];
            u.first = cpu_first_key(a->window, u.last);
            for (int32_t d = 0; d < s->head_dim; d++)
                q[d] = a->q[r * a->q_stride + h * s->head_dim + d] * a->scale;
            float *part = tmp;
            if (a->part)
                part = a->part + i * a->part_stride + (int64_t)n * it->n_spans * (s->v_dim + 2);
            for (int32_t k = 0; k < it->n_spans; k++)
                span(a, &u, it->span0 + k, elem, part + (int64_t)k * (s->v_dim + 2));
            if (!a->part)
                cpu_merge_spans(part, s->v_dim + 2, it->n_spans, s->v_dim,
                                a->y + r * a->y_stride + h * s->v_dim);
        }
    }
}

static int always(void)
{
    return 1;
}

#define FORMAT(NAME, ELEM)                                                                         \
    static uint64_t layer_bytes_##NAME(const pb_kv_shape *s, int32_t page_tokens)                  \
    {                                                                                              \
        return cpu_kv_layer_bytes(s, page_tokens, ELEM);                                           \
    }                                                                                              \
    static void write_##NAME(const pb_attend_args *a, int32_t row0, int32_t row1)                  \
    {                                                                                              \
        write_rows(a, row0, row1, ELEM);                                                           \
    }                                                                                              \
    static void attend_##NAME(const pb_attend_args *a, int32_t item0, int32_t item1)               \
    {                                                                                              \
        attend(a, item0, item1, ELEM);                                                             \
    }                                                                                              \
    static void copy_##NAME(const pb_kv_shape *s, int32_t page_tokens, const void *src, void *dst, \
                            int32_t n_tokens)                                                      \
    {                                                                                              \
        cpu_kv_copy(s, page_tokens, src, dst, n_tokens, ELEM);                                     \
    }                                                                                              \
    static const pb_kvfmt format_##NAME = {                                                        \
        .size = sizeof(pb_kvfmt),                                                                  \
        .name = #NAME,                                                                             \
        .isa = "any",                                                                              \
        .granule = LANES,                                                                          \
        .usable = always,                                                                          \
        .layer_bytes = layer_bytes_##NAME,                                                         \
        .scratch_bytes = scratch_bytes,                                                            \
        .write = write_##NAME,                                                                     \
        .attend = attend_##NAME,                                                                   \
        .copy = copy_##NAME,                                                                       \
    };

FORMAT(f16, 2)
FORMAT(f32, 4)

const pb_kvfmt *const cpu_kvfmt_any[] = { &format_f16, &format_f32, NULL };
