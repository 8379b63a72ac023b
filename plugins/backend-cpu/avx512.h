/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/avx512.h - included first by files whose code may use AVX512: all that
 * follows is compiled for it, whatever the flags of the build. It is run only after
 * cpu_has_avx512() said yes.
 */
#ifndef CPU_AVX512_H
#define CPU_AVX512_H
#if defined(__clang__)
#pragma clang attribute push(                                                                      \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c"))),        \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")
#endif
#include <immintrin.h>
#endif
