/* SPDX-License-Identifier: MIT
 *
 * tests/e2e/test_workload.c - workloads: the same seed gives the same requests everywhere (pinned
 * hashes), lengths and arrivals are distributed as they say, files are read and wrong ones named;
 * and how requests are sent: closed loops, and requests that follow others.
 */
#define _GNU_SOURCE 1
#include "arm.h"
#include "workload/impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const pbw_vocab vocab = { .n_vocab = 5000, .context = 4096 };

typedef struct drawing {
    pbw_workload *w;
    pbi_requests r;
    pbw_drawn d;
} drawing;

static drawing drawn_data(const char *body, const char *data, uint64_t seed)
{
    drawing x = { 0 };
    pb_err err = { 0 };
    char ini[1024];
    snprintf(ini, sizeof ini, "[workload]\n%s", body);
    if (pbw_parse(ini, strlen(ini), "w.ini", 0, NULL, data, data ? strlen(data) : 0, &x.w, &err))
        fail_msg("%s", err.msg);
    if (pbw_draw(x.w, &vocab, seed, &x.r, &x.d, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(x.r.n, x.d.n_requests);
    return x;
}

static drawing drawn(const char *body, uint64_t seed)
{
    return drawn_data(body, NULL, seed);
}

static void drop(drawing *x)
{
    pbi_requests_clear(&x->r);
    pbw_free(x->w);
}

/* ---- numbers ------------------------------------------------------------------- */

static void series_are_the_functions(void **state)
{
    uint64_t s = 3;
    (void)state;
    for (int i = 0; i < 20000; i++) {
        double x = pbw_exp(40 * (pbw_unit(&s) - 0.5));
        assert_true(fabs(pbw_ln(x) - log(x)) <= 4e-15 * fmax(1, fabs(log(x))));
        double y = 60 * (pbw_unit(&s) - 0.5);
        assert_true(fabs(pbw_exp(y) / exp(y) - 1) < 4e-14);
    }
}

static void gamma_has_its_moments(void **state)
{
    static const double shapes[] = { 0.25, 1, 4 };
    (void)state;
    for (int k = 0; k < 3; k++) {
        uint64_t s = 11;
        double sum = 0, sq = 0;
        int n = 200000;
        for (int i = 0; i < n; i++) {
            double x = pbw_gamma(&s, shapes[k]);
            sum += x;
            sq += x * x;
        }
        double mean = sum / n, var = sq / n - mean * mean;
        assert_true(fabs(mean - 1) < 0.02);
        assert_true(fabs(var * shapes[k] - 1) < 0.06); /* variance 1 / shape */
    }
}

/* ---- kinds ---------------------------------------------------------------------- */

static const char mooncake_lines[] =
    "{\"timestamp\": 1000, \"input_length\": 1030, \"output_length\": 40, \"hash_ids\": [7, 8, "
    "9]}\n"
    "{\"timestamp\": 1000, \"input_length\": 1200, \"output_length\": 1, \"hash_ids\": [7, 8, "
    "10]}\n"
    "{\"timestamp\": 3000, \"input_length\": 512, \"output_length\": 0, \"hash_ids\": [7]}\n";

/* Pinned: equal seeds give equal workloads on every machine and in every version. */
static void hashes_are_pinned(void **state)
{
    static const struct {
        const char *body, *data;
        uint64_t seed, hash;
    } pins[] = {
        { "kind = uniform\nrequests = 20\nprompt = 8..99\noutput = 1..9\n", NULL, 1,
          0x7331cf71f88df2e5u },
        { "kind = shared-prefix\nrequests = 20\ncontent = words\n", NULL, 2, 0xb41c3a8445d349f9u },
        { "kind = mix\nrequests = 50\narrivals = poisson\nrate = 3\n", NULL, 3,
          0x90cee85f49d4adafu },
        { "kind = multi-turn\nrequests = 21\narrivals = gamma\nburstiness = 0.5\n", NULL, 4,
          0x49a11f8da7e42dfeu },
        { "kind = mooncake\nfile = x\ndivide = 8\narrivals = trace\n", mooncake_lines, 5,
          0x2c3c122d3837b804u },
    };
    (void)state;
    int same = 1;
    for (size_t i = 0; i < sizeof pins / sizeof *pins; i++) {
        drawing x = drawn_data(pins[i].body, pins[i].data, pins[i].seed);
        if (x.d.hash != pins[i].hash)
            print_error("pin %zu: 0x%016" PRIx64 "u\n", i, x.d.hash);
        same &= x.d.hash == pins[i].hash;
        drop(&x);
        drawing y = drawn_data(pins[i].body, pins[i].data, pins[i].seed + 1);
        if (!pins[i].data) /* a whole trace is the same for all seeds */
            assert_int_not_equal(y.d.hash, pins[i].hash);
        drop(&y);
    }
    assert_true(same);
}

static void groups_share_their_prefix(void **state)
{
    drawing a = drawn("kind = shared-prefix\nrequests = 200\ngroups = 4\nprefix = 30\nown = 5..9\n"
                      "output = 3\n",
                      1);
    drawing b = drawn("kind = shared-prefix\nrequests = 200\ngroups = 4\nprefix = 30\nown = 5..9\n"
                      "output = 3\n",
                      2);
    const int32_t *prefix[8];
    int n = 0, count[8] = { 0 };
    (void)state;
    for (int k = 0; k < 2; k++)
        for (int64_t i = 0; i < 200; i++) { /* the next draw shares with the first, too */
            const pbi_request *q = k ? &b.r.v[i] : &a.r.v[i];
            int g = 0;
            assert_in_range(q->n_ids, 35, 39);
            assert_int_equal(q->max_new, 3);
            assert_true(q->ignore_eos);
            while (g < n && memcmp(prefix[g], q->ids, 30 * sizeof *q->ids))
                g++;
            assert_in_range(g, 0, 3);
            if (g == n)
                prefix[n++] = q->ids;
            count[g]++;
        }
    assert_int_equal(n, 4);
    for (int g = 0; g < 4; g++)
        assert_in_range(count[g], 60, 140); /* of 400; 5 standard deviations are 43 */
    /* what follows is each request's own */
    assert_memory_not_equal(a.r.v[0].ids + 30, b.r.v[0].ids + 30, 5 * sizeof(int32_t));
    assert_int_equal(a.r.clients, 8);
    drop(&a);
    drop(&b);
}

static void mix_has_its_share(void **state)
{
    drawing a = drawn("kind = mix\nrequests = 4000\nprompt = 8\nlong_prompt = 100\nlong_share = 0.2"
                      "\nlong_output = 2\n",
                      9);
    int n_long = 0;
    (void)state;
    for (int64_t i = 0; i < a.r.n; i++) {
        int is_long = a.r.v[i].n_ids == 100;
        assert_true(is_long || a.r.v[i].n_ids == 8);
        assert_int_equal(a.r.v[i].max_new, is_long ? 2 : 32);
        n_long += is_long;
    }
    assert_in_range(n_long, 700, 900);
    drop(&a);
}

static void turns_grow(void **state)
{
    drawing a = drawn("kind = multi-turn\nrequests = 10\nturns = 4\ngroups = 1\nsystem = 20\n"
                      "first = 6\nturn = 5\noutput = 7\nthink_ms = 30\n",
                      1);
    (void)state;
    assert_int_equal(a.r.n, 10); /* 4 + 4 + 2 */
    for (int64_t i = 0; i < 10; i++) {
        const pbi_request *q = &a.r.v[i];
        int64_t turn = i % 4;
        assert_int_equal(q->n_ids, 26 + 12 * turn);
        assert_int_equal(q->after, turn ? i : 0);
        assert_int_equal(q->arrival_ns, turn ? 30000000 : 0);
        assert_memory_equal(q->ids, a.r.v[0].ids, 20 * sizeof *q->ids);
        if (turn)
            assert_memory_equal(q->ids, a.r.v[i - 1].ids,
                                (size_t)a.r.v[i - 1].n_ids * sizeof *q->ids);
    }
    drop(&a);
}

static void poisson_has_its_rate(void **state)
{
    drawing a = drawn("kind = uniform\nrequests = 20000\nprompt = 1\noutput = 1\narrivals = poisson"
                      "\nrate = 5\n",
                      1);
    double sq = 0;
    (void)state;
    assert_int_equal(a.r.clients, 0);
    assert_true(pbw_open_loop(a.w));
    for (int64_t i = 1; i < a.r.n; i++) {
        double gap = (double)(a.r.v[i].arrival_ns - a.r.v[i - 1].arrival_ns) / 1e9;
        assert_true(gap >= 0);
        sq += gap * gap;
    }
    double mean = (double)a.r.v[a.r.n - 1].arrival_ns / 1e9 / (double)(a.r.n - 1);
    assert_true(fabs(mean * 5 - 1) < 0.03);
    assert_true(fabs(sq / (double)a.r.n / (2 * mean * mean) - 1) < 0.06); /* exponential */
    drop(&a);
}

/* ---- files ----------------------------------------------------------------------- */

static void mooncake_blocks(void **state)
{
    drawing a = drawn_data("kind = mooncake\nfile = x\ndivide = 4\narrivals = trace\nspeed = 2\n",
                           mooncake_lines, 1);
    const pbi_request *q = a.r.v;
    (void)state;
    assert_int_equal(a.r.n, 3);
    assert_int_equal(q[0].n_ids, 258); /* 1030 / 4, rounded up */
    assert_int_equal(q[1].n_ids, 300);
    assert_int_equal(q[2].n_ids, 128);
    assert_memory_equal(q[0].ids, q[1].ids, 256 * sizeof *q->ids);
    assert_memory_equal(q[0].ids, q[2].ids, 128 * sizeof *q->ids);
    assert_memory_not_equal(q[0].ids + 256, q[1].ids + 256, 2 * sizeof *q->ids);
    assert_int_equal(q[0].max_new, 10);
    assert_int_equal(q[2].max_new, 1); /* a request answers something */
    assert_int_equal(q[2].arrival_ns, 1000000000);
    assert_true(fabs(a.d.reuse - (256.0 + 128) / (258 + 300 + 128)) < 1e-12);
    drop(&a);
}

static void azure_times(void **state)
{
    drawing a = drawn_data("kind = azure\nfile = x\ndivide = 10\narrivals = trace\n",
                           "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
                           "2023-12-31 23:59:59.5000000,374,44\r\n"
                           "2024-01-01 00:00:01.7500000,396,109\r\n",
                           1);
    (void)state;
    assert_int_equal(a.r.n, 2);
    assert_int_equal(a.r.v[0].n_ids, 38);
    assert_int_equal(a.r.v[1].max_new, 11);
    assert_int_equal(a.r.v[1].arrival_ns, 2250000000);
    drop(&a);
}

static void texts(void **state)
{
    drawing a = drawn_data("kind = prompts\nfile = x\nfield = q\noutput = 4\n",
                           "{\"q\": \"one?\"}\n{\"q\": [\"two?\", \"three?\"], \"x\": 1}\n", 1);
    drawing b = drawn_data("kind = transcripts\nfile = x\noutput = 4\nthink_ms = 1\n",
                           "{\"history\": [{\"role\": \"system\", \"content\": \"be good\"},\n"
                           "{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": "
                           "\"hello\"}]},\n"
                           "{\"role\": \"assistant\", \"content\": \"hi\"},\n"
                           "{\"role\": \"user\", \"content\": \"bye\"},\n"
                           "{\"role\": \"assistant\", \"content\": \"so long\"}]}",
                           1);
    static const char first[] = "system:\nbe good\n\nuser:\nhello\n\nassistant:\n";
    static const char second[] = "system:\nbe good\n\nuser:\nhello\n\nassistant:\nhi\n\nuser:\nbye"
                                 "\n\nassistant:\n";
    (void)state;
    assert_int_equal(a.r.n, 2);
    assert_memory_equal(a.r.v[1].prompt, "two?", 4);
    assert_int_equal(a.r.v[1].n_prompt, 4);
    assert_int_equal(b.r.n, 2);
    assert_int_equal(b.r.v[0].n_prompt, sizeof first - 1);
    assert_memory_equal(b.r.v[0].prompt, first, sizeof first - 1);
    assert_int_equal(b.r.v[1].n_prompt, sizeof second - 1);
    assert_memory_equal(b.r.v[1].prompt, second, sizeof second - 1);
    assert_int_equal(b.r.v[1].after, 1);
    drop(&a);
    drop(&b);
}

/* Answers against what the file expects of them. */
static void scores(void **state)
{
    static const struct {
        int match;
        const char *expect, *answer;
        int right;
    } v[] = {
        { PBW_CONTAINS, "less dense", "Ice floats: it is LESS-dense.", 1 },
        { PBW_CONTAINS, "5", "You need 5 boxes", 1 },
        { PBW_CONTAINS, "5", "You need 50 boxes", 0 },
        { PBW_CONTAINS, "red", "It was covered", 0 },
        { PBW_CONTAINS, "!", "!", 0 },
        { PBW_NUMBER, "9 - 2 = 7\n#### 1,234", "so it is 1234.", 1 },
        { PBW_NUMBER, "18", "18 dollars, or 19", 0 },
        { PBW_NUMBER, "-2.5", "x = -2.50", 1 },
        { PBW_NUMBER, "18", "no idea", 0 },
    };
    pbi_request q[10] = { { 0 } };
    pbi_answer a[10] = { { 0 } };
    int n = sizeof v / sizeof *v, right = 0;
    (void)state;
    for (int i = 0; i < n; i++) {
        q[i].expect = v[i].expect;
        q[i].match = v[i].match;
        a[i].text = (char *)(uintptr_t)v[i].answer;
        a[i].n_text = strlen(v[i].answer);
        assert_int_equal(pbw_matches(&q[i], &a[i]), v[i].right);
        right += v[i].right;
    }
    assert_int_equal(pbw_matches(&q[n], &a[0]), -1);
    assert_true(fabs(pbw_score(n + 1, q, a) - (double)right / n) < 1e-12);
    drawing d = drawn_data("kind = prompts\nfile = x\nanswer = a\nmatch = number\n",
                           "{\"prompt\": \"1 + 1 =\", \"a\": \"2\"}\n", 1);
    assert_string_equal(d.r.v[0].expect, "2");
    assert_int_equal(d.r.v[0].match, PBW_NUMBER);
    drop(&d);
}

static void real_traces(void **state)
{
    const char *data = getenv("PATCHBAY_DATA");
    char set[512];
    const char *const sets[] = { set };
    const char ini[] = "[workload]\nkind = mooncake\nfile = x\ndivide = 64\ntoo_long = skip\n";
    pbw_workload *w;
    pbi_requests r = { 0 };
    pbw_drawn d;
    pb_err err = { 0 };
    (void)state;
    if (!data || !*data)
        skip();
    snprintf(set, sizeof set, "file=%s/traces/mooncake/conversation_trace.jsonl", data);
    if (pbw_parse(ini, sizeof ini - 1, "w.ini", 1, sets, NULL, 0, &w, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(pbw_draw(w, &vocab, 1, &r, &d, &err), 0);
    assert_int_equal(d.n_requests + d.n_left_out, 12031);
    assert_true(fabs(d.reuse - 0.366) < 0.01); /* what the trace's README says */
    pbi_requests_clear(&r);
    pbw_free(w);
}

/* ---- mistakes ----------------------------------------------------------------------- */

static void mistakes_are_named(void **state)
{
    static const struct {
        const char *body, *data, *says;
    } bad[] = {
        { "requests = 3\n", NULL, "\"kind\" is missing" },
        { "kind = unifrm\n", NULL, "w.ini:2: kind = unifrm: allowed is uniform|shared" },
        { "kind = uniform\nrequests = 2\ngroups = 3\n", NULL,
          "w.ini:4: kind = uniform has no key \"groups\"; it belongs to shared-prefix" },
        { "kind = uniform\nrequests = 2\nprompts = 3\n", NULL,
          "w.ini:4: unknown key \"prompts\"; did you mean \"prompt\"?" },
        { "kind = uniform\nrequests = 2\nprompt = 9..3\n", NULL, "w.ini:4: prompt = 9..3" },
        { "kind = uniform\nrequests = 2\nprompt = -1\n", NULL, "w.ini:4: prompt = -1" },
        { "kind = uniform\n", NULL, "needs the key \"requests\"" },
        { "kind = uniform\nrequests = 2\narrivals = trace\n", NULL, "has no times" },
        { "kind = mooncake\n", NULL, "needs the key \"file\"" },
        { "kind = mooncake\nfile = x\ndivide = 3\n", "", "divisor of 512" },
        { "kind = mooncake\nfile = x\n", "{}\n", "x:1: \"input_length\" must be a number" },
        { "kind = mooncake\nfile = x\n",
          "\n{\"timestamp\": 0, \"input_length\": 513, "
          "\"output_length\": 1, \"hash_ids\": [1]}\n",
          "x:2: \"hash_ids\" has 1 entries; 513 tokens need 2" },
        { "kind = mooncake\nfile = x\n",
          "{\"timestamp\": 0, \"input_length\": 1e300, "
          "\"output_length\": 1, \"hash_ids\": []}\n",
          "x:1: \"input_length\" must be a number in 0" },
        { "kind = mooncake\nfile = x\n", "[", "x:1: " },
        { "kind = azure\nfile = x\n", "2023-13-01 00:00:00,1,1\n", "x:1: expected" },
        { "kind = prompts\nfile = x\n", "{\"text\": \"a\"}\n", "no text in \"prompt\"" },
        { "kind = transcripts\nfile = x\n", "{\"messages\": [{}]}\n", "has no \"role\"" },
        { "kind = prompts\nfile = x\n", "", "there is no request" },
        { "kind = prompts\nfile = /nowhere/at/all\n", NULL, "cannot open" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char ini[512];
        pbw_workload *w = NULL;
        pb_err err = { 0 };
        snprintf(ini, sizeof ini, "[workload]\n%s", bad[i].body);
        assert_true(pbw_parse(ini, strlen(ini), "w.ini", 0, NULL, bad[i].data,
                              bad[i].data ? strlen(bad[i].data) : 0, &w, &err) < 0);
        if (!strstr(err.msg, bad[i].says))
            fail_msg("\"%s\" does not say \"%s\"", err.msg, bad[i].says);
    }
}

static void long_requests(void **state)
{
    static const char body[] = "kind = uniform\nrequests = 9\nprompt = 100..5000\noutput = 10\n";
    char cut[200];
    snprintf(cut, sizeof cut, "%stoo_long = skip\n", body);
    drawing skip_ = drawn(cut, 6);
    pb_err err = { 0 };
    pbi_requests r = { 0 };
    pbw_workload *w;
    (void)state;
    assert_in_range(skip_.d.n_left_out, 1, 8);
    assert_int_equal(skip_.d.n_left_out + skip_.d.n_requests, 9);
    snprintf(cut, sizeof cut, "%stoo_long = cut\n", body);
    drawing cut_ = drawn(cut, 6);
    assert_int_equal(cut_.r.n, 9);
    for (int64_t i = 0; i < 9; i++)
        assert_true(cut_.r.v[i].n_ids + cut_.r.v[i].max_new <= vocab.context);
    snprintf(cut, sizeof cut, "[workload]\n%s", body);
    assert_int_equal(pbw_parse(cut, strlen(cut), "w.ini", 0, NULL, NULL, 0, &w, &err), 0);
    assert_int_equal(pbw_draw(w, &vocab, 6, &r, NULL, &err), PB_E_INVAL);
    assert_non_null(strstr(err.msg, "the context is 4096"));
    pbi_requests_clear(&r);
    pbw_free(w);
    drop(&skip_);
    drop(&cut_);
}

/* What a bundle keeps makes the same workload again. */
static void text_and_data_suffice(void **state)
{
    drawing a =
        drawn_data("kind = mooncake\nfile = x\ndivide = 4\ntemperature = 0.5\n", mooncake_lines, 1);
    char *text = pbw_text(a.w);
    size_t n;
    const char *data = pbw_data(a.w, &n);
    pbw_workload *w;
    pbi_requests r = { 0 };
    pbw_drawn d;
    pb_err err = { 0 };
    (void)state;
    if (pbw_parse(text, strlen(text), "bundle", 0, NULL, data, n, &w, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(pbw_draw(w, &vocab, 1, &r, &d, &err), 0);
    assert_int_equal(d.hash, a.d.hash);
    assert_true(r.v[0].params.temperature == 0.5f);
    free(text);
    pbi_requests_clear(&r);
    pbw_free(w);
    drop(&a);
}

/* ---- sending ---------------------------------------------------------------------------- */

static const char pipeline[] = "[pipeline]\ncontext = 512\nmax_seqs = 16\nmax_rows = 64\n"
                               "kv_bytes = 8M\nparanoid = true\n"
                               "[weights]\nplugin = synthetic\nlayers = 2\nwidth = 64\nheads = 4\n"
                               "kv_heads = 2\nffn = 128\nvocab = 512\n"
                               "[backend]\nplugin = sim\n";

typedef struct watcher {
    int64_t most, n_steps, rows;
} watcher;

static void on_step(void *arg, const pbi_step_event *e)
{
    watcher *w = arg;
    int64_t open = e->running + e->waiting;
    w->most = open > w->most ? open : w->most;
    w->rows += e->prefill_rows + e->decode_rows;
    w->n_steps++;
}

static void run_on_sim(drawing *x, pbi_answer *a, pbi_totals *t, watcher *seen)
{
    pbi_pipeline *p;
    pbi_arm *arm;
    pb_err err = { 0 };
    const pbi_arm_options o = { .model_path = "" };
    const pbi_run_hooks hooks = { .arg = seen, .clients = x->r.clients, .on_step = on_step };
    if (pbi_pipeline_parse(pipeline, "p.ini", 0, NULL, &p, &err) ||
        pbi_arm_open(p, &o, &arm, &err) || pbi_arm_run(arm, x->r.n, x->r.v, a, &hooks, t, &err))
        fail_msg("%s", err.msg);
    pbi_arm_close(arm);
    pbi_pipeline_free(p);
}

/* ids of the tiny vocabulary */
static drawing small(const char *body)
{
    const pbw_vocab v = { .n_vocab = 512, .context = 512 };
    drawing x = drawn(body, 1);
    pb_err err = { 0 };
    pbi_requests_clear(&x.r);
    assert_int_equal(pbw_draw(x.w, &v, 1, &x.r, &x.d, &err), 0);
    return x;
}

static void clients_wait_for_answers(void **state)
{
    drawing x =
        small("kind = uniform\nrequests = 60\nprompt = 3..40\noutput = 2..9\nclients = 5\n");
    pbi_answer a[60];
    pbi_totals t;
    watcher seen = { 0 };
    int64_t waited = 0;
    (void)state;
    run_on_sim(&x, a, &t, &seen);
    assert_int_equal(seen.most, 5);
    assert_int_equal(seen.n_steps, t.n_steps);
    assert_int_equal(seen.rows, t.n_rows);
    assert_true(t.running_mean > 1 && t.running_mean <= 5);
    for (int i = 0; i < 60; i++) {
        int64_t open = 0;
        assert_int_equal(a[i].err.code, 0);
        assert_int_equal(a[i].n_ids, x.r.v[i].max_new);
        assert_true(a[i].t_admit_ns >= a[i].t_submit_ns && a[i].t_admit_ns <= a[i].t_first_ns);
        waited += i >= 5 && a[i].t_submit_ns > a[0].t_submit_ns;
        for (int k = 0; k < 60; k++) /* arrives only when a client is free */
            open +=
                k != i && a[k].t_submit_ns <= a[i].t_submit_ns && a[k].t_last_ns > a[i].t_submit_ns;
        assert_in_range(open, 0, 4);
    }
    assert_int_equal(waited, 55);
    for (int i = 0; i < 60; i++)
        pbi_answer_clear(&a[i]);
    drop(&x);
}

static void turns_follow_answers(void **state)
{
    drawing x = small("kind = multi-turn\nrequests = 24\nturns = 4\nsystem = 8\nfirst = 8\nturn = 4"
                      "\noutput = 5\nthink_ms = 2\narrivals = poisson\nrate = 300\n");
    pbi_answer a[24];
    pbi_totals t;
    watcher seen = { 0 };
    (void)state;
    run_on_sim(&x, a, &t, &seen);
    for (int i = 0; i < 24; i++) {
        assert_int_equal(a[i].n_ids, 5);
        if (i % 4)
            assert_true(a[i].t_submit_ns >= a[i - 1].t_last_ns + 2000000);
        else
            assert_int_equal(a[i].t_submit_ns - a[0].t_submit_ns, x.r.v[i].arrival_ns);
    }
    for (int i = 0; i < 24; i++)
        pbi_answer_clear(&a[i]);
    drop(&x);
}

/* Whoever waits for what never comes is refused before anything runs. */
static void after_must_be_before(void **state)
{
    drawing x = small("kind = uniform\nrequests = 3\nprompt = 3\noutput = 2\n");
    pbi_pipeline *p;
    pbi_arm *arm;
    pbi_answer a[3];
    pb_err err = { 0 };
    const pbi_arm_options o = { .model_path = "" };
    (void)state;
    x.r.v[1].after = 3;
    assert_int_equal(pbi_pipeline_parse(pipeline, "p.ini", 0, NULL, &p, &err), 0);
    assert_int_equal(pbi_arm_open(p, &o, &arm, &err), 0);
    assert_int_equal(pbi_arm_run(arm, x.r.n, x.r.v, a, NULL, NULL, &err), PB_E_INVAL);
    assert_non_null(strstr(err.msg, "request 1 waits for request 2"));
    pbi_arm_close(arm);
    pbi_pipeline_free(p);
    drop(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(series_are_the_functions),
        cmocka_unit_test(gamma_has_its_moments),
        cmocka_unit_test(hashes_are_pinned),
        cmocka_unit_test(groups_share_their_prefix),
        cmocka_unit_test(mix_has_its_share),
        cmocka_unit_test(turns_grow),
        cmocka_unit_test(poisson_has_its_rate),
        cmocka_unit_test(mooncake_blocks),
        cmocka_unit_test(azure_times),
        cmocka_unit_test(texts),
        cmocka_unit_test(scores),
        cmocka_unit_test(real_traces),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(long_requests),
        cmocka_unit_test(text_and_data_suffice),
        cmocka_unit_test(clients_wait_for_answers),
        cmocka_unit_test(turns_follow_answers),
        cmocka_unit_test(after_must_be_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
