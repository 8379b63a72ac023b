/* SPDX-License-Identifier: MIT
 *
 * tests/unit/gguf_make.c - see gguf_make.h.
 */
#include "gguf_make.h"

#include <stdlib.h>
#include <string.h>

void make_number(gguf_make *g, int bytes, uint64_t v)
{
    if (g->n + 8 > g->cap) {
        g->cap = g->cap ? 2 * g->cap : 4096;
        g->p = realloc(g->p, g->cap);
        if (!g->p)
            abort();
    }
    for (int i = 0; i < bytes; i++)
        g->p[g->n++] = (unsigned char)(v >> (8 * i));
}

void make_string(gguf_make *g, const char *s)
{
    make_number(g, 8, strlen(s));
    while (*s)
        make_number(g, 1, (unsigned char)*s++);
}

void make_header(gguf_make *g, uint32_t version, uint64_t n_tensors, uint64_t n_kv)
{
    make_number(g, 4, 0x46554747);
    make_number(g, 4, version);
    make_number(g, 8, n_tensors);
    make_number(g, 8, n_kv);
}

void make_key(gguf_make *g, const char *key, uint32_t type)
{
    make_string(g, key);
    make_number(g, 4, type);
}

void make_number_kv(gguf_make *g, const char *key, uint32_t type, int bytes, uint64_t v)
{
    make_key(g, key, type);
    make_number(g, bytes, v);
}

void make_string_kv(gguf_make *g, const char *key, const char *s)
{
    make_key(g, key, 8);
    make_string(g, s);
}

void make_tensor(gguf_make *g, const char *name, uint32_t n_dims, const uint64_t *dims,
                 uint32_t type, uint64_t offset)
{
    make_string(g, name);
    make_number(g, 4, n_dims);
    for (uint32_t i = 0; i < n_dims; i++)
        make_number(g, 8, dims[i]);
    make_number(g, 4, type);
    make_number(g, 8, offset);
}

void make_pad(gguf_make *g, size_t to)
{
    while (g->n % to)
        make_number(g, 1, 0);
}
