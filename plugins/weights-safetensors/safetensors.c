/* SPDX-License-Identifier: MIT
 *
 * plugins/weights-safetensors/safetensors.c - reads a Hugging Face folder: config.json and one or
 * many safetensors files. Also one such file by itself.
 *
 * Files are mapped, no element is converted. Metadata has the names of config.json, tensors those
 * of the files (naming "hf"). Invariant: no name of a file in an index leads out of the folder.
 * Test: tests/unit/test_safetensors.c
 */
#define _GNU_SOURCE
#include "st.h"
#include "../weights-common/fail.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_SIZE = 4096, MAX_SHARDS = 4096 };

static int join(st_reader *r, const char *dir, const char *name, char *out)
{
    int n = snprintf(out, PATH_SIZE, "%s/%s", dir, name);
    return n > 0 && n < PATH_SIZE ? 0 : fail(r->err, PB_E_INVAL, "%s: the path is too long", dir);
}

static int is_shard(const char *name)
{
    size_t n = strlen(name), k = strlen(".safetensors");
    return n > k && !strcmp(name + n - k, ".safetensors") && !strchr(name, '/');
}

/* ---- index ------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const pb_tensor *)a)->name, ((const pb_tensor *)b)->name);
}

pb_tensor *st_find(const st_reader *r, const char *name)
{
    pb_tensor key = { .name = name };
    return r->n_tensors ? bsearch(&key, r->tensors, (size_t)r->n_tensors, sizeof key, by_name)
                        : NULL;
}

/* Sorts by name; a name in two files is an error. */
static int unique(st_reader *r)
{
    if (r->n_tensors)
        qsort(r->tensors, (size_t)r->n_tensors, sizeof *r->tensors, by_name);
    for (int32_t i = 1; i < r->n_tensors; i++) {
        const pb_tensor *a = &r->tensors[i - 1], *b = &r->tensors[i];
        if (!by_name(a, b))
            return fail(r->err, PB_E_FORMAT, "tensor %s is in %s and in %s", a->name,
                        ((const st_file *)a->owner)->path, ((const st_file *)b->owner)->path);
    }
    return 0;
}

static st_file *file_named(const st_reader *r, const char *path)
{
    for (int32_t i = 0; i < r->n_files; i++)
        if (!strcmp(r->files[i]->path, path))
            return r->files[i];
    return NULL;
}

/* Opens each file that the map names once. */
static int open_shards(st_reader *r, const char *dir, const char *index, json_t *map)
{
    const char *name;
    json_t *j;
    char path[PATH_SIZE];
    int n = 0;
    json_object_foreach(map, name, j)
    {
        const char *file = json_string_value(j);
        if (!file || !is_shard(file))
            return fail(r->err, PB_E_FORMAT, "%s: %.100s is in \"%.100s\", which is no file name",
                        index, name, file ? file : "(nothing)");
        int rc = join(r, dir, file, path);
        if (rc)
            return rc;
        if (file_named(r, path))
            continue;
        st_file *f;
        if (++n > MAX_SHARDS)
            return fail(r->err, PB_E_FORMAT, "%s: over %d files", index, MAX_SHARDS);
        if ((rc = st_map(r, path, &f)) || (rc = st_shard(r, f)))
            return rc;
    }
    return 0;
}

/* each tensor of the map is where the map says */
static int check_map(st_reader *r, const char *dir, const char *index, json_t *map)
{
    const char *name;
    json_t *j;
    char path[PATH_SIZE];
    json_object_foreach(map, name, j)
    {
        const pb_tensor *t = st_find(r, name);
        int rc = join(r, dir, json_string_value(j), path);
        if (rc)
            return rc;
        if (!t || strcmp(((const st_file *)t->owner)->path, path) != 0)
            return fail(r->err, PB_E_FORMAT, "%s: tensor %.200s is not in %.100s", index, name,
                        json_string_value(j));
    }
    return 0;
}

/* bytes of all safetensors files of a folder: what an index may be measured against */
static uint64_t folder_bytes(const char *dir)
{
    uint64_t n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        struct stat st;
        if (is_shard(e->d_name) && !fstatat(dirfd(d), e->d_name, &st, 0) && st.st_size > 0)
            n += (uint64_t)st.st_size;
    }
    if (d)
        closedir(d);
    return n;
}

static int open_index(st_reader *r, const char *dir, const char *path)
{
    st_file *f;
    int rc = st_map(r, path, &f);
    if (rc)
        return rc;
    json_t *j = st_json(r, path, f->map ? (const void *)f->map : "", (size_t)f->size,
                        ((uint64_t)16 << 20) + folder_bytes(dir));
    if (!j)
        return r->err->code;
    json_t *map = json_object_get(j, "weight_map");
    if (!json_is_object(map) || !json_object_size(map))
        rc = fail(r->err, PB_E_FORMAT, "%s: weight_map is missing or empty", path);
    if (!rc)
        rc = open_shards(r, dir, path, map);
    if (!rc)
        rc = unique(r);
    if (!rc)
        rc = check_map(r, dir, path, map);
    if (!rc)
        rc = st_fp8(r);
    json_decref(j);
    return rc;
}

/* ---- folder ------------------------------------------------------------ */

