/* SPDX-License-Identifier: MIT
 *
 * cli/tokenize.c - patchbay tokenize: text to ids and back with a model's vocabulary.
 */
#include "cli.h"
#include "model.h"
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct options {
    pbi_common common;
    int special, no_bos, decode;
} options;

/* all of stdin; NULL: no memory or a read error */
static char *read_stdin(size_t *n)
{
    char *buf = NULL;
    size_t cap = 0, k = 0;
    for (;;) {
        if (k == cap) {
            char *p = realloc(buf, cap = cap ? cap * 2 : 4096);
            if (!p)
                break;
            buf = p;
        }
        size_t got = fread(buf + k, 1, cap - k, stdin);
        k += got;
        if (!got) {
            if (ferror(stdin))
                break;
            *n = k;
            return buf;
        }
    }
    free(buf);
    return NULL;
}

/* "1, 2 3" or "[1, 2, 3]" or {"ids": [...]} to ids */
static int parse_ids(const char *s, size_t n, int32_t **ids, size_t *n_ids, pb_err *err)
{
    json_error_t je;
    json_t *j = json_loadb(s, n, 0, &je), *a = json_is_object(j) ? json_object_get(j, "ids") : j;
    int32_t *v = malloc((n / 2 + 1) * sizeof *v);
    size_t k = 0;
    int rc = v ? 0 : pbi_err(err, PB_E_NOMEM, "no memory for ids");
    if (!rc && json_is_array(a)) {
        for (size_t i = 0; i < json_array_size(a) && !rc; i++) {
            json_int_t x = json_integer_value(json_array_get(a, i));
            if (!json_is_integer(json_array_get(a, i)) || x < 0 || x > INT32_MAX)
                rc = pbi_err(err, PB_E_INVAL, "element %zu of the list is no token id", i);
            else
                v[k++] = (int32_t)x;
        }
    } else if (!rc) {
        for (const char *p = s, *e = s + n; p < e && !rc;) {
            if (strchr(", \t\r\n", *p)) {
                p++;
                continue;
            }
            char word[16] = "";
            size_t len = 0;
            while (p < e && !strchr(", \t\r\n", *p) && len < sizeof word - 1)
                word[len++] = *p++;
            int64_t x;
            if (pbi_parse_int(word, &x) || x < 0 || x > INT32_MAX)
                rc = pbi_err(err, PB_E_INVAL, "\"%s\" is no token id", word);
            else
                v[k++] = (int32_t)x;
        }
    }
    json_decref(j);
    if (rc)
        free(v);
    else {
        *ids = v;
        *n_ids = k;
    }
    return rc;
}

static int print_text(const pbi_tokenizer *t, const char *s, size_t n, const options *o,
                      pb_err *err)
{
    int32_t *ids;
    size_t k, n_text;
    char *text;
    int rc = parse_ids(s, n, &ids, &k, err);
    if (rc)
        return rc;
    rc = pbi_tokenizer_decode(t, ids, k, o->special, &text, &n_text, err);
    free(ids);
    if (rc)
        return rc;
    if (o->common.json)
        rc = pbi_print_json(json_pack("{s:s%}", "text", text, n_text));
    else {
        fwrite(text, 1, n_text, stdout);
        putchar('\n');
    }
    free(text);
    return rc;
}

static int print_ids(const pbi_tokenizer *t, const char *s, size_t n, const options *o, pb_err *err)
{
    int32_t *ids;
    size_t k;
    int flags = (o->special ? PBI_TEXT_SPECIAL : 0) | (o->no_bos ? PBI_TEXT_NO_BOS : 0);
    int rc = pbi_tokenizer_encode(t, s, n, flags, &ids, &k, err);
    if (rc)
        return rc;
    if (o->common.json) {
        json_t *a = json_array();
        for (size_t i = 0; i < k; i++)
            json_array_append_new(a, json_integer(ids[i]));
        rc = pbi_print_json(json_pack("{s:o}", "ids", a));
    } else {
        for (size_t i = 0; i < k; i++) {
            pb_str p = pbi_tokenizer_piece(t, ids[i], 1);
            printf("%6d  \"", (int)ids[i]);
            for (size_t c = 0; c < p.n; c++) {
                unsigned char b = (unsigned char)p.s[c];
                if (b < 32 || b == 127 || b == '"' || b == '\\')
                    printf("\\x%02x", b);
                else
                    putchar(b);
            }
            puts("\"");
        }
    }
    free(ids);
    return rc;
}

static int tokenize(const options *o, const char *s, size_t n, pb_err *err)
{
    pbi_pipeline *p = NULL;
    pbi_model *m = NULL;
    int rc = pbi_common_load(&o->common, &p, err);
    if (!rc)
        rc =
            pbi_model_open(p, o->common.model, PBI_MODEL_NO_PROGRAM | PBI_MODEL_NEED_TEXT, &m, err);
    if (!rc)
        rc = o->decode ? print_text(m->tokenizer, s, n, o, err)
                       : print_ids(m->tokenizer, s, n, o, err);
    pbi_model_close(m);
    pbi_pipeline_free(p);
    return rc;
}

int pbi_cmd_tokenize(int argc, char **argv)
{
    options o = { 0 };
    const pbi_arg table[] = {
        PBI_ARG_MODEL(&o.common),
        PBI_ARG_PIPELINE(&o.common),
        PBI_ARG_SET(&o.common),
        { .name = "--special",
          .kind = PBI_ARG_FLAG,
          .out = &o.special,
          .help = "text of special tokens means the tokens; with --decode, show them" },
        { .name = "--no-bos",
          .kind = PBI_ARG_FLAG,
          .out = &o.no_bos,
          .help = "do not add the tokens that begin and end a text" },
        { .name = "--decode",
          .kind = PBI_ARG_FLAG,
          .out = &o.decode,
          .help = "TEXT is a list of ids: print their text" },
        PBI_ARG_JSON(&o.common),
        PBI_ARGS_END,
    };
    int n_words, rc = pbi_args(argc, argv, table, &n_words);
    if (rc != PBI_GO)
        return rc;
    if (!o.common.model && !o.common.pipeline)
        return pbi_usage("tokenize", "which model? give -m FILE");
    if (n_words > 1)
        return pbi_usage("tokenize", "one TEXT, not %d (quote it); - or nothing reads stdin",
                         n_words);
    char *own = NULL;
    const char *s = n_words ? argv[1] : "-";
    size_t n = strlen(s);
    if (!strcmp(s, "-") && !(s = own = read_stdin(&n))) {
        pb_err e;
        pbi_err(&e, PB_E_IO, "reading standard input failed");
        return pbi_fail("tokenize", &e);
    }
    pb_err err = { 0 };
    rc = tokenize(&o, s, n, &err);
    free(own);
    return rc < 0 ? pbi_fail("tokenize", &err) : rc;
}
