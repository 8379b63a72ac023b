/* SPDX-License-Identifier: MIT
 *
 * plugins/weights-gguf/gguf.c - reads GGUF files, versions 2 and 3, little endian
 * (ggml-org/ggml docs/gguf.md).
 *
 * The file is mapped; names, strings and arrays are copied, so that strings end in 0 and
 * arrays are aligned. No element is converted: rows are handed out as stored. Invariant: no
 * count, length or offset of the file is used before it was compared with the bytes that are
 * left, and what is copied stays below MAX_COPY, whatever the file claims.
 *
 * A file must not be truncated while it is open: reads check its size, but a page that
 * vanishes between the check and the copy ends the process with SIGBUS.
 */
#define _GNU_SOURCE
#include <patchbay/plugin.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_COPY = 48 << 20, MAX_KV = 8192, MAX_TENSORS = 1 << 17, MAX_NAME = 64, MAX_KEY = 65535 };
enum { CHUNK = 64 << 10, MAX_PARTS = 512 };

/* value types of metadata */
enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64, N_TYPES };
static const unsigned char value_bytes[N_TYPES] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };

typedef struct gguf {
    const pb_host *host;
    pb_err *err; /* of the call that runs */
    int fd;
    const unsigned char *map;
    uint64_t size, pos;
    const char *path;
    struct chunk {
        struct chunk *next;
        size_t used, cap;
    } * chunks;
    size_t copied;
    pb_meta meta;
    uint64_t align, identity;
    struct gguf *parts; /* the other files of a split model */
    int32_t n_parts;
} gguf;

typedef struct tensor_type {
    int32_t type;
    uint16_t block, bytes; /* elements and bytes of a block */
    const char *name;
} tensor_type;

/* block sizes: ggml-org/ggml ggml-common.h */
static const tensor_type types[] = { { PB_F32, 1, 4, "F32" },
                                     { PB_F16, 1, 2, "F16" },
                                     { PB_Q4_0, 32, 18, "Q4_0" },
                                     { PB_Q4_1, 32, 20, "Q4_1" },
                                     { PB_Q5_0, 32, 22, "Q5_0" },
                                     { PB_Q5_1, 32, 24, "Q5_1" },
                                     { PB_Q8_0, 32, 34, "Q8_0" },
                                     { 9, 32, 36, "Q8_1" },
                                     { PB_Q2_K, 256, 84, "Q2_K" },
                                     { PB_Q3_K, 256, 110, "Q3_K" },
                                     { PB_Q4_K, 256, 144, "Q4_K" },
                                     { PB_Q5_K, 256, 176, "Q5_K" },
                                     { PB_Q6_K, 256, 210, "Q6_K" },
                                     { 15, 256, 292, "Q8_K" },
                                     { 16, 256, 66, "IQ2_XXS" },
                                     { 17, 256, 74, "IQ2_XS" },
                                     { 18, 256, 98, "IQ3_XXS" },
                                     { 19, 256, 50, "IQ1_S" },
                                     { PB_IQ4_NL, 32, 18, "IQ4_NL" },
                                     { 21, 256, 110, "IQ3_S" },
                                     { 22, 256, 82, "IQ2_S" },
                                     { PB_IQ4_XS, 256, 136, "IQ4_XS" },
                                     { 24, 1, 1, "I8" },
                                     { 25, 1, 2, "I16" },
                                     { 26, 1, 4, "I32" },
                                     { 27, 1, 8, "I64" },
                                     { 28, 1, 8, "F64" },
                                     { 29, 256, 56, "IQ1_M" },
                                     { PB_BF16, 1, 2, "BF16" },
                                     { 34, 256, 54, "TQ1_0" },
                                     { 35, 256, 66, "TQ2_0" },
                                     { PB_MXFP4, 32, 17, "MXFP4" },
                                     { 40, 64, 36, "NVFP4" },
                                     { 41, 128, 18, "Q1_0" },
                                     { 42, 64, 18, "Q2_0" } };

