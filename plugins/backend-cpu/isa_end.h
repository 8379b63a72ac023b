/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/isa_end.h - included last by files that include avx2.h or avx512.h: clang
 * wants the end of what they began to be in the same file. Included once in each, so it has no
 * guard.
 */
#if defined(__clang__)
#pragma clang attribute pop
#endif
