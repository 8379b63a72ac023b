/* SPDX-License-Identifier: MIT
 *
 * plugins/model-llama/names.c - hyperparameters and tensor names of a Llama-like model, as GGUF
 * files (ggml-org/ggml docs/gguf.md) and as Hugging Face folders (config.json) write them.
 *
 * Nothing is built here. Invariant: after read_shape every product of two hyperparameters fits
 * an int32_t, so that llama.c multiplies without care.
 */
#include "llama.h"
#include "../weights-common/fail.h"

#include <math.h>
#include <string.h>

enum { MAX_LAYERS = 4096, MAX_WIDTH = 1 << 20, MAX_HEADS = 4096, MAX_HEAD_DIM = 4096 };

static const char *const names[T_COUNT][2] = {
    [T_EMBED] = { "token_embd.weight", "model.embed_tokens.weight" },
    [T_OUT_NORM] = { "output_norm.weight", "model.norm.weight" },
    [T_OUTPUT] = { "output.weight", "lm_head.weight" },
    [T_FREQS] = { "rope_freqs.weight", "" },
    [T_ATTN_NORM] = { "blk.%d.attn_norm.weight", "model.layers.%d.input_layernorm.weight" },
    [T_Q] = { "blk.%d.attn_q.weight", "model.layers.%d.self_attn.q_proj.weight" },
    [T_K] = { "blk.%d.attn_k.weight", "model.layers.%d.self_attn.k_proj.weight" },
    [T_V] = { "blk.%d.attn_v.weight", "model.layers.%d.self_attn.v_proj.weight" },
    [T_O] = { "blk.%d.attn_output.weight", "model.layers.%d.self_attn.o_proj.weight" },
    [T_FFN_NORM] = { "blk.%d.ffn_norm.weight", "model.layers.%d.post_attention_layernorm.weight" },
    [T_GATE] = { "blk.%d.ffn_gate.weight", "model.layers.%d.mlp.gate_proj.weight" },
    [T_UP] = { "blk.%d.ffn_up.weight", "model.layers.%d.mlp.up_proj.weight" },
    [T_DOWN] = { "blk.%d.ffn_down.weight", "model.layers.%d.mlp.down_proj.weight" },
    [T_Q_BIAS] = { "blk.%d.attn_q.bias", "model.layers.%d.self_attn.q_proj.bias" },
    [T_K_BIAS] = { "blk.%d.attn_k.bias", "model.layers.%d.self_attn.k_proj.bias" },
    [T_V_BIAS] = { "blk.%d.attn_v.bias", "model.layers.%d.self_attn.v_proj.bias" },
    [T_O_BIAS] = { "blk.%d.attn_output.bias", "model.layers.%d.self_attn.o_proj.bias" },
    [T_GATE_BIAS] = { "blk.%d.ffn_gate.bias", "model.layers.%d.mlp.gate_proj.bias" },
    [T_UP_BIAS] = { "blk.%d.ffn_up.bias", "model.layers.%d.mlp.up_proj.bias" },
    [T_DOWN_BIAS] = { "blk.%d.ffn_down.bias", "model.layers.%d.mlp.down_proj.bias" },
};

int is_hf(const pb_meta *m)
{
    return !strcmp(m->naming, "hf");
}

/* snprintf with the one %d of the table above, which the compiler cannot check */
void tensor_name(const pb_meta *m, int what, int32_t layer, char *buf, size_t n)
{
    const char *form = names[what][is_hf(m)], *d = strstr(form, "%d");
    if (d)
        snprintf(buf, n, "%.*s%d%s", (int)(d - form), form, (int)layer, d + 2);
    else
        snprintf(buf, n, "%s", form);
}

static const pb_tensor *by_name(const pb_meta *m, const char *name)
{
    for (int32_t i = 0; i < m->n_tensors && name[0]; i++)
        if (!strcmp(m->tensors[i].name, name))
            return &m->tensors[i];
    return NULL;
}

const pb_tensor *find_tensor(const pb_meta *m, int what, int32_t layer)
{
    char name[128];
    tensor_name(m, what, layer, name, sizeof name);
    return by_name(m, name);
}

const pb_tensor *find_scale(const pb_meta *m, int what, int32_t layer)
{
    char name[128];
    static const char weight[] = ".weight";
    tensor_name(m, what, layer, name, sizeof name);
    size_t n = strlen(name), k = sizeof weight - 1;
    if (is_hf(m) || n < k || strcmp(name + n - k, weight) != 0)
        return NULL;
    snprintf(name + n - k, sizeof name - n + k, ".scale");
    return by_name(m, name);
}

