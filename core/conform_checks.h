/* SPDX-License-Identifier: MIT
 * core/conform_checks.h - checks by role and what they share; private to core/conform_*.c. */
#ifndef PBI_CONFORM_CHECKS_H
#define PBI_CONFORM_CHECKS_H
#include "conform.h"
#include "pages.h"

/* A page pool for attention plugins (of one group, 64 pages of 8 tokens); empty for others. */
typedef struct pbi_pages_bench {
    pbi_pages *pool;
    const pb_pages *service;
} pbi_pages_bench;
int pbi_pages_bench_new(pbi_pages_bench *b, const pbi_library *lib, pb_err *err);
void pbi_pages_bench_free(pbi_pages_bench *b);

int pbi_check_elf(pbi_lint *l);
int pbi_check_attention(pbi_lint *l);
int pbi_check_scheduler(pbi_lint *l);
int pbi_check_sampler(pbi_lint *l);
int pbi_check_constraint(pbi_lint *l);
int pbi_check_spec(pbi_lint *l);
int pbi_check_output(pbi_lint *l);
int pbi_check_linear(pbi_lint *l);
int pbi_check_backend(pbi_lint *l);
int pbi_check_kvfmt(pbi_lint *l);
int pbi_check_model(pbi_lint *l);
int pbi_check_weights(pbi_lint *l);
#endif
