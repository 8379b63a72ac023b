/* SPDX-License-Identifier: MIT
 *
 * core/clock.h - the engine's clock: the monotonic one, or a virtual one that a simulating
 * backend moves. Lies in memory that a forked engine shares.
 */
#ifndef PBI_CLOCK_H
#define PBI_CLOCK_H
#include <patchbay/base.h>

typedef struct pbi_clock pbi_clock;
int pbi_clock_new(int is_virtual, pbi_clock **out, pb_err *err); /* [main] */
void pbi_clock_free(pbi_clock *c);                               /* NULL allowed */
int pbi_clock_is_virtual(const pbi_clock *c);
/* ns; the argument is a pbi_clock *, so that it fits pbi_services.now_ns. [any] */
int64_t pbi_clock_now(void *clock);
/* A virtual clock goes on to at least ns; a real one is left alone. */
void pbi_clock_reach(pbi_clock *c, int64_t ns);
/* clock/1: advance is refused (PB_E_STATE) on the real clock. */
const pb_clock *pbi_clock_service(const pbi_clock *c);
#endif
