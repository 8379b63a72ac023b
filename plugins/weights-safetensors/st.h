/* SPDX-License-Identifier: MIT
 *
 * plugins/weights-safetensors/st.h - what the files of weights-safetensors share: the reader, its
 * memory, and an opened file.
 */
#ifndef ST_H
#define ST_H
#include <patchbay/plugin.h>

#include <jansson.h>

enum { ST_NAME = 4096 }; /* bytes of a tensor's name */

/* A mapped file. Tensors of it point here. */
typedef struct st_file {
    const char *path;
    int fd;
    const unsigned char *map; /* NULL: empty */
    uint64_t size, identity;
} st_file;

typedef struct st_reader {
    const pb_host *host;
    pb_err *err; /* of the call that runs */
    struct st_chunk *chunks;
    size_t copied;
    st_file **files;
    int32_t n_files, cap_files;
    pb_tensor *tensors;
    int32_t n_tensors, cap_tensors;
    pb_meta_kv *kv;
    int32_t n_kv, cap_kv;
    pb_meta meta;
    int opened;
} st_reader;

/* pool.c: memory that lives until the model is closed */
void *st_room(st_reader *r, size_t n); /* zeroed, aligned to 8; NULL: err is filled */
char *st_text(st_reader *r, const char *s, size_t n);
/* One more element behind the n of *array, moved to a larger place when it is full. */
int st_grow(st_reader *r, void *array, int32_t n, int32_t *cap, size_t size);
void st_pool_free(st_reader *r);

/* file.c: opens and maps; refuses what is no regular file */
int st_map(st_reader *r, const char *path, st_file **out);
void st_unmap(st_file *f);
/* JSON of n bytes at s. slack: bytes beside the text that parsing may take; an error names what
 * and the place. The result is the caller's: json_decref. */
json_t *st_json(st_reader *r, const char *what, const void *s, size_t n, uint64_t slack);

/* shard.c: checks the header of f and appends its tensors */
int st_shard(st_reader *r, st_file *f);
/* 1: the file is shorter than when it was opened. [any] */
int st_cut(const st_file *f);

/* safetensors.c: NULL: no tensor has this name. Not before all names are known. */
pb_tensor *st_find(const st_reader *r, const char *name);

/* fp8.c: weights of F8_E4M3 with their scales */
int st_fp8(st_reader *r);

/* config.c */
int st_config(st_reader *r, const char *path); /* config.json as keys "a", "a.b" */
/* One more entry, a scalar until it is filled; NULL: err is filled. */
pb_meta_kv *st_key(st_reader *r, const char *key, int32_t type);
int st_key_text(st_reader *r, const char *key, const char *s, size_t n);

/* sentencepiece.c: a tokenizer.model as tokenizer.ggml.* keys */
int st_sentencepiece(st_reader *r, const st_file *file);
#endif
