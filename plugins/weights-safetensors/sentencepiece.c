/* SPDX-License-Identifier: MIT
 *
 * plugins/weights-safetensors/sentencepiece.c - a tokenizer.model (google/sentencepiece,
 * sentencepiece_model.proto) as the tokenizer.ggml.* keys that GGUF files have, so that one
 * vocabulary loader reads both.
 *
 * Only the wire format of protocol buffers is known here: tag, then a number or counted bytes.
 * Invariant: every length is compared with what is left before it is used.
 */
#include "st.h"
#include "../weights-common/fail.h"

#include <inttypes.h>
#include <string.h>

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };
enum { MODEL_PIECE = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3, TYPE_NORMAL = 1 };
enum { TRAINER_MODEL = 3, TRAINER_UNK = 40, TRAINER_BOS = 41, TRAINER_EOS = 42, MODEL_BPE = 2 };
enum { NORMALIZER_PREFIX = 3 };

typedef struct cursor {
    const unsigned char *p, *end;
} cursor;

/* One field. Numbers (of 32 and 64 bits too) in v, bytes in sub. */
typedef struct field {
    uint32_t number, wire;
    uint64_t v;
    cursor sub;
} field;

static int varint(cursor *c, uint64_t *v)
{
    *v = 0;
    for (int shift = 0; shift < 64 && c->p < c->end; shift += 7) {
        unsigned char b = *c->p++;
        *v |= (uint64_t)(b & 127) << shift;
        if (b < 128)
            return 0;
    }
    return -1;
}

static int fixed(cursor *c, int n, uint64_t *v)
{
    if (c->end - c->p < n)
        return -1;
    *v = 0;
    for (int i = n; i-- > 0;)
        *v = *v << 8 | c->p[i];
    c->p += n;
    return 0;
}

/* 1: a field, 0: the end, -1: broken */
static int next(cursor *c, field *f)
{
    uint64_t tag, n;
    if (c->p == c->end)
        return 0;
    if (varint(c, &tag) || tag >> 3 > UINT32_MAX)
        return -1;
    *f = (field){ .number = (uint32_t)(tag >> 3), .wire = (uint32_t)(tag & 7) };
    switch (f->wire) {
    case WIRE_VARINT: return varint(c, &f->v) ? -1 : 1;
    case WIRE_64: return fixed(c, 8, &f->v) ? -1 : 1;
    case WIRE_32: return fixed(c, 4, &f->v) ? -1 : 1;
    case WIRE_BYTES:
        if (varint(c, &n) || n > (uint64_t)(c->end - c->p))
            return -1;
        f->sub = (cursor){ c->p, c->p + n };
        c->p += n;
        return 1;
    default: return -1;
    }
}

typedef struct vocabulary {
    int64_t n;
    pb_str *text;
    double *score;
    int64_t *type, unk, bos, eos, model, prefix;
} vocabulary;

static int read_piece(st_reader *r, cursor c, vocabulary *v)
{
    field f;
    int rc;
    int64_t i = v->n++;
    v->type[i] = TYPE_NORMAL;
    v->text[i] = (pb_str){ "", 0 };
    while ((rc = next(&c, &f)) > 0) {
        if (f.number == PIECE_TEXT && f.wire == WIRE_BYTES) {
            size_t n = (size_t)(f.sub.end - f.sub.p);
            char *s = st_text(r, (const char *)f.sub.p, n);
            if (!s)
                return r->err->code;
            v->text[i] = (pb_str){ s, n };
        } else if (f.number == PIECE_SCORE && f.wire == WIRE_32) {
            uint32_t bits = (uint32_t)f.v;
            float s;
            memcpy(&s, &bits, 4);
            v->score[i] = (double)s;
        } else if (f.number == PIECE_TYPE && f.wire == WIRE_VARINT)
            v->type[i] = f.v <= 6 ? (int64_t)f.v : TYPE_NORMAL;
    }
    return rc;
}

