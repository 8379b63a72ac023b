/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/cpu.c - runs models on the CPU: the descriptor and KV memory.
 *
 * KV pages lie in an arena that the core lends; weights are weights.c's, steps step.c's. Class
 * EXACT among pipelines with equal `activations` and `kv`. Tests: test_cpu, test_rows.
 */
#include "cpu.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int cpu_fail(pb_err *err, int code, const char *fmt, ...)
{
    va_list ap;
    if (err) {
        err->code = code;
        va_start(ap, fmt);
        vsnprintf(err->msg, sizeof err->msg, fmt, ap);
        va_end(ap);
    }
    return code;
}

/* ---- KV ------------------------------------------------------------------------ */

static int kv_group(void *self, const pb_kv_shape *s, pb_kv_group *out, pb_err *err)
{
    cpu *d = self;
    if (s->kind != PB_KV_GQA)
        return cpu_fail(err, PB_E_UNSUPPORTED, "backend-cpu: KV of kind %d; only GQA (%d) is built",
                        s->kind, PB_KV_GQA);
    if (s->n_layers < 1 || s->n_kv_heads < 1 || s->n_kv_heads > 4096 || s->head_dim < 1 ||
        s->head_dim > 1024 || s->v_dim < 1 || s->v_dim > 1024)
        return cpu_fail(err, PB_E_UNSUPPORTED,
                        "backend-cpu: KV of %d layers, %d heads of %d and %d elements; heads up to "
                        "4096, elements up to 1024",
                        s->n_layers, s->n_kv_heads, s->head_dim, s->v_dim);
    out->kind = s->kind;
    out->n_layers = s->n_layers;
    out->window = s->window;
    out->granule = d->kvfmt->granule;
    uint64_t layer = d->kvfmt->layer_bytes(s, d->kvfmt->granule);
    out->token_bytes = (int64_t)(layer / (uint64_t)d->kvfmt->granule) * s->n_layers;
    return 0;
}

static int arena(void *self, uint64_t bytes, void **out, pb_err *err)
{
    cpu *d = self;
    *out = bytes > SIZE_MAX ? NULL : d->host->alloc(d->host, (size_t)bytes, 64, "kv arena");
    return *out ? 0
                : cpu_fail(err, PB_E_NOMEM, "backend-cpu: no memory for a KV arena of %llu bytes",
                           (unsigned long long)bytes);
}

static void arena_free(void *self, void *mem)
{
    cpu *d = self;
    d->host->free(d->host, mem);
}

static int kv(void *self, struct pb_exec *x, void *mem, uint64_t arena_bytes, int32_t n_groups,
              const pb_kv_plan *plan, struct pb_kv **out, pb_err *err)
{
    cpu *d = self;
    uint64_t at = 0;
    if (n_groups != x->p->n_groups)
        return cpu_fail(err, PB_E_INVAL, "backend-cpu: plan for %d KV groups, program has %d",
                        n_groups, x->p->n_groups);
    struct pb_kv *k = d->host->alloc(d->host, sizeof *k, 0, "kv");
    if (!k)
        return cpu_fail(err, PB_E_NOMEM, "backend-cpu: no memory for a pool's handle");
    k->mem = mem;
    k->n_groups = n_groups;
    for (int32_t g = 0; g < n_groups; g++) {
        const pb_kv_shape *s = &x->p->groups[g];
        int32_t tokens = plan[g].page_tokens;
        if (tokens < 1 || tokens % d->kvfmt->granule || plan[g].n_pages < 1) {
            d->host->free(d->host, k);
            return cpu_fail(err, PB_E_INVAL,
                            "backend-cpu: KV group %d: %d pages of %d tokens; format %s has pages "
                            "in multiples of %d",
                            g, plan[g].n_pages, tokens, d->kvfmt->name, d->kvfmt->granule);
        }
        k->plan[g] = plan[g];
        k->group[g] = (char *)mem + at;
        k->layer_bytes[g] = d->kvfmt->layer_bytes(s, tokens);
        k->page_bytes[g] = k->layer_bytes[g] * (uint64_t)s->n_layers;
        if (k->page_bytes[g] > (arena_bytes - at) / (uint64_t)plan[g].n_pages) {
            unsigned long long bytes = k->page_bytes[g];
            d->host->free(d->host, k);
            return cpu_fail(err, PB_E_INVAL,
                            "backend-cpu: KV group %d: %d pages of %llu bytes end beyond the "
                            "arena's %llu bytes",
                            g, plan[g].n_pages, bytes, (unsigned long long)arena_bytes);
        }
        at += k->page_bytes[g] * (uint64_t)plan[g].n_pages;
    }
    *out = k;
    return 0;
}

static void kv_free(void *self, struct pb_kv *k)
{
    cpu *d = self;
    d->host->free(d->host, k);
}

