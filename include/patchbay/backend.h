/* SPDX-License-Identifier: MIT
 *
 * patchbay/backend.h - interface backend/1: memory and execution of one device.
 *
 * One instance for each device, shared by all engines on it. It knows programs and
 * steps; it knows nothing of requests, policies or which plugin chose a page.
 * Lifecycle: weight* -> compile -> kv -> (submit, pick, wait)* -> free in reverse.
 * submit/pick/wait of one exec do not overlap with another's: the core serialises.
 */
#ifndef PATCHBAY_BACKEND_H
#define PATCHBAY_BACKEND_H

#include <patchbay/attention.h>
#include <patchbay/program.h>
#include <patchbay/step.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pb_exec; /* a compiled program */
struct pb_kv;   /* an arena divided into a plan's pages */

typedef struct pb_limits {
    size_t size;
    int32_t max_rows, max_seqs, max_ctx, max_out; /* of one step */
} pb_limits;

typedef struct pb_backend {
    size_t size;
    /* [main] Packs or uploads the stack of pieces; the core's store owns the result and
     * asks once for equal (content, slice, role). bytes: what it occupies. */
    int (*weight)(void *self, int32_t role, int32_t n, const pb_piece *p, struct pb_weight **out,
                  uint64_t *bytes, pb_err *err);
    void (*weight_free)(void *self, struct pb_weight *w);
    /* [main] Fills token_bytes, granule of a group from its shape and the KV format. */
    int (*kv_group)(void *self, const pb_kv_shape *shape, pb_kv_group *out, pb_err *err);
    /* [main] Device memory for KV, lent to the engine that runs. */
    int (*arena)(void *self, uint64_t bytes, void **out, pb_err *err);
    void (*arena_free)(void *self, void *arena);
    /* [main] The program must outlive the exec. Unsupported operations are named. */
    int (*compile)(void *self, const pb_program *p, const pb_limits *lim, struct pb_exec **out,
                   pb_err *err);
    void (*exec_free)(void *self, struct pb_exec *x);
    /* [main] plan[g].n_pages pages (page 0 included) of plan[g].page_tokens each; arena_bytes
     * is checked. Contents are garbage. */
    int (*kv)(void *self, struct pb_exec *x, void *arena, uint64_t arena_bytes, int32_t n_groups,
              const pb_kv_plan *plan, struct pb_kv **out, pb_err *err);
    void (*kv_free)(void *self, struct pb_kv *kv);
    /* [step] Fills a page with NaN or 0xFF bytes (debug builds, tests). */
    int (*poison)(void *self, struct pb_kv *kv, int32_t group, pb_page page);
    /* [step] Enqueues copies, then rows. The step may be freed after wait. */
    int (*submit)(void *self, struct pb_exec *x, struct pb_kv *kv, const pb_step *s);
    /* [step] Enqueues n = n_out draws for the submitted step; masks may come this late.
     * Draw i is at (const char *)d + i * stride. Not called when no token is drawn. */
    int (*pick)(void *self, struct pb_exec *x, int32_t n, const pb_draw *d, size_t stride);
    /* [step] Waits for the submitted step. PB_E_NUMERIC: out->faulty_op in check mode. */
    int (*wait)(void *self, struct pb_exec *x, uint64_t step, pb_result *out);
} pb_backend;

#ifdef __cplusplus
}
#endif
#endif
