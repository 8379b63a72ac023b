/* SPDX-License-Identifier: MIT
 *
 * tests/unit/plug.c - see plug.h.
 */
#include "config.h"

#include "plug.h"
#include "options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void set(const pb_option *table, size_t stride, const char *key, size_t n, const char *value,
                void *config)
{
    char name[64];
    pb_err err = { 0 };
    snprintf(name, sizeof name, "%.*s", (int)n, key);
    const pb_option *o = pbi_option_find(table, stride, name);
    if (!o)
        fail_msg("no option %s", name);
    if (pbi_option_set(o, value, config, &err))
        fail_msg("%s: %s", name, err.msg);
}

void plug_open(plug *p, const char *slot, const char *name, const char *const *options,
               const pbi_services *svc, const pb_run *run)
{
    pb_err err = { 0 };
    memset(p, 0, sizeof *p);
    p->svc = *svc;
    p->use.slot = slot;
    p->use.name = name;
    p->use.origin = strdup("test");
    if (pbi_loader_open(slot, name, &p->use.lib, &err))
        fail_msg("%s-%s: %s", slot, name, err.msg);
    const pb_plugin *d = p->use.lib->desc;
    p->use.config = calloc(1, d->config_size + 1u);
    for (const pb_option *o = d->options; o && o->name; o++)
        if (o->def)
            set(d->options, d->option_size, o->name, strlen(o->name), o->def, p->use.config);
    for (; options && *options; options++) {
        const char *eq = strchr(*options, '=');
        assert_non_null(eq);
        set(d->options, d->option_size, *options, (size_t)(eq - *options), eq + 1, p->use.config);
    }
    if (pbi_instance_new(&p->use, &p->svc, &p->in, &err))
        fail_msg("%s", err.msg);
    if (pbi_instance_start(p->in, run, &err))
        fail_msg("%s", err.msg);
    p->vtbl = pbi_instance_iface(p->in, pbi_slot_iface(slot));
    assert_non_null(p->vtbl);
}

void plug_close(plug *p)
{
    pbi_instance_free(p->in);
    free(p->use.config);
    free(p->use.origin);
    p->in = NULL;
}

int64_t plug_counter(const plug *p, const char *name)
{
    const pb_counter *c = p->use.lib->desc->counters;
    for (int i = 0; c && c[i].name; i++)
        if (strcmp(c[i].name, name) == 0)
            return pbi_instance_counter(p->in, i);
    fail_msg("no counter %s", name);
    return 0;
}

uint64_t plug_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

int32_t plug_below(uint64_t *state, int32_t n)
{
    return (int32_t)(plug_random(state) % (uint64_t)n);
}

double plug_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double plug_seconds(double def)
{
    const char *s = getenv("PATCHBAY_FUZZ_SECONDS");
    double x = s ? strtod(s, NULL) : 0.0;
    return x > 0.0 ? x : def;
}
