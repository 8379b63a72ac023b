/* SPDX-License-Identifier: MIT
 *
 * cli/score.c - patchbay score: the probability that a model gives a text. Prints the negative
 * log-likelihood of each token after the first and the perplexity; --logits writes all rows.
 *
 * Log-probabilities are computed here in double from the unedited logits, so that they do not
 * depend on a sampler. Invariant: row i is what the model says after tokens[0..i].
 */
#include "cli.h"
#include "report.h"
#include "requests.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct options {
    pbi_common common;
    const char *file, *ids, *logits;
    int special, no_bos;
} options;

typedef struct rows { /* what arrives, row by row */
    const int32_t *ids;
    int64_t n, n_seen;
    double *nll; /* [n], of token i given the ones before; [0] unused */
    FILE *npy;
    int bad_order, bad_write;
} rows;

static void on_logits(void *arg, int64_t i, int64_t pos, const float *row, int64_t n_vocab)
{
    rows *r = arg;
    (void)i;
    if (pos != r->n_seen)
        r->bad_order = 1;
    r->n_seen++;
    if (r->npy && fwrite(row, sizeof *row, (size_t)n_vocab, r->npy) != (size_t)n_vocab)
        r->bad_write = 1;
    if (pos + 1 >= r->n)
        return;
    double max = -INFINITY, sum = 0;
    for (int64_t k = 0; k < n_vocab; k++)
        if ((double)row[k] > max)
            max = (double)row[k];
    for (int64_t k = 0; k < n_vocab; k++)
        sum += exp((double)row[k] - max);
    r->nll[pos + 1] = log(sum) + max - (double)row[r->ids[pos + 1]];
}

/* NumPy's .npy, version 1.0 (numpy.lib.format): magic, length, a dict, padding to 64 bytes */
static int write_npy_header(FILE *f, int64_t n_rows, int64_t n_cols)
{
    char dict[128];
    int n =
        snprintf(dict, sizeof dict,
                 "{'descr': '<f4', 'fortran_order': False, 'shape': (%" PRId64 ", %" PRId64 "), }",
                 n_rows, n_cols);
    unsigned char head[10] = { 0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, 118, 0 };
    return fwrite(head, 1, 10, f) == 10 && fprintf(f, "%s%*s\n", dict, 117 - n, "") == 118;
}

static json_t *result_json(const rows *r, double mean)
{
    json_t *j = json_object(), *nll = json_array(), *ids = json_array();
    for (int64_t i = 0; i < r->n; i++)
        json_array_append_new(ids, json_integer(r->ids[i]));
    for (int64_t i = 1; i < r->n; i++)
        json_array_append_new(nll, pbi_number(r->nll[i]));
    json_object_set_new(j, "ids", ids);
    json_object_set_new(j, "nll", nll);
    json_object_set_new(j, "mean_nll", pbi_number(mean));
    json_object_set_new(j, "perplexity", pbi_number(exp(mean)));
    return j;
}

static int score_ids(const options *o, pbi_arm *arm, const int32_t *ids, int64_t n, pb_err *err)
{
    rows r = { .ids = ids, .n = n, .nll = calloc((size_t)n + 1, sizeof(double)) };
    pbi_request q;
    pbi_answer a = { 0 };
    pbi_totals t;
    const pbi_run_hooks hooks = { .arg = &r, .on_logits = on_logits, .stop = pbi_interrupted };
    if (!r.nll)
        return pbi_err(err, PB_E_NOMEM, "no memory for %" PRId64 " tokens", n);
    if (o->logits && !(r.npy = fopen(o->logits, "wb"))) {
        free(r.nll);
        return pbi_err(err, PB_E_IO, "cannot write %s: %s", o->logits, strerror(errno));
    }
    pbi_request_default(&q);
    q.ids = ids;
    q.n_ids = n;
    q.max_new = 0;
    q.all_logits = 1;
    int rc = r.npy && !write_npy_header(r.npy, n, pbi_arm_program(arm)->n_vocab)
                 ? pbi_err(err, PB_E_IO, "cannot write %s", o->logits)
                 : pbi_arm_run(arm, 1, &q, &a, &hooks, &t, err);
    if (!rc && a.err.code) {
        *err = a.err;
        rc = err->code;
    }
    if (r.npy && (fclose(r.npy) || r.bad_write) && !rc)
        rc = pbi_err(err, PB_E_IO, "cannot write %s", o->logits);
    if (!rc && (r.n_seen != n || r.bad_order))
        rc = pbi_err(err, PB_E_INTERNAL, "%" PRId64 " rows of logits came for %" PRId64 " tokens%s",
                     r.n_seen, n, r.bad_order ? ", out of order" : "");
    double sum = 0;
    for (int64_t i = 1; i < n; i++)
        sum += r.nll[i];
    double mean = n > 1 ? sum / (double)(n - 1) : NAN;
    if (!rc && o->common.json)
        rc = pbi_print_json(result_json(&r, mean));
    else if (!rc)
        printf("%" PRId64 " tokens, mean negative log-likelihood %.6f, perplexity %.4f\n", n, mean,
               exp(mean));
    pbi_answer_clear(&a);
    free(r.nll);
    return rc;
}

