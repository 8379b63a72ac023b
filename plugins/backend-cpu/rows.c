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
/* The compiler's runtime asks once, when it is loaded: in a virtual machine each cpuid costs
 * microseconds. It knows which registers the system saves. */
int cpu_has_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
}

int cpu_has_avx512(void)
{
    return cpu_has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
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

int cpu_is_extra(const cpu *d, const void *row)
{
    for (int32_t i = 0; d->extra && i < d->extra->n_linear; i++)
        if (d->extra->linear[i] == row)
            return 1;
    for (int32_t i = 0; d->extra && i < d->extra->n_kvfmt; i++)
        if (d->extra->kvfmt[i] == row)
            return 1;
    return 0;
}
