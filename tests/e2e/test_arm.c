/* SPDX-License-Identifier: MIT
 *
 * tests/e2e/test_arm.c - whole arms, from text to text: what else runs, where the engine runs,
 * whether it dies and whether its plugins forget changes no id, no text, no logits hash.
 *
 * On backend sim (tokens depend on each KV word) and on cpu with a small synthetic model.
 */
#define _GNU_SOURCE 1
#include "arm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MANY = 12 };

static const char ini[] = "[pipeline]\n"
                          "context = 256\n"
                          "max_seqs = 4\n"
                          "max_rows = 48\n"
                          "threads = 2\n"
                          "kv_bytes = 4M\n"
                          "paranoid = true\n"
                          "seed = 7\n"
                          "[weights]\n"
                          "plugin = synthetic\n"
                          "layers = 2\n"
                          "width = 64\n"
                          "heads = 4\n"
                          "kv_heads = 2\n"
                          "ffn = 128\n"
                          "vocab = 512\n"
                          "type = q8_0\n"
                          "[backend]\n"
                          "plugin = sim\n"
                          "[sampler]\n"
                          "plugin = chain\n"
                          "temperature = 1\n";

static const char *const backends[] = { "backend=sim", "backend=cpu" };

typedef struct rig {
    pbi_pipeline *p;
    pbi_arm *a;
} rig;

/* sets: "slot.key=value" with NULL at the end */
static rig rig_open(const pbi_arm_options *o, const char *const *sets)
{
    rig r = { 0 };
    pb_err err = { 0 };
    int n = 0;
    while (sets[n])
        n++;
    if (pbi_pipeline_parse(ini, "arm.ini", n, sets, &r.p, &err))
        fail_msg("%s", err.msg);
    if (pbi_arm_open(r.p, o, &r.a, &err))
        fail_msg("%s", err.msg);
    return r;
}

static void rig_close(rig *r)
{
    pbi_arm_close(r->a);
    pbi_pipeline_free(r->p);
}

static void run_ok(rig *r, int64_t n, const pbi_request *q, pbi_answer *out, const pbi_run_hooks *h,
                   pbi_totals *t)
{
    pb_err err = { 0 };
    if (pbi_arm_run(r->a, n, q, out, h, t, &err))
        fail_msg("%s", err.msg);
}

static void answers_clear(pbi_answer *a, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        pbi_answer_clear(&a[i]);
}

static void same_answers(const pbi_answer *a, const pbi_answer *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(a[i].err.code, 0);
        assert_int_equal(b[i].err.code, 0);
        assert_string_equal(a[i].finish, b[i].finish);
        assert_int_equal(a[i].n_ids, b[i].n_ids);
        assert_memory_equal(a[i].ids, b[i].ids, (size_t)a[i].n_ids * sizeof *a[i].ids);
        assert_string_equal(a[i].text, b[i].text);
        assert_int_equal(a[i].logits_hash, b[i].logits_hash);
    }
}

/* prompts that share beginnings; some greedy, some sampled with seeds of their own */
static const char *const prompts[] = {
    "Once upon a time there was a plugin",
    "Once upon a time there was a ring that held whole messages only",
    "Once upon a time",
    "patchbay",
    "The engine process was killed, and yet",
};

static void make_requests(pbi_request *q, int n, int64_t max_new)
{
    for (int i = 0; i < n; i++) {
        pbi_request_default(&q[i]);
        q[i].prompt = prompts[i % 5];
        q[i].n_prompt = strlen(q[i].prompt);
        q[i].max_new = max_new + 3 * i;
        q[i].ignore_eos = 1;
        if (i % 3 == 0)
            q[i].params.temperature = 0;
        if (i % 3 == 1) {
            q[i].params.seed = (uint64_t)i;
            q[i].params.has_seed = 1;
        }
    }
}

/* ---- refusals and edges ------------------------------------------------ */

