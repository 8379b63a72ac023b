/* SPDX-License-Identifier: MIT
 *
 * core/text/split.c - pre-tokenizers of byte-level BPE: regular expressions that cut text into
 * the words within which merges happen.
 *
 * The patterns are facts of the vocabularies: GPT-2 (openai/gpt-2 encoder.py), Llama 3, Qwen 2,
 * SmolLM and DeepSeek (pre_tokenizer of their tokenizer.json; the names are those of
 * tokenizer.ggml.pre). White space is written out, since \s of PCRE2 is not Unicode's
 * White_Space. Several patterns are passes: each cuts the pieces of the one before, and what a
 * pass does not match is a piece too. Invariant: the pieces cover the text in order.
 */
#include "vocab.h"
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

/* inside of a class: Unicode White_Space */
#define W "\\p{Z}\\t-\\r\\x{85}"
#define ENDS "'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])"
#define GPT2                                                                                       \
    "'(?:s|t|re|ve|m|ll|d)| ?\\p{L}+| ?\\p{N}+| ?[^" W "\\p{L}\\p{N}]+|[" W "]+(?![^" W "])|[" W   \
    "]+"
#define CL100K(digits)                                                                             \
    ENDS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^" W "\\p{L}\\p{N}]+[\\r\\n]*|[" W          \
         "]*[\\r\\n]+|[" W "]+(?![^" W "])|[" W "]+"
#define CJK_LLM "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"
/* cased letters as of the Unicode version that DeepSeek's tokenizer.json was made with */
#define DS_LETTERS                                                                                 \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}"                 \
    "\\x{1c4}-\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}"         \
    "\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}"                  \
    "\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}"                       \
    "\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}"                 \
    "\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}"                 \
    "\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}"                 \
    "\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}"         \
    "\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}"                           \
    "\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}"                 \
    "\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}"          \
    "\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}"                  \
    "\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}"         \
    "\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}"                  \
    "\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}"                 \
    "\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}"                 \
    "\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}"         \
    "\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"

typedef struct recipe {
    const char *names; /* space separated */
    const char *pass[7];
    int ignore_merges; /* a word that is a token is that token, whatever merges would make */
    int nfc;
} recipe;

static const recipe recipes[] = {
    { "gpt-2 phi-2 mpt olmo roberta-bpe", { GPT2 }, 0, 0 },
    { "smollm starcoder refact command-r", { "\\p{N}", GPT2 }, 0, 0 },
    { "llama3 llama-v3 llama-bpe falcon3 pixtral", { CL100K("\\p{N}{1,3}") }, 1, 0 },
    { "qwen2 deepseek-r1-qwen", { CL100K("\\p{N}") }, 0, 1 },
    { "stablelm2", { CL100K("\\p{N}") }, 0, 0 },
    { "deepseek-llm",
      { "[\\r\\n]", "[" W "]?[" DS_LETTERS "]+",
        "[" W "]?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}"
        "\\x{3000}-\\x{3002}]+",
        "(?<![" W "])[" W "]+$", CJK_LLM, "\\p{N}" }, /* lookbehind: linear time */
      0,
      0 },
    { "deepseek-coder",
      { "[\\r\\n]", "[" W "]?\\p{L}+", "[" W "]?\\p{P}+", CJK_LLM, "\\p{N}" },
      0,
      0 },
    { "deepseek-v3",
      { "\\p{N}{1,3}", "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
        "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|[" W
        "]*[\\r\\n]+|[" W "]+(?![^" W "])|[" W "]+" },
      0,
      0 },
};

enum { MAX_PASS = 7 };
struct pbi_splitter {
    const recipe *recipe;
    int n_pass;
    pcre2_code *pass[MAX_PASS];
};

static const recipe *recipe_find(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++)
        for (const char *p = recipes[i].names; *p;) {
            size_t n = strcspn(p, " ");
            if (n == len && !memcmp(p, name, n))
                return &recipes[i];
            p += n + (p[n] != 0);
        }
    return NULL;
}

int pbi_splitter_new(const char *name, size_t len, pbi_splitter **out, pb_err *err)
{
    const recipe *r = recipe_find(name, len);
    if (!r)
        return pbi_err(err, PB_E_UNSUPPORTED,
                       "tokenizer.ggml.pre = \"%.*s\": no such pre-tokenizer here; known are "
                       "gpt-2, smollm, llama-bpe, qwen2, stablelm2, deepseek-llm, "
                       "deepseek-coder, deepseek-v3 and their aliases",
                       (int)(len < 64 ? len : 64), name);
    pbi_splitter *s = calloc(1, sizeof *s);
    if (!s)
        return pbi_err(err, PB_E_NOMEM, "no memory for a pre-tokenizer");
    s->recipe = r;
    while (s->n_pass < MAX_PASS && r->pass[s->n_pass]) {
        int code;
        size_t at;
        const char *p = r->pass[s->n_pass];
        pcre2_code *c =
            pcre2_compile((PCRE2_SPTR)p, PCRE2_ZERO_TERMINATED,
                          PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &code, &at, NULL);
        if (!c) {
            pbi_splitter_free(s);
            return pbi_err(err, PB_E_INTERNAL, "pre-tokenizer %.*s: PCRE2 error %d at %zu",
                           (int)len, name, code, at);
        }
        (void)pcre2_jit_compile(c, PCRE2_JIT_COMPLETE); /* without a JIT it is only slower */
        s->pass[s->n_pass++] = c;
    }
    *out = s;
    return 0;
}

void pbi_splitter_free(pbi_splitter *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->n_pass; i++)
        pcre2_code_free(s->pass[i]);
    free(s);
}

int pbi_splitter_ignore_merges(const pbi_splitter *s)
{
    return s->recipe->ignore_merges;
}

int pbi_splitter_nfc(const pbi_splitter *s)
{
    return s->recipe->nfc;
}

typedef struct run {
    const pbi_splitter *sp;
    pcre2_match_data *md;
    int (*word)(void *arg, const char *s, size_t n);
    void *arg;
    pb_err *err;
} run;

static int run_pass(run *r, int pass, const char *s, size_t n)
{
    if (!n)
        return 0;
    if (pass == r->sp->n_pass)
        return r->word(r->arg, s, n);
    size_t done = 0;
    while (done < n) {
        int rc = pcre2_match(r->sp->pass[pass], (PCRE2_SPTR)s, n, done,
                             PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, r->md, NULL);
        if (rc == PCRE2_ERROR_NOMATCH)
            break;
        if (rc < 0)
            return pbi_err(r->err, PB_E_NOMEM,
                           "pre-tokenizer: PCRE2 error %d in a text of %zu bytes", rc, n);
        const size_t *v = pcre2_get_ovector_pointer(r->md);
        size_t b = v[0], e = v[1]; /* the next pass overwrites v */
        rc = run_pass(r, pass + 1, s + done, b - done);
        if (!rc)
            rc = run_pass(r, pass + 1, s + b, e - b);
        if (rc)
            return rc;
        done = e;
    }
    return run_pass(r, pass + 1, s + done, n - done);
}

int pbi_splitter_run(const pbi_splitter *sp, const char *s, size_t n,
                     int (*word)(void *arg, const char *s, size_t n), void *arg, pb_err *err)
{
    run r = {
        .sp = sp, .md = pcre2_match_data_create(1, NULL), .word = word, .arg = arg, .err = err
    };
    if (!r.md)
        return pbi_err(err, PB_E_NOMEM, "no memory for a pre-tokenizer");
    int rc = run_pass(&r, 0, s, n);
    pcre2_match_data_free(r.md);
    return rc;
}