#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
static int
fail(const gguf *g, int code, const char *fmt, ...)
{
    va_list ap;
    g->err->code = code;
    int k = snprintf(g->err->msg, sizeof g->err->msg, "%s: ", g->path ? g->path : "?");
    va_start(ap, fmt);
    if (k >= 0 && (size_t)k < sizeof g->err->msg)
        vsnprintf(g->err->msg + k, sizeof g->err->msg - (size_t)k, fmt, ap);
    va_end(ap);
    return code;
}

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
static void
say(const gguf *g, const char *fmt, ...)
{
    char msg[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    g->host->log(g->host, PB_LOG_WARN, msg);
}

/* ---- memory and cursor ------------------------------------------------- */

/* n bytes aligned to 8; chunks are counted against MAX_COPY. NULL: err is filled */
static void *copy_room(gguf *g, uint64_t n)
{
    struct chunk *c = g->chunks;
    n = n < MAX_COPY ? (n + 7) / 8 * 8 : n;
    if (!c || n > c->cap - c->used) {
        /* what is large gets a chunk of its own, so that little room is lost at chunks' ends */
        uint64_t cap = n > CHUNK / 16 ? n : CHUNK;
        if (cap > MAX_COPY - g->copied) {
            fail(g, PB_E_FORMAT,
                 "metadata before offset %" PRIu64 " needs more than the limit of %d MiB", g->pos,
                 MAX_COPY >> 20);
            return NULL;
        }
        struct chunk *fresh = g->host->alloc(g->host, sizeof *c + (size_t)cap, 0, "metadata");
        if (!fresh) {
            fail(g, PB_E_NOMEM, "no memory for %" PRIu64 " bytes of metadata", cap);
            return NULL;
        }
        g->copied += (size_t)cap;
        *fresh = (struct chunk){ .cap = (size_t)cap };
        if (c && cap != CHUNK) {
            fresh->next = c->next;
            c->next = fresh;
        } else {
            fresh->next = c;
            g->chunks = fresh;
        }
        c = fresh;
    }
    void *p = (char *)(c + 1) + c->used;
    c->used += (size_t)n;
    return p;
}

/* the next n bytes; NULL: the file ends before */
static const unsigned char *take(gguf *g, uint64_t n, const char *what)
{
    if (n > g->size - g->pos) {
        fail(g, PB_E_FORMAT,
             "%s at offset %" PRIu64 " needs %" PRIu64 " bytes, the file has %" PRIu64 " left",
             what, g->pos, n, g->size - g->pos);
        return NULL;
    }
    const unsigned char *p = g->map + g->pos;
    g->pos += n;
    return p;
}

static uint64_t le(const unsigned char *p, int n)
{
    uint64_t x = 0;
    for (int i = n; i-- > 0;)
        x = x << 8 | p[i];
    return x;
}

static int number(gguf *g, int n, const char *what, uint64_t *out)
{
    const unsigned char *p = take(g, (uint64_t)n, what);
    if (!p)
        return PB_E_FORMAT;
    *out = le(p, n);
    return 0;
}

/* a length and that many bytes, copied with a 0 behind them */
static int string(gguf *g, const char *what, uint64_t limit, pb_str *out)
{
    uint64_t n = 0, at = g->pos;
    int rc = number(g, 8, what, &n);
    if (rc)
        return rc;
    if (n > limit)
        return fail(g, PB_E_FORMAT,
                    "%s at offset %" PRIu64 " has %" PRIu64 " bytes, the limit is %" PRIu64, what,
                    at, n, limit);
    const unsigned char *p = take(g, n, what);
    char *s = p ? copy_room(g, n + 1) : NULL;
    if (!s)
        return g->err->code;
    memcpy(s, p, (size_t)n);
    s[n] = 0;
    *out = (pb_str){ s, (size_t)n };
    return 0;
}

/* ---- metadata ---------------------------------------------------------- */

static int kind_of(uint32_t type)
{
    return type == STRING               ? PB_M_STR
           : type == F32 || type == F64 ? PB_M_FLOAT
           : type == BOOL               ? PB_M_BOOL
                                        : PB_M_INT;
}

/* element i of type at p to i or f */
static int element(gguf *g, const unsigned char *p, uint32_t type, const char *key, int64_t *i,
                   double *f)
{
    uint64_t x = le(p, value_bytes[type]);
    float f32;
    switch (type) {
    case I8: *i = (int8_t)x; break;
    case I16: *i = (int16_t)x; break;
    case I32: *i = (int32_t)x; break;
    case F32:
        memcpy(&f32, p, 4);
        *f = (double)f32;
        break;
    case F64: memcpy(f, p, 8); break;
    case U64: *i = x > INT64_MAX ? INT64_MAX : (int64_t)x; break; /* no key means that much */
    case BOOL: *i = x != 0; break; /* writers leave other bytes than 0 and 1 */
    default: *i = (int64_t)x;
    }
    return 0;
}

static int array(gguf *g, pb_meta_kv *kv)
{
    uint64_t type = 0, n = 0, at = g->pos;
    int rc = number(g, 4, kv->key, &type);
    if (!rc)
        rc = number(g, 8, kv->key, &n);
    if (rc)
        return rc;
    if (type >= N_TYPES || type == ARRAY)
        return fail(g, PB_E_FORMAT, "%s at offset %" PRIu64 ": elements of type %" PRIu64 "%s",
                    kv->key, at, type, type == ARRAY ? " (array in array) are not supported" : "");
    uint64_t least = type == STRING ? 8 : value_bytes[type];
    if (n > (g->size - g->pos) / least)
        return fail(g, PB_E_FORMAT,
                    "%s at offset %" PRIu64 " has %" PRIu64 " elements, the file has %" PRIu64
                    " bytes left",
                    kv->key, at, n, g->size - g->pos);
    kv->type = kind_of((uint32_t)type);
    kv->n = (int64_t)n;
    if (type == STRING) {
        pb_str *ss = copy_room(g, n * sizeof *ss);
        if (!ss)
            return g->err->code;
        kv->ss = ss;
        for (uint64_t i = 0; i < n && !rc; i++)
            rc = string(g, kv->key, g->size, &ss[i]);
        return rc;
    }
    int64_t *is = copy_room(g, n * 8);
    double *fs = (double *)(void *)is;
    const unsigned char *p = is ? take(g, n * value_bytes[type], kv->key) : NULL;
    if (!p)
        return g->err->code;
    if (kv->type == PB_M_FLOAT)
        kv->fs = fs;
    else
        kv->is = is;
    for (uint64_t i = 0; i < n && !rc; i++) {
        int64_t x = 0;
        double f = 0;
        rc = element(g, p + i * value_bytes[type], (uint32_t)type, kv->key, &x, &f);
        if (kv->type == PB_M_FLOAT)
            fs[i] = f;
        else
            is[i] = x;
    }
    return rc;
}

static int key_value(gguf *g, pb_meta_kv *kv)
{
    uint64_t type = 0, at = g->pos;
    pb_str key;
    int rc = string(g, "a metadata key", MAX_KEY, &key);
    if (rc)
        return rc;
    if (!key.n || memchr(key.s, 0, key.n))
        return fail(g, PB_E_FORMAT, "the metadata key at offset %" PRIu64 " is %s", at,
                    key.n ? "broken by a NUL" : "empty");
    *kv = (pb_meta_kv){ .key = key.s, .n = -1 };
    at = g->pos;
    if ((rc = number(g, 4, key.s, &type)) != 0)
        return rc;
    if (type >= N_TYPES)
        return fail(g, PB_E_FORMAT, "%s at offset %" PRIu64 ": no value type has number %" PRIu64,
                    key.s, at, type);
    kv->type = kind_of((uint32_t)type);
    if (type == ARRAY)
        return array(g, kv);
    if (type == STRING)
        return string(g, key.s, g->size, &kv->s);
    const unsigned char *p = take(g, value_bytes[type], key.s);
    if (!p)
        return g->err->code;
    rc = element(g, p, (uint32_t)type, key.s, &kv->i, &kv->f);
    if (!rc && !strcmp(key.s, "general.alignment")) {
        if (type != U32 || kv->i < 1 || kv->i > 1 << 20 || (kv->i & (kv->i - 1)))
            return fail(g, PB_E_FORMAT,
                        "general.alignment at offset %" PRIu64 " must be a uint32 power of two",
                        at);
        g->align = (uint64_t)kv->i;
    }
    return rc;
}

/* ---- tensors ----------------------------------------------------------- */

static int read_rows(const pb_tensor *t, int64_t row0, int64_t n_rows, void *dst)
{
    const gguf *g = t->owner;
    struct stat st;
    if (row0 < 0 || n_rows < 0 || row0 > t->rows - n_rows)
        return PB_E_INVAL;
    if (!t->data)
        return PB_E_FORMAT; /* a header alone */
    if (fstat(g->fd, &st) || (uint64_t)st.st_size < g->size)
        return PB_E_IO; /* truncated since it was opened */
    memcpy(dst, (const char *)t->data + (uint64_t)row0 * t->row_bytes,
           (size_t)((uint64_t)n_rows * t->row_bytes));
    return 0;
}

static int shape(gguf *g, pb_tensor *t, uint64_t n_dims)
{
    uint64_t elements = 1, rows = 1; /* a dimension may be 0, so rows can be over elements */
    for (uint64_t d = 0; d < 4; d++) {
        uint64_t at = g->pos, n = 1;
        int rc = d < n_dims ? number(g, 8, t->name, &n) : 0;
        if (rc)
            return rc;
        if (n > INT64_MAX || __builtin_mul_overflow(elements, n, &elements) ||
            elements > INT64_MAX || __builtin_mul_overflow(rows, d ? n : 1, &rows) ||
            rows > INT64_MAX)
            return fail(g, PB_E_FORMAT,
                        "tensor %s: dimension %" PRIu64 " at offset %" PRIu64 " is %" PRIu64
                        ", that is over 2^63 elements",
                        t->name, d, at, n);
        t->dim[d] = (int64_t)n;
    }
    t->n_dims = (int32_t)n_dims;
    t->cols = t->dim[0];
    t->rows = (int64_t)rows;
    return 0;
}

static int row_size(gguf *g, pb_tensor *t, uint64_t type)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if ((uint64_t)types[i].type == type) {
            uint64_t blocks = (uint64_t)t->cols / types[i].block, bytes;
            if (t->cols % types[i].block)
                return fail(g, PB_E_FORMAT,
                            "tensor %s: rows of %" PRId64 " elements, %s comes in blocks of %d",
                            t->name, t->cols, types[i].name, types[i].block);
            if (__builtin_mul_overflow(blocks, (uint64_t)types[i].bytes, &t->row_bytes) ||
                __builtin_mul_overflow(t->row_bytes, (uint64_t)t->rows, &bytes))
                return fail(g, PB_E_FORMAT, "tensor %s: over 2^64 bytes", t->name);
            t->type = (int32_t)type;
            return 0;
        }
    return fail(g, PB_E_FORMAT,
                "tensor %s before offset %" PRIu64 ": no element type has number %" PRIu64, t->name,
                g->pos, type);
}

