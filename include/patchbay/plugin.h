/* SPDX-License-Identifier: MIT
 *
 * patchbay/plugin.h - the one header that a plugin includes.
 *
 * A plugin is a shared object that exports one DATA symbol, pb_plugin_v0: who it is,
 * tables of its options and counters, its interfaces ("attention/1" -> vtable) and six
 * lifecycle functions. The core reads the symbol before it calls anything. Nothing of
 * the core is linked: services come through pb_host.
 *
 *   load -> inspect -> probe -> check -> create -> start -> step* -> (reset -> step*)*
 *        -> stop -> destroy
 *
 * Thread tags in these headers: [main] the thread that builds the pipeline; [step]
 * never concurrent for one instance, may move between threads; [any] concurrent.
 *
 * Rules: several instances live in one process, so no mutable globals; no constructors
 * that work, no SIMD before probe; never exit, abort, print to stdout or throw.
 * Version 0 promises nothing across versions: PB_LAYOUT is compared, and inequality is
 * refused. Strings and tables are const and live as long as the library.
 */
#ifndef PATCHBAY_PLUGIN_H
#define PATCHBAY_PLUGIN_H

#include <patchbay/attention.h>
#include <patchbay/backend.h>
#include <patchbay/base.h>
#include <patchbay/kernel.h>
#include <patchbay/model.h>
#include <patchbay/policy.h>
#include <patchbay/process.h>
#include <patchbay/program.h>
#include <patchbay/step.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PB_MAGIC 0x31474250u /* "PBG1": a wrong symbol must not look like ours */
#define PB_ABI_MAJOR 0
#define PB_ABI_MINOR 3 /* +1 with every change of a public struct or its meaning */

/* What a plugin may do to the tokens, compared with the plainest pipeline. */
enum { PB_EXACT = 0, PB_NUMERIC = 1, PB_DISTRIBUTION = 2, PB_LOSSY = 3, PB_CLASS_MASK = 3 };
enum { PB_F_ONE_PER_PROCESS = 4 };

typedef struct pb_iface {
    const char *id; /* "attention/1" */
    const void *vtbl;
} pb_iface;

typedef struct pb_plugin {
    uint32_t magic, size;      /* PB_MAGIC, sizeof(pb_plugin): this prefix never changes */
    uint64_t layout;           /* PB_LAYOUT */
    uint32_t abi_minor, flags; /* PB_ABI_MINOR; equivalence class | PB_F_* */
    const char *slot, *name, *version, *license, *summary;
    const char *provides, *needs;       /* words, space separated, "slot.name" or free; or NULL */
    const pb_option *options;           /* ends with name == NULL; or NULL */
    const pb_counter *counters;         /* likewise */
    uint32_t option_size, counter_size; /* sizeof of one entry */
    uint32_t config_size, stats_size;   /* bytes that the core allocates */
    const pb_iface *ifaces;             /* ends with id == NULL */
    int (*probe)(pb_err *err);          /* [main] optional: 1 usable here, 0 not (err says why) */
    int (*check)(const void *config, pb_err *err); /* [main] optional: cross-field rules; pure */
    /* [main] config and host stay valid until destroy returned; *self may be NULL */
    int (*create)(const pb_host *host, const void *config, void **self, pb_err *err);
    int (*start)(void *self, const pb_run *run, pb_err *err); /* [main] optional */
    int (*reset)(void *self);    /* [step] optional: as if just started */
    void (*stop)(void *self);    /* [main] optional: join own threads */
    void (*destroy)(void *self); /* [main] */
} pb_plugin;

/* Sizes of all public structs in one number: built against other headers, a plugin
 * carries another number. Changes of order are caught by tests/abi/layout.txt. */
