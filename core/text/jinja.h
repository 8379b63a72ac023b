/* SPDX-License-Identifier: MIT
 *
 * core/text/jinja.h - chat templates: an interpreter for the part of the Jinja language
 * (Jinja 3 documentation, "Template Designer") that chat templates use, set up as transformers
 * does: trim_blocks, lstrip_blocks, loop controls, tojson without HTML escapes,
 * raise_exception, strftime_now.
 *
 * A template is untrusted: it gets no files, no clock but the given one, and bounded steps,
 * memory and depth. Invariant: each byte of the output is known to come from the template or
 * from the user, so that the user's text never becomes a special token.
 */
#ifndef PBI_JINJA_H
#define PBI_JINJA_H
#include "error.h"
#include <jansson.h>
#include <time.h>

typedef struct pbi_jinja pbi_jinja;

typedef struct pbi_jinja_limits {
    int64_t steps; /* evaluations; 0: 20 million */
    size_t bytes;  /* of values and output; 0: 64 MiB */
    int depth;     /* of nesting and of macro calls; 0: 200 */
} pbi_jinja_limits;

/* n bytes at s, s[n] = 0; user[i] = 1: byte i came from the context. Both malloc'ed. */
typedef struct pbi_marked {
    char *s;
    unsigned char *user;
    size_t n;
} pbi_marked;
void pbi_marked_clear(pbi_marked *m);

/* Parses n bytes of template. Errors (PB_E_FORMAT) name the line. limits may be NULL. [any] */
int pbi_jinja_parse(const char *src, size_t n, const pbi_jinja_limits *limits, pbi_jinja **out,
                    pb_err *err);
void pbi_jinja_free(pbi_jinja *t);
/* Renders with the members of the object context as variables. Strings of context are the
 * user's, but for its direct members whose name ends in _token. now: for strftime_now.
 * PB_E_FORMAT: the template is wrong for this context; PB_E_INVAL: the template raised an
 * exception (its text is in err); PB_E_NOMEM: a limit. [any] */
int pbi_jinja_render(const pbi_jinja *t, const json_t *context, const struct tm *now,
                     pbi_marked *out, pb_err *err);
#endif
