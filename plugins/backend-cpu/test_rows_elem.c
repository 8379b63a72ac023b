/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/test_rows_elem.c - every table of elementwise operations against
 * cpu_elem_any, lengths 1 to 130 at any alignment. A part of test_rows.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "test_rows.h"

enum { LONGEST = 130, FILLS = 4 };
enum { NORM, SILU, GELU, ADD, ADD_SELF, SCALE, SCALE_SELF, COSSIN, PAIRS, HALVES, QUANT, N_OPS };

static const char *const names[] = { "norm",          "silu_mul",       "gelu_mul", "add",
                                     "add to a",      "scale",          "scale a",  "cossin",
                                     "rope of pairs", "rope of halves", "quant" };

typedef struct inputs {
    tail a, b, want, got;
    double freq[LONGEST];
    uint32_t seed;
} inputs;

static inputs in_;

/* n floats that end where memory does */
static float *numbers(tail *t, int64_t n, int fill, uint32_t *s)
{
    float *x = tail_take(t, (size_t)n * 4, 0xff);
    for (int64_t i = 0; i < n; i++) {
        float v = rnd_float(s) * (fill == 1 ? 100.0f : 3.0f);
        if (fill == 2) /* subnormals and what is near */
            v = m_float(m_bits(rnd_bits(s)) & 0x81ffffffu);
        if (fill == 3 && rnd_to(s, 4) == 0)
            v = rnd_bits(s);
        x[i] = v;
    }
    return x;
}

/* Runs operation op with n elements and gives its output, which ends where memory does. */
static float *run_op(const cpu_elem *e, int op, int64_t n, int fill, tail *out, size_t *bytes)
{
    inputs *in = &in_;
    uint32_t s = in->seed;
    float *a = numbers(&in->a, n, fill, &s), *b = numbers(&in->b, n, fill, &s);
    int64_t pairs = n < 2 ? 0 : 1 + rnd_to(&s, (int32_t)(n / 2));
    *bytes = op == QUANT ? pb_x_bytes(PB_X_Q8, n) : (size_t)(op == COSSIN ? 2 * n : n) * 4;
    float *y = tail_take(out, *bytes, CANARY);
    if (op == ADD_SELF || op == SCALE_SELF)
        memcpy(y, a, (size_t)n * 4);
    switch (op) {
    case NORM: e->norm(a, b, fill == 2 ? 0.0f : 1e-5f, n, y); break;
    case SILU: e->silu_mul(y, a, b, n); break;
    case GELU: e->gelu_mul(y, a, b, n); break;
    case ADD: e->add(y, a, b, n); break;
    case ADD_SELF: e->add(y, y, b, n); break;
    case SCALE: e->scale(y, a, b[0], n); break;
    case SCALE_SELF: e->scale(y, y, b[0], n); break;
    case COSSIN: e->cossin(in->freq, (double)(rnd_next(&s) >> fill * 6), n, y); break;
    case QUANT: e->quant(a, n, y); break;
    default: /* cosines and sines: any numbers do */
        b = numbers(&in->b, 2 * pairs, fill, &s);
        e->rope(y, a, b, pairs, n, op == PAIRS ? PB_ROPE_PAIRS : PB_ROPE_HALVES);
    }
    return y;
}

static int same(const cpu_elem *e, int op, int64_t n, int fill)
{
    size_t bytes;
    const float *want = run_op(&cpu_elem_any, op, n, fill, &in_.want, &bytes);
    const float *got = run_op(e, op, n, fill, &in_.got, &bytes);
    int ok = tail_lead_ok(&in_.got, got, CANARY);
    if (op == QUANT)
        return ok && !memcmp(want, got, bytes);
    for (size_t i = 0; i < bytes / 4; i++)
        ok &= same_float(want[i], got[i]);
    return ok;
}

/* finite() sees NaN and infinity at each place, and nothing else */
static int finite_ok(const cpu_elem *e, int64_t n)
{
    static const uint32_t bad[] = { 0x7f800000u, 0xff800000u, 0x7fc00000u, 0xff800001u };
    uint32_t s = in_.seed;
    float *x = numbers(&in_.a, n, 2, &s);
    int ok = e->finite(x, n) == 1;
    for (int64_t i = 0; i < n; i++) {
        float v = x[i];
        x[i] = m_float(bad[i % 4]);
        ok &= e->finite(x, n) == 0;
        x[i] = m_float(0x7f7fffffu); /* the greatest */
        ok &= e->finite(x, n) == 1;
        x[i] = v;
    }
    return ok;
}

/* 0, or 1 + the operation that differs */
static int differs(const cpu_elem *e, int64_t n)
{
    for (int op = 0; op < N_OPS; op++)
        for (int fill = 0; fill < FILLS; fill++) {
            in_.seed = (uint32_t)n * 977u + (uint32_t)fill * 31u + 7u;
            if ((op != QUANT || n % CPU_BLOCK == 0) && !same(e, op, n, fill))
                return 1 + op;
        }
    return finite_ok(e, n) ? 0 : 1 + N_OPS;
}

/* the partial sums of a norm in another order */
static void norm_wrong(const float *x, const float *w, float eps, int64_t n, float *y)
{
    float sum = 0.0f;
    for (int64_t i = 0; i < n; i++)
        sum = CPU_FMA(x[i], x[i], sum);
    float r = 1.0f / __builtin_sqrtf(sum / (float)n + eps);
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] * r * w[i];
}

/* e^-g as 1 / e^g: as good, other bits */
static void silu_wrong(float *y, const float *g, const float *u, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = g[i] / (1.0f + 1.0f / m_exp(g[i])) * u[i];
}

void test_elem(void **state)
{
    static const int64_t more[] = { 576, 1000, 1536, 4099 };
    const cpu_elem *e;
    cpu_elem wrong = cpu_elem_any;
    (void)state;
    for (int i = 0; i < LONGEST; i++)
        in_.freq[i] = 1.0 / (1.0 + 0.37 * i * i);
    wrong.norm = norm_wrong;
    assert_int_equal(differs(&wrong, 97), 1 + NORM);
    wrong = cpu_elem_any;
    wrong.silu_mul = silu_wrong;
    assert_int_equal(differs(&wrong, 97), 1 + SILU);
    for (int i = 0; (e = cpu_elem_at(i)) != NULL; i++) {
        if (!e->usable()) {
            print_message("elementwise %s: not on this machine\n", e->isa);
            continue;
        }
        for (int64_t n = 1; n <= LONGEST; n++) {
            int op = differs(e, n);
            if (op)
                fail_msg("%s of %lld elements: %s differs from plain C",
                         op > N_OPS ? "finite" : names[op - 1], (long long)n, e->isa);
        }
        for (size_t k = 0; k < sizeof more / sizeof more[0]; k++)
            for (int op = 0; op < N_OPS; op++)
                if (op != COSSIN && (op != QUANT || more[k] % CPU_BLOCK == 0))
                    assert_true(same(e, op, more[k], (int)k));
        if (e != &cpu_elem_any)
            print_message("elementwise %s = any: lengths 1 to %d\n", e->isa, LONGEST);
    }
}
