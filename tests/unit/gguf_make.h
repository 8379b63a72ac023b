/* SPDX-License-Identifier: MIT
 *
 * tests/unit/gguf_make.h - writes GGUF bytes piece by piece, so that any piece can be wrong.
 */
#ifndef GGUF_MAKE_H
#define GGUF_MAKE_H
#include <stddef.h>
#include <stdint.h>

/* Owned by the caller: free(p). infos, header: where the tensor infos end
 * and the data section begins, for the maker's use. */
typedef struct gguf_make {
    unsigned char *p;
    size_t n, cap, infos, header;
} gguf_make;

void make_number(gguf_make *g, int bytes, uint64_t v); /* little endian */
void make_string(gguf_make *g, const char *s);
void make_header(gguf_make *g, uint32_t version, uint64_t n_tensors, uint64_t n_kv);
void make_key(gguf_make *g, const char *key, uint32_t type);
void make_number_kv(gguf_make *g, const char *key, uint32_t type, int bytes, uint64_t v);
void make_string_kv(gguf_make *g, const char *key, const char *s);
void make_tensor(gguf_make *g, const char *name, uint32_t n_dims, const uint64_t *dims,
                 uint32_t type, uint64_t offset);
void make_pad(gguf_make *g, size_t to);
#endif