static void odd_prompts_have_defined_answers(void **state)
{
    (void)state;
    rig r = rig_open(&(pbi_arm_options){ .hash_logits = 1 }, (const char *[]){ NULL });
    int64_t ctx = pbi_arm_context(r.a);
    int32_t long_ids[300], bad_ids[3] = { 5, -1, 6 }, high_ids[2] = { 5, 512 };
    const char *const empty_stop[] = { "" };
    enum { N = 11 };
    pbi_request q[N], good;
    pbi_answer a[N], alone;
    for (int i = 0; i < 300; i++)
        long_ids[i] = 40 + i % 60;
    make_requests(&good, 1, 9);
    for (int i = 0; i < N; i++)
        q[i] = good;
    q[1].n_prompt = 0; /* empty text, no beginning-of-sequence token */
    q[1].no_bos = 1;
    for (int i = 2; i < 8; i++)
        q[i].prompt = NULL;
    q[2].n_ids = 0;
    q[3].ids = bad_ids;
    q[3].n_ids = 3;
    q[4].ids = high_ids;
    q[4].n_ids = 2;
    q[5].ids = long_ids;
    q[5].n_ids = ctx + 1;
    q[6].ids = long_ids; /* full already */
    q[6].n_ids = ctx;
    q[7].ids = long_ids; /* room for one */
    q[7].n_ids = ctx - 1;
    q[7].max_new = -1;
    q[8].prompt = "\xff\xfe\x80 broken \xe2\x82"; /* not UTF-8 */
    q[8].n_prompt = strlen(q[8].prompt);
    q[9].max_new = 0;
    q[10].n_stop = 1;
    q[10].stop = empty_stop;
    run_ok(&r, N, q, a, NULL, NULL);
    run_ok(&r, 1, &good, &alone, NULL, NULL);
    same_answers(a, &alone, 1);
    static const int refused[] = { 1, 2, 3, 4, 5, 10 };
    static const char *const why[] = { "empty", "empty", "index 1", "512", "257", "" };
    for (int k = 0; k < 6; k++) {
        const pbi_answer *x = &a[refused[k]];
        char name[32];
        snprintf(name, sizeof name, "request %d", refused[k]);
        assert_int_equal(x->err.code, PB_E_INVAL);
        assert_non_null(strstr(x->err.msg, why[k]));
        assert_non_null(strstr(x->err.msg, name));
        assert_string_equal(x->finish, "error");
        assert_int_equal(x->n_ids, 0);
    }
    assert_int_equal(a[6].err.code, 0);
    assert_string_equal(a[6].finish, "context");
    assert_int_equal(a[6].n_ids, 0);
    assert_int_equal(a[7].n_ids, 1);
    assert_string_equal(a[7].finish, "context");
    assert_int_equal(a[8].err.code, 0);
    assert_int_equal(a[8].n_ids, 9);
    assert_int_equal(a[9].err.code, 0);
    assert_int_equal(a[9].n_ids, 0);
    assert_string_equal(a[9].finish, "length");
    assert_int_equal(a[9].t_first_ns, 0);
    answers_clear(a, N);
    answers_clear(&alone, 1);
    rig_close(&r);
}

static void text_needs_a_tokenizer(void **state)
{
    (void)state;
    rig r = rig_open(&(pbi_arm_options){ .no_text = 1 }, (const char *[]){ NULL });
    int32_t ids[3] = { 5, 6, 7 };
    const char *const stops[] = { "x" };
    pbi_request q[3];
    pbi_answer a[3];
    make_requests(q, 3, 5);
    q[1].prompt = q[2].prompt = NULL;
    q[1].ids = q[2].ids = ids;
    q[1].n_ids = q[2].n_ids = 3;
    q[2].n_stop = 1;
    q[2].stop = stops;
    run_ok(&r, 3, q, a, NULL, NULL);
    assert_int_equal(a[0].err.code, PB_E_INVAL);
    assert_int_equal(a[1].err.code, 0);
    assert_int_equal(a[1].n_ids, 8);
    assert_int_equal(a[2].err.code, PB_E_INVAL);
    answers_clear(a, 3);
    rig_close(&r);
}

typedef struct heard {
    char text[MANY][4096];
    size_t n[MANY];
} heard;