static int read_settings(cursor c, int of, vocabulary *v)
{
    field f;
    int rc;
    while ((rc = next(&c, &f)) > 0) {
        int64_t x = (int32_t)(uint32_t)f.v; /* -1: none */
        if (f.wire != WIRE_VARINT)
            continue;
        if (of == MODEL_NORMALIZER && f.number == NORMALIZER_PREFIX)
            v->prefix = f.v != 0;
        else if (of == MODEL_TRAINER && f.number == TRAINER_MODEL)
            v->model = x;
        else if (of == MODEL_TRAINER && f.number == TRAINER_UNK)
            v->unk = x;
        else if (of == MODEL_TRAINER && f.number == TRAINER_BOS)
            v->bos = x;
        else if (of == MODEL_TRAINER && f.number == TRAINER_EOS)
            v->eos = x;
    }
    return rc;
}

static int add_keys(st_reader *r, const vocabulary *v)
{
    /* the names that GGUF has for the two algorithms */
    const char *model = v->model == MODEL_BPE ? "llama" : "t5";
    int rc = st_key_text(r, "tokenizer.ggml.model", model, strlen(model));
    const struct {
        const char *key;
        int32_t type;
        int64_t n, i;
    } keys[] = { { "tokenizer.ggml.tokens", PB_M_STR, v->n, 0 },
                 { "tokenizer.ggml.scores", PB_M_FLOAT, v->n, 0 },
                 { "tokenizer.ggml.token_type", PB_M_INT, v->n, 0 },
                 { "tokenizer.ggml.unknown_token_id", PB_M_INT, -1, v->unk },
                 { "tokenizer.ggml.bos_token_id", PB_M_INT, -1, v->bos },
                 { "tokenizer.ggml.eos_token_id", PB_M_INT, -1, v->eos },
                 { "tokenizer.ggml.add_space_prefix", PB_M_BOOL, -1, v->prefix } };
    for (size_t k = 0; k < sizeof keys / sizeof *keys && !rc; k++) {
        pb_meta_kv *kv = st_key(r, keys[k].key, keys[k].type);
        if (!kv)
            return r->err->code;
        kv->n = keys[k].n;
        kv->i = keys[k].i;
        kv->ss = keys[k].n >= 0 && keys[k].type == PB_M_STR ? v->text : NULL;
        kv->fs = keys[k].n >= 0 && keys[k].type == PB_M_FLOAT ? v->score : NULL;
        kv->is = keys[k].n >= 0 && keys[k].type == PB_M_INT ? v->type : NULL;
    }
    return rc;
}

int st_sentencepiece(st_reader *r, const st_file *file)
{
    static const unsigned char none[1];
    const unsigned char *start = file->map ? file->map : none;
    vocabulary v = { .bos = 1, .eos = 2, .model = 1, .prefix = 1 };
    cursor all = { start, start + file->size }, c = all;
    field f;
    size_t n = 0;
    int rc;
    while ((rc = next(&c, &f)) > 0)
        n += f.number == MODEL_PIECE && f.wire == WIRE_BYTES;
    if (rc < 0 || !n)
        return fail(r->err, PB_E_FORMAT, "%s: no SentencePiece model: broken at offset %" PRIu64,
                    file->path, (uint64_t)(c.p - start));
    v.text = st_room(r, n * sizeof *v.text);
    v.score = v.text ? st_room(r, n * sizeof *v.score) : NULL;
    v.type = v.score ? st_room(r, n * sizeof *v.type) : NULL;
    if (!v.type)
        return r->err->code;
    for (c = all; (rc = next(&c, &f)) > 0;) {
        if (f.wire != WIRE_BYTES)
            continue;
        rc = f.number == MODEL_PIECE ? read_piece(r, f.sub, &v)
                                     : read_settings(f.sub, (int)f.number, &v);
        if (rc == -1)
            return fail(r->err, PB_E_FORMAT,
                        "%s: the field that ends at offset %" PRIu64 " is broken", file->path,
                        (uint64_t)(c.p - start));
        if (rc)
            return rc;
    }
    return add_keys(r, &v);
}
