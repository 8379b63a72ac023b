/* SPDX-License-Identifier: MIT
 *
 * plugins/weights-safetensors/shard.c - the header of one file: a length of 8 bytes, that many
 * bytes of JSON {"name": {"dtype", "shape", "data_offsets"}}, then data without a gap
 * (huggingface/safetensors README, "Format").
 *
 * Invariant: tensors are appended only after all of the file's ranges were found to tile its
 * data, so that a tensor handed out lies inside the mapping.
 */
#define _GNU_SOURCE
#include "st.h"
#include "../weights-common/fail.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { SLACK = 40 << 20 };

/* Types above 1000 are this program's numbers; those that nothing computes with get one too, so
 * that a tensor of indices does not make a model unreadable. */
static const struct {
    const char *name;
    int32_t type, bytes;
} types[] = { { "F32", PB_F32, 4 },   { "F16", PB_F16, 2 }, { "BF16", PB_BF16, 2 },
              { "F64", 28, 8 },       { "I8", 24, 1 },      { "I16", 25, 2 },
              { "I32", 26, 4 },       { "I64", 27, 8 },     { "F8_E4M3", PB_F8_E4M3, 1 },
              { "F8_E5M2", 1001, 1 }, { "BOOL", 1002, 1 },  { "U8", 1003, 1 },
              { "U16", 1004, 2 },     { "U32", 1005, 4 },   { "U64", 1006, 8 },
              { "F8_E8M0", 1007, 1 }, { "C64", 1008, 8 } };

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

int st_cut(const st_file *f)
{
    struct stat st;
    return fstat(f->fd, &st) || (uint64_t)st.st_size < f->size;
}

static int read_rows(const pb_tensor *t, int64_t row0, int64_t n_rows, void *dst)
{
    if (row0 < 0 || n_rows < 0 || row0 > t->rows - n_rows)
        return PB_E_INVAL;
    if (st_cut(t->owner))
        return PB_E_IO; /* truncated since it was opened */
    if (n_rows && t->row_bytes)
        memcpy(dst, (const char *)t->data + (uint64_t)row0 * t->row_bytes,
               (size_t)((uint64_t)n_rows * t->row_bytes));
    return 0;
}

/* The shape, outermost first, to dim[], innermost first; what is beyond four dimensions is taken
 * together. rows and elements cannot overflow. */
static int read_shape(st_reader *r, const st_file *f, pb_tensor *t, const json_t *shape)
{
    size_t n = json_array_size(shape);
    int64_t elements = 1, rows = 1;
    for (int i = 0; i < 4; i++)
        t->dim[i] = 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *j = json_array_get(shape, n - 1 - i);
        int64_t d = json_is_integer(j) ? json_integer_value(j) : -1;
        size_t to = i < 3 ? i : 3;
        if (d < 0)
            return fail(r->err, PB_E_FORMAT, "%s: tensor %s: dimension %zu is no count", f->path,
                        t->name, n - 1 - i);
        if (__builtin_mul_overflow(elements, d, &elements) ||
            __builtin_mul_overflow(rows, i ? d : 1, &rows) ||
            __builtin_mul_overflow(t->dim[to], d, &t->dim[to]))
            return fail(r->err, PB_E_FORMAT, "%s: tensor %s: over 2^63 elements", f->path, t->name);
    }
    t->n_dims = n < 4 ? (int32_t)n : 4;
    t->cols = t->dim[0];
    t->rows = rows;
    return 0;
}

static int read_type(st_reader *r, const st_file *f, pb_tensor *t, const json_t *dtype,
                     uint64_t *bytes)
{
    const char *name = json_string_value(dtype);
    for (size_t i = 0; name && i < sizeof types / sizeof *types; i++)
        if (!strcmp(types[i].name, name)) {
            t->type = types[i].type;
            if (__builtin_mul_overflow((uint64_t)t->cols, (uint64_t)types[i].bytes,
                                       &t->row_bytes) ||
                __builtin_mul_overflow(t->row_bytes, (uint64_t)t->rows, bytes))
                return fail(r->err, PB_E_FORMAT, "%s: tensor %s: over 2^64 bytes", f->path,
                            t->name);
            return 0;
        }
    return fail(r->err, PB_E_UNSUPPORTED, "%s: tensor %s: dtype \"%.40s\" is not known", f->path,
                t->name, name ? name : "(none)");
}