#define PB_S_(t, k) ((uint64_t)sizeof(t) * ((uint64_t)(k) * (k) * (k)*2654435761u))
#define PB_LAYOUT                                                                                  \
    ((uint64_t)PB_ABI_MINOR + PB_S_(pb_err, 3) + PB_S_(pb_str, 4) + PB_S_(pb_option, 5) +          \
     PB_S_(pb_counter, 6) + PB_S_(pb_host, 7) + PB_S_(pb_team, 8) + PB_S_(pb_clock, 9) +           \
     PB_S_(pb_text, 10) + PB_S_(pb_run, 11) + PB_S_(pb_tensor, 12) + PB_S_(pb_piece, 13) +         \
     PB_S_(pb_weight_use, 14) + PB_S_(pb_kv_shape, 15) + PB_S_(pb_op, 16) +                        \
     PB_S_(pb_program, 17) + PB_S_(pb_meta_kv, 18) + PB_S_(pb_meta, 19) + PB_S_(pb_weights, 20) +  \
     PB_S_(pb_builder, 21) + PB_S_(pb_model, 22) + PB_S_(pb_copy, 23) + PB_S_(pb_step, 24) +       \
     PB_S_(pb_edit, 25) + PB_S_(pb_draw, 26) + PB_S_(pb_result, 27) + PB_S_(pb_params, 28) +       \
     PB_S_(pb_seq, 29) + PB_S_(pb_pages, 30) + PB_S_(pb_kv_group, 31) + PB_S_(pb_attention, 32) +  \
     PB_S_(pb_limits, 33) + PB_S_(pb_backend, 34) + PB_S_(pb_linear_args, 35) +                    \
     PB_S_(pb_linear_kernel, 36) + PB_S_(pb_attend_args, 37) + PB_S_(pb_kvfmt, 38) +               \
     PB_S_(pb_kernel_set, 39) + PB_S_(pb_view, 40) + PB_S_(pb_sched, 41) + PB_S_(pb_pick, 42) +    \
     PB_S_(pb_sampler, 43) + PB_S_(pb_constraint, 44) + PB_S_(pb_spec, 45) +                       \
     PB_S_(pb_request, 46) + PB_S_(pb_verdict, 47) + PB_S_(pb_output, 48) + PB_S_(pb_loops, 49) +  \
     PB_S_(pb_process, 50) + PB_S_(pb_comm, 51) + PB_S_(pb_iface, 52) + PB_S_(pb_plugin, 53))

/* offset plus a compile-time type check, so that a table cannot lie about its struct */
#define PB_FIELD_(T, f, C) (offsetof(T, f) + 0 * sizeof(&((T *)0)->f == (C *)0))
/* table entries; fl: PB_O_* or PB_C_* */
#define PB_INT(T, f, def, lo, hi, fl, unit, help)                                                  \
    {                                                                                              \
#f, PB_T_INT, fl, PB_FIELD_(T, f, int64_t), def, lo, hi, NULL, unit, help                  \
    }
#define PB_BYTES(T, f, def, lo, hi, fl, help)                                                      \
    {                                                                                              \
#f, PB_T_BYTES, fl, PB_FIELD_(T, f, int64_t), def, lo, hi, NULL, "bytes", help             \
    }
#define PB_FLOAT(T, f, def, lo, hi, fl, unit, help)                                                \
    {                                                                                              \
#f, PB_T_FLOAT, fl, PB_FIELD_(T, f, double), def, lo, hi, NULL, unit, help                 \
    }
#define PB_BOOL(T, f, def, fl, help)                                                               \
    {                                                                                              \
#f, PB_T_BOOL, fl, PB_FIELD_(T, f, int32_t), def, NULL, NULL, NULL, NULL, help             \
    }
#define PB_STR(T, f, def, fl, help)                                                                \
    {                                                                                              \
#f, PB_T_STR, fl, PB_FIELD_(T, f, const char *), def, NULL, NULL, NULL, NULL, help         \
    }
#define PB_ENUM(T, f, def, choices, fl, help)                                                      \
    {                                                                                              \
#f, PB_T_ENUM, fl, PB_FIELD_(T, f, int32_t), def, NULL, NULL, choices, NULL, help          \
    }
#define PB_OPTIONS_END                                                                             \
    {                                                                                              \
        NULL, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL                                          \
    }
#define PB_COUNTER(T, f, fl, unit, help)                                                           \
    {                                                                                              \
#f, PB_FIELD_(T, f, int64_t), fl, 0, unit, help                                            \
    }
#define PB_COUNTERS_END                                                                            \
    {                                                                                              \
        NULL, 0, 0, 0, NULL, NULL                                                                  \
    }

#if defined(__GNUC__)
#define PB_EXPORT_ __attribute__((visibility("default")))
#else
#define PB_EXPORT_
#endif
#ifdef PB_STATIC_NAME /* a static build gives every descriptor a name of its own */
#define PB_CAT2_(a, b) a##b
#define PB_CAT_(a, b) PB_CAT2_(a, b)
#define PB_PLUGIN                                                                                  \
    extern const pb_plugin PB_CAT_(pb_static_, PB_STATIC_NAME);                                    \
    const pb_plugin PB_CAT_(pb_static_, PB_STATIC_NAME)
#else
#define PB_PLUGIN                                                                                  \
    extern PB_EXPORT_ const pb_plugin pb_plugin_v0;                                                \
    PB_EXPORT_ const pb_plugin pb_plugin_v0
#endif
/* first lines of every descriptor (C): PB_PLUGIN = { PB_HEAD, .slot = "spec", ... }; */
#define PB_HEAD                                                                                    \
    .magic = PB_MAGIC, .size = sizeof(pb_plugin), .layout = PB_LAYOUT, .abi_minor = PB_ABI_MINOR,  \
    .option_size = sizeof(pb_option), .counter_size = sizeof(pb_counter)

#ifdef __cplusplus
}
#endif
#endif
