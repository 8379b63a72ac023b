/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/elem_avx512.c - elementwise operations, compiled for AVX512. The lines are
 * elem.inc's; see there for its invariant.
 */
#if defined(__x86_64__)
#include "avx512.h"

#include "elem.inc"

CPU_ELEM_TABLE(cpu_elem_avx512, "avx512", cpu_has_avx512)
#include "isa_end.h"
#endif
