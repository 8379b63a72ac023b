/* SPDX-License-Identifier: MIT
 *
 * plugins/weights-safetensors/config.c - JSON of a folder as metadata: an object in an object is
 * "outer.inner", null is absent, arrays of numbers or of strings are arrays.
 */
#include "st.h"
#include "../weights-common/fail.h"

#include <string.h>

enum { MAX_DEPTH = 4, MAX_KEY = 256, SLACK = 32 << 20 };

pb_meta_kv *st_key(st_reader *r, const char *key, int32_t type)
{
    if (st_grow(r, &r->kv, r->n_kv, &r->cap_kv, sizeof *r->kv))
        return NULL;
    char *own = st_text(r, key, strlen(key));
    if (!own)
        return NULL;
    pb_meta_kv *kv = &r->kv[r->n_kv++];
    *kv = (pb_meta_kv){ .key = own, .type = type, .n = -1 };
    return kv;
}

int st_key_text(st_reader *r, const char *key, const char *s, size_t n)
{
    char *own = st_text(r, s, n);
    pb_meta_kv *kv = own ? st_key(r, key, PB_M_STR) : NULL;
    if (!kv)
        return r->err->code;
    kv->s = (pb_str){ own, n };
    return 0;
}

static int add_array(st_reader *r, const char *key, const json_t *j)
{
    size_t n = json_array_size(j), n_int = 0, n_num = 0, n_str = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *e = json_array_get(j, i);
        n_int += json_is_integer(e);
        n_num += json_is_number(e);
        n_str += json_is_string(e);
    }
    if (n_num != n && n_str != n)
        return 0; /* objects, booleans, nulls: nothing reads such arrays */
    int32_t type = n_str == n ? PB_M_STR : n_int == n ? PB_M_INT : PB_M_FLOAT;
    void *list = st_room(r, n * (type == PB_M_STR ? sizeof(pb_str) : 8));
    pb_meta_kv *kv = list ? st_key(r, key, type) : NULL;
    if (!kv)
        return r->err->code;
    kv->n = (int64_t)n;
    kv->is = type == PB_M_INT ? list : NULL;
    kv->fs = type == PB_M_FLOAT ? list : NULL;
    kv->ss = type == PB_M_STR ? list : NULL;
    for (size_t i = 0; i < n; i++) {
        const json_t *e = json_array_get(j, i);
        if (type == PB_M_INT)
            ((int64_t *)list)[i] = json_integer_value(e);
        else if (type == PB_M_FLOAT)
            ((double *)list)[i] = json_number_value(e);
        else {
            char *s = st_text(r, json_string_value(e), json_string_length(e));
            if (!s)
                return r->err->code;
            ((pb_str *)list)[i] = (pb_str){ s, json_string_length(e) };
        }
    }
    return 0;
}

static int add_object(st_reader *r, const char *path, const char *prefix, json_t *j, int depth)
{
    const char *name;
    json_t *v;
    char key[MAX_KEY];
    int rc = 0;
    json_object_foreach(j, name, v)
    {
        pb_meta_kv *kv = NULL;
        int n = snprintf(key, sizeof key, "%s%s%s", prefix, *prefix ? "." : "", name);
        if (n < 0 || (size_t)n >= sizeof key)
            return fail(r->err, PB_E_FORMAT, "%s: a key of over %d bytes: %.60s", path, MAX_KEY - 1,
                        name);
        if (json_is_object(v) && depth < MAX_DEPTH)
            rc = add_object(r, path, key, v, depth + 1);
        else if (json_is_array(v))
            rc = add_array(r, key, v);
        else if (json_is_string(v))
            rc = st_key_text(r, key, json_string_value(v), json_string_length(v));
        else if (json_is_integer(v) || json_is_real(v) || json_is_boolean(v)) {
            kv = st_key(r, key,
                        json_is_integer(v) ? PB_M_INT
                        : json_is_real(v)  ? PB_M_FLOAT
                                           : PB_M_BOOL);
            if (!kv)
                return r->err->code;
            kv->i = json_is_boolean(v) ? json_is_true(v) : json_integer_value(v);
            kv->f = json_is_real(v) ? json_real_value(v) : 0;
        }
        if (rc)
            return rc;
    }
    return 0;
}

int st_config(st_reader *r, const char *path)
{
    st_file *f;
    int rc = st_map(r, path, &f);
    if (rc)
        return rc;
    json_t *j = st_json(r, path, f->map ? (const void *)f->map : "", (size_t)f->size, SLACK);
    if (!j)
        return r->err->code;
    rc = add_object(r, path, "", j, 0);
    json_decref(j);
    return rc;
}