static void hear(void *arg, int64_t i, const char *s, size_t n)
{
    heard *h = arg;
    assert_true(h->n[i] + n < sizeof h->text[i]);
    memcpy(h->text[i] + h->n[i], s, n);
    h->n[i] += n;
}

/* Every piece of the text of 1 to 9 bytes, as a stop string: the text ends where it first
 * appears, the ids with the token that completed it, and the stream is the text. */
static void stop_strings_cut_anywhere(void **state)
{
    (void)state;
    rig r = rig_open(&(pbi_arm_options){ .hash_logits = 1 },
                     (const char *[]){ "spec=ngram", "backend.echo=1", NULL });
    rig single = rig_open(&(pbi_arm_options){ .hash_logits = 1 },
                          (const char *[]){ "backend.echo=1", NULL }); /* token by token */
    pbi_request q[MANY], one;
    pbi_answer whole, a[MANY], b[MANY];
    static heard h;
    pbi_totals t;
    make_requests(&one, 1, 120);
    run_ok(&r, 1, &one, &whole, NULL, &t);
    assert_true(t.n_accepted > 20); /* several tokens come at once */
    assert_true(whole.n_text > 20);
    for (size_t at = 0; at + 12 < whole.n_text; at += 11) {
        char stop[MANY][16] = { { 0 } };
        const char *list[MANY][1];
        int n = 0;
        for (size_t len = 1; len < 10 && n < MANY; len += 2, n++) {
            memcpy(stop[n], whole.text + at, len);
            list[n][0] = stop[n];
            q[n] = one;
            q[n].n_stop = 1;
            q[n].stop = list[n];
        }
        memset(&h, 0, sizeof h);
        run_ok(&r, n, q, a, &(pbi_run_hooks){ .arg = &h, .on_text = hear }, NULL);
        run_ok(&single, n, q, b, NULL, NULL);
        same_answers(a, b, n);
        answers_clear(b, n);
        for (int i = 0; i < n; i++) {
            const char *first = strstr(whole.text, stop[i]);
            size_t want = (size_t)(first - whole.text);
            assert_int_equal(a[i].err.code, 0);
            assert_string_equal(a[i].finish, "stop");
            assert_int_equal(a[i].n_text, want);
            assert_memory_equal(a[i].text, whole.text, want);
            assert_int_equal(h.n[i], want);
            assert_memory_equal(h.text[i], whole.text, want);
            assert_true(a[i].n_ids >= 1 && a[i].n_ids <= whole.n_ids);
            assert_memory_equal(a[i].ids, whole.ids, (size_t)a[i].n_ids * sizeof *whole.ids);
        }
        answers_clear(a, n);
    }
    for (int k = 1; k < 110; k += MANY) { /* drafts repeat: stops fall before them, these do not */
        for (int i = 0; i < MANY; i++) {
            q[i] = one;
            q[i].abort_after = k + i < 120 ? k + i : 1;
        }
        run_ok(&r, MANY, q, a, NULL, NULL);
        for (int i = 0; i < MANY; i++)
            assert_int_equal(a[i].n_ids, q[i].abort_after);
        answers_clear(a, MANY);
    }
    answers_clear(&whole, 1);
    rig_close(&single);
    rig_close(&r);
}

/* ---- the same bits, whatever happens ----------------------------------- */

/* Requests one by one on the plainest arm. */
static void plain_answers(const char *backend, int n, const pbi_request *q, pbi_answer *out)
{
    rig r = rig_open(&(pbi_arm_options){ .hash_logits = 1 }, (const char *[]){ backend, NULL });
    for (int i = 0; i < n; i++)
        run_ok(&r, 1, &q[i], &out[i], NULL, NULL);
    rig_close(&r);
}

