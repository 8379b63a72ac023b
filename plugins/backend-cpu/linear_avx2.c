/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/linear_avx2.c - the rows of AVX2.
 */
#include "cpu.h"

#if defined(__x86_64__)
const pb_linear_kernel *const cpu_linear_avx2[] = { NULL };
#endif
