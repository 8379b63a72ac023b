/* SPDX-License-Identifier: MIT
 *
 * tests/e2e/test_vocabs.c - conformance to published vocabularies: GGUF files with cases that
 * nobody here wrote, from the folder named by PATCHBAY_DATA (or ../shared/data beside the
 * source), read by the weights-gguf plugin. Skips without it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

static char folder[4000];

static char *slurp(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("cannot open %s", path);
    char *s = calloc(1, 1 << 20);
    assert_non_null(s);
    (void)!fread(s, 1, (1 << 20) - 1, f);
    fclose(f);
    return s;
}

static int case_wrong(const pbi_tokenizer *t, const char *s, size_t n, const char *want)
{
    static char got[65536];
    int32_t *ids;
    size_t k, w = 0;
    pb_err err;
    if (pbi_tokenizer_encode(t, s, n, PBI_TEXT_NO_BOS, &ids, &k, &err))
        fail_msg("%s", err.msg);
    got[0] = 0;
    for (size_t i = 0; i < k; i++)
        w += (size_t)snprintf(got + w, sizeof got - w, " %d", (int)ids[i]);
    free(ids);
    if (!strcmp(got, want))
        return 0;
    print_error("\"%.*s\":\n  got %s\n  want%s\n", (int)n, s, got, want);
    return 1;
}

/* .inp: cases with a separator line between them; .out: a line of ids for each */
static void vocabulary(void **state)
{
    static const char separator[] = "\n__ggml_vocab_test__\n";
    const char *name = *state;
    char path[4400];
    pbi_pipeline *p;
    pbi_model *m;
    pb_err err = { 0 };
    int n = 0, wrong = 0;
    if (pbi_pipeline_parse("[backend]\nplugin = sim\n", "(test)", 0, NULL, &p, &err))
        fail_msg("%s", err.msg);
    snprintf(path, sizeof path, "%s/ggml-vocab-%s.gguf", folder, name);
    if (pbi_model_open(p, path, PBI_MODEL_NO_PROGRAM | PBI_MODEL_NEED_TEXT, &m, &err))
        fail_msg("%s", err.msg);
    snprintf(path, sizeof path, "%s/ggml-vocab-%s.gguf.inp", folder, name);
    char *inp = slurp(path), *in = inp;
    snprintf(path, sizeof path, "%s/ggml-vocab-%s.gguf.out", folder, name);
    char *outp = slurp(path), *out = outp;
    while (*out) {
        char *sep = strstr(in, separator), *nl = strchr(out, '\n');
        if (nl)
            *nl = 0;
        wrong += case_wrong(m->tokenizer, in, sep ? (size_t)(sep - in) : strlen(in), out);
        n++;
        if (!sep || !nl)
            break;
        in = sep + sizeof separator - 1;
        out = nl + 1;
    }
    free(inp);
    free(outp);
    pbi_model_close(m);
    pbi_pipeline_free(p);
    assert_true(n > 40);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const char *data = getenv("PATCHBAY_DATA"), *src = getenv("PATCHBAY_SRC");
    if (data)
        snprintf(folder, sizeof folder, "%s/tokenizers", data);
    else
        snprintf(folder, sizeof folder, "%s/../shared/data/tokenizers", src ? src : ".");
    char path[4200];
    snprintf(path, sizeof path, "%s/ggml-vocab-gpt-2.gguf", folder);
    FILE *f = fopen(path, "rb");
    if (!f) {
        printf("SKIP: no test data at %s (set PATCHBAY_DATA)\n", folder);
        return 77;
    }
    fclose(f);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(vocabulary, "gpt-2"),
        cmocka_unit_test_prestate(vocabulary, "llama-spm"),
        cmocka_unit_test_prestate(vocabulary, "qwen2"),
        cmocka_unit_test_prestate(vocabulary, "deepseek-llm"),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