static void plugins_may_forget_and_steps_move(void **state)
{
    (void)state;
    static const char *const attention[] = { "attention=contiguous", "attention=paged",
                                             "attention=hash" };
    for (int b = 0; b < 2; b++) {
        pbi_request q[MANY];
        pbi_answer want[MANY], got[MANY];
        make_requests(q, MANY, 10);
        plain_answers(backends[b], MANY, q, want);
        for (int k = 0; k < 6; k++) {
            const char *sets[] = { backends[b], attention[k % 3], "spec=ngram", NULL };
            rig r = rig_open(&(pbi_arm_options){ .hash_logits = 1,
                                                 .copy_steps = k % 2,
                                                 .amnesia = k > 1 ? 100u + (uint64_t)k : 0 },
                             sets);
            run_ok(&r, MANY, q, got, NULL, NULL);
            same_answers(got, want, MANY);
            answers_clear(got, MANY);
            rig_close(&r);
        }
        answers_clear(want, MANY);
    }
}

typedef struct guest {
    rig *r;
    const pbi_request *q;
    const pbi_answer *want;
    int n, done;
} guest;

/* Between two steps of the host arm, the guest arm runs a request to its end. */
static void be_guest(void *arg, int64_t i, const char *s, size_t n)
{
    guest *g = arg;
    pbi_answer a;
    (void)i, (void)s, (void)n;
    run_ok(g->r, 1, &g->q[g->done % g->n], &a, NULL, NULL);
    same_answers(&a, &g->want[g->done % g->n], 1);
    g->done++;
    pbi_answer_clear(&a);
}

static void arms_share_a_device(void **state)
{
    (void)state;
    for (int b = 0; b < 2; b++)
        for (int own = 0; own < 2; own++) {
            pbi_request q[5];
            pbi_answer want[5], got[5];
            pbi_totals t1, t2;
            make_requests(q, 5, 4);
            plain_answers(backends[b], 5, q, want);
            rig r1 = rig_open(&(pbi_arm_options){ .hash_logits = 1 },
                              (const char *[]){ backends[b], "attention=paged", NULL });
            rig r2 = rig_open(
                &(pbi_arm_options){ .hash_logits = 1, .share = r1.a, .own_arena = own },
                (const char *[]){ backends[b], "attention=hash", "scheduler=static", NULL });
            guest g = { .r = &r2, .q = q, .want = want, .n = 5 };
            run_ok(&r1, 5, q, got, &(pbi_run_hooks){ .arg = &g, .on_text = be_guest }, &t1);
            same_answers(got, want, 5);
            assert_true(g.done > 5);
            answers_clear(got, 5);
            run_ok(&r2, 5, q, got, NULL, &t2);
            same_answers(got, want, 5);
            assert_int_equal(t1.weight_bytes, t2.weight_bytes);
            if (b)
                assert_true(t1.weight_bytes > 0);
            answers_clear(got, 5);
            rig_close(&r1); /* the first may go first */
            run_ok(&r2, 5, q, got, NULL, &t2);
            same_answers(got, want, 5);
            answers_clear(got, 5);
            rig_close(&r2);
            answers_clear(want, 5);
        }
}

static void unlike_devices_are_not_shared(void **state)
{
    (void)state;
    rig r = rig_open(&(pbi_arm_options){ 0 }, (const char *[]){ NULL });
    const char *const sets[] = { "backend.step_us=77" };
    pbi_pipeline *p;
    pbi_arm *a = NULL;
    pb_err err = { 0 };
    assert_int_equal(pbi_pipeline_parse(ini, "other.ini", 1, sets, &p, &err), 0);
    assert_int_equal(pbi_arm_open(p, &(pbi_arm_options){ .share = r.a }, &a, &err), PB_E_INVAL);
    assert_non_null(strstr(err.msg, "other.ini"));
    pbi_pipeline_free(p);
    rig_close(&r);
}