/* 0xFF bytes are NaN in both formats. */
static int poison(void *self, struct pb_kv *k, int32_t g, pb_page page)
{
    (void)self;
    if (g < 0 || g >= k->n_groups || page < 0 || page >= k->plan[g].n_pages)
        return PB_E_INVAL;
    memset(k->group[g] + (uint64_t)page * k->page_bytes[g], 0xff, (size_t)k->page_bytes[g]);
    return 0;
}

/* ---- lifecycle --------------------------------------------------------------------- */

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    static const char *const kv_names[] = { "f16", "f32" };
    static const char *const isa_names[] = { "auto", "any", "avx2", "avx512" };
    cpu *d = host->alloc(host, sizeof *d, 0, "cpu");
    if (!d)
        return cpu_fail(err, PB_E_NOMEM, "backend-cpu: no memory for %zu bytes", sizeof *d);
    d->host = host;
    d->cfg = cfg;
    d->st = host->stats;
    d->team = host->get(host, "team/1");
    d->extra = host->get(host, "kernels/1");
    if ((d->cfg->isa == CPU_ISA_AVX2 && !cpu_has_avx2()) ||
        (d->cfg->isa == CPU_ISA_AVX512 && !cpu_has_avx512())) {
        int32_t isa = d->cfg->isa;
        host->free(host, d);
        return cpu_fail(err, PB_E_UNSUPPORTED, "backend-cpu: isa = %s: this machine lacks it",
                        isa_names[isa]);
    }
    for (int i = 0; cpu_elem_at(i); i++)
        if (cpu_isa_allowed(d->cfg->isa, cpu_elem_at(i)->isa) && cpu_elem_at(i)->usable())
            d->elem = cpu_elem_at(i);
    d->kvfmt = cpu_kvfmt_choose(d, kv_names[d->cfg->kv]);
    if (!d->kvfmt) {
        host->free(host, d);
        return cpu_fail(err, PB_E_UNSUPPORTED, "backend-cpu: no KV format %s", kv_names[0]);
    }
    d->kvfmt_extra = cpu_is_extra(d, d->kvfmt);
    *self = d;
    return 0;
}

static int start(void *self, const pb_run *run, pb_err *err)
{
    cpu *d = self;
    (void)run;
    return d->cfg->verify ? cpu_verify_kvfmt(d, d->kvfmt, err) : 0;
}

static void destroy(void *self)
{
    cpu *d = self;
    if (!d)
        return;
    cpu_weights_end(d); /* weights are freed before; this is what a failed load left */
    d->host->free(d->host, d);
}

static const pb_backend vtable = {
    .size = sizeof(pb_backend),
    .weight = cpu_weight,
    .weight_free = cpu_weight_free,
    .kv_group = kv_group,
    .arena = arena,
    .arena_free = arena_free,
    .compile = cpu_compile,
    .exec_free = cpu_exec_free,
    .kv = kv,
    .kv_free = kv_free,
    .poison = poison,
    .submit = cpu_submit,
    .pick = cpu_pick,
    .wait = cpu_wait,
};

static const pb_option options[] = {
    PB_ENUM(cpu_config, activations, "q8", "q8|f32", PB_O_OUTPUT,
            "inputs of products with quantized weights: blocks of 32 int8, or float"),
    PB_ENUM(cpu_config, kv, "f16", "f16|f32", PB_O_OUTPUT, "elements of the KV cache"),
    PB_ENUM(cpu_config, isa, "auto", "auto|any|avx2|avx512", 0,
            "instruction set; the results are the same bits under each"),
    PB_BOOL(cpu_config, verify, "on", 0,
            "compare each kernel with the plain-C one before its first use"),
    PB_OPTIONS_END,
};

static const pb_counter counters[] = {
    PB_COUNTER(cpu_stats, steps, PB_C_ENGAGED, "steps", "steps run"),
    PB_COUNTER(cpu_stats, rows, 0, "rows", "rows run"),
    PB_COUNTER(cpu_stats, tokens_copied, 0, "tokens", "KV tokens copied between pages"),
    PB_COUNTER(cpu_stats, rows_verified, 0, "kernels", "kernels compared with the plain-C ones"),
    PB_COUNTER(cpu_stats, plugin_row_ops, 0, "operations",
               "products and attentions that rows of kernels plugins computed"),
    PB_COUNTER(cpu_stats, device_ns, 0, "ns", "time spent in steps and draws"),
    PB_COUNTERS_END,
};

static const pb_iface ifaces[] = { { "backend/1", &vtable }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .slot = "backend",
    .name = "cpu",
    .version = "0.1.0",
    .license = "MIT",
    .summary = "runs models on the CPU, with equal bits on every machine",
    .flags = PB_EXACT,
    .options = options,
    .counters = counters,
    .config_size = sizeof(cpu_config),
    .stats_size = sizeof(cpu_stats),
    .ifaces = ifaces,
    .create = create,
    .start = start,
    .destroy = destroy,
};
