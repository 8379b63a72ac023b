/* SPDX-License-Identifier: MIT
 *
 * patchbay/model.h - interfaces weights/1 (reads a model) and model/1 (writes its
 * program). Both run at load only, never at a step. Invariant: sizes in pb_meta
 * were checked against the file by the weights plugin; a model may trust them.
 */
#ifndef PATCHBAY_MODEL_H
#define PATCHBAY_MODEL_H

#include <patchbay/program.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PB_M_INT = 1, PB_M_FLOAT = 2, PB_M_BOOL = 3, PB_M_STR = 4 };

/* One metadata entry. Integers of any width arrive as int64_t (BOOL too), floats as
 * double. n = -1: a scalar, in i, f or s. n >= 0: an array, in is, fs or ss. */
typedef struct pb_meta_kv {
    const char *key;
    int32_t type, reserved;
    int64_t n;
    int64_t i;
    double f;
    pb_str s;
    const int64_t *is;
    const double *fs;
    const pb_str *ss;
} pb_meta_kv;

typedef struct pb_meta {
    size_t size;
    const char *naming; /* "gguf" or "hf": which names keys and tensors have */
    const char *path;   /* for messages */
    int32_t n_kv, n_tensors;
    const pb_meta_kv *kv;
    const pb_tensor *tensors;
} pb_meta;

/* weights/1 [main]. open() checks every size before use; memory stays below the
 * file's size + 64 MiB. meta() is valid until destroy. */
typedef struct pb_weights {
    size_t size;
    int (*open)(void *self, const char *path, pb_err *err);
    const pb_meta *(*meta)(void *self);
} pb_weights;

/* The host's side of a program under construction. Functions that return an id
 * return PB_E_* (negative) after filling err; the caller may go on and let finish
 * report the first error. Names are copied. [main] */
typedef struct pb_builder {
    size_t size;
    void *h;
    pb_err *err;
    pb_val (*value)(void *h, const char *name, int32_t width, int32_t picked);
    pb_wid (*weight)(void *h, int32_t role, int32_t n, const pb_piece *pieces);
    int32_t (*group)(void *h, const pb_kv_shape *shape);
    int (*op)(void *h, const pb_op *op); /* copies; checks widths, ids, write-once */
    int (*finish)(void *h, pb_val logits, int32_t n_vocab, int32_t ctx_train);
} pb_builder;

/* model/1 [main]. match: 0 = not mine, else a score. build: writes the program for a
 * context of max_ctx tokens; errors name the missing key or tensor. */
typedef struct pb_model {
    size_t size;
    int (*match)(const pb_meta *m);
    int (*build)(void *self, const pb_meta *m, int32_t max_ctx, const pb_builder *b, pb_err *err);
} pb_model;

#ifdef __cplusplus
}
#endif
#endif