static int open_one(st_reader *r, const char *path)
{
    st_file *f;
    int rc = st_map(r, path, &f);
    if (!rc)
        rc = st_shard(r, f);
    if (!rc)
        rc = unique(r);
    return rc ? rc : st_fp8(r);
}

/* Files beside the weights, as text under "hf.NAME"; absent ones are left out. */
static int open_texts(st_reader *r, const char *dir)
{
    static const char *const names[] = { "tokenizer.json", "tokenizer_config.json",
                                         "generation_config.json", "chat_template.jinja" };
    char path[PATH_SIZE], key[64];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        st_file *f;
        int rc = join(r, dir, names[i], path);
        if (rc)
            return rc;
        if (access(path, F_OK))
            continue;
        if ((rc = st_map(r, path, &f)))
            return rc;
        snprintf(key, sizeof key, "hf.%s", names[i]);
        if ((rc = st_key_text(r, key, (const char *)f->map, (size_t)f->size)))
            return rc;
    }
    st_file *f;
    int rc = join(r, dir, "tokenizer.model", path);
    if (rc || access(path, F_OK))
        return rc;
    rc = st_map(r, path, &f);
    return rc ? rc : st_sentencepiece(r, f);
}

static int open_folder(st_reader *r, const char *dir)
{
    char path[PATH_SIZE];
    int rc = join(r, dir, "config.json", path);
    if (!rc)
        rc = st_config(r, path);
    if (!rc)
        rc = open_texts(r, dir);
    if (!rc)
        rc = join(r, dir, "model.safetensors.index.json", path);
    if (rc)
        return rc;
    if (!access(path, F_OK))
        return open_index(r, dir, path);
    if ((rc = join(r, dir, "model.safetensors", path)))
        return rc;
    if (access(path, F_OK))
        return fail(r->err, PB_E_INVAL,
                    "%s has neither model.safetensors nor model.safetensors.index.json", dir);
    return open_one(r, path);
}

/* A file alone, with the config.json beside it if there is one. */
static int open_file(st_reader *r, const char *path)
{
    char dir[PATH_SIZE], config[PATH_SIZE];
    const char *slash = strrchr(path, '/');
    int n = slash ? snprintf(dir, sizeof dir, "%.*s", (int)(slash - path), path)
                  : snprintf(dir, sizeof dir, ".");
    if (n < 0 || n >= PATH_SIZE)
        return fail(r->err, PB_E_INVAL, "%.100s: the path is too long", path);
    int rc = join(r, dir, "config.json", config);
    int bare = !rc && access(config, F_OK);
    if (!rc && !bare)
        rc = st_config(r, config);
    if (!rc && !bare)
        rc = open_texts(r, dir);
    if (!rc)
        rc = open_one(r, path);
    if (!rc && bare)
        r->host->log(r->host, PB_LOG_WARN,
                     "no config.json beside the file: its tensors can be shown, not run");
    return rc;
}

static void close_all(st_reader *r)
{
    const pb_host *h = r->host;
    for (int32_t i = 0; i < r->n_files; i++)
        st_unmap(r->files[i]);
    h->free(h, r->files);
    h->free(h, r->tensors);
    h->free(h, r->kv);
    st_pool_free(r);
    *r = (st_reader){ .host = h };
}

/* ---- interface --------------------------------------------------------- */

static int open_(void *self, const char *path, pb_err *err)
{
    st_reader *r = self;
    struct stat st;
    close_all(r);
    r->err = err;
    if (!path || !*path)
        return fail(err, PB_E_INVAL, "which model? the path is empty");
    if (stat(path, &st))
        return fail(err, errno == ENOENT ? PB_E_INVAL : PB_E_IO, "%s: %s", path, strerror(errno));
    int rc = S_ISDIR(st.st_mode) ? open_folder(r, path) : open_file(r, path);
    char *own = rc ? NULL : st_text(r, path, strlen(path));
    if (!rc && !own)
        rc = err->code;
    if (rc) {
        close_all(r);
        return rc;
    }
    r->meta = (pb_meta){ .size = sizeof(pb_meta),
                         .naming = "hf",
                         .path = own,
                         .n_kv = r->n_kv,
                         .n_tensors = r->n_tensors,
                         .kv = r->kv,
                         .tensors = r->tensors };
    r->opened = 1;
    return 0;
}

static const pb_meta *meta(void *self)
{
    const st_reader *r = self;
    return r->opened ? &r->meta : NULL;
}

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    st_reader *r = host->alloc(host, sizeof *r, 0, "reader");
    (void)cfg;
    if (!r)
        return fail(err, PB_E_NOMEM, "no memory for the reader");
    r->host = host;
    *self = r;
    return 0;
}

static void destroy(void *self)
{
    st_reader *r = self;
    const pb_host *h = r->host;
    close_all(r);
    h->free(h, r);
}

static const pb_weights weights = { .size = sizeof weights, .open = open_, .meta = meta };
static const pb_iface ifaces[] = { { "weights/1", &weights }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .flags = PB_EXACT,
    .slot = "weights",
    .name = "safetensors",
    .version = "0.1",
    .license = "MIT",
    .summary = "reads a Hugging Face folder of safetensors files",
    .ifaces = ifaces,
    .create = create,
    .destroy = destroy,
};
