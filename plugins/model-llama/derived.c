/* SPDX-License-Identifier: MIT
 *
 * plugins/model-llama/derived.c - tensors that no file holds: rows of another one times a number,
 * and vectors that follow from hyperparameters. See llama.h.
 *
 * Invariant: content is a function of what the bytes are made from, so that equal models share
 * packed weights also here.
 */
#include "llama.h"
#include "../weights-common/fail.h"

#include <string.h>

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static int read_scaled(const pb_tensor *t, int64_t row0, int64_t n_rows, void *dst)
{
    const derived *d = t->owner;
    int rc = d->base->read(d->base, row0, n_rows, dst);
    if (rc)
        return rc;
    for (int64_t i = 0; i < n_rows * t->cols; i++) { /* dst may have any alignment */
        float x;
        memcpy(&x, (char *)dst + 4 * i, 4);
        x *= d->scale;
        memcpy((char *)dst + 4 * i, &x, 4);
    }
    return 0;
}

static int read_vector(const pb_tensor *t, int64_t row0, int64_t n_rows, void *dst)
{
    const derived *d = t->owner;
    if (row0 < 0 || n_rows < 0 || row0 > t->rows - n_rows)
        return PB_E_INVAL;
    memcpy(dst, d->values, (size_t)(n_rows * t->cols) * 4);
    return 0;
}

static derived *add(const pb_host *host, derived **list, size_t n_values, pb_err *err)
{
    derived *d = host->alloc(host, sizeof *d + n_values * sizeof(float), 0, "derived tensors");
    if (!d) {
        fail(err, PB_E_NOMEM, "no memory for a tensor of %zu values", n_values);
        return NULL;
    }
    d->next = *list;
    *list = d;
    return d;
}

int derive_scaled(const pb_host *host, derived **list, const pb_tensor *base,
                  const pb_tensor *scale, const pb_tensor **out, pb_err *err)
{
    float s = 0;
    if (scale->type != PB_F32 || scale->rows != 1 || scale->cols != 1 ||
        scale->read(scale, 0, 1, &s))
        return fail(err, PB_E_FORMAT, "tensor %s is not one F32 number that can be read",
                    scale->name);
    *out = base;
    if (s == 1)
        return 0;
    if (base->type != PB_F32)
        return fail(err, PB_E_UNSUPPORTED,
                    "tensor %s of type %d has a scale (%s): only F32 can be scaled", base->name,
                    (int)base->type, scale->name);
    derived *d = add(host, list, 0, err);
    if (!d)
        return err->code;
    uint32_t bits;
    memcpy(&bits, &s, 4);
    d->base = base;
    d->scale = s;
    d->t = *base;
    d->t.data = NULL;
    d->t.read = read_scaled;
    d->t.owner = d;
    d->t.content = mix(mix(base->content, 0x5ca1ed), bits);
    *out = &d->t;
    return 0;
}

int derive_vector(const pb_host *host, derived **list, const char *name, int64_t n, derived **out,
                  pb_err *err)
{
    derived *d = add(host, list, (size_t)n, err);
    if (!d)
        return err->code;
    d->t = (pb_tensor){ .name = name,
                        .type = PB_F32,
                        .n_dims = 1,
                        .dim = { n, 1, 1, 1 },
                        .rows = 1,
                        .cols = n,
                        .row_bytes = (uint64_t)n * 4,
                        .data = d->values,
                        .read = read_vector,
                        .owner = d };
    *out = d;
    return 0;
}

void derive_seal(derived *d)
{
    d->t.content = 0xcbf29ce484222325u;
    for (int64_t i = 0; i < d->t.cols; i++) {
        uint32_t bits;
        memcpy(&bits, &d->values[i], 4);
        d->t.content = mix(d->t.content, bits);
    }
}

void derived_free(const pb_host *host, derived *list)
{
    while (list) {
        derived *d = list;
        list = d->next;
        host->free(host, d);
    }
}