static void reset_forgets(void **state)
{
    (void)state;
    rig r = rig_open(&(pbi_arm_options){ .hash_logits = 1 },
                     (const char *[]){ "attention=hash", "attention.page_size=8", NULL });
    pbi_request q;
    pbi_answer a, b, c;
    pb_err err = { 0 };
    make_requests(&q, 1, 6);
    run_ok(&r, 1, &q, &a, NULL, NULL);
    run_ok(&r, 1, &q, &b, NULL, NULL);
    assert_int_equal(a.n_cached, 0);
    assert_true(b.n_cached > 0);
    assert_int_equal(pbi_arm_reset(r.a, &err), 0);
    run_ok(&r, 1, &q, &c, NULL, NULL);
    assert_int_equal(c.n_cached, 0);
    same_answers(&a, &b, 1);
    same_answers(&a, &c, 1);
    answers_clear(&a, 1);
    answers_clear(&b, 1);
    answers_clear(&c, 1);
    rig_close(&r);
}

/* ---- the engine elsewhere ---------------------------------------------- */

static int64_t counter(const rig *r, const char *slot, const char *name)
{
    pbi_instance *const *in;
    int n = pbi_arm_instances(r->a, &in);
    for (int i = 0; i < n; i++) {
        const pb_counter *c = pbi_instance_use(in[i])->lib->desc->counters;
        if (strcmp(pbi_instance_use(in[i])->slot, slot))
            continue;
        for (int k = 0; c && c[k].name; k++)
            if (!strcmp(c[k].name, name))
                return pbi_instance_counter(in[i], k);
    }
    fail_msg("no counter %s of %s", name, slot);
    return 0;
}

typedef struct killer {
    rig *r;
    uint64_t random;
    int one_in, at_most, killed;
    heard heard;
} killer;

static void kill_engine(killer *k)
{
    pid_t pid = (pid_t)counter(k->r, "process", "engine_pid");
    assert_true(pid > 1 && pid != getpid());
    kill(pid, SIGKILL);
    k->killed++;
}

static void kill_sometimes(void *arg, int64_t i, const char *s, size_t n)
{
    killer *k = arg;
    hear(&k->heard, i, s, n);
    k->random = k->random * 6364136223846793005u + 1442695040888963407u;
    if (k->killed < k->at_most && (k->random >> 33) % (unsigned)k->one_in == 0)
        kill_engine(k);
}

static int kill_always(void *arg)
{
    kill_engine(arg);
    return 0;
}

static void split_equals_inline(void **state)
{
    (void)state;
    static killer k;
    for (int b = 0; b < 2; b++)
        for (int kills = 0; kills < 3; kills++) {
            pbi_request q[MANY];
            pbi_answer want[MANY], got[MANY];
            pbi_totals t;
            make_requests(q, MANY, 12);
            q[3].max_new = 0;
            q[4].prompt = "";
            q[4].n_prompt = 0;
            plain_answers(backends[b], MANY, q, want);
            rig r = rig_open(&(pbi_arm_options){ .hash_logits = 1 },
                             (const char *[]){ backends[b], "process=split", "attention=hash",
                                               "spec=ngram", NULL });
            for (int again = 0; again < 2; again++) {
                memset(&k, 0, sizeof k);
                k.r = &r;
                k.random = (uint64_t)(17 * kills + again);
                k.one_in = 25;
                k.at_most = 4 * kills;
                run_ok(&r, MANY, q, got, &(pbi_run_hooks){ .arg = &k, .on_text = kill_sometimes },
                       &t);
                same_answers(got, want, MANY);
                for (int i = 0; i < MANY; i++) {
                    assert_int_equal(k.heard.n[i], got[i].n_text);
                    assert_memory_equal(k.heard.text[i], got[i].text, got[i].n_text);
                }
                if (kills)
                    assert_true(k.killed > 0 && t.n_engine_lost > 0);
                else {
                    assert_int_equal(t.n_engine_lost, 0);
                    assert_true(t.n_steps > 0); /* those of the last engine only */
                }
                assert_true(counter(&r, "sampler", "drawn") > 0); /* counted by the child */
                answers_clear(got, MANY);
            }
            rig_close(&r);
            answers_clear(want, MANY);
        }
}