/* t->offset is relative to the data yet */
static int read_tensor(st_reader *r, st_file *f, const char *name, const json_t *j, uint64_t data,
                       pb_tensor *t)
{
    const json_t *shape = json_object_get(j, "shape"), *at = json_object_get(j, "data_offsets");
    size_t n = strlen(name);
    if (n > ST_NAME)
        return fail(r->err, PB_E_FORMAT, "%s: a tensor name of %zu bytes, the limit is %d", f->path,
                    n, ST_NAME);
    if (!(name = st_text(r, name, n)))
        return r->err->code;
    *t = (pb_tensor){ .name = name, .read = read_rows, .owner = f };
    if (!json_is_array(shape) || !json_is_array(at) || json_array_size(at) != 2 ||
        !json_is_integer(json_array_get(at, 0)) || !json_is_integer(json_array_get(at, 1)))
        return fail(r->err, PB_E_FORMAT, "%s: tensor %s lacks dtype, shape or data_offsets",
                    f->path, name);
    uint64_t bytes = 0;
    int rc = read_shape(r, f, t, shape);
    if (!rc)
        rc = read_type(r, f, t, json_object_get(j, "dtype"), &bytes);
    if (rc)
        return rc;
    int64_t from = json_integer_value(json_array_get(at, 0));
    int64_t to = json_integer_value(json_array_get(at, 1));
    if (from < 0 || to < from || (uint64_t)to > f->size - data)
        return fail(r->err, PB_E_FORMAT,
                    "%s: tensor %s: data_offsets [%" PRId64 ", %" PRId64 "] in a file with %" PRIu64
                    " bytes of data",
                    f->path, name, from, to, f->size - data);
    if ((uint64_t)(to - from) != bytes)
        return fail(r->err, PB_E_FORMAT,
                    "%s: tensor %s: its shape needs %" PRIu64 " bytes, data_offsets give %" PRId64,
                    f->path, name, bytes, to - from);
    t->offset = (uint64_t)from;
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    const pb_tensor *x = a, *y = b;
    uint64_t xe = x->offset + x->row_bytes * (uint64_t)x->rows;
    uint64_t ye = y->offset + y->row_bytes * (uint64_t)y->rows;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return xe < ye ? -1 : xe > ye;
}

/* No gap, no overlap, nothing behind the last one; then offsets become the file's. */
static int place(st_reader *r, st_file *f, pb_tensor *t, int32_t n, uint64_t data)
{
    uint64_t expect = 0;
    if (n) /* else t may be NULL */
        qsort(t, (size_t)n, sizeof *t, by_offset);
    for (int32_t i = 0; i < n; i++) {
        if (t[i].offset != expect)
            return fail(r->err, PB_E_FORMAT,
                        "%s: tensor %s begins at %" PRIu64 ", the one before ends at %" PRIu64,
                        f->path, t[i].name, t[i].offset, expect);
        expect += t[i].row_bytes * (uint64_t)t[i].rows;
        t[i].offset += data;
        t[i].data = f->map + t[i].offset;
        t[i].content = mix(mix(mix(f->identity, t[i].offset), (uint64_t)t[i].type),
                           mix((uint64_t)t[i].rows, (uint64_t)t[i].cols));
    }
    if (expect != f->size - data)
        return fail(r->err, PB_E_FORMAT,
                    "%s: tensors end at %" PRIu64 ", the file has %" PRIu64 " bytes of data",
                    f->path, expect, f->size - data);
    return 0;
}

int st_shard(st_reader *r, st_file *f)
{
    uint64_t n = 0;
    if (f->size < 8)
        return fail(r->err, PB_E_FORMAT, "%s: no safetensors file: it has %" PRIu64 " bytes",
                    f->path, f->size);
    for (int i = 8; i-- > 0;)
        n = n << 8 | f->map[i];
    if (n < 2 || n > f->size - 8)
        return fail(r->err, PB_E_FORMAT,
                    "%s: a header of %" PRIu64 " bytes at offset 0; the file has %" PRIu64, f->path,
                    n, f->size);
    json_t *head = st_json(r, f->path, f->map + 8, (size_t)n, SLACK + f->size);
    if (!head)
        return r->err->code;
    const char *name;
    json_t *j;
    int rc = 0;
    int32_t first = r->n_tensors;
    json_object_foreach(head, name, j)
    {
        if (rc || !strcmp(name, "__metadata__"))
            continue;
        rc = st_grow(r, &r->tensors, r->n_tensors, &r->cap_tensors, sizeof *r->tensors);
        if (!rc)
            rc = read_tensor(r, f, name, j, n + 8, &r->tensors[r->n_tensors]);
        r->n_tensors += !rc;
    }
    json_decref(head);
    return rc ? rc
              : place(r, f, r->tensors ? r->tensors + first : NULL, r->n_tensors - first, n + 8);
}
