/* SPDX-License-Identifier: MIT
 *
 * tests/unit/plug.h - opens one plugin as the core would, with options from text, for tests that
 * drive a plugin without an engine. Failures end the test through cmocka.
 */
#ifndef PLUG_H
#define PLUG_H
#include "instance.h"

typedef struct plug {
    pbi_use use;
    pbi_services svc;
    pbi_instance *in;
    const void *vtbl;
} plug;

/* Loads slot-name from PATCHBAY_PLUGIN_PATH. options: NULL-terminated "key=value" list, or NULL.
 * The strings must live as long as p. Creates the instance and starts it with run. */
void plug_open(plug *p, const char *slot, const char *name, const char *const *options,
               const pbi_services *svc, const pb_run *run);
void plug_close(plug *p);
/* a counter by name */
int64_t plug_counter(const plug *p, const char *name);
static inline void *plug_self(const plug *p)
{
    return pbi_instance_self(p->in);
}

/* SplitMix64 (Steele, Lea, Flood 2014): next(), and a number in [0, n). */
uint64_t plug_random(uint64_t *state);
int32_t plug_below(uint64_t *state, int32_t n);
/* Seconds that a random test may run: PATCHBAY_FUZZ_SECONDS, or def. */
double plug_seconds(double def);
double plug_clock(void);
#endif
