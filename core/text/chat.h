/* SPDX-License-Identifier: MIT
 *
 * core/text/chat.h - a conversation to prompt ids, through the model's own chat template.
 *
 * Invariant: only text that the template itself wrote may become special tokens.
 */
#ifndef PBI_CHAT_H
#define PBI_CHAT_H
#include "jinja.h"
#include "text.h"

typedef struct pbi_chat pbi_chat;

/* The template of the metadata (tokenizer.chat_template), or source if that is not NULL. t and
 * meta outlive it. PB_E_UNSUPPORTED: the model has none. [main] */
int pbi_chat_new(const pb_meta *meta, const pbi_tokenizer *t, const char *source, pbi_chat **out,
                 pb_err *err);
void pbi_chat_free(pbi_chat *c);

/* Text of a conversation. messages: array of {"role", "content", ...}; extra: NULL, or an object
 * of further variables (tools, enable_thinking, ...). add_prompt: the assistant's turn is
 * opened. The time of strftime_now is that of the call. [any] */
int pbi_chat_render(const pbi_chat *c, const json_t *messages, const json_t *extra, int add_prompt,
                    pbi_marked *out, pb_err *err);
/* The same as ids, malloc'ed. [any] */
int pbi_chat_encode(const pbi_chat *c, const json_t *messages, const json_t *extra, int add_prompt,
                    int32_t **ids, size_t *n_ids, pb_err *err);
#endif
