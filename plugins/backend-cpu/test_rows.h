/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/test_rows.h - what the parts of test_rows share: operands that end where
 * memory ends, random numbers, comparison of floats.
 *
 *   test_rows.c       main, products             test_rows_kv.c  KV formats
 *   test_rows_types.c   stored types             test_rows_elem.c  elementwise operations
 *
 * Invariant: an operand's last byte is the last before a page without access, so that reading
 * or writing one byte more is a crash.
 */
#ifndef TEST_ROWS_H
#define TEST_ROWS_H
#include "cpu.h"
#include "math.h"

enum { CANARY = 0xa5, LEAD = 256 }; /* byte of untouched memory; bytes checked before an operand */

typedef struct tail { /* memory that ends before a page without access */
    char *mem;        /* of the mapping */
    size_t room;
} tail;

/* n bytes that end where the memory does, all of it filled with `fill`. Grows. */
void *tail_take(tail *t, size_t n, int fill);
/* 1 if the bytes before the operand p of t are still `fill` */
int tail_lead_ok(const tail *t, const void *p, int fill);

uint32_t rnd_next(uint32_t *s); /* 24 bits */
static inline int32_t rnd_to(uint32_t *s, int32_t n)
{
    return (int32_t)(rnd_next(s) % (uint32_t)n); /* 0..n-1 */
}
static inline float rnd_float(uint32_t *s)
{
    return (float)rnd_next(s) * 0x1p-23f - 1.0f; /* [-1, 1) */
}
/* any bits: denormals, infinities and NaN among them */
static inline float rnd_bits(uint32_t *s)
{
    uint32_t hi = rnd_next(s);
    return m_float(hi << 16 ^ rnd_next(s));
}

/* Which NaN it is, is not defined (docs/numerics.md). */
static inline int same_float(float a, float b)
{
    uint32_t x = m_bits(a), y = m_bits(b);
    return x == y || ((x & 0x7fffffffu) > 0x7f800000u && (y & 0x7fffffffu) > 0x7f800000u);
}

int seconds_over(double since, double part); /* of PATCHBAY_FUZZ_SECONDS (0) since `since` */
double now_s(void);

/* ---- stored types (test_rows_types.c) ---- */

enum { F_NORMAL, F_EXTREME, F_TINY, F_WILD, TYPE_FILLS }; /* what the numbers are like */
typedef struct element { /* means d * q, or fma(d, q, m) if its type has minima; floats: d */
    float d, m;
    int q;
} element;
size_t type_block(int32_t type, size_t *elements); /* bytes and elements of a stored block */
int type_has_min(int32_t type);
int type_group(int32_t type); /* elements that share a scale */
element type_at(int32_t type, const uint8_t *block, int k);
void type_fill(int32_t type, int32_t fill, uint8_t *block, uint32_t *s); /* a random block */

void test_products(void **state);
void test_products_see_faults(void **state);
void test_kv(void **state);
void test_kv_see_faults(void **state);
void test_elem(void **state);
#endif
