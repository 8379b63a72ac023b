/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/rows.c - the table of all rows, the choice among them, and their check
 * against the plain-C ones.
 *
 * Choice: among rows that the machine can run and `isa` allows, the highest speed; a kernels
 * plugin's row wins a tie. Invariant: the choice cannot be seen in the results.
 */
#include "cpu.h"
#include "math.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

/* XCR0: which registers the system saves at a switch */
static uint32_t saved_state(void)
{
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    __asm__("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a;
}

int cpu_has_avx2(void)
{
    uint32_t a, b, c, d, b7, c7;
    if ((saved_state() & 6u) != 6u || !__get_cpuid(1, &a, &b, &c, &d))
        return 0;
    if (!(c & bit_FMA) || !(c & bit_F16C) || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d))
        return 0;
    return (b7 & bit_AVX2) != 0;
}

int cpu_has_avx512(void)
{
    uint32_t a, b, c, d, want = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
    if (!cpu_has_avx2() || (saved_state() & 0xe6u) != 0xe6u)
        return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    return (b & want) == want && (c & bit_AVX512VNNI) != 0;
}
#else
int cpu_has_avx2(void)
{
    return 0;
}
int cpu_has_avx512(void)
{
    return 0;
}
#endif

static const pb_linear_kernel *const *const linear_tables[] = {
    cpu_linear_any,
#if defined(__x86_64__)
    cpu_linear_avx2,
    cpu_linear_avx512,
#endif
};

static const pb_kvfmt *const *const kvfmt_tables[] = {
    cpu_kvfmt_any,
#if defined(__x86_64__)
    cpu_kvfmt_avx2,
    cpu_kvfmt_avx512,
#endif
};

static const cpu_elem *const elem_table[] = {
    &cpu_elem_any,
#if defined(__x86_64__)
    &cpu_elem_avx2,
    &cpu_elem_avx512,
#endif
};

enum { N_TABLES = sizeof linear_tables / sizeof linear_tables[0] };

const pb_linear_kernel *cpu_linear_at(int i)
{
    for (int t = 0; t < N_TABLES; t++)
        for (int k = 0; linear_tables[t][k]; k++)
            if (i-- == 0)
                return linear_tables[t][k];
    return NULL;
}

const pb_kvfmt *cpu_kvfmt_at(int i)
{
    for (int t = 0; t < N_TABLES; t++)
        for (int k = 0; kvfmt_tables[t][k]; k++)
            if (i-- == 0)
                return kvfmt_tables[t][k];
    return NULL;
}

const cpu_elem *cpu_elem_at(int i)
{
    return i < N_TABLES ? elem_table[i] : NULL;
}

int cpu_isa_allowed(int32_t option, const char *isa)
{
    int need = !strcmp(isa, "any")    ? CPU_ISA_ANY
               : !strcmp(isa, "avx2") ? CPU_ISA_AVX2
                                      : CPU_ISA_AVX512;
    return option == CPU_ISA_AUTO || need <= option;
}

static int better_linear(const cpu *d, const pb_linear_kernel *k, int32_t w_type, int32_t x_format,
                         const pb_linear_kernel *best)
{
    return k->w_type == w_type && k->x_format == x_format && (!best || k->speed >= best->speed) &&
           cpu_isa_allowed(d->cfg->isa, k->isa) && k->usable();
}

const pb_linear_kernel *cpu_linear_choose(const cpu *d, int32_t w_type, int32_t x_format)
{
    const pb_linear_kernel *best = NULL, *k;
    for (int i = 0; (k = cpu_linear_at(i)) != NULL; i++)
        if (better_linear(d, k, w_type, x_format, best))
            best = k;
    for (int32_t i = 0; d->extra && i < d->extra->n_linear; i++)
        if (better_linear(d, d->extra->linear[i], w_type, x_format, best))
            best = d->extra->linear[i];
    return best;
}

static int better_kvfmt(const cpu *d, const pb_kvfmt *f, const char *name, const pb_kvfmt *best)
{
    return !strcmp(f->name, name) && (!best || f->speed >= best->speed) &&
           cpu_isa_allowed(d->cfg->isa, f->isa) && f->usable();
}

const pb_kvfmt *cpu_kvfmt_choose(const cpu *d, const char *name)
{
    const pb_kvfmt *best = NULL, *f;
    for (int i = 0; (f = cpu_kvfmt_at(i)) != NULL; i++)
        if (better_kvfmt(d, f, name, best))
            best = f;
    for (int32_t i = 0; d->extra && i < d->extra->n_kvfmt; i++)
        if (better_kvfmt(d, d->extra->kvfmt[i], name, best))
            best = d->extra->kvfmt[i];
    return best;
}
