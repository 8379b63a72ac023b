/* SPDX-License-Identifier: MIT
 *
 * core/team.h - the threads of a device behind service team/1.
 *
 * Threads start at the first run, never before, so that a process may fork until then, and after
 * pbi_team_rest; a forked child starts its own. Invariant: how many there are changes no result,
 * since phases divide outputs.
 */
#ifndef PBI_TEAM_H
#define PBI_TEAM_H
#include <patchbay/base.h>

typedef struct pbi_team pbi_team;
/* n_threads: 0 = the processors that this process may use. [main] */
int pbi_team_new(int32_t n_threads, pbi_team **out, pb_err *err);
void pbi_team_free(pbi_team *t); /* joins; NULL allowed */
/* Ends the threads; the next run starts them anew. So that a process may fork after work that is
 * not a step's, such as packing weights. [main] */
void pbi_team_rest(pbi_team *t);
const pb_team *pbi_team_service(const pbi_team *t);
/* processors that this process may run on */
int32_t pbi_team_processors(void);
#endif
