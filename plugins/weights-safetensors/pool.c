/* SPDX-License-Identifier: MIT
 *
 * plugins/weights-safetensors/pool.c - memory of the reader, mapped files, JSON. See st.h.
 */
#define _GNU_SOURCE
#include "st.h"
#include "../weights-common/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 256 << 10 };

struct st_chunk {
    struct st_chunk *next;
    size_t used, cap;
};

void *st_room(st_reader *r, size_t n)
{
    struct st_chunk *c = r->chunks;
    n = (n + 7) / 8 * 8;
    if (!c || n > c->cap - c->used) {
        size_t cap = n > CHUNK / 8 ? n : CHUNK;
        struct st_chunk *fresh = r->host->alloc(r->host, sizeof *fresh + cap, 0, "metadata");
        if (!fresh) {
            fail(r->err, PB_E_NOMEM, "no memory for %zu bytes of metadata", cap);
            return NULL;
        }
        *fresh = (struct st_chunk){ .cap = cap };
        if (c && cap != CHUNK) { /* the current one still has room */
            fresh->next = c->next;
            c->next = fresh;
        } else {
            fresh->next = c;
            r->chunks = fresh;
        }
        c = fresh;
    }
    void *p = (char *)(c + 1) + c->used;
    c->used += n;
    return p;
}

char *st_text(st_reader *r, const char *s, size_t n)
{
    char *p = st_room(r, n + 1);
    if (p && n)
        memcpy(p, s, n);
    return p;
}

int st_grow(st_reader *r, void *array, int32_t n, int32_t *cap, size_t size)
{
    void *old;
    memcpy(&old, array, sizeof old);
    if (n < *cap)
        return 0;
    int32_t more = *cap ? *cap * 2 : 64;
    void *p = r->host->alloc(r->host, (size_t)more * size, 0, "lists");
    if (!p)
        return fail(r->err, PB_E_NOMEM, "no memory for a list of %d", (int)more);
    if (n)
        memcpy(p, old, (size_t)n * size);
    r->host->free(r->host, old);
    memcpy(array, &p, sizeof p);
    *cap = more;
    return 0;
}

void st_pool_free(st_reader *r)
{
    while (r->chunks) {
        struct st_chunk *c = r->chunks;
        r->chunks = c->next;
        r->host->free(r->host, c);
    }
}

/* ---- files ------------------------------------------------------------- */

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

int st_map(st_reader *r, const char *path, st_file **out)
{
    struct stat st;
    st_file *f = st_room(r, sizeof *f);
    if (!f || !(f->path = st_text(r, path, strlen(path))))
        return r->err->code;
    f->fd = -1;
    if (st_grow(r, &r->files, r->n_files, &r->cap_files, sizeof *r->files))
        return r->err->code;
    r->files[r->n_files++] = f; /* from here on close finds it */
    f->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (f->fd < 0)
        return fail(r->err, errno == ENOENT ? PB_E_INVAL : PB_E_IO, "%s: cannot open: %s", path,
                    strerror(errno));
    if (fstat(f->fd, &st))
        return fail(r->err, PB_E_IO, "%s: cannot stat: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return fail(r->err, PB_E_INVAL, "%s: is no regular file", path);
    f->size = (uint64_t)st.st_size;
    if (f->size) {
        void *p = mmap(NULL, (size_t)f->size, PROT_READ, MAP_PRIVATE, f->fd, 0);
        if (p == MAP_FAILED)
            return fail(r->err, PB_E_IO, "%s: cannot map %" PRIu64 " bytes: %s", path, f->size,
                        strerror(errno));
        f->map = p;
    }
    /* which file, and when it was last written: identity without reading the bytes */
    f->identity = mix(mix(mix(mix((uint64_t)st.st_dev, (uint64_t)st.st_ino), f->size),
                          (uint64_t)st.st_mtim.tv_sec),
                      (uint64_t)st.st_mtim.tv_nsec);
    *out = f;
    return 0;
}

void st_unmap(st_file *f)
{
    if (f->map)
        munmap((void *)(uintptr_t)f->map, (size_t)f->size);
    if (f->fd >= 0)
        close(f->fd);
}

/* ---- JSON -------------------------------------------------------------- */

/* A parsed tree takes up to 32 bytes for each byte of text (an array of small numbers), so the
 * text is limited before it is parsed. */
json_t *st_json(st_reader *r, const char *what, const void *s, size_t n, uint64_t slack)
{
    json_error_t e;
    if (n > slack / 32) {
        fail(r->err, PB_E_FORMAT, "%s: %zu bytes of JSON; the limit is %" PRIu64, what, n,
             slack / 32);
        return NULL;
    }
    json_t *j = json_loadb(s, n, JSON_REJECT_DUPLICATES, &e);
    if (!j) {
        fail(r->err, PB_E_FORMAT, "%s: JSON at line %d, column %d: %s", what, e.line, e.column,
             e.text);
        return NULL;
    }
    if (!json_is_object(j)) {
        fail(r->err, PB_E_FORMAT, "%s: the JSON is no object", what);
        json_decref(j);
        return NULL;
    }
    return j;
}