/* Answers that the front cuts, while engines die: the cut is where it was. */
static void cuts_survive_kills(void **state)
{
    (void)state;
    static killer k;
    static const char *const stops[] = { "e", "Q7", "\x02" };
    int killed = 0;
    for (int round = 0; round < 12; round++) {
        pbi_request q[MANY];
        pbi_answer want[MANY], got[MANY];
        make_requests(q, MANY, 30);
        for (int i = 0; i < MANY; i++) {
            q[i].n_stop = i % 2 ? 3 : 0;
            q[i].stop = stops;
            q[i].abort_after = i % 2 ? -1 : 5 + 2 * i;
        }
        rig in = rig_open(&(pbi_arm_options){ .hash_logits = 1 }, (const char *[]){ NULL });
        run_ok(&in, MANY, q, want, NULL, NULL);
        rig_close(&in);
        rig r = rig_open(&(pbi_arm_options){ .hash_logits = 1 },
                         (const char *[]){ "process=split", NULL });
        memset(&k, 0, sizeof k);
        k.r = &r;
        k.random = (uint64_t)round;
        k.one_in = 12;
        k.at_most = 8;
        run_ok(&r, MANY, q, got, &(pbi_run_hooks){ .arg = &k, .on_text = kill_sometimes }, NULL);
        same_answers(got, want, MANY);
        killed += k.killed;
        answers_clear(got, MANY);
        answers_clear(want, MANY);
        rig_close(&r);
    }
    assert_true(killed > 12);
}

/* An engine that never lives long enough to answer ends the run with a reason. */
static void split_gives_up(void **state)
{
    (void)state;
    rig r = rig_open(&(pbi_arm_options){ 0 },
                     (const char *[]){ "process=split", "process.max_restarts=5", NULL });
    static killer k;
    pbi_request q[3];
    pbi_answer a[3];
    pb_err err = { 0 };
    k.r = &r;
    make_requests(q, 3, 200);
    int rc =
        pbi_arm_run(r.a, 3, q, a, &(pbi_run_hooks){ .arg = &k, .stop = kill_always }, NULL, &err);
    assert_int_equal(rc, PB_E_LOST);
    assert_non_null(strstr(err.msg, "signal 9"));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(a[i].err.code, PB_E_LOST);
        assert_string_equal(a[i].finish, "error");
    }
    answers_clear(a, 3);
    make_requests(q, 3, 5); /* the next run begins anew */
    run_ok(&r, 3, q, a, NULL, NULL);
    for (int i = 0; i < 3; i++)
        assert_int_equal(a[i].n_ids, q[i].max_new);
    answers_clear(a, 3);
    rig_close(&r);
}

static void split_shows_no_logits(void **state)
{
    (void)state;
    const char *const sets[] = { "process=split" };
    pbi_pipeline *p;
    pbi_arm *a = NULL;
    pb_err err = { 0 };
    assert_int_equal(pbi_pipeline_parse(ini, "arm.ini", 1, sets, &p, &err), 0);
    assert_int_equal(pbi_arm_open(p, &(pbi_arm_options){ .want_logits = 1 }, &a, &err), PB_E_INVAL);
    assert_non_null(strstr(err.msg, "split"));
    pbi_pipeline_free(p);
}

static int stop_at_once(void *arg)
{
    int *polls = arg;
    return ++*polls > 3;
}

/* abort_after cuts one request; stop ends all, wherever the engine runs. */
static void aborts(void **state)
{
    (void)state;
    for (int split = 0; split < 2; split++) {
        rig r = rig_open(&(pbi_arm_options){ 0 },
                         (const char *[]){ split ? "process=split" : "process=inline", NULL });
        pbi_request q[MANY];
        pbi_answer a[MANY];
        int polls = 0;
        make_requests(q, MANY, 20);
        q[2].abort_after = 7;
        run_ok(&r, MANY, q, a, NULL, NULL);
        for (int i = 0; i < MANY; i++) {
            assert_int_equal(a[i].n_ids, i == 2 ? 7 : q[i].max_new);
            assert_string_equal(a[i].finish, i == 2 ? "abort" : "length");
        }
        answers_clear(a, MANY);
        for (int i = 0; i < MANY; i++) {
            q[i].max_new = 200;
            q[i].arrival_ns = i > 8 ? INT64_MAX / 4 : 0; /* never sent */
        }
        run_ok(&r, MANY, q, a, &(pbi_run_hooks){ .arg = &polls, .stop = stop_at_once }, NULL);
        for (int i = 0; i < MANY; i++) {
            assert_int_equal(a[i].err.code, 0);
            if (!split) /* another process may have been quick */
                assert_string_equal(a[i].finish, "abort");
        }
        answers_clear(a, MANY);
        rig_close(&r);
    }
}

