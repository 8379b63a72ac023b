/* SPDX-License-Identifier: MIT
 *
 * cli/tokenize.c - patchbay tokenize: text to ids and back with a model's vocabulary.
 */
#include "cli.h"
#include "model.h"
#include "requests.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct options {
    pbi_common common;
    int special, no_bos, decode;
} options;

static int print_text(const pbi_tokenizer *t, const char *s, size_t n, const options *o,
                      pb_err *err)
{
    int32_t *ids;
    size_t k, n_text;
    char *text;
    int rc = pbi_parse_ids(s, n, &ids, &k, err);
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
    pb_err err = { 0 };
    rc = strcmp(s, "-") ? 0 : pbi_read_file("-", &own, &n, &err);
    if (!rc)
        rc = tokenize(&o, own ? own : s, n, &err);
    free(own);
    return rc < 0 ? pbi_fail("tokenize", &err) : rc;
}
