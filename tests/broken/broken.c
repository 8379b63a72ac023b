/* SPDX-License-Identifier: MIT
 *
 * tests/broken/broken.c - one plugin for each thing that the loader must refuse. CASE_x is
 * defined by tests/broken/Makefile.inc; CASE_good is the control that must load.
 */
#include <patchbay/plugin.h>

#ifdef CASE_crash
#include <signal.h>
#endif

typedef struct config {
    int64_t depth;
    int64_t width;
} config;

#ifndef NAME
#error "NAME is the plugin's name"
#endif

#ifdef CASE_badopt
#define DEPTH_DEFAULT "99"
#else
#define DEPTH_DEFAULT "3"
#endif

static const pb_option options[] = {
    PB_INT(config, depth, DEPTH_DEFAULT, "1", "8", 0, "steps", "how deep"),
#ifdef CASE_overlap
    { "width", PB_T_INT, 0, offsetof(config, depth), "1", NULL, NULL, NULL, NULL, "how wide" },
#elif defined(CASE_offset)
    { "width", PB_T_INT, 0, sizeof(config), "1", NULL, NULL, NULL, NULL, "how wide" },
#elif defined(CASE_unaligned)
    { "width", PB_T_INT, 0, 4, "1", NULL, NULL, NULL, NULL, "how wide" },
#elif defined(CASE_twice)
    PB_INT(config, depth, "3", "1", "8", 0, "steps", "how deep"),
#elif defined(CASE_nohelp)
    PB_INT(config, width, "1", NULL, NULL, 0, NULL, ""),
#else
    PB_INT(config, width, "1", NULL, NULL, 0, NULL, "how wide"),
#endif
    PB_OPTIONS_END
};

static const pb_counter counters[] = {
#ifdef CASE_badcounter
    { "drawn", 8, 0, 0, "tokens", "tokens drawn" },
#else
    { "drawn", 0, 0, 0, "tokens", "tokens drawn" },
#endif
    PB_COUNTERS_END
};

#ifdef CASE_undefined
int a_function_that_nobody_defines(void);
#endif

#ifdef CASE_fastmath
/* what linking with -ffast-math adds: denormals become zero for everyone */
#if defined(__x86_64__)
__attribute__((constructor)) static void flush(void)
{
    __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040u);
}
#elif defined(__aarch64__)
__attribute__((constructor)) static void flush(void)
{
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)1 << 24));
}
#endif
#endif

static int draw(void *self, int32_t n, const pb_pick *p, pb_draw *out)
{
    (void)self, (void)n, (void)p, (void)out;
#ifdef CASE_undefined
    return a_function_that_nobody_defines();
#else
    return 0;
#endif
}

static const pb_sampler sampler = {
#ifdef CASE_vtsize
    .size = sizeof sampler - 8,
#else
    .size = sizeof sampler,
#endif
#ifndef CASE_nodraw
    .draw = draw,
#endif
};

static const pb_iface ifaces[] = {
#ifdef CASE_iface
    { "org.example.other/1", &sampler },
#else
    { "sampler/1", &sampler },
#endif
    { NULL, NULL }
};

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    (void)cfg, (void)err;
#ifdef CASE_crash
    raise(SIGSEGV); /* a real fault would be taken by the sanitizers first */
#endif
#ifdef CASE_silent
    return PB_E_STATE; /* and no message */
#endif
#ifdef CASE_leak
    host->alloc(host, 1000, 0, "lost and found");
#endif
    *self = (void *)(uintptr_t)host;
    return 0;
}

static int probe(pb_err *err)
{
#ifdef CASE_probe
    const char why[] = "no such device here";
    err->code = PB_E_UNSUPPORTED;
    for (size_t i = 0; i < sizeof why; i++)
        err->msg[i] = why[i];
    return 0;
#else
    (void)err;
    return 1;
#endif
}

static void destroy(void *self)
{
    (void)self;
}

#ifdef CASE_future
extern PB_EXPORT_ const int pb_plugin_v2;
PB_EXPORT_ const int pb_plugin_v2 = 2;
const pb_plugin hidden = {
#elif defined(CASE_nosymbol)
const pb_plugin hidden = {
#elif defined(CASE_short)
extern PB_EXPORT_ const uint32_t pb_plugin_v0[2];
PB_EXPORT_ const uint32_t pb_plugin_v0[2] = { PB_MAGIC, sizeof(pb_plugin) };
const pb_plugin hidden = {
#else
PB_PLUGIN = {
#endif
#ifdef CASE_magic
    .magic = 0x12345678,
#else
    .magic = PB_MAGIC,
#endif
#ifdef CASE_size
    .size = sizeof(pb_plugin) - 8,
#else
    .size = sizeof(pb_plugin),
#endif
#ifdef CASE_layout
    .layout = PB_LAYOUT + 1,
#else
    .layout = PB_LAYOUT,
#endif
#ifdef CASE_abi
    .abi_minor = PB_ABI_MINOR + 41,
#else
    .abi_minor = PB_ABI_MINOR,
#endif
    .option_size = sizeof(pb_option),
    .counter_size = sizeof(pb_counter),
#ifdef CASE_slot
    .slot = "flux",
#else
    .slot = "sampler",
#endif
    .name = NAME,
    .version = "1",
#ifndef CASE_nolicense
    .license = "MIT",
#endif
    .summary = "a test",
    .options = options,
    .counters = counters,
    .config_size = sizeof(config),
    .stats_size = 8,
    .ifaces = ifaces,
    .probe = probe,
#ifndef CASE_nocreate
    .create = create,
#endif
#ifndef CASE_nodestroy
    .destroy = destroy,
#endif
};

/* nothing is unused in any case */
const void *const broken_uses[] = { ifaces,
                                    options,
                                    counters,
                                    (const void *)(uintptr_t)create,
                                    (const void *)(uintptr_t)destroy,
                                    (const void *)(uintptr_t)draw,
                                    (const void *)(uintptr_t)probe };