static int tensor_info(gguf *g, pb_tensor *t)
{
    uint64_t n_dims = 0, type = 0, at = g->pos;
    pb_str name;
    int rc = string(g, "a tensor name", MAX_NAME - 1, &name);
    if (rc)
        return rc;
    if (memchr(name.s, 0, name.n))
        return fail(g, PB_E_FORMAT, "the tensor name at offset %" PRIu64 " is broken by a NUL", at);
    *t = (pb_tensor){ .name = name.s, .read = read_rows, .owner = g };
    at = g->pos;
    if ((rc = number(g, 4, name.s, &n_dims)) != 0)
        return rc;
    if (n_dims > 4)
        return fail(g, PB_E_FORMAT,
                    "tensor %s at offset %" PRIu64 " has %" PRIu64 " dimensions, the limit is 4",
                    name.s, at, n_dims);
    rc = shape(g, t, n_dims);
    if (!rc)
        rc = number(g, 4, name.s, &type);
    if (!rc)
        rc = row_size(g, t, type);
    if (!rc)
        rc = number(g, 8, name.s, &t->offset);
    if (!rc && t->offset % g->align)
        return fail(g, PB_E_FORMAT,
                    "tensor %s: its offset %" PRIu64 " is no multiple of the alignment %" PRIu64,
                    name.s, t->offset, g->align);
    return rc;
}

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

