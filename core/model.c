/* SPDX-License-Identifier: MIT
 *
 * core/model.c - reads a model: weights plugin, model plugin, tokenizer.
 */
#include "model.h"
#include <stdlib.h>
#include <string.h>

static const pbi_services no_services;

/* ARCH.context_length: what the model was trained with; 0: not said */
static int32_t trained_context(const pb_meta *m)
{
    static const char key[] = ".context_length";
    for (int32_t i = 0; i < m->n_kv; i++) {
        const pb_meta_kv *kv = &m->kv[i];
        size_t n = strlen(kv->key), k = sizeof key - 1;
        if (n > k && !strcmp(kv->key + n - k, key) && kv->type == PB_M_INT && kv->n < 0 &&
            kv->i > 0 && kv->i <= INT32_MAX)
            return (int32_t)kv->i;
    }
    return 0;
}

static int open_weights(pbi_model *m, const pbi_pipeline *p, const char *path, pb_err *err)
{
    int rc = pbi_instance_new(pbi_pipeline_use(p, "weights", 0), &no_services, &m->weights, err);
    if (rc)
        return rc;
    const pb_weights *w = pbi_instance_iface(m->weights, "weights/1");
    pbi_call_stat *st = pbi_call_stat_get(m->weights, "open");
    PBI_CALL(st, rc = w->open(pbi_instance_self(m->weights), path, err));
    if (rc)
        return rc;
    PBI_CALL(st, m->meta = w->meta(pbi_instance_self(m->weights)));
    if (!m->meta || m->meta->size != sizeof(pb_meta))
        return pbi_err(err, PB_E_PLUGIN, "weights %s: meta() after open() gave nothing usable",
                       pbi_instance_use(m->weights)->name);
    return 0;
}

/* as the file names it, for messages */
static const char *architecture_of(const pb_meta *m)
{
    for (int32_t i = 0; i < m->n_kv; i++)
        if (m->kv[i].type == PB_M_STR && m->kv[i].n < 0 &&
            (!strcmp(m->kv[i].key, "general.architecture") || !strcmp(m->kv[i].key, "model_type")))
            return m->kv[i].s.s;
    return "(none is named)";
}

static int open_program(pbi_model *m, const pbi_pipeline *p, pb_err *err)
{
    const pbi_use *use = pbi_pipeline_use(p, "model", 0);
    int rc = pbi_instance_new(use, &no_services, &m->model, err);
    if (!rc)
        rc = pbi_program_new(&m->program, err);
    if (rc)
        return rc;
    const pb_model *v = pbi_instance_iface(m->model, "model/1");
    int score = 0;
    PBI_CALL(pbi_call_stat_get(m->model, "match"), score = v->match(m->meta));
    if (score <= 0)
        return pbi_err(err, PB_E_UNSUPPORTED, "%s: model %s does not know the architecture %s",
                       m->meta->path, use->name, architecture_of(m->meta));
    PBI_CALL(pbi_call_stat_get(m->model, "build"),
             rc = v->build(pbi_instance_self(m->model), m->meta, m->context,
                           pbi_program_builder(m->program), err));
    if (rc)
        return rc;
    if (!pbi_program_get(m->program))
        return pbi_err(err, PB_E_PLUGIN, "model %s did not finish its program", use->name);
    return 0;
}

static int open_text(pbi_model *m, int flags, pb_err *err)
{
    int rc = pbi_tokenizer_new(m->meta, &m->tokenizer, &m->no_text);
    if (rc && (rc != PB_E_UNSUPPORTED || flags & PBI_MODEL_NEED_TEXT)) {
        if (err)
            *err = m->no_text;
        return rc;
    }
    if (rc || !m->program)
        return 0;
    int32_t n = pbi_tokenizer_size(m->tokenizer), n_vocab = pbi_program_get(m->program)->n_vocab;
    if (n > n_vocab)
        return pbi_err(err, PB_E_FORMAT, "%s: the vocabulary has %d tokens, the model's output %d",
                       m->meta->path, n, n_vocab);
    return 0;
}

int pbi_model_open(const pbi_pipeline *p, const char *path, int flags, pbi_model **out, pb_err *err)
{
    pbi_model *m = calloc(1, sizeof *m);
    if (!m)
        return pbi_err(err, PB_E_NOMEM, "no memory for a model");
    int rc = open_weights(m, p, path, err);
    if (!rc) {
        m->context = p->core.context ? (int32_t)p->core.context : trained_context(m->meta);
        if (!m->context)
            m->context = 2048; /* nobody said; what the first Llama had */
    }
    if (!rc && !(flags & PBI_MODEL_NO_PROGRAM))
        rc = open_program(m, p, err);
    if (!rc && !(flags & PBI_MODEL_NO_TEXT))
        rc = open_text(m, flags, err);
    if (rc) {
        pbi_model_close(m);
        return rc;
    }
    *out = m;
    return 0;
}

void pbi_model_close(pbi_model *m)
{
    if (!m)
        return;
    pbi_tokenizer_free(m->tokenizer);
    pbi_program_free(m->program);
    pbi_instance_free(m->model);
    pbi_instance_free(m->weights);
    free(m);
}
