/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-common/draw.c - the definition in draw.h, made fast: argmax in blocks that
 * compilers vectorise, filters by radix selection instead of a sort, Gumbel noise with two
 * logarithms only for tokens that can still win. Each shortcut gives the result of the plain
 * definition; tests/unit/test_draw.c compares them.
 */
#include "draw.h"

#include <string.h>

#define ONE_W 1099511627776.0 /* 2^40 */
#define MAX_VOCAB (1 << 23)   /* so that a sum of weights fits 63 bits */
#define LN2 0.69314718055994530942

/* A candidate. key orders: higher logit first, then lower id; unique. */
typedef struct item {
    uint64_t key, w;
} item;

static uint64_t bits_of(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static double double_of(uint64_t u)
{
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

#define ROUND 6755399441055744.0          /* 1.5 * 2^52: adding it rounds to an integer */
#define LN2_HI 0.693147180369123816490    /* upper 32 bits: n * LN2_HI is exact */
#define LN2_LO 1.90821492927058770002e-10 /* the rest */
/* Taylor series of e^r to r^13: for |r| <= ln2 / 2 the next term is below 2^-57 */
static const double exp_series[] = { 1.0,
                                     1.0,
                                     1.0 / 2,
                                     1.0 / 6,
                                     1.0 / 24,
                                     1.0 / 120,
                                     1.0 / 720,
                                     1.0 / 5040,
                                     1.0 / 40320,
                                     1.0 / 362880,
                                     1.0 / 3628800,
                                     1.0 / 39916800,
                                     1.0 / 479001600,
                                     1.0 / 6227020800.0 };

/* x = n ln2 + r, |r| <= ln2 / 2. */
double pbc_exp(double x)
{
    if (!(x > -708.0))
        return 0.0;
    double n = x * (1.0 / LN2) + ROUND;
    n -= ROUND;
    double r = x - n * LN2_HI;
    r -= n * LN2_LO;
    double y = exp_series[13];
    for (int i = 12; i >= 0; i--)
        y = y * r + exp_series[i];
    return y * double_of((uint64_t)((int64_t)n + 1023) << 52);
}

/* x = 2^e m, m in [sqrt 1/2, sqrt 2); log m = 2 atanh(s), s = (m-1)/(m+1), as a series in s. */
double pbc_log(double x)
{
    uint64_t u = bits_of(x);
    int64_t e = (int64_t)(u >> 52) - 1023;
    double m = double_of((u & 0x000fffffffffffffull) | 0x3ff0000000000000ull);
    if (m > 1.41421356237309504880) {
        m *= 0.5;
        e++;
    }
    double s = (m - 1.0) / (m + 1.0), t = s * s, y = 1.0 / 25;
    for (int k = 23; k >= 1; k -= 2)
        y = y * t + 1.0 / k;
    return 2.0 * s * y + (double)e * LN2;
}

/* Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014): finaliser. */
static uint64_t mix64(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

#define GOLDEN 0x9e3779b97f4a7c15ull

static uint64_t noise_base(uint64_t seed, int64_t pos)
{
    return mix64(mix64(seed + GOLDEN) + ((uint64_t)pos + 1) * GOLDEN);
}

static uint64_t noise_hash(uint64_t base, int32_t id)
{
    return mix64(base + ((uint64_t)(uint32_t)id + 1) * GOLDEN);
}

static double gumbel_of(uint64_t h)
{
    double u = ((double)(h >> 12) + 0.5) * (1.0 / 4503599627370496.0);
    return -pbc_log(-pbc_log(u));
}

double pbc_gumbel(uint64_t seed, int64_t pos, int32_t id)
{
    return gumbel_of(noise_hash(noise_base(seed, pos), id));
}

/* Highest value of a block, or NaN if one is in it: 16 lanes that a compiler keeps in vectors.
 * The comparison is written so that a NaN, once in a lane, stays. */
static float block_max(const float *l, int64_t n)
{
    float m[16];
    int64_t i = 0;
    int bad = 0;
    for (int k = 0; k < 16; k++)
        m[k] = -__builtin_inff();
    for (; i + 16 <= n; i += 16)
        for (int k = 0; k < 16; k++) {
            bad |= l[i + k] != l[i + k];
            m[k] = l[i + k] > m[k] ? l[i + k] : m[k];
        }
    for (int k = 0; i < n; i++, k++) {
        bad |= l[i] != l[i];
        m[k] = l[i] > m[k] ? l[i] : m[k];
    }
    if (bad)
        return __builtin_nanf("");
    for (int k = 1; k < 16; k++)
        m[0] = m[k] > m[0] ? m[k] : m[0];
    return m[0];
}

int32_t pbc_argmax(const float *l, int64_t n)
{
    enum { BLOCK = 1024 };
    float best = -__builtin_inff();
    int64_t at = -1;
    for (int64_t i = 0; i < n; i += BLOCK) {
        float m = block_max(l + i, n - i < BLOCK ? n - i : BLOCK);
        if (m != m)
            return -1;
        if (m > best) {
            best = m;
            at = i;
        }
    }
    if (at < 0)
        return -1;
    while (!(l[at] == best))
        at++;
    return (int32_t)at;
}

/* float -> integer of the same order (IEEE 754); -0 and +0 are one value */
static uint32_t order_of(float f)
{
    uint32_t u;
    f += 0.0f;
    memcpy(&u, &f, sizeof u);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

static float float_of_order(uint32_t u)
{
    float f;
    u = u & 0x80000000u ? u & 0x7fffffffu : ~u;
    memcpy(&f, &u, sizeof f);
    return f;
}

static int32_t id_of(const item *it)
{
    return (int32_t)(0xffffffffu - (uint32_t)it->key);
}

static double z_of(float l, float max, float t)
{
    return ((double)l - (double)max) / (double)t;
}

static uint64_t weight_of(double z)
{
    return (uint64_t)(pbc_exp(z) * ONE_W);
}

typedef double vec __attribute__((vector_size(16)));
typedef int64_t vec_i __attribute__((vector_size(16)));

/* The two weights of z: just the operations of pbc_exp, in whatever registers there are, so
 * the bits are the same. */
static inline vec weight_pair(vec z)
{
    vec_i in = z > -700.0; /* below, the weight is 0 anyway */
    z = (vec)((vec_i)z & in);
    vec n = z * (1.0 / LN2) + ROUND;
    vec_i e = (((vec_i)n + 1023) << 52) & in; /* ROUND leaves the integer in the low bits */
    n -= ROUND;
    z -= n * LN2_HI;
    z -= n * LN2_LO;
    vec y = z * exp_series[13] + exp_series[12];
#pragma GCC unroll 16
    for (int i = 11; i >= 0; i--)
        y = y * z + exp_series[i];
    return y * (vec)e * ONE_W;
}

static float logit_of(const item *it)
{
    return float_of_order((uint32_t)(it->key >> 32));
}

static void fill_weights(item *it, int64_t n, float max, float t)
{
    int64_t i = 0;
    for (; i + 2 <= n; i += 2) {
        vec z = { z_of(logit_of(&it[i]), max, t), z_of(logit_of(&it[i + 1]), max, t) };
        vec w = weight_pair(z);
        it[i].w = (uint64_t)(int64_t)w[0];
        it[i + 1].w = (uint64_t)(int64_t)w[1];
    }
    if (i < n)
        it[i].w = weight_of(z_of(logit_of(&it[i]), max, t));
}

/* Keeps the shortest beginning of it[n], by key descending, whose weights (or count, if count
 * is set) reach target; returns its length. Radix selection: [0, a) is kept, [a, e) is open,
 * the rest is dropped; each pass looks at 8 more bits of the open keys, finds the digit in
 * which the target is reached and divides by it, so it is O(n) for any input. */
static int64_t keep_first(item *it, int64_t n, uint64_t target, int count)
{
    int64_t a = 0, e = n;
    uint64_t above = 0;
    for (int shift = 56; shift >= 0 && e - a > 1; shift -= 8) {
        uint64_t sum[256] = { 0 };
        for (int64_t i = a; i < e; i++)
            sum[it[i].key >> shift & 255] += count ? 1 : it[i].w;
        uint64_t b = 255;
        while (b > 0 && above + sum[b] < target)
            above += sum[b--];
        for (int64_t i = a; i < e;) {
            uint64_t digit = it[i].key >> shift & 255;
            item x = it[i];
            if (digit > b) {
                it[i++] = it[a];
                it[a++] = x;
            } else if (digit < b) {
                it[i] = it[--e];
                it[e] = x;
            } else {
                i++;
            }
        }
    }
    return e;
}

/* A lower bound on the k-th highest of l[n]: the k-th highest of the maxima of >= k blocks.
 * -infinity when the blocks would be too short to help. */
static float kth_bound(const float *l, int64_t n, int64_t k, item *tmp)
{
    int64_t n_blocks = k * 4 < 64 ? 64 : k * 4;
    int64_t len = n / n_blocks;
    if (len < 8)
        return -__builtin_inff();
    for (int64_t b = 0; b < n_blocks; b++)
        tmp[b] = (item){ (uint64_t)order_of(block_max(l + b * len, len)) << 32 | (uint64_t)b, 0 };
    int64_t m = keep_first(tmp, n_blocks, (uint64_t)k, 1);
    uint64_t low = tmp[0].key;
    for (int64_t i = 1; i < m; i++)
        low = tmp[i].key < low ? tmp[i].key : low;
    return float_of_order((uint32_t)(low >> 32));
}

static int64_t gather(const float *l, int64_t n, float at_least, item *it)
{
    int64_t m = 0;
    for (int64_t i = 0; i < n; i++)
        if (l[i] >= at_least && l[i] > -__builtin_inff())
            it[m++] = (item){ (uint64_t)order_of(l[i]) << 32 | (0xffffffffu - (uint32_t)i), 0 };
    return m;
}

/* top_k, top_p, min_p; returns the number kept in it. */
static int64_t filter(const pb_draw *d, const float *l, int64_t n, float max, item *it)
{
    int64_t m;
    if (d->top_k > 0 && d->top_k < n) {
        m = gather(l, n, kth_bound(l, n, d->top_k, it), it);
        if (m > d->top_k)
            m = keep_first(it, m, (uint64_t)d->top_k, 1);
    } else {
        m = gather(l, n, -__builtin_inff(), it);
    }
    int use_p = d->top_p<1.0f, use_min = d->min_p> 0.0f;
    if (!use_p && !use_min)
        return m;
    uint64_t sum = 0;
    fill_weights(it, m, max, d->temperature);
    for (int64_t i = 0; i < m; i++)
        sum += it[i].w;
    if (use_p) {
        double want = d->top_p > 0.0f ? (double)d->top_p * (double)sum : 0.0;
        uint64_t target = (uint64_t)want;
        target += (double)target < want;
        m = keep_first(it, m, target < 1 ? 1 : target, 0);
    }
    if (use_min) {
        double low = (double)d->min_p < 1.0 ? (double)d->min_p * ONE_W : ONE_W;
        item first = it[0];
        int64_t k = 0;
        for (int64_t i = 0; i < m; i++) {
            if (it[i].key > first.key)
                first = it[i];
            if ((double)it[i].w >= low)
                it[k++] = it[i];
        }
        if (k == 0)
            it[k++] = first;
        m = k;
    }
    return m;
}

/* Can the token with noise hash h and distance z still reach best? As -log u >= 1 - u, its
 * noise is at most -log(1 - u) <= (1 + leading zeros of ~h) ln 2; the margin covers rounding. */
static int can_win(uint64_t h, double z, double best)
{
    int c = ~h >> 12 ? __builtin_clzll(~h) : 52;
    return z + (double)(c + 1) * LN2 + 1e-6 >= best;
}

typedef struct race {
    uint64_t base;
    double best;
    int32_t id;
} race;

static void race_run(race *r, int32_t id, double z)
{
    uint64_t h = noise_hash(r->base, id);
    if (!can_win(h, z, r->best))
        return;
    double s = z + gumbel_of(h);
    if (s > r->best || (s == r->best && id < r->id)) {
        r->best = s;
        r->id = id;
    }
}

static int32_t gumbel_all(const pb_draw *d, const float *l, int64_t n, int32_t arg)
{
    race r = { noise_base(d->seed, d->pos), -1e300, 0 };
    float max = l[arg];
    race_run(&r, arg, 0.0); /* the favourite first: most others are then out by their logit */
    double t = (double)d->temperature;
    for (int64_t i0 = 0; i0 < n; i0 += 256) {
        int64_t i1 = i0 + 256 < n ? i0 + 256 : n;
        /* 36.8 > the highest noise, -log(2^-53); below this logit nothing wins */
        double cut = (double)max + (r.best - 36.8) * t;
        for (int64_t i = i0; i < i1; i++)
            if ((double)l[i] >= cut && l[i] > -__builtin_inff())
                race_run(&r, (int32_t)i, z_of(l[i], max, d->temperature));
    }
    return r.id;
}

static int32_t gumbel_items(const pb_draw *d, const float *l, float max, const item *it, int64_t m)
{
    race r = { noise_base(d->seed, d->pos), -1e300, 0 };
    for (int64_t i = 0; i < m; i++)
        race_run(&r, id_of(&it[i]), z_of(l[id_of(&it[i])], max, d->temperature));
    return r.id;
}

/* Disallowed tokens become -infinity. Bits beyond the vocabulary do not count. */
static int apply_allow(const uint32_t *allow, float *l, int64_t n)
{
    int64_t n_words = (n + 31) / 32;
    uint32_t any = 0;
    for (int64_t w = 0; w < n_words; w++) {
        uint32_t in_row = n - w * 32 >= 32 ? 0xffffffffu : (1u << (n - w * 32)) - 1;
        uint32_t off = ~allow[w] & in_row;
        any |= allow[w] & in_row;
        if (off == 0xffffffffu) {
            for (int k = 0; k < 32; k++)
                l[w * 32 + k] = -__builtin_inff();
            continue;
        }
        for (; off; off &= off - 1)
            l[w * 32 + __builtin_ctz(off)] = -__builtin_inff();
    }
    return any ? 0 : PB_E_INVAL;
}

static int apply_edits(const pb_draw *d, float *l, int64_t n)
{
    for (int32_t i = 0; i < d->n_edits; i++) {
        const pb_edit *e = &d->edits[i];
        if (e->id < 0 || e->id >= n)
            return PB_E_INVAL;
        float x = l[e->id];
        l[e->id] = (x > 0.0f ? x / e->penalty : x * e->penalty) + e->add;
    }
    return 0;
}

static int logprob_of(const float *l, int64_t n, int32_t id, float *out)
{
    int32_t arg = pbc_argmax(l, n);
    if (arg < 0 || l[arg] > 3.0e38f)
        return PB_E_NUMERIC;
    uint64_t sum = 0;
    int64_t i = 0;
    for (; i + 2 <= n; i += 2) {
        vec z = { (double)l[i] - (double)l[arg], (double)l[i + 1] - (double)l[arg] };
        vec w = weight_pair(z);
        sum += (uint64_t)(int64_t)w[0] + (uint64_t)(int64_t)w[1];
    }
    for (; i < n; i++)
        sum += weight_of((double)l[i] - (double)l[arg]);
    if (!(l[id] > -__builtin_inff())) {
        *out = l[id];
        return 0;
    }
    *out = (float)(((double)l[id] - (double)l[arg]) - pbc_log((double)sum * (1.0 / ONE_W)));
    return 0;
}

static size_t row_bytes(int64_t n_vocab)
{
    return ((size_t)n_vocab * sizeof(float) + 63) / 64 * 64;
}

size_t pbc_draw_scratch(int64_t n_vocab)
{
    return row_bytes(n_vocab) + (size_t)n_vocab * sizeof(item);
}

int pbc_draw(const pb_draw *d, const float *logits, int64_t n_vocab, void *scratch, int32_t *id,
             float *logprob)
{
    if (n_vocab < 1 || n_vocab > MAX_VOCAB || d->forced >= n_vocab)
        return PB_E_INVAL;
    const float *l = logits;
    if (d->forced >= 0) {
        *id = d->forced;
    } else {
        if (d->allow || d->n_edits > 0) {
            float *row = scratch;
            memcpy(row, logits, (size_t)n_vocab * sizeof *row);
            int rc = apply_edits(d, row, n_vocab);
            if (!rc && d->allow)
                rc = apply_allow(d->allow, row, n_vocab);
            if (rc)
                return rc;
            l = row;
        }
        int32_t arg = pbc_argmax(l, n_vocab);
        if (arg < 0 || l[arg] > 3.0e38f)
            return PB_E_NUMERIC;
        item *it = (item *)(void *)((char *)scratch + row_bytes(n_vocab));
        if (!(d->temperature > 0.0f))
            *id = arg;
        else if ((d->top_k > 0 && d->top_k < n_vocab) || d->top_p < 1.0f || d->min_p > 0.0f)
            *id = gumbel_items(d, l, l[arg], it, filter(d, l, n_vocab, l[arg], it));
        else
            *id = gumbel_all(d, l, n_vocab, arg);
    }
    if (logprob && d->n_logprobs >= 0)
        return logprob_of(logits, n_vocab, *id, logprob);
    return 0;
}
