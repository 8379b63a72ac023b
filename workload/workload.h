/* SPDX-License-Identifier: MIT
 *
 * workload/workload.h - a workload: which requests come, how long they are, what they share and
 * when they arrive, described by an INI file and drawn from a seed.
 *
 * It knows no engine and measures nothing. Invariant: the same file, seed and vocabulary give the
 * same requests, byte for byte, on every machine: numbers come from splitmix64 and from +, -, *,
 * / and square roots alone, which IEEE 754 defines exactly.
 */
#ifndef PBW_WORKLOAD_H
#define PBW_WORKLOAD_H
#include "requests.h"
#include "text/text.h"

typedef struct pbw_workload pbw_workload;

/* What requests are drawn for. */
typedef struct pbw_vocab {
    int32_t n_vocab;
    int64_t context;                /* tokens of a prompt and its answer at most */
    const pbi_tokenizer *tokenizer; /* NULL: any id is ordinary, and there is no text */
} pbw_vocab;

/* What a draw gave, for the report. */
typedef struct pbw_drawn {
    int64_t n_requests, n_left_out; /* left out: longer than the context */
    int64_t prompt_tokens, max_new;
    double seconds; /* from the first arrival to the last; 0 in a closed loop */
    double reuse;   /* of traces with block hashes: share of prompt tokens in blocks seen before in
                       this draw; NaN for others */
    uint64_t hash;  /* of all requests */
} pbw_drawn;

/* Reads an INI file with one section [workload], and settings "key=value" that replace what it
 * says. Files that it names are found beside it. Errors name file, line and key; a key that does
 * not belong to the kind is one. [main] */
int pbw_load(const char *path, int n_set, const char *const *set, pbw_workload **out, pb_err *err);
/* The same from text, with the contents of the file that it names (may be NULL: it is read from
 * disk). Bundles carry both. */
int pbw_parse(const char *text, size_t n, const char *path, int n_set, const char *const *set,
              const char *data, size_t n_data, pbw_workload **out, pb_err *err);
void pbw_free(pbw_workload *w);

/* Appends the requests of a seed to out and sets out->clients. drawn may be NULL. [main] */
int pbw_draw(pbw_workload *w, const pbw_vocab *v, uint64_t seed, pbi_requests *out,
             pbw_drawn *drawn, pb_err *err);
/* What the last draw gave; all 0 before. */
const pbw_drawn *pbw_last(const pbw_workload *w);
/* Is the answer what its request expects (PBW_CONTAINS: its words are in it, in one piece, case and
 * punctuation aside; PBW_NUMBER: the last numbers are equal)? -1: it expects nothing. [any] */
enum { PBW_CONTAINS, PBW_NUMBER };
int pbw_matches(const pbi_request *q, const pbi_answer *a);
/* share of answers that are as expected, of those that expect something; NaN: none does */
double pbw_score(int64_t n, const pbi_request *q, const pbi_answer *a);
/* 1 if requests come by the clock, whatever the engine manages */
int pbw_open_loop(const pbw_workload *w);
/* [workload] seed = */
uint64_t pbw_seed(const pbw_workload *w);
/* "shared-prefix" */
const char *pbw_kind(const pbw_workload *w);
/* All effective settings as an INI text, malloc'ed; and the bytes of the file that it names, or
 * NULL. With them pbw_parse makes an equal workload elsewhere. */
char *pbw_text(const pbw_workload *w);
const char *pbw_data(const pbw_workload *w, size_t *n);
/* Prints the table of kinds and keys. */
void pbw_help(FILE *f);
#endif