/* Offsets count from the data section, which begins at the first aligned byte after the infos.
 * Tensors stand one after the other, each padded to the alignment. A file that ends where that
 * section begins is a header alone: it is shown, and reading a tensor of it fails. */
static int place_tensors(gguf *g, pb_tensor *t, uint64_t n)
{
    uint64_t data = (g->pos + g->align - 1) / g->align * g->align, expect = 0;
    int bare = g->size <= data;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t bytes = t[i].row_bytes * (uint64_t)t[i].rows;
        if (t[i].offset != expect)
            return fail(g, PB_E_FORMAT,
                        "tensor %s: its offset is %" PRIu64
                        ", the tensors before it end at %" PRIu64,
                        t[i].name, t[i].offset, expect);
        if (bytes > INT64_MAX - g->align || expect > INT64_MAX - g->align - bytes ||
            data > INT64_MAX - expect - bytes)
            return fail(g, PB_E_FORMAT,
                        "tensor %s: %" PRIu64 " bytes at offset %" PRIu64 " end above 2^63",
                        t[i].name, bytes, expect);
        if (!bare && (expect > g->size - data || bytes > g->size - data - expect))
            return fail(g, PB_E_FORMAT,
                        "tensor %s: %" PRIu64 " bytes at offset %" PRIu64
                        " reach beyond the file's %" PRIu64 " bytes",
                        t[i].name, bytes, data + expect, g->size);
        expect = (expect + bytes + g->align - 1) / g->align * g->align;
        t[i].offset += data;
        t[i].data = bare ? NULL : g->map + t[i].offset;
        t[i].content =
            mix(mix(mix(mix(g->identity, t[i].offset), (uint64_t)t[i].type), (uint64_t)t[i].cols),
                (uint64_t)t[i].rows);
    }
    if (bare && expect)
        say(g, "%s: ends at byte %" PRIu64 ", before the tensors' data: it can be shown, not run",
            g->path, g->size);
    return 0;
}

