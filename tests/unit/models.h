/* SPDX-License-Identifier: MIT
 *
 * tests/unit/models.h - opens a weights plugin and lets model-llama write the program, for tests
 * of the model side without a pipeline.
 */
#ifndef MODELS_H
#define MODELS_H
#include "plug.h"
#include "program.h"

/* path of a file under the folder of real test material; the test is skipped if it is absent */
const char *data_path(const char *under);
int data_absent(void);

/* Opens a weights plugin on path. PB_E_* of open(); err is filled then. The plugin stays open. */
int weights_open(plug *w, const char *name, const char *const *options, const char *path,
                 const pb_meta **meta, pb_err *err);
/* Lets model-llama write the program of meta; err belongs to the program and outlives it. */
int model_build(plug *m, const pb_meta *meta, pbi_program **out, pb_err *err);
const pb_tensor *meta_tensor(const pb_meta *m, const char *name);
const pb_meta_kv *meta_key(const pb_meta *m, const char *key);
#endif
