/* SPDX-License-Identifier: MIT
 *
 * core/model.h - a model that was read: metadata, program, tokenizer. No weight is packed
 * here (core/device.h) and nothing runs.
 *
 * Invariant: tensors of the metadata stay readable until pbi_model_close, since packing reads
 * them later.
 */
#ifndef PBI_MODEL_H
#define PBI_MODEL_H
#include "instance.h"
#include "program.h"
#include "text/text.h"

enum {
    PBI_MODEL_NO_TEXT = 1,    /* no tokenizer is made */
    PBI_MODEL_NO_PROGRAM = 2, /* metadata and tokenizer only */
    PBI_MODEL_NEED_TEXT = 4   /* a model without tokenizer is an error, not just no tokenizer */
};

typedef struct pbi_model {
    pbi_instance *weights, *model; /* model: NULL with NO_PROGRAM */
    const pb_meta *meta;
    pbi_program *program;     /* NULL with NO_PROGRAM */
    pbi_tokenizer *tokenizer; /* NULL: none; then no_text says why */
    pb_err no_text;
    int32_t context; /* tokens: [pipeline] context, or what the model was trained with */
} pbi_model;

/* Reads path with the pipeline's weights plugin and writes the program with its model plugin.
 * p outlives the model. Errors name the file. [main] */
int pbi_model_open(const pbi_pipeline *p, const char *path, int flags, pbi_model **out,
                   pb_err *err);
void pbi_model_close(pbi_model *m); /* NULL allowed */
#endif
