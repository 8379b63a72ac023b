/* SPDX-License-Identifier: MIT
 *
 * core/fpmode.h - the floating-point control register of this thread. Bits are equal only
 * where denormals stay denormals and rounding is to nearest; a library linked with
 * -ffast-math changes that for the thread that loads it and all that it starts.
 */
#ifndef PBI_FPMODE_H
#define PBI_FPMODE_H
#include <stdint.h>

/* The register; 0 where it is not known how to read it. [any] */
static inline uint64_t pbi_fp_get(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_stmxcsr();
#elif defined(__aarch64__)
    uint64_t v;
    __asm__ volatile("mrs %0, fpcr" : "=r"(v));
    return v;
#else
    return 0;
#endif
}

static inline void pbi_fp_set(uint64_t v)
{
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr((unsigned)v);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(v));
#else
    (void)v;
#endif
}

#if defined(__x86_64__)
enum { PBI_FP_FLUSH = 0x8040, PBI_FP_ROUND = 0x6000 }; /* FTZ, DAZ; rounding */
#elif defined(__aarch64__)
enum { PBI_FP_FLUSH = 1 << 24, PBI_FP_ROUND = 3 << 22 };
#else
enum { PBI_FP_FLUSH = 0, PBI_FP_ROUND = 0 };
#endif
enum { PBI_FP_BITS = PBI_FP_FLUSH | PBI_FP_ROUND };

/* Puts rounding and denormals right for this thread; 1 if they were not. For threads that
 * compute: once before each step. [any] */
static inline int pbi_fp_restore(void)
{
    uint64_t v = pbi_fp_get();
    if (!(v & PBI_FP_BITS))
        return 0;
    pbi_fp_set(v & ~(uint64_t)PBI_FP_BITS);
    return 1;
}
#endif
