/* SPDX-License-Identifier: MIT
 *
 * plugins/model-llama/llama.h - what the files of model-llama share: a model's hyperparameters
 * under one set of names, and lookups in the metadata of either naming.
 */
#ifndef LLAMA_H
#define LLAMA_H
#include <patchbay/plugin.h>

typedef struct shape {
    int32_t layers, width, heads, kv_heads, head_dim, ffn, context, rope_dims, rope, window;
    float eps;
    double rope_base, rope_scale;
    int32_t has_llama3, tied; /* tied: -1 unknown: what tensors exist decides */
    double l3_factor, l3_low, l3_high, l3_context;
} shape;

/* Which tensor: the index of its name in both namings. */
enum {
    T_EMBED,
    T_OUT_NORM,
    T_OUTPUT,
    T_FREQS,
    T_ATTN_NORM,
    T_Q,
    T_K,
    T_V,
    T_O,
    T_FFN_NORM,
    T_GATE,
    T_UP,
    T_DOWN,
    T_Q_BIAS,
    T_K_BIAS,
    T_V_BIAS,
    T_O_BIAS,
    T_GATE_BIAS,
    T_UP_BIAS,
    T_DOWN_BIAS,
    T_COUNT
};

int is_hf(const pb_meta *m);
/* The architecture's name in either naming; empty if absent. */
pb_str arch_of(const pb_meta *m);
/* Reads and checks all hyperparameters; errors name the key, its value and the limit. */
int read_shape(const pb_meta *m, shape *s, pb_err *err);
/* Writes the name of tensor `what` of a layer (ignored outside of layers). */
void tensor_name(const pb_meta *m, int what, int32_t layer, char *buf, size_t n);
/* The factor of tensor `what` (GGUF's "X.scale" beside "X.weight"), or NULL. */
const pb_tensor *find_scale(const pb_meta *m, int what, int32_t layer);
/* Tensors that belong to a file without taking part in the computation. */
int is_ballast(const char *name);
/* The tensor, or NULL. */
const pb_tensor *find_tensor(const pb_meta *m, int what, int32_t layer);

/* derived.c: tensors that no file holds, kept until derived_free */
typedef struct derived {
    struct derived *next;
    pb_tensor t;
    const pb_tensor *base; /* rows of base, times scale */
    float scale;
    float values[]; /* [t.cols] if base is NULL */
} derived;

/* base, times the one number in scale. Only F32 can be scaled. */
int derive_scaled(const pb_host *host, derived **list, const pb_tensor *base,
                  const pb_tensor *scale, const pb_tensor **out, pb_err *err);
/* A vector of n zeros to be filled; *content of its tensor is set by derive_seal. */
int derive_vector(const pb_host *host, derived **list, const char *name, int64_t n, derived **out,
                  pb_err *err);
void derive_seal(derived *d);
void derived_free(const pb_host *host, derived *list);
#endif
