/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/elem_avx2.c - elementwise operations, compiled for AVX2. The lines are
 * elem.inc's; see there for its invariant.
 */
#if defined(__x86_64__)
#include "avx2.h"

#include "elem.inc"

CPU_ELEM_TABLE(cpu_elem_avx2, "avx2", cpu_has_avx2)
#include "isa_end.h"
#endif
