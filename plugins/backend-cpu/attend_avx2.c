/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/attend_avx2.c - the KV formats f16 and f32 in AVX2: attend.inc, with as
 * many accumulators as there are registers.
 */
#if defined(__x86_64__)
#include "avx2.h"

#define MAX_R 2   /* lanes that share a load */
#define SCORE_G 2 /* groups of 16 keys at a time */
#define VALUE_N 2 /* groups of 16 elements of V at a time */
#include "attend.inc"

FORMAT(f16, "avx2", 20, cpu_has_avx2);
FORMAT(f32, "avx2", 20, cpu_has_avx2);

const pb_kvfmt *const cpu_kvfmt_avx2[] = { &format_f16, &format_f32, NULL };
#include "isa_end.h"
#endif