int is_ballast(const char *name)
{
    /* scales of activations for formats that quantize them; tables that the config implies */
    static const char *const ends[] = { ".input_scale", "rotary_emb.inv_freq",
                                        "attn_rot_embd.weight" };
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t n = strlen(name), k = strlen(ends[i]);
        if (n >= k && !strcmp(name + n - k, ends[i]))
            return 1;
    }
    return 0;
}

/* ---- keys -------------------------------------------------------------- */

/* A scalar by key; in GGUF "%" stands for the architecture: "%.block_count". */
static const pb_meta_kv *find_key(const pb_meta *m, const char *form, char *key, size_t n)
{
    pb_str a = arch_of(m);
    if (form[0] == '%')
        snprintf(key, n, "%.*s%s", (int)(a.n < 64 ? a.n : 64), a.s, form + 1);
    else
        snprintf(key, n, "%s", form);
    for (int32_t i = 0; i < m->n_kv; i++)
        if (!strcmp(m->kv[i].key, key))
            return &m->kv[i];
    return NULL;
}

pb_str arch_of(const pb_meta *m)
{
    const char *key = is_hf(m) ? "model_type" : "general.architecture";
    for (int32_t i = 0; i < m->n_kv; i++)
        if (!strcmp(m->kv[i].key, key) && m->kv[i].type == PB_M_STR && m->kv[i].n < 0)
            return m->kv[i].s;
    return (pb_str){ "", 0 };
}

/* Integer under one of the forms (NULL-terminated pair): 0 found, 1 absent, or an error. */
static int get_int(const pb_meta *m, const char *form, int64_t lo, int64_t hi, int32_t *out,
                   pb_err *err)
{
    char key[160];
    const pb_meta_kv *kv = find_key(m, form, key, sizeof key);
    if (!kv)
        return 1;
    int64_t v = kv->i;
    if (kv->n >= 0 && kv->type == PB_M_INT && kv->n > 0) { /* one entry a layer */
        v = kv->is[0];
        for (int64_t i = 1; i < kv->n; i++)
            if (kv->is[i] != v)
                return fail(err, PB_E_UNSUPPORTED,
                            "%s: %s differs between layers (%lld in layer 0, %lld in layer %lld)",
                            m->path, key, (long long)v, (long long)kv->is[i], (long long)i);
    } else if (kv->n >= 0 || kv->type != PB_M_INT)
        return fail(err, PB_E_FORMAT, "%s: %s is not an integer", m->path, key);
    if (v < lo || v > hi)
        return fail(err, PB_E_FORMAT, "%s: %s = %lld is outside of %lld..%lld", m->path, key,
                    (long long)v, (long long)lo, (long long)hi);
    *out = (int32_t)v;
    return 0;
}

static int need_int(const pb_meta *m, const char *form, int64_t lo, int64_t hi, int32_t *out,
                    pb_err *err)
{
    char key[160];
    int rc = get_int(m, form, lo, hi, out, err);
    if (rc <= 0)
        return rc;
    find_key(m, form, key, sizeof key);
    return fail(err, PB_E_FORMAT, "%s: key %s is missing", m->path, key);
}

/* as get_int; integers are numbers too */
static int get_float(const pb_meta *m, const char *form, double lo, double hi, double *out,
                     pb_err *err)
{
    char key[160];
    const pb_meta_kv *kv = find_key(m, form, key, sizeof key);
    if (!kv)
        return 1;
    if (kv->n >= 0 || (kv->type != PB_M_FLOAT && kv->type != PB_M_INT))
        return fail(err, PB_E_FORMAT, "%s: %s is not a number", m->path, key);
    double v = kv->type == PB_M_INT ? (double)kv->i : kv->f;
    if (!(v >= lo && v <= hi))
        return fail(err, PB_E_FORMAT, "%s: %s = %g is outside of %g..%g", m->path, key, v, lo, hi);
    *out = v;
    return 0;
}

static int need_float(const pb_meta *m, const char *form, double lo, double hi, double *out,
                      pb_err *err)
{
    char key[160];
    int rc = get_float(m, form, lo, hi, out, err);
    if (rc <= 0)
        return rc;
    find_key(m, form, key, sizeof key);
    return fail(err, PB_E_FORMAT, "%s: key %s is missing", m->path, key);
}

static pb_str get_str(const pb_meta *m, const char *form)
{
    char key[160];
    const pb_meta_kv *kv = find_key(m, form, key, sizeof key);
    return kv && kv->type == PB_M_STR && kv->n < 0 ? kv->s : (pb_str){ "", 0 };
}