/* ---- many -------------------------------------------------------------- */

/* 10,000 requests that arrive over virtual time, through the policies of real devices. */
static void ten_thousand_requests(void **state)
{
    (void)state;
    static const char *const attention[] = { "attention=contiguous", "attention=hash" };
    enum { N = 10000 };
    pbi_request *q = calloc(N, sizeof *q);
    pbi_answer *a = calloc(N, sizeof *a), *b = calloc(N, sizeof *b);
    static int32_t pool[4096];
    struct timespec t0, t1;
    uint64_t z = 3;
    int64_t at = 0, n_out = 0;
    assert_true(q && a && b);
    for (int i = 0; i < 4096; i++)
        pool[i] = 3 + (i * 37 + i / 64) % 500;
    for (int i = 0; i < N; i++) {
        z = z * 6364136223846793005u + 1442695040888963407u;
        pbi_request_default(&q[i]);
        q[i].ids = pool + 64 * ((z >> 40) % 16);
        q[i].n_ids = 4 + (int64_t)((z >> 33) % 24);
        q[i].max_new = 1 + (int64_t)((z >> 50) % 12);
        q[i].ignore_eos = 1;
        q[i].arrival_ns = at += (int64_t)((z >> 20) % 200000);
        n_out += q[i].max_new;
    }
    clock_gettime(CLOCK_MONOTONIC, &t0);
    for (int k = 0; k < 2; k++) {
        pbi_totals t;
        rig r = rig_open(&(pbi_arm_options){ .no_text = 1 },
                         (const char *[]){ attention[k], "sampler=greedy", "pipeline.max_seqs=32",
                                           "pipeline.paranoid=false", "pipeline.threads=1", NULL });
        run_ok(&r, N, q, k ? b : a, NULL, &t);
        assert_int_equal(t.n_out_tokens, n_out);
        assert_true(t.wall_ns >= at);
        rig_close(&r);
    }
    clock_gettime(CLOCK_MONOTONIC, &t1);
    for (int i = 0; i < N; i++) {
        assert_int_equal(a[i].err.code, 0);
        assert_int_equal(a[i].n_ids, q[i].max_new);
        assert_memory_equal(a[i].ids, b[i].ids, (size_t)a[i].n_ids * sizeof *a[i].ids);
        assert_true(a[i].t_first_ns > a[i].t_submit_ns);
        assert_true(a[i].t_last_ns >= a[i].t_first_ns);
    }
    print_message("2 x %d requests in %.2f s\n", N,
                  (double)(t1.tv_sec - t0.tv_sec) + 1e-9 * (double)(t1.tv_nsec - t0.tv_nsec));
    answers_clear(a, N);
    answers_clear(b, N);
    free(q);
    free(a);
    free(b);
}

int main(int argc, char **argv) /* a name: that test alone */
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(odd_prompts_have_defined_answers),
        cmocka_unit_test(text_needs_a_tokenizer),
        cmocka_unit_test(stop_strings_cut_anywhere),
        cmocka_unit_test(plugins_may_forget_and_steps_move),
        cmocka_unit_test(arms_share_a_device),
        cmocka_unit_test(unlike_devices_are_not_shared),
        cmocka_unit_test(reset_forgets),
        cmocka_unit_test(split_equals_inline),
        cmocka_unit_test(cuts_survive_kills),
        cmocka_unit_test(split_gives_up),
        cmocka_unit_test(split_shows_no_logits),
        cmocka_unit_test(aborts),
        cmocka_unit_test(ten_thousand_requests),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    alarm(240); /* a hang is a failure */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
