/* SPDX-License-Identifier: MIT
 *
 * patchbay/base.h - what every public header leans on: error codes, strings,
 * element types, option and counter tables, host services.
 *
 * It is not an interface of a slot; those have a header each. Invariant: only
 * stddef and stdint types cross the boundary, every struct that may grow opens
 * with its size, and no symbol of the core is needed to link a plugin.
 */
#ifndef PATCHBAY_BASE_H
#define PATCHBAY_BASE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Whose fault an error is decides its code; the CLI maps them to exit statuses
 * (patchbay(1), EXIT STATUS). All are negative. */
enum {
    PB_OK = 0,
    PB_E_INVAL = -1,       /* the user's mistake: INI, option, request, argument */
    PB_E_NOMEM = -2,       /* memory or a budget is exhausted */
    PB_E_IO = -3,          /* the system refused: open, read, map, fork */
    PB_E_FORMAT = -4,      /* a model file or message is broken */
    PB_E_UNSUPPORTED = -5, /* valid, but nothing here can do it */
    PB_E_FULL = -6,        /* no room now; nothing was changed; try after a release */
    PB_E_STATE = -7,       /* called in the wrong state */
    PB_E_PLUGIN = -8,      /* a plugin broke its contract */
    PB_E_INTERNAL = -9,    /* the core broke its own */
    PB_E_LOST = -10,       /* the engine process is gone */
    PB_E_NUMERIC = -11     /* NaN or infinity in the logits; result names the op */
};

/* Filled by setup calls that fail. Owned by the caller, never allocated. A
 * message names the thing, the value, the limit and the place. */
typedef struct pb_err {
    int32_t code;
    char msg[508];
} pb_err;

/* n bytes at s; s[n] is 0 as well, yet the bytes may contain zeros. */
typedef struct pb_str {
    const char *s;
    size_t n;
} pb_str;

/* Element types of stored tensors. Numbers are those of the GGUF specification
 * (ggml-org/ggml docs/gguf.md), so that a reader needs no table of its own. */
enum {
    PB_F32 = 0,
    PB_F16 = 1,
    PB_Q4_0 = 2,
    PB_Q4_1 = 3,
    PB_Q5_0 = 6,
    PB_Q5_1 = 7,
    PB_Q8_0 = 8,
    PB_Q2_K = 10,
    PB_Q3_K = 11,
    PB_Q4_K = 12,
    PB_Q5_K = 13,
    PB_Q6_K = 14,
    PB_IQ4_NL = 20,
    PB_IQ4_XS = 23,
    PB_BF16 = 30,
    PB_MXFP4 = 39,
    PB_F8_E4M3 = 1000 /* blocks of 128: f32 scale, then 128 e4m3 (OCP 8-bit Floating Point) */
};

/* ---- options ---------------------------------------------------------- */

enum { PB_T_BOOL = 1, PB_T_INT, PB_T_BYTES, PB_T_FLOAT, PB_T_STR, PB_T_ENUM };
enum {
    PB_O_REQUIRED = 1,
    PB_O_POW2 = 2,
    PB_O_LIVE = 4,   /* may change while running */
    PB_O_OUTPUT = 8, /* may change the tokens: part of the numeric key */
    PB_O_DEPRECATED = 16
};

/* One key of an INI section. The core parses, checks, documents and prints it.
 * Field types in the config struct: BOOL and ENUM int32_t (ENUM: index into
 * choices), INT and BYTES int64_t, FLOAT double, STR const char *. */
typedef struct pb_option {
    const char *name;            /* the INI key */
    uint32_t type, flags;        /* PB_T_*, PB_O_* */
    size_t offset;               /* in the plugin's own config struct */
    const char *def, *min, *max; /* as written in an INI; bounds inclusive; NULL: none */
    const char *choices;         /* "fast|exact" for PB_T_ENUM */
    const char *unit, *help;
} pb_option;

/* ---- counters --------------------------------------------------------- */

enum {
    PB_C_ENGAGED = 1, /* zero at the end of a run: the plugin never did its work */
    PB_C_GAUGE = 2    /* a level, not a sum */
};

/* One int64_t in the stats block that the host allocates (pb_host.stats). */
typedef struct pb_counter {
    const char *name;
    size_t offset;
    uint32_t flags, reserved;
    const char *unit, *help;
} pb_counter;

/* ---- host services ---------------------------------------------------- */

enum { PB_LOG_DEBUG = 0, PB_LOG_INFO = 1, PB_LOG_WARN = 2, PB_LOG_ERROR = 3 };

/* Services of the core for ONE plugin instance; valid until destroy returned.
 * Memory is counted for that instance. [any] = callable from any thread. */
typedef struct pb_host {
    size_t size;
    void *h;
    void *stats; /* zeroed block of pb_plugin.stats_size bytes; NULL if 0 */
    /* [main] zeroed memory, aligned to align (a power of two, or 0 for 64). NULL when
     * refused. Blocks of 2 MiB and more come on huge pages where the system has them. */
    void *(*alloc)(const struct pb_host *host, size_t bytes, size_t align, const char *tag);
    void (*free)(const struct pb_host *host, void *p); /* NULL is allowed */
    int64_t (*now_ns)(const struct pb_host *host);     /* [any] the engine's clock */
    void (*log)(const struct pb_host *host, int32_t level, const char *msg); /* [any] */
    /* [main] a service by id, or NULL: "team/1" (pb_team), "pages/1" (pb_pages, attention
     * only), "kernels/1" (pb_kernel_set: rows of all kernels plugins, backend only),
     * "clock/1" (pb_clock, backend only), "text/1" (pb_text). */
    const void *(*get)(const struct pb_host *host, const char *id);
} pb_host;

/* team/1: the device's threads. run() calls fn once on every thread and returns
 * when all have returned; barrier() is for use inside fn, by all threads. A phase
 * divides outputs (panels, heads, rows), never an addition chain, so n_threads
 * never changes a bit. [step], and [main] for the device's backend while it loads weights. */
typedef struct pb_team {
    size_t size;
    void *h;
    int32_t n_threads, reserved;
    void (*run)(void *h, void (*fn)(void *arg, int32_t thread, int32_t n_threads), void *arg);
    void (*barrier)(void *h);
} pb_team;

/* clock/1: lets a simulating backend move the engine's clock. Refused (PB_E_STATE)
 * when the engine runs on the real clock and then nothing changes. [step] */
typedef struct pb_clock {
    size_t size;
    void *h;
    int (*advance)(void *h, int64_t ns);
} pb_clock;

/* text/1: the model's vocabulary, for constraints and outputs. [any] */
typedef struct pb_text {
    size_t size;
    void *h;
    int32_t n_vocab, bos, eos, reserved; /* -1: the model has none */
    /* bytes that a token adds to the text; s is valid as long as the model */
    pb_str (*piece)(void *h, int32_t id);
    /* ids of plain text without BOS; returns the count, or PB_E_FULL above cap */
    int32_t (*encode)(void *h, const char *s, size_t n, int32_t *out, int32_t cap);
} pb_text;

/* What start() learns: the limits that the pipeline resolved to. */
typedef struct pb_run {
    size_t size;
    int32_t max_seqs, max_rows, max_ctx, n_vocab; /* slots; rows a step; tokens; ids */
} pb_run;

#ifdef __cplusplus
}
#endif
#endif
