/* SPDX-License-Identifier: MIT
 *
 * core/text/vocab.h - what the files of core/text share: the vocabulary as tables.
 *
 * Not for the rest of the core, which uses text.h. Invariant: built once by
 * pbi_tokenizer_new, then only read, so that all functions may run on any thread.
 */
#ifndef PBI_VOCAB_H
#define PBI_VOCAB_H
#include "error.h"
#include "text.h"

enum { PBI_VOCAB_SPM = 1, PBI_VOCAB_BPE = 2 };
/* token types of tokenizer.ggml.token_type (GGUF specification) */
enum {
    PBI_TOK_NORMAL = 1,
    PBI_TOK_UNKNOWN,
    PBI_TOK_CONTROL,
    PBI_TOK_USER,
    PBI_TOK_UNUSED,
    PBI_TOK_BYTE
};

/* strings to numbers, open addressing; the strings stay the caller's */
typedef struct pbi_strmap {
    uint32_t n, mask; /* mask + 1 entries, a power of two */
    struct pbi_strmap_entry {
        const char *s;
        uint32_t len, hash;
        int32_t value; /* -1: empty */
    } * e;
} pbi_strmap;

/* (left symbol, right symbol) to (rank, merged symbol) */
typedef struct pbi_mergemap {
    uint32_t n, mask;
    struct pbi_merge {
        int32_t left, right; /* left -1: empty */
        uint32_t rank;
        int32_t merged;
    } * e;
} pbi_mergemap;

/* trie of the tokens that are found in text before any merge */
typedef struct pbi_trie_node {
    int32_t child, next; /* first child; next sibling; -1 none */
    int32_t token;       /* token that ends here, or -1 */
    uint8_t byte, control;
} pbi_trie_node;

typedef struct pbi_splitter pbi_splitter;

struct pbi_tokenizer {
    int kind;
    int32_t n, n_syms; /* tokens; tokens and symbols that occur in merges only */
    pb_str *sym;       /* [n_syms] bytes that merges work on; [n) bytes of a token in text */
    uint8_t *type;     /* [n] PBI_TOK_* */
    uint8_t *eog;      /* [n] */
    uint32_t *rank;    /* SPM: [n] 0 = best score; equal scores, equal ranks */
    char *arena;
    size_t arena_used, arena_cap;
    pbi_strmap map; /* bytes -> symbol, of symbols that merges may make */
    pbi_mergemap merges;
    int32_t byte_id[256]; /* token of a single byte, -1 none */
    pbi_trie_node *trie;
    int32_t n_trie, trie_root[256];
    pbi_splitter *splitter; /* BPE */
    size_t max_sym;         /* longest symbol in bytes */
    int32_t bos, eos, unk;
    int add_bos, add_eos, add_prefix, ignore_merges, nfc;
    int words; /* SPM: no token has a space mark after another character, so words are apart */
    pb_text service;
};

int pbi_strmap_init(pbi_strmap *m, size_t n);
/* The first value put for a string stays. */
void pbi_strmap_put(pbi_strmap *m, const char *s, size_t len, int32_t value);
int32_t pbi_strmap_get(const pbi_strmap *m, const char *s, size_t len); /* -1: none */
int pbi_mergemap_init(pbi_mergemap *m, size_t n);
void pbi_mergemap_put(pbi_mergemap *m, int32_t left, int32_t right, uint32_t rank, int32_t merged);
const struct pbi_merge *pbi_mergemap_get(const pbi_mergemap *m, int32_t left, int32_t right);

/* growing array of ids; failed: memory ran out */
typedef struct pbi_ids {
    int32_t *id;
    size_t n, cap;
    int failed;
} pbi_ids;
void pbi_ids_push(pbi_ids *v, int32_t id);
/* appends out[from, from + n) of the same array */
void pbi_ids_repeat(pbi_ids *v, size_t from, size_t n);

/* Tokens of one word: bytes or characters are merged pairwise, best rank first, of equal ranks
 * the leftmost. O(n log n). scratch is reused between calls. */
typedef struct pbi_merger pbi_merger;
pbi_merger *pbi_merger_new(const pbi_tokenizer *t);
void pbi_merger_free(pbi_merger *g);
int pbi_merger_word(pbi_merger *g, const char *s, size_t n, pbi_ids *out);

/* Pre-tokenizers of byte-level BPE: cuts text into words with the patterns of the name. */
int pbi_splitter_new(const char *name, size_t len, pbi_splitter **out, pb_err *err);
void pbi_splitter_free(pbi_splitter *s);
int pbi_splitter_ignore_merges(const pbi_splitter *s);
int pbi_splitter_nfc(const pbi_splitter *s);
/* Calls word(arg, s, n) for each piece of valid UTF-8 text in order; they cover it. */
int pbi_splitter_run(const pbi_splitter *sp, const char *s, size_t n,
                     int (*word)(void *arg, const char *s, size_t n), void *arg, pb_err *err);

/* Bytes of the UTF-8 character at s (n > 0 bytes left), 1..4; 0: invalid here. *cut is set when
 * it is the beginning of a character that needs more bytes than n. cut may be NULL. */
size_t pbi_utf8_char(const char *s, size_t n, int *cut);
/* Builds the tables from the metadata. */
int pbi_vocab_load(pbi_tokenizer *t, const pb_meta *m, pb_err *err);
#endif
