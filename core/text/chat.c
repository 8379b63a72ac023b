/* SPDX-License-Identifier: MIT
 *
 * core/text/chat.c - a conversation to prompt ids, through the model's own chat template.
 */
#define _POSIX_C_SOURCE 200809L /* localtime_r */
#include "chat.h"
#include <stdlib.h>
#include <string.h>

struct pbi_chat {
    const pbi_tokenizer *t;
    pbi_jinja *jinja;
};

static const pb_meta_kv *find(const pb_meta *m, const char *key)
{
    for (int32_t i = 0; i < m->n_kv; i++)
        if (!strcmp(m->kv[i].key, key) && m->kv[i].n < 0 && m->kv[i].type == PB_M_STR)
            return &m->kv[i];
    return NULL;
}

int pbi_chat_new(const pb_meta *meta, const pbi_tokenizer *t, const char *source, pbi_chat **out,
                 pb_err *err)
{
    const pb_meta_kv *kv = source ? NULL : find(meta, "tokenizer.chat_template");
    if (!source && !kv)
        return pbi_err(err, PB_E_UNSUPPORTED,
                       "%s has no chat template (tokenizer.chat_template): it is a base model; "
                       "give a plain prompt instead",
                       meta->path);
    pbi_chat *c = calloc(1, sizeof *c);
    if (!c)
        return pbi_err(err, PB_E_NOMEM, "no memory for a chat template");
    c->t = t;
    int rc = pbi_jinja_parse(source ? source : kv->s.s, source ? strlen(source) : kv->s.n, NULL,
                             &c->jinja, err);
    if (rc) {
        free(c);
        return rc;
    }
    *out = c;
    return 0;
}

void pbi_chat_free(pbi_chat *c)
{
    if (!c)
        return;
    pbi_jinja_free(c->jinja);
    free(c);
}

/* bos_token and the like, as templates want them: the text of the token */
static void put_token(json_t *ctx, const pbi_tokenizer *t, const char *name, int32_t id)
{
    pb_str s = id >= 0 ? pbi_tokenizer_piece(t, id, 1) : (pb_str){ "", 0 };
    json_t *v = json_stringn(s.s, s.n); /* NULL if it is not UTF-8: then absent */
    if (v)
        json_object_set_new(ctx, name, v);
}

int pbi_chat_render(const pbi_chat *c, const json_t *messages, const json_t *extra, int add_prompt,
                    pbi_marked *out, pb_err *err)
{
    struct tm tm;
    time_t now = time(NULL);
    const pb_text *text = pbi_tokenizer_service(c->t);
    json_t *ctx = json_object();
    if (!ctx || !localtime_r(&now, &tm)) {
        json_decref(ctx);
        return pbi_err(err, PB_E_NOMEM, "no memory for a conversation");
    }
    if (extra)
        json_object_update(ctx, (json_t *)(uintptr_t)extra);
    json_object_set(ctx, "messages", (json_t *)(uintptr_t)messages);
    json_object_set_new(ctx, "add_generation_prompt", json_boolean(add_prompt));
    put_token(ctx, c->t, "bos_token", text->bos);
    put_token(ctx, c->t, "eos_token", text->eos);
    int rc = pbi_jinja_render(c->jinja, ctx, &tm, out, err);
    json_decref(ctx);
    return rc;
}

int pbi_chat_encode(const pbi_chat *c, const json_t *messages, const json_t *extra, int add_prompt,
                    int32_t **ids, size_t *n_ids, pb_err *err)
{
    pbi_marked m;
    int rc = pbi_chat_render(c, messages, extra, add_prompt, &m, err);
    if (rc)
        return rc;
    rc = pbi_tokenizer_encode_marked(c->t, m.s, m.user, m.n, PBI_TEXT_SPECIAL, ids, n_ids, err);
    pbi_marked_clear(&m);
    return rc;
}
