/* SPDX-License-Identifier: MIT
 *
 * compare/bundle.h - a comparison that another machine can run again: effective pipelines, the
 * requests, options, the model's hash, and the document of what was measured. One JSON file.
 *
 * It holds a list of requests, or a workload: its INI text and the file that it reads. Invariant: a
 * bundle names the model and the plugins by hash, so that a replay can say what is not the same.
 */
#ifndef PBC_BUNDLE_H
#define PBC_BUNDLE_H
#include "trial.h"
#include "workload/workload.h"
#include <jansson.h>

/* Writes the file; requests or workload, the other is NULL. 0, or PB_E_* with err. */
int pbc_bundle_write(const char *path, const pbc_options *o, const pbi_requests *requests,
                     const pbw_workload *workload, const json_t *result, pb_err *err);

/* A bundle that was read. */
typedef struct pbc_bundle {
    json_t *doc;
    pbi_requests requests;
    pbw_workload *workload;                /* instead of requests, or NULL */
    pbi_pipeline *pipelines[PBC_MAX_ARMS]; /* [n_arms + 1] */
    const char *names[PBC_MAX_ARMS];       /* in doc */
    int n_arms;
    pbc_options o; /* as they were; source, callbacks and pipelines unset, model the bundle's */
} pbc_bundle;
int pbc_bundle_read(const char *path, pbc_bundle *out, pb_err *err);
void pbc_bundle_clear(pbc_bundle *b);

/* Compares a new document with the bundle's: {"holds": bool, "notes": [text]}. A verdict holds
 * unless faster has become slower, equal tokens unequal, or the other way round; where one of the
 * two runs could not decide, that is noted. model: the file that the new one used. */
json_t *pbc_replay(const pbc_bundle *b, const json_t *now, const char *model);
#endif
