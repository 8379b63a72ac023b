/* SPDX-License-Identifier: MIT
 *
 * core/text/text.h - text to token ids and back, for one model's vocabulary. Knows no
 * engine. Invariant: encode is total over byte strings (invalid UTF-8 included), and
 * detokenising never emits half a UTF-8 character unless told that the text ended.
 */
#ifndef PBI_TEXT_H
#define PBI_TEXT_H
#include <patchbay/plugin.h>

typedef struct pbi_tokenizer pbi_tokenizer;
/* From a model's metadata (tokenizer.ggml.*). meta must outlive it. Errors name the key. [main] */
int pbi_tokenizer_new(const pb_meta *meta, pbi_tokenizer **out, pb_err *err);
void pbi_tokenizer_free(pbi_tokenizer *t);

enum {
    PBI_TEXT_SPECIAL = 1,  /* special-token text becomes special tokens; else ordinary text */
    PBI_TEXT_NO_BOS = 2,   /* without this, BOS (and EOS) are added as the model asks */
    PBI_TEXT_NO_PREFIX = 4 /* no SentencePiece space prefix (continuation of a text) */
};
/* Ids of n bytes at s, in a malloc'ed array. [any] */
int pbi_tokenizer_encode(const pbi_tokenizer *t, const char *s, size_t n, int flags, int32_t **ids,
                         size_t *n_ids, pb_err *err);
/* The same for text of which user[i] = 1 tells the bytes that no one but the user wrote: special
 * tokens are found only where all bytes have user = 0 (chat templates). user may be NULL. */
int pbi_tokenizer_encode_marked(const pbi_tokenizer *t, const char *s, const unsigned char *user,
                                size_t n, int flags, int32_t **ids, size_t *n_ids, pb_err *err);
int32_t pbi_tokenizer_size(const pbi_tokenizer *t);
int pbi_tokenizer_is_eog(const pbi_tokenizer *t, int32_t id); /* ends a generation */
int pbi_tokenizer_is_special(const pbi_tokenizer *t, int32_t id);
/* Bytes of one token; special tokens are empty unless special is set. */
pb_str pbi_tokenizer_piece(const pbi_tokenizer *t, int32_t id, int special);
/* The text/1 service of this vocabulary; valid as long as t. */
const pb_text *pbi_tokenizer_service(const pbi_tokenizer *t);
/* The whole text of n ids, malloc'ed and 0-terminated. */
int pbi_tokenizer_decode(const pbi_tokenizer *t, const int32_t *ids, size_t n, int special,
                         char **text, size_t *n_text, pb_err *err);

/* Incremental detokenising: push a token, get the bytes that are now certain. Keeps at most
 * 3 bytes of an unfinished character. invalid bytes become U+FFFD. */
typedef struct pbi_detok {
    const pbi_tokenizer *t;
    int special, first;
    unsigned n_held;
    char held[8];
} pbi_detok;
/* For text that goes on after other text; set first = 1 for the beginning of one, where the
 * space prefix of SentencePiece is dropped. */
void pbi_detok_init(pbi_detok *d, const pbi_tokenizer *t, int special);
/* Appends to *buf (malloc'ed, *n bytes used, *cap allocated). last: flush what is held. */
int pbi_detok_push(pbi_detok *d, int32_t id, int last, char **buf, size_t *n, size_t *cap);

/* Stop strings across token borders. */
typedef struct pbi_stops pbi_stops;
int pbi_stops_new(int n, const char *const *stops, pbi_stops **out, pb_err *err);
void pbi_stops_free(pbi_stops *s);
/* Given all text so far, of which `sent` bytes were already sent: *n_safe = bytes that may be
 * sent (no longer part of a possible stop), returns 1 if a stop string is complete (then *n_safe
 * is where it begins). */
int pbi_stops_scan(const pbi_stops *s, const char *text, size_t n, size_t sent, size_t *n_safe);
#endif