static int str_is(pb_str s, const char *word)
{
    return s.n == strlen(word) && !memcmp(s.s, word, s.n);
}

/* ---- rope scaling ------------------------------------------------------ */

static int gguf_rope(const pb_meta *m, shape *s, pb_err *err)
{
    pb_str type = get_str(m, "%.rope.scaling.type");
    double f = 1;
    int rc = get_float(m, "%.rope.scaling.factor", 0, 1e6, &f, err);
    if (rc == 1)
        rc = get_float(m, "%.rope.scale_linear", 0, 1e6, &f, err);
    if (rc < 0)
        return rc;
    if (type.n && !str_is(type, "none") && !str_is(type, "linear"))
        return fail(err, PB_E_UNSUPPORTED,
                    "%s: llama.rope.scaling.type = \"%.*s\"; known are none and linear", m->path,
                    (int)(type.n < 40 ? type.n : 40), type.s);
    s->rope_scale = f > 0 && !str_is(type, "none") ? 1 / f : 1;
    return 0;
}

static const char *const hf_rope_prefix[] = { "rope_scaling.", "rope_parameters." };

static int hf_rope_number(const pb_meta *m, const char *name, double *out, pb_err *err)
{
    char form[64];
    for (int i = 0; i < 2; i++) {
        snprintf(form, sizeof form, "%s%s", hf_rope_prefix[i], name);
        int rc = get_float(m, form, 0, 1e12, out, err);
        if (rc <= 0)
            return rc;
    }
    return 1;
}

static int hf_rope(const pb_meta *m, shape *s, pb_err *err)
{
    static const char *const type_keys[] = { "rope_scaling.rope_type", "rope_scaling.type",
                                             "rope_parameters.rope_type" };
    pb_str type = { "", 0 };
    double f = 1;
    for (int i = 0; i < 3 && !type.n; i++)
        type = get_str(m, type_keys[i]);
    int rc = hf_rope_number(m, "factor", &f, err);
    if (rc < 0)
        return rc;
    if (!type.n || str_is(type, "default"))
        return 0;
    if (!(f >= 1))
        return fail(err, PB_E_FORMAT, "%s: rope factor %g is below 1", m->path, f);
    if (str_is(type, "linear")) {
        s->rope_scale = 1 / f;
        return 0;
    }
    if (!str_is(type, "llama3"))
        return fail(err, PB_E_UNSUPPORTED,
                    "%s: rope type \"%.*s\"; known are default, linear and llama3", m->path,
                    (int)(type.n < 40 ? type.n : 40), type.s);
    double *const out[] = { &s->l3_low, &s->l3_high, &s->l3_context };
    static const char *const keys[] = { "low_freq_factor", "high_freq_factor",
                                        "original_max_position_embeddings" };
    for (int i = 0; i < 3; i++) {
        rc = hf_rope_number(m, keys[i], out[i], err);
        if (rc)
            return rc < 0
                       ? rc
                       : fail(err, PB_E_FORMAT, "%s: rope type llama3 lacks %s", m->path, keys[i]);
    }
    if (!(s->l3_low < s->l3_high) || !(s->l3_low > 0) || !(s->l3_context >= 1))
        return fail(err, PB_E_FORMAT,
                    "%s: llama3 rope with frequency factors %g, %g and original context %g",
                    m->path, s->l3_low, s->l3_high, s->l3_context);
    s->l3_factor = f;
    s->has_llama3 = 1;
    return 0;
}

/* ---- the two namings --------------------------------------------------- */

