/* SPDX-License-Identifier: MIT
 *
 * tests/e2e/test_goldens.c - models and reference results that nobody here computed: the 200
 * greedy tokens of stories260K, in every pipeline that promises the same tokens, and its logits
 * (llama.cpp, float32) at every position.
 *
 * Data: the folder named by PATCHBAY_DATA, or ../shared/data beside the source; skips without.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arm.h"

static char folder[4000];

static json_t *load(const char *name)
{
    char path[4400];
    json_error_t je;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    json_t *j = json_load_file(path, 0, &je);
    if (!j)
        fail_msg("%s: %s", path, je.text);
    return j;
}

static pbi_arm *open_arm(const char *model, int n_set, const char *const *set, int want_logits,
                         pbi_pipeline **p)
{
    char path[4400];
    pb_err err = { 0 };
    pbi_arm *a = NULL;
    snprintf(path, sizeof path, "%s/%s", folder, model);
    pbi_arm_options o = { .model_path = path, .want_logits = want_logits };
    if (pbi_pipeline_parse("", "(test)", n_set, set, p, &err) || pbi_arm_open(*p, &o, &a, &err))
        fail_msg("%s: %s", model, err.msg);
    return a;
}

static void run_one(pbi_arm *a, const pbi_request *q, pbi_answer *out, const pbi_run_hooks *hooks)
{
    pb_err err = { 0 };
    if (pbi_arm_run(a, 1, q, out, hooks, NULL, &err))
        fail_msg("%s", err.msg);
    if (out->err.code)
        fail_msg("%s", out->err.msg);
}

/* ---- stories260K ------------------------------------------------------- */

#define MAX_SET 8
static const char *const pipelines[][MAX_SET] = {
    { "pipeline.threads=1" },
    { "backend.isa=any" },
    { "attention=paged", "attention.page_size=16", "pipeline.threads=3" },
    { "attention=hash", "scheduler.chunk=16" },
    { "spec=ngram", "attention=paged" },
    { "process=split" },
    { "scheduler=static", "pipeline.paranoid=on" },
};

static void stories(void **state)
{
    json_t *j = load("models/stories260K/expected-greedy-ids.json");
    const json_t *want = json_object_get(j, "bos_then_greedy_ids");
    size_t n = json_array_size(want);
    char text[2000] = "", path[4400];
    snprintf(path, sizeof path, "%s/models/stories260K/expected-greedy.txt", folder);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    if (text[0] && text[strlen(text) - 1] == '\n')
        text[strlen(text) - 1] = 0;
    assert_true(n > 150);
    for (size_t i = 0; i < sizeof pipelines / sizeof *pipelines; i++) {
        const char *set[MAX_SET + 2] = { "backend.activations=f32", "backend.kv=f32" };
        int n_set = 2;
        for (int k = 0; k < MAX_SET && pipelines[i][k]; k++)
            set[n_set++] = pipelines[i][k];
        pbi_pipeline *p;
        pbi_request q;
        pbi_answer a;
        pbi_arm *arm = open_arm("models/stories260K/stories260K.gguf", n_set, set, 0, &p);
        pbi_request_default(&q);
        q.prompt = "";          /* the model's BOS alone */
        q.max_new = (int64_t)n; /* the text has one token more than the ids */
        run_one(arm, &q, &a, NULL);
        assert_int_equal(a.n_prompt, 1);
        assert_int_equal(a.n_ids, n);
        for (size_t k = 1; k < n; k++)
            if (a.ids[k - 1] != json_integer_value(json_array_get(want, k)))
                fail_msg("pipeline %zu: token %zu is %d, expected %d", i, k, (int)a.ids[k - 1],
                         (int)json_integer_value(json_array_get(want, k)));
        assert_string_equal(a.text, text);
        pbi_answer_clear(&a);
        pbi_arm_close(arm);
        pbi_pipeline_free(p);
    }
    json_decref(j);
}

/* ---- logits ------------------------------------------------------------ */

typedef struct seen {
    const json_t *logits;
    double worst;
    int64_t rows;
} seen;

static void on_logits(void *arg, int64_t i, int64_t pos, const float *row, int64_t n_vocab)
{
    seen *s = arg;
    const json_t *want = json_array_get(s->logits, (size_t)pos);
    (void)i;
    s->rows++;
    assert_int_equal(json_array_size(want), n_vocab);
    for (int64_t k = 0; k < n_vocab; k++) {
        double d = fabs((double)row[k] - json_number_value(json_array_get(want, (size_t)k)));
        if (!(d <= s->worst))
            s->worst = d;
    }
}

/* logits at every position within 1e-3, and the greedy continuation */
static void check_model(const char *model, const char *ref)
{
    json_t *j = load(ref);
    const json_t *tokens = json_object_get(j, "tokens"), *greedy = json_object_get(j, "greedy");
    static const char *const set[] = { "backend.activations=f32", "backend.kv=f32" };
    int32_t ids[256];
    size_t n = json_array_size(tokens);
    pbi_pipeline *p;
    pbi_request q;
    pbi_answer a;
    seen s = { .logits = json_object_get(j, "logits") };
    const pbi_run_hooks hooks = { .arg = &s, .on_logits = on_logits };
    assert_true(n > 0 && n < 256);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(tokens, i));
    pbi_arm *arm = open_arm(model, 2, set, 1, &p);
    pbi_request_default(&q);
    q.ids = ids;
    q.n_ids = (int64_t)n;
    q.max_new = 0;
    q.all_logits = 1;
    run_one(arm, &q, &a, &hooks);
    pbi_answer_clear(&a);
    assert_int_equal(s.rows, n);
    print_message("%s: largest difference of a logit %.2g\n", model, s.worst);
    assert_true(s.worst <= 1e-3);
    q.max_new = (int64_t)json_array_size(greedy);
    q.all_logits = 0;
    q.ignore_eos = 1;
    run_one(arm, &q, &a, NULL);
    for (size_t i = 0; i < json_array_size(greedy); i++)
        assert_int_equal(a.ids[i], json_integer_value(json_array_get(greedy, i)));
    pbi_answer_clear(&a);
    pbi_arm_close(arm);
    pbi_pipeline_free(p);
    json_decref(j);
}

static void stories_logits(void **state)
{
    check_model("models/stories260K/stories260K.gguf",
                "models/stories260K/ref-logits-llamacpp.json");
}

int main(void)
{
    const char *data = getenv("PATCHBAY_DATA"), *src = getenv("PATCHBAY_SRC");
    if (data)
        snprintf(folder, sizeof folder, "%s", data);
    else
        snprintf(folder, sizeof folder, "%s/../shared/data", src ? src : ".");
    char path[4200];
    snprintf(path, sizeof path, "%s/models/stories260K/stories260K.gguf", folder);
    FILE *f = fopen(path, "rb");
    if (!f) {
        printf("SKIP: no test data at %s (set PATCHBAY_DATA)\n", folder);
        return 77;
    }
    fclose(f);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stories),
        cmocka_unit_test(stories_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
