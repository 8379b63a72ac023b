/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/avx2.h - included first by files whose code may use AVX2: all that
 * follows is compiled for it, whatever the flags of the build. It is run only after
 * cpu_has_avx2() said yes.
 */
#ifndef CPU_AVX2_H
#define CPU_AVX2_H
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#include <immintrin.h>
#endif