/* ---- names that occur twice -------------------------------------------- */

typedef struct named {
    uint64_t hash;
    const char *name;
} named;

static int by_name(const void *a, const void *b)
{
    const named *x = a, *y = b;
    return x->hash != y->hash ? (x->hash < y->hash ? -1 : 1) : strcmp(x->name, y->name);
}

/* name i is at (const char *const *)(base + i * stride) */
static int unique(gguf *g, const char *what, const void *base, size_t stride, uint64_t n)
{
    named *v = g->host->alloc(g->host, (size_t)n * sizeof *v + 1, 0, "names");
    if (!v)
        return fail(g, PB_E_NOMEM, "no memory for %" PRIu64 " names", n);
    for (uint64_t i = 0; i < n; i++) {
        memcpy(&v[i].name, (const char *)base + i * stride, sizeof v[i].name);
        v[i].hash = 0;
        for (const char *c = v[i].name; *c; c++)
            v[i].hash = mix(v[i].hash, (unsigned char)*c);
    }
    qsort(v, (size_t)n, sizeof *v, by_name);
    int rc = 0;
    for (uint64_t i = 1; i < n && !rc; i++)
        if (!by_name(&v[i - 1], &v[i]))
            rc = fail(g, PB_E_FORMAT, "%s %s occurs twice", what, v[i].name);
    g->host->free(g->host, v);
    return rc;
}

/* ---- the file ---------------------------------------------------------- */

static int header(gguf *g, uint64_t *n_tensors, uint64_t *n_kv)
{
    uint64_t magic = 0, version = 0;
    int rc = number(g, 4, "the magic", &magic);
    if (rc)
        return rc;
    if (magic != 0x46554747)
        return fail(g, PB_E_FORMAT, "no GGUF file: it begins with %08" PRIx64 ", not with \"GGUF\"",
                    magic);
    if ((rc = number(g, 4, "the version", &version)) != 0)
        return rc;
    if (version != 2 && version != 3)
        return fail(g, version & 0xffff ? PB_E_FORMAT : PB_E_UNSUPPORTED,
                    "GGUF version %" PRIu64 " at offset 4%s; 2 and 3 are known", version,
                    version & 0xffff ? "" : " (a big-endian file?)");
    if ((rc = number(g, 8, "the number of tensors", n_tensors)) != 0 ||
        (rc = number(g, 8, "the number of metadata entries", n_kv)) != 0)
        return rc;
    if (*n_tensors > MAX_TENSORS || *n_tensors > (g->size - g->pos) / 24)
        return fail(g, PB_E_FORMAT,
                    "%" PRIu64 " tensors at offset 8 do not fit in %" PRIu64
                    " bytes, or are over the limit of %d",
                    *n_tensors, g->size, MAX_TENSORS);
    if (*n_kv > MAX_KV || *n_kv > (g->size - g->pos) / 13)
        return fail(g, PB_E_FORMAT,
                    "%" PRIu64 " metadata entries at offset 16 do not fit in %" PRIu64
                    " bytes, or are over the limit of %d",
                    *n_kv, g->size, MAX_KV);
    return 0;
}

