/* SPDX-License-Identifier: MIT
 *
 * cli/requests.h - requests from the command line and from JSON lines.
 *
 * A line is an object: "prompt" (text) or "ids" (array), and of choice "max_tokens", "seed",
 * "temperature", "top_k", "top_p", "min_p", "repeat_penalty", "presence_penalty",
 * "frequency_penalty", "logprobs", "stop" (text or array), "ignore_eos", "special",
 * "priority", "salt", "arrival_ms". Empty lines are skipped. Invariant: an unknown key or a
 * value of another type is an error that names file, line and key.
 */
#ifndef PBI_REQUESTS_H
#define PBI_REQUESTS_H
#include "arm.h"
#include <jansson.h>

typedef struct pbi_requests {
    int64_t n, cap;
    pbi_request *v;
    int64_t clients; /* of a closed loop; 0: requests come by their arrival times */
    void **owned;    /* strings and arrays that v points to */
    size_t n_owned, cap_owned;
} pbi_requests;

/* Appends the requests of a file ("-": stdin); like gives what a line leaves out. */
int pbi_requests_load(pbi_requests *r, const char *path, const pbi_request *like, pb_err *err);
/* The same from n bytes of text; name is used in messages. */
int pbi_requests_lines(pbi_requests *r, const char *name, const char *text, size_t n,
                       const pbi_request *like, pb_err *err);
/* What such a line says; NULL for a prompt that is not UTF-8, or without memory. */
json_t *pbi_request_json(const pbi_request *q);
/* Appends one with ids "1,2,3" or "[1, 2, 3]". */
int pbi_requests_ids(pbi_requests *r, const char *text, const pbi_request *like, pb_err *err);
/* From now on r frees p; frees it at once without memory. */
int pbi_requests_own(pbi_requests *r, void *p, pb_err *err);
int pbi_requests_add(pbi_requests *r, const pbi_request *q, pb_err *err);
void pbi_requests_clear(pbi_requests *r);
/* Ids in text, malloc'ed: numbers with commas or spaces between, a JSON array, or an object
 * with "ids". */
int pbi_parse_ids(const char *s, size_t n, int32_t **ids, size_t *n_ids, pb_err *err);
/* A whole file or stdin ("-"), malloc'ed and 0-terminated. */
int pbi_read_file(const char *path, char **text, size_t *n, pb_err *err);
#endif
