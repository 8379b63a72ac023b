/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/attend_avx512.c - the KV formats f16 and f32 in AVX512: attend.inc, with as
 * many accumulators as there are registers.
 */
#if defined(__x86_64__)
#include "avx512.h"

#define MAX_R 6   /* lanes that share a load */
#define SCORE_G 4 /* groups of 16 keys at a time */
#define VALUE_N 4 /* groups of 16 elements of V at a time */
#include "attend.inc"

FORMAT(f16, "avx512", 30, cpu_has_avx512);
FORMAT(f32, "avx512", 30, cpu_has_avx512);

const pb_kvfmt *const cpu_kvfmt_avx512[] = { &format_f16, &format_f32, NULL };
#include "isa_end.h"
#endif