static int parse(gguf *g)
{
    uint64_t n_tensors = 0, n_kv = 0;
    int rc = header(g, &n_tensors, &n_kv);
    if (rc)
        return rc;
    pb_meta_kv *kv = copy_room(g, n_kv * sizeof *kv);
    pb_tensor *t = kv ? copy_room(g, n_tensors * sizeof *t) : NULL;
    if (!t)
        return g->err->code;
    for (uint64_t i = 0; i < n_kv && !rc; i++)
        rc = key_value(g, &kv[i]);
    if (!rc)
        rc = unique(g, "metadata key", &kv->key, sizeof *kv, n_kv);
    for (uint64_t i = 0; i < n_tensors && !rc; i++)
        rc = tensor_info(g, &t[i]);
    if (!rc)
        rc = unique(g, "tensor", &t->name, sizeof *t, n_tensors);
    if (!rc)
        rc = place_tensors(g, t, n_tensors);
    g->meta = (pb_meta){ .size = sizeof(pb_meta),
                         .naming = "gguf",
                         .path = g->path,
                         .n_kv = (int32_t)n_kv,
                         .n_tensors = (int32_t)n_tensors,
                         .kv = kv,
                         .tensors = t };
    return rc;
}

static int map_file(gguf *g, const char *path)
{
    struct stat st;
    if (!*path)
        return fail(g, PB_E_INVAL, "which model? the path is empty");
    g->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (g->fd < 0)
        return fail(g, errno == ENOENT ? PB_E_INVAL : PB_E_IO, "cannot open: %s", strerror(errno));
    if (fstat(g->fd, &st))
        return fail(g, PB_E_IO, "cannot stat: %s", strerror(errno));
    if (S_ISDIR(st.st_mode))
        return fail(g, PB_E_INVAL,
                    "is a folder; Hugging Face folders are read by --set weights=safetensors");
    if (!S_ISREG(st.st_mode))
        return fail(g, PB_E_INVAL, "is no regular file");
    if (st.st_size < 24)
        return fail(g, PB_E_FORMAT, "no GGUF file: it has %lld bytes, a header 24",
                    (long long)st.st_size);
    g->size = (uint64_t)st.st_size;
    void *p = mmap(NULL, (size_t)g->size, PROT_READ, MAP_PRIVATE, g->fd, 0);
    if (p == MAP_FAILED)
        return fail(g, PB_E_IO, "cannot map %" PRIu64 " bytes: %s", g->size, strerror(errno));
    g->map = p;
    /* identity of the bytes without reading them: which file, and when it was last written */
    g->identity = mix(mix(mix(mix((uint64_t)st.st_dev, (uint64_t)st.st_ino), g->size),
                          (uint64_t)st.st_mtim.tv_sec),
                      (uint64_t)st.st_mtim.tv_nsec);
    return 0;
}

static void close_file(gguf *g)
{
    for (int32_t i = 0; i < g->n_parts; i++)
        close_file(&g->parts[i]);
    g->host->free(g->host, g->parts);
    while (g->chunks) {
        struct chunk *c = g->chunks;
        g->chunks = c->next;
        g->host->free(g->host, c);
    }
    if (g->map)
        munmap((void *)(uintptr_t)g->map, (size_t)g->size);
    if (g->fd >= 0)
        close(g->fd);
    *g = (gguf){ .host = g->host, .fd = -1, .align = 32 };
}

static int open_file(gguf *g, const char *path, pb_err *err)
{
    g->err = err;
    g->path = path; /* for messages until it is copied */
    int rc = map_file(g, path);
    char *own = rc ? NULL : copy_room(g, strlen(path) + 1);
    if (rc || !own)
        return err->code;
    g->path = strcpy(own, path);
    return parse(g);
}

/* ---- split models ------------------------------------------------------ */

/* A scalar integer by key; -1: absent. */
static int64_t get_int(const gguf *g, const char *key)
{
    for (int32_t i = 0; i < g->meta.n_kv; i++)
        if (!strcmp(g->meta.kv[i].key, key) && g->meta.kv[i].type == PB_M_INT &&
            g->meta.kv[i].n < 0)
            return g->meta.kv[i].i;
    return -1;
}

