/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/elem_any.c - elementwise operations for any machine: the definition of
 * their bits. The lines are elem.inc's; see there for its invariant.
 */
#include "elem.inc"

static int always(void)
{
    return 1;
}

CPU_ELEM_TABLE(cpu_elem_any, "any", always)