/* the tokens to score, malloc'ed */
static int collect(const options *o, const pbi_arm *arm, int32_t **ids, size_t *n, pb_err *err)
{
    char *text;
    size_t len;
    int rc = pbi_read_file(o->file ? o->file : o->ids, &text, &len, err);
    if (rc)
        return rc;
    if (o->ids)
        rc = pbi_parse_ids(text, len, ids, n, err);
    else if (!pbi_arm_tokenizer(arm))
        rc = pbi_err(err, PB_E_INVAL, "the model has no tokenizer; give --ids");
    else
        rc = pbi_tokenizer_encode(
            pbi_arm_tokenizer(arm), text, len,
            (o->special ? PBI_TEXT_SPECIAL : 0) | (o->no_bos ? PBI_TEXT_NO_BOS : 0), ids, n, err);
    free(text);
    if (rc)
        return pbi_err_prefix(err, "%s", o->file ? o->file : o->ids);
    if (*n < 1) {
        free(*ids);
        return pbi_err(err, PB_E_INVAL, "%s has no token to score", o->file ? o->file : o->ids);
    }
    return 0;
}

static int score(const options *o, pb_err *err)
{
    pbi_pipeline *p = NULL;
    pbi_arm *arm = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    pbi_arm_options ao = { .model_path = o->common.model,
                           .want_logits = 1,
                           .progress = isatty(2) ? pbi_show_progress : NULL };
    int rc = pbi_common_load(&o->common, &p, err);
    if (!rc && strcmp(pbi_pipeline_use(p, "process", 0)->name, "inline"))
        rc = pbi_err(err, PB_E_INVAL,
                     "%s: score reads logits in its own process: [process] plugin must be inline",
                     p->path);
    if (!rc)
        rc = pbi_arm_open(p, &ao, &arm, err);
    if (isatty(2))
        pbi_show_progress(NULL, NULL, 1);
    if (!rc && !(rc = collect(o, arm, &ids, &n, err)))
        rc = score_ids(o, arm, ids, (int64_t)n, err);
    free(ids);
    pbi_arm_close(arm);
    pbi_pipeline_free(p);
    return rc;
}

int pbi_cmd_score(int argc, char **argv)
{
    options o = { 0 };
    const pbi_arg table[] = {
        PBI_ARG_PIPELINE(&o.common),
        PBI_ARG_MODEL(&o.common),
        PBI_ARG_SET(&o.common),
        { .name = "--file",
          .alias = "-f",
          .kind = PBI_ARG_TEXT,
          .out = &o.file,
          .value = "TEXT",
          .help = "file with the text to score; - is stdin" },
        { .name = "--ids",
          .kind = PBI_ARG_TEXT,
          .out = &o.ids,
          .value = "IDS.json",
          .help = "file with token ids as a JSON array, nothing is added" },
        { .name = "--logits",
          .kind = PBI_ARG_TEXT,
          .out = &o.logits,
          .value = "OUT.npy",
          .help = "write float32 [tokens, vocabulary] for NumPy" },
        { .name = "--special",
          .kind = PBI_ARG_FLAG,
          .out = &o.special,
          .help = "text of special tokens means the tokens" },
        { .name = "--no-bos",
          .kind = PBI_ARG_FLAG,
          .out = &o.no_bos,
          .help = "do not add the tokens that begin a text" },
        PBI_ARG_JSON(&o.common),
        PBI_ARGS_END,
    };
    int n_words, rc = pbi_args(argc, argv, table, &n_words);
    if (rc != PBI_GO)
        return rc;
    if (n_words || (o.file != NULL) == (o.ids != NULL))
        return pbi_usage("score", "give one of -f TEXT or --ids IDS.json");
    pb_err err = { 0 };
    pbi_catch_interrupts();
    rc = score(&o, &err);
    return rc < 0 ? pbi_fail("score", &err) : rc;
}
