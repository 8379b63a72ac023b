/* SPDX-License-Identifier: MIT
 *
 * workload/impl.h - what the files of this folder share: workload.c (the INI file), draw.c (from
 * a seed to requests), made.c (kinds that are made up), traces.c (kinds that are read from files),
 * numbers.c (random numbers and when requests arrive), score.c (are answers right?).
 */
#ifndef PBW_IMPL_H
#define PBW_IMPL_H
#include "workload.h"

enum {
    PBW_UNIFORM,
    PBW_SHARED_PREFIX,
    PBW_MIX,
    PBW_MULTI_TURN,
    PBW_PROMPTS,
    PBW_TRANSCRIPTS,
    PBW_MOONCAKE,
    PBW_AZURE,
    PBW_N_KINDS
};
enum { PBW_CLOSED, PBW_POISSON, PBW_GAMMA, PBW_CONSTANT, PBW_TRACE, PBW_ONCE };
enum { PBW_IDS, PBW_WORDS };

/* Of a range text "lo..hi" or "n". */
typedef struct pbw_range {
    int64_t lo, hi;
} pbw_range;

/* The fields that option tables fill; ranges are texts until pbw_load checked them. */
typedef struct pbw_config {
    int32_t kind, arrivals, content, ignore_eos, too_long, match;
    int64_t requests, clients, seed, groups, turns, divide, start;
    double rate, burstiness, long_share, think_ms, speed, temperature;
    const char *prompt, *output, *prefix, *own, *long_prompt, *long_output, *system, *first, *turn;
    const char *file, *field, *answer;
} pbw_config;

enum { PBW_SKIP, PBW_CUT, PBW_REFUSE }; /* too_long */

typedef struct pbw_record { /* of a file */
    double at_s;
    int64_t n_prompt, n_output;
    int64_t first, n; /* hashes [first, first + n); or text [first, first + n) */
    int64_t after;    /* 0, or 1 + the record whose answer comes before */
    int64_t expect;   /* 0, or 1 + where its expected answer begins in text, with a 0 at its end */
} pbw_record;

struct pbw_workload {
    pbw_config c;
    char *path;
    char **values; /* texts that c points to */
    int n_values;
    pbw_range prompt, output, prefix, own, long_prompt, long_output, system, first, turn;
    char *data; /* the file that it names */
    size_t n_data;
    pbw_record *records;
    int64_t n_records, cap_records;
    int64_t *hashes;
    int64_t n_hashes, cap_hashes;
    char *text; /* of all records */
    size_t n_text, cap_text;
    pbw_drawn last;
};

/* One draw under way. */
typedef struct pbw_draws {
    const pbw_workload *w;
    const pbw_vocab *v;
    pbi_requests *out;
    pbw_drawn *drawn;
    uint64_t seed, rng;
    int32_t *ordinary, n_ordinary; /* ids that are no special tokens; NULL: all */
    double clock_s;
    int64_t base; /* requests that out had before */
    pb_err *err;
} pbw_draws;

/* ---- numbers.c ---- */
uint64_t pbw_random(uint64_t *state);
/* a number that depends on the seed and two indices only */
uint64_t pbw_mix(uint64_t seed, uint64_t a, uint64_t b);
int64_t pbw_between(uint64_t *state, pbw_range r);
double pbw_unit(uint64_t *state); /* in (0, 1) */
double pbw_ln(double x);
double pbw_exp(double x);
/* Gamma variate of this shape, mean 1. */
double pbw_gamma(uint64_t *state, double shape);

/* ---- draw.c ---- */
/* n ordinary ids at out, drawn from seed and tag alone: equal tags, equal ids */
void pbw_content(const pbw_draws *d, uint64_t tag, int64_t n, int32_t *out);
/* One request of the parts (each n tokens of a tag); arrival by the clock of the workload unless
 * after is set: then after_ms after that request (index within this draw + 1). at_s < 0: the
 * workload's own arrivals. *index: of the request in this draw, or -1 if it was left out. */
typedef struct pbw_part {
    uint64_t tag;
    int64_t n;
} pbw_part;
int pbw_emit(pbw_draws *d, int n_parts, const pbw_part *parts, int64_t max_new, double at_s,
             int64_t after, double after_ms, int64_t *index);
/* The same with a text; n_tokens of it are counted. */
int pbw_emit_text(pbw_draws *d, const char *s, size_t n, const char *expect, int64_t max_new,
                  double at_s, int64_t after, double after_ms, int64_t *index);
/* ---- made.c ---- */
int pbw_draw_made(pbw_draws *d);
/* ---- traces.c ---- */
int pbw_read_records(pbw_workload *w, pb_err *err);
int pbw_draw_records(pbw_draws *d);
#endif
