/* SPDX-License-Identifier: MIT
 *
 * bench/boundary.c - what the plugin boundary costs in a decode step: how many calls a step
 * makes, what one call costs more than a plain one, and the share of the two in a step.
 *
 *     make bench_boundary && ./bench_boundary MODEL [N [SET...]]      SET: "backend.isa=avx2"
 *
 * A call through the boundary is PBI_CALL: two stores that attribute faults, one test whether
 * tracing is on, and a call through a function pointer into a library. Its cost is measured
 * against an inlined call of the same empty body. Run it in a build with and in one without
 * --with-static-plugins to see what dlopen adds: the step times.
 */
#define _GNU_SOURCE 1
#include "arm.h"
#include "options.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ns of one call of the sampler plugin's draw() for no row, best of 9 */
static double call_ns(const pbi_pipeline *p)
{
    static const pbi_services none = { 0 };
    enum { N = 2000000 };
    pbi_instance *in = NULL;
    pb_err err = { 0 };
    if (pbi_instance_new(pbi_pipeline_use(p, "sampler", 0), &none, &in, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        exit(1);
    }
    const pb_sampler *v = pbi_instance_iface(in, "sampler/1");
    void *self = pbi_instance_self(in);
    pbi_call_stat *st = pbi_call_stat_get(in, "draw");
    double best = 1e9;
    for (int k = 0; k < 9; k++) {
        volatile int sink = 0;
        double t0 = seconds(), t1, t2;
        for (int i = 0; i < N; i++)
            PBI_CALL(st, sink = v->draw(self, 0, NULL, NULL));
        t1 = seconds();
        for (int i = 0; i < N; i++)
            sink = i;
        t2 = seconds();
        double ns = ((t1 - t0) - (t2 - t1)) / N * 1e9;
        best = ns < best ? ns : best;
        (void)sink;
    }
    pbi_instance_free(in);
    return best;
}

static int64_t count_calls(const pbi_arm *a)
{
    pbi_instance *const *in;
    int64_t n = 0;
    int k = pbi_arm_instances(a, &in);
    for (int i = 0; i < k; i++)
        for (const pbi_call_stat *s = pbi_call_stats(in[i]); s; s = s->next)
            n += s->n;
    return n;
}

/* One greedy answer of n tokens; median step time over 5 runs. */
static int run(pbi_arm *a, int64_t n, pbi_totals *t, pb_err *err)
{
    static const int32_t prompt[] = { 1 };
    pbi_request r;
    pbi_answer out;
    memset(&out, 0, sizeof out);
    memset(t, 0, sizeof *t);
    pbi_request_default(&r);
    r.ids = prompt;
    r.n_ids = 1;
    r.max_new = n;
    r.ignore_eos = 1;
    int rc = pbi_arm_run(a, 1, &r, &out, NULL, t, err);
    if (!rc && out.err.code) {
        *err = out.err;
        rc = out.err.code;
    }
    pbi_answer_clear(&out);
    return rc;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    const char *const *set = (const char *const *)argv + 3;
    pbi_pipeline *p = NULL;
    pbi_arm *a = NULL;
    pb_err err = { 0 };
    int64_t n = 128;
    double step_ns[5];
    pbi_totals t;
    if (argc < 2 || (argc > 2 && pbi_parse_int(argv[2], &n))) {
        fprintf(stderr, "usage: bench_boundary MODEL [N [SLOT.KEY=VALUE...]]\n");
        return 2;
    }
    pbi_arm_options o = { .model_path = argv[1], .no_text = 1 };
    int rc = pbi_pipeline_parse("", "(defaults)", argc > 3 ? argc - 3 : 0, set, &p, &err);
    if (!rc)
        rc = pbi_arm_open(p, &o, &a, &err);
    for (int i = 0; i < 5 && !rc; i++) {
        rc = run(a, n, &t, &err);
        step_ns[i] = t.n_steps ? (double)t.wall_ns / (double)t.n_steps : 0;
    }
    int64_t before = rc ? 0 : count_calls(a);
    pbi_trace_enable(1);
    if (!rc)
        rc = run(a, n, &t, &err);
    pbi_trace_enable(0);
    if (!rc) {
        double calls = (double)(count_calls(a) - before) / (double)t.n_steps, ns = call_ns(p);
        qsort(step_ns, 5, sizeof *step_ns, by_value);
        printf("plugins from %s\n", pbi_pipeline_use(p, "sampler", 0)->lib->path);
        printf("%.1f calls a step, %.2f ns a call: %.0f ns of a step of %.0f ns, %.4f %%\n", calls,
               ns, calls * ns, step_ns[2], calls * ns / step_ns[2] * 100);
    } else
        fprintf(stderr, "bench_boundary: %s\n", err.msg);
    pbi_arm_close(a);
    pbi_pipeline_free(p);
    return rc ? pbi_err_exit(rc) : 0;
}
