/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/linear_avx512.c - the rows of AVX512.
 */
#include "cpu.h"

#if defined(__x86_64__)
const pb_linear_kernel *const cpu_linear_avx512[] = { NULL };
#endif