/* Tensors of all parts in one list, in the order of the files. */
static int join_parts(gguf *g)
{
    uint64_t n = (uint64_t)g->meta.n_tensors;
    int64_t said = get_int(g, "split.tensors.count");
    for (int32_t i = 0; i < g->n_parts; i++)
        n += (uint64_t)g->parts[i].meta.n_tensors;
    if (n > MAX_TENSORS || (said >= 0 && (uint64_t)said != n))
        return fail(g, PB_E_FORMAT,
                    "the parts have %" PRIu64 " tensors; split.tensors.count is %" PRId64
                    ", the limit %d",
                    n, said, MAX_TENSORS);
    pb_tensor *all = copy_room(g, n * sizeof *all);
    if (!all)
        return g->err->code;
    uint64_t k = (uint64_t)g->meta.n_tensors;
    memcpy(all, g->meta.tensors, k * sizeof *all);
    for (int32_t i = 0; i < g->n_parts; i++) {
        const pb_meta *m = &g->parts[i].meta;
        memcpy(all + k, m->tensors, (size_t)m->n_tensors * sizeof *all);
        k += (uint64_t)m->n_tensors;
    }
    g->meta.tensors = all;
    g->meta.n_tensors = (int32_t)n;
    return unique(g, "tensor", &all->name, sizeof *all, n);
}

/* NAME-00001-of-0000N.gguf with split.count = N brings the others, which lie beside it and say
 * which they are. They share one limit on copied bytes. */
static int open_parts(gguf *g)
{
    int64_t count = get_int(g, "split.count"), no = get_int(g, "split.no");
    size_t n = strlen(g->path), tail = strlen("00001-of-00001.gguf");
    char end[32];
    if (count <= 1)
        return 0;
    if (no != 0)
        return fail(g, PB_E_INVAL,
                    "is part %" PRId64 " of %" PRId64 "; name the first, ...-00001-of-%05" PRId64
                    ".gguf",
                    no + 1, count, count);
    snprintf(end, sizeof end, "00001-of-%05d.gguf", (int)(count > MAX_PARTS ? 0 : count));
    if (count > MAX_PARTS || n < tail || strcmp(g->path + n - tail, end) != 0)
        return fail(g, PB_E_FORMAT,
                    "split.count is %" PRId64 " (limit %d), so its name must end in %s", count,
                    MAX_PARTS, end);
    char *path = copy_room(g, n + 1);
    g->parts =
        path ? g->host->alloc(g->host, (size_t)(count - 1) * sizeof *g->parts, 0, "parts") : NULL;
    if (!g->parts)
        return fail(g, PB_E_NOMEM, "no memory for %" PRId64 " parts", count);
    for (int32_t i = 0; i + 1 < count; i++) {
        gguf *part = &g->parts[i];
        *part = (gguf){ .host = g->host, .fd = -1, .align = 32, .copied = g->copied };
        g->n_parts++;
        snprintf(path, n + 1, "%.*s%05d-of-%05d.gguf", (int)(n - tail), g->path, (int)i + 2,
                 (int)count);
        int rc = open_file(part, path, g->err);
        g->copied = part->copied;
        if (rc)
            return rc;
        if (get_int(part, "split.no") != i + 1 || get_int(part, "split.count") != count)
            return fail(part, PB_E_FORMAT, "split.no and split.count do not say part %d of %d",
                        (int)i + 2, (int)count);
    }
    return join_parts(g);
}

static int open_(void *self, const char *path, pb_err *err)
{
    gguf *g = self;
    close_file(g);
    int rc = open_file(g, path, err);
    if (!rc)
        rc = open_parts(g);
    if (rc)
        close_file(g);
    return rc;
}

static const pb_meta *meta(void *self)
{
    gguf *g = self;
    return g->map ? &g->meta : NULL;
}

static int create(const pb_host *host, const void *config, void **self, pb_err *err)
{
    (void)config;
    gguf *g = host->alloc(host, sizeof *g, 0, "reader");
    if (!g) {
        *err = (pb_err){ .code = PB_E_NOMEM, .msg = "no memory for a GGUF reader" };
        return PB_E_NOMEM;
    }
    *g = (gguf){ .host = host, .fd = -1, .align = 32 };
    *self = g;
    return 0;
}

static void destroy(void *self)
{
    gguf *g = self;
    const pb_host *host = g->host;
    close_file(g);
    host->free(host, g);
}

static const pb_weights weights = { .size = sizeof(pb_weights), .open = open_, .meta = meta };
static const pb_iface ifaces[] = { { "weights/1", &weights }, { NULL, NULL } };

PB_PLUGIN = { PB_HEAD,
              .flags = PB_EXACT,
              .slot = "weights",
              .name = "gguf",
              .version = "0.1",
              .license = "MIT",
              .summary = "reads a GGUF file, versions 2 and 3",
              .ifaces = ifaces,
              .create = create,
              .destroy = destroy };