static int gguf_shape(const pb_meta *m, shape *s, pb_err *err)
{
    double eps = 0;
    int32_t experts = 0, value_dim;
    int rc = need_int(m, "%.block_count", 1, MAX_LAYERS, &s->layers, err);
    if (!rc)
        rc = need_int(m, "%.context_length", 1, INT32_MAX, &s->context, err);
    if (!rc)
        rc = need_int(m, "%.embedding_length", 1, MAX_WIDTH, &s->width, err);
    if (!rc)
        rc = need_int(m, "%.feed_forward_length", 1, MAX_WIDTH, &s->ffn, err);
    if (!rc)
        rc = need_int(m, "%.attention.head_count", 1, MAX_HEADS, &s->heads, err);
    if (!rc)
        rc = need_float(m, "%.attention.layer_norm_rms_epsilon", 0, 1, &eps, err);
    if (rc)
        return rc;
    s->eps = (float)eps;
    s->kv_heads = s->heads;
    s->head_dim = s->width / s->heads;
    rc = get_int(m, "%.attention.head_count_kv", 1, MAX_HEADS, &s->kv_heads, err);
    if (rc >= 0)
        rc = get_int(m, "%.attention.key_length", 1, MAX_HEAD_DIM, &s->head_dim, err);
    value_dim = s->head_dim;
    if (rc >= 0)
        rc = get_int(m, "%.attention.value_length", 1, MAX_HEAD_DIM, &value_dim, err);
    s->rope_dims = s->head_dim;
    if (rc >= 0)
        rc = get_int(m, "%.rope.dimension_count", 1, MAX_HEAD_DIM, &s->rope_dims, err);
    if (rc >= 0)
        rc = get_int(m, "%.attention.sliding_window", 0, INT32_MAX, &s->window, err);
    if (rc >= 0)
        rc = get_int(m, "%.expert_count", 0, INT32_MAX, &experts, err);
    if (rc >= 0)
        rc = get_float(m, "%.rope.freq_base", 1, 1e15, &s->rope_base, err);
    if (rc < 0)
        return rc;
    if (value_dim != s->head_dim)
        return fail(err, PB_E_UNSUPPORTED, "%s: key heads of %d and value heads of %d", m->path,
                    (int)s->head_dim, (int)value_dim);
    if (experts)
        return fail(err, PB_E_UNSUPPORTED,
                    "%s: llama.expert_count = %d; experts are not supported by model llama yet",
                    m->path, (int)experts);
    s->rope = PB_ROPE_PAIRS; /* the file's rows of q and k are permuted for it */
    s->tied = -1;
    return gguf_rope(m, s, err);
}

static int hf_shape(const pb_meta *m, shape *s, pb_err *err)
{
    double eps = 1e-6;
    char key[160];
    int rc = need_int(m, "num_hidden_layers", 1, MAX_LAYERS, &s->layers, err);
    if (!rc)
        rc = need_int(m, "hidden_size", 1, MAX_WIDTH, &s->width, err);
    if (!rc)
        rc = need_int(m, "intermediate_size", 1, MAX_WIDTH, &s->ffn, err);
    if (!rc)
        rc = need_int(m, "num_attention_heads", 1, MAX_HEADS, &s->heads, err);
    if (rc)
        return rc;
    s->context = 2048;
    s->kv_heads = s->heads;
    s->head_dim = s->width / s->heads;
    rc = get_int(m, "max_position_embeddings", 1, INT32_MAX, &s->context, err);
    if (rc >= 0)
        rc = get_int(m, "num_key_value_heads", 1, MAX_HEADS, &s->kv_heads, err);
    if (rc >= 0)
        rc = get_int(m, "head_dim", 1, MAX_HEAD_DIM, &s->head_dim, err);
    if (rc >= 0)
        rc = get_float(m, "rms_norm_eps", 0, 1, &eps, err);
    if (rc >= 0)
        rc = get_float(m, "rope_theta", 1, 1e15, &s->rope_base, err);
    if (rc == 1)
        rc = hf_rope_number(m, "rope_theta", &s->rope_base, err);
    if (rc < 0)
        return rc;
    s->eps = (float)eps;
    s->rope_dims = s->head_dim;
    s->rope = PB_ROPE_HALVES;
    const pb_meta_kv *tie = find_key(m, "tie_word_embeddings", key, sizeof key);
    s->tied = tie && tie->type == PB_M_BOOL && tie->n < 0 ? tie->i != 0 : 0;
    pb_str act = get_str(m, "hidden_act");
    if (act.n && !str_is(act, "silu"))
        return fail(err, PB_E_UNSUPPORTED, "%s: hidden_act = \"%.*s\"; known is silu", m->path,
                    (int)(act.n < 40 ? act.n : 40), act.s);
    return hf_rope(m, s, err);
}

int read_shape(const pb_meta *m, shape *s, pb_err *err)
{
    *s = (shape){ .rope_base = 10000, .rope_scale = 1 };
    int rc = is_hf(m) ? hf_shape(m, s, err) : gguf_shape(m, s, err);
    if (rc)
        return rc;
    if (s->heads % s->kv_heads)
        return fail(err, PB_E_FORMAT, "%s: %d query heads cannot share %d KV heads", m->path,
                    (int)s->heads, (int)s->kv_heads);
    if (s->head_dim < 1 || s->rope_dims > s->head_dim || s->rope_dims % 2)
        return fail(err, PB_E_FORMAT, "%s: rope over %d dimensions of heads of %d", m->path,
                    (int)s->rope_dims, (int)s->head_dim);
    return 0;
}
