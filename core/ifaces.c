/* SPDX-License-Identifier: MIT
 *
 * core/ifaces.c - slots, their interfaces, and which functions of an interface are
 * mandatory. A vtable is copied, its missing optional functions replaced by defaults
 * below, so that no caller tests for NULL. Test: tests/broken, tests/unit/test_loader.c.
 */
#include "inspect.h"
#include "loader.h"

#include <stdlib.h>
#include <string.h>

const char *const pbi_slots[] = { "model",     "weights",   "backend", "kernels",
                                  "attention", "scheduler", "sampler", "constraint",
                                  "spec",      "parallel",  "process", "output" };
const int pbi_n_slots = (int)(sizeof pbi_slots / sizeof *pbi_slots);

/* ---- what a missing optional function does ----------------------------- */

static int64_t no_match(void *self, const pb_seq *s, int64_t *n_inflight)
{
    if (n_inflight)
        *n_inflight = 0;
    return 0;
}
static int32_t no_idle(void *self, int32_t g)
{
    return 0;
}
static int no_check(void *self, pb_err *err)
{
    return 0;
}
static int no_poison(void *self, struct pb_kv *kv, int32_t group, pb_page page)
{
    return 0;
}
static int32_t no_victim(void *self, const pb_view *v, const pb_seq *needs)
{
    return -1;
}
static void no_observe(void *self, int32_t n, const pb_seq *const *s, const int32_t *proposed,
                       const int32_t *accepted, int64_t step_ns)
{
}
static int no_request(void *self, pb_request *r)
{
    return 0;
}
static int no_accept(void *self, int32_t n, const pb_seq *const *s, const int32_t *n_new,
                     pb_verdict *v)
{
    return 0;
}
static int always_usable(void)
{
    return 1;
}
static size_t no_scratch(const pb_kv_shape *s, int32_t n_heads, int32_t max_ctx)
{
    return 0;
}

/* ---- tables ------------------------------------------------------------ */

typedef void (*any_fn)(void);
typedef struct member {
    const char *name;
    size_t offset;
    any_fn def; /* NULL: mandatory */
} member;
typedef struct shape {
    const char *id;
    size_t bytes;
    const member *members;
} shape;

#define MUST(T, f)                                                                                 \
    {                                                                                              \
        .name = #f, .offset = offsetof(T, f)                                                       \
    }
#define MAY(T, f, d)                                                                               \
    {                                                                                              \
        .name = #f, .offset = offsetof(T, f), .def = (any_fn)(d)                                   \
    }
#define END                                                                                        \
    {                                                                                              \
        .name = NULL                                                                               \
    }

static const member model_fns[] = { MUST(pb_model, match), MUST(pb_model, build), END };
static const member weights_fns[] = { MUST(pb_weights, open), MUST(pb_weights, meta), END };
static const member backend_fns[] = { MUST(pb_backend, weight),
                                      MUST(pb_backend, weight_free),
                                      MUST(pb_backend, kv_group),
                                      MUST(pb_backend, arena),
                                      MUST(pb_backend, arena_free),
                                      MUST(pb_backend, compile),
                                      MUST(pb_backend, exec_free),
                                      MUST(pb_backend, kv),
                                      MUST(pb_backend, kv_free),
                                      MUST(pb_backend, submit),
                                      MUST(pb_backend, pick),
                                      MUST(pb_backend, wait),
                                      MAY(pb_backend, poison, no_poison),
                                      END };
static const member kernels_fns[] = { END };
static const member attention_fns[] = { MUST(pb_attention, plan),
                                        MUST(pb_attention, attach),
                                        MUST(pb_attention, reserve),
                                        MUST(pb_attention, table),
                                        MUST(pb_attention, commit),
                                        MUST(pb_attention, truncate),
                                        MUST(pb_attention, release),
                                        MAY(pb_attention, match, no_match),
                                        MAY(pb_attention, check, no_check),
                                        MAY(pb_attention, idle, no_idle),
                                        END };
static const member scheduler_fns[] = { MUST(pb_sched, next), MAY(pb_sched, victim, no_victim),
                                        END };
static const member sampler_fns[] = { MUST(pb_sampler, draw), END };
static const member constraint_fns[] = { MUST(pb_constraint, mask), END };
static const member spec_fns[] = { MUST(pb_spec, propose), MAY(pb_spec, observe, no_observe), END };
static const member parallel_fns[] = { MUST(pb_comm, broadcast), MUST(pb_comm, barrier),
                                       MUST(pb_comm, all_reduce), MUST(pb_comm, all_gather), END };
static const member process_fns[] = { MUST(pb_process, run), END };
static const member output_fns[] = { MAY(pb_output, request, no_request),
                                     MAY(pb_output, accept, no_accept), END };
static const member linear_fns[] = { MUST(pb_linear_kernel, packed_bytes),
                                     MUST(pb_linear_kernel, pack),
                                     MUST(pb_linear_kernel, run),
                                     MUST(pb_linear_kernel, row),
                                     MAY(pb_linear_kernel, usable, always_usable),
                                     END };
static const member kvfmt_fns[] = { MUST(pb_kvfmt, layer_bytes),
                                    MUST(pb_kvfmt, write),
                                    MUST(pb_kvfmt, attend),
                                    MUST(pb_kvfmt, copy),
                                    MAY(pb_kvfmt, usable, always_usable),
                                    MAY(pb_kvfmt, scratch_bytes, no_scratch),
                                    END };

/* A function that is added to an interface must be added to its table. data: bytes of the members
 * that are no functions. */
#define COVERS(table, T, data)                                                                     \
    _Static_assert(sizeof(T) == (data) + (sizeof(table) / sizeof *(table)-1) * sizeof(any_fn),     \
                   "members of " #T " are missing in " #table)
COVERS(model_fns, pb_model, 8);
COVERS(weights_fns, pb_weights, 8);
COVERS(backend_fns, pb_backend, 8);
COVERS(attention_fns, pb_attention, 8);
COVERS(scheduler_fns, pb_sched, 8);
COVERS(sampler_fns, pb_sampler, 8);
COVERS(constraint_fns, pb_constraint, 8);
COVERS(spec_fns, pb_spec, 8);
COVERS(parallel_fns, pb_comm, 16);
COVERS(process_fns, pb_process, 8);
COVERS(output_fns, pb_output, 8);
COVERS(linear_fns, pb_linear_kernel, 48);
COVERS(kvfmt_fns, pb_kvfmt, 32);

static const shape shapes[] = {
    { .id = "model/1", .bytes = sizeof(pb_model), .members = model_fns },
    { .id = "weights/1", .bytes = sizeof(pb_weights), .members = weights_fns },
    { .id = "backend/1", .bytes = sizeof(pb_backend), .members = backend_fns },
    { .id = "kernels/1", .bytes = sizeof(pb_kernel_set), .members = kernels_fns },
    { .id = "attention/1", .bytes = sizeof(pb_attention), .members = attention_fns },
    { .id = "scheduler/1", .bytes = sizeof(pb_sched), .members = scheduler_fns },
    { .id = "sampler/1", .bytes = sizeof(pb_sampler), .members = sampler_fns },
    { .id = "constraint/1", .bytes = sizeof(pb_constraint), .members = constraint_fns },
    { .id = "spec/1", .bytes = sizeof(pb_spec), .members = spec_fns },
    { .id = "parallel/1", .bytes = sizeof(pb_comm), .members = parallel_fns },
    { .id = "process/1", .bytes = sizeof(pb_process), .members = process_fns },
    { .id = "output/1", .bytes = sizeof(pb_output), .members = output_fns },
};
static const shape linear_shape = { .id = "kernels/1 linear",
                                    .bytes = sizeof(pb_linear_kernel),
                                    .members = linear_fns };
static const shape kvfmt_shape = { .id = "kernels/1 kvfmt",
                                   .bytes = sizeof(pb_kvfmt),
                                   .members = kvfmt_fns };

const char *pbi_slot_iface(const char *slot)
{
    for (int i = 0; i < pbi_n_slots; i++)
        if (strcmp(pbi_slots[i], slot) == 0)
            for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++)
                if (strncmp(shapes[k].id, slot, strlen(slot)) == 0 &&
                    shapes[k].id[strlen(slot)] == '/')
                    return shapes[k].id;
    return NULL;
}

/* Every vtable and row opens with its size. name: of a row, or NULL. */
static int copy_shape(const shape *sh, const char *name, const void *vtbl, void **out, pb_err *err)
{
    const char *sep = name ? " " : "";
    size_t bytes;
    memcpy(&bytes, vtbl, sizeof bytes);
    if (bytes != sh->bytes)
        return pbi_err(err, PB_E_PLUGIN,
                       "interface %s%s%s says it has %zu bytes, this patchbay's has %zu; set "
                       ".size and rebuild against this patchbay's headers",
                       sh->id, sep, name ? name : "", bytes, sh->bytes);
    char *copy = malloc(bytes);
    if (!copy)
        return pbi_err(err, PB_E_NOMEM, "interface %s: out of memory", sh->id);
    memcpy(copy, vtbl, bytes);
    for (const member *m = sh->members; m->name; m++) {
        any_fn fn;
        memcpy(&fn, copy + m->offset, sizeof fn);
        if (fn)
            continue;
        if (!m->def) {
            free(copy);
            return pbi_err(err, PB_E_PLUGIN, "interface %s%s%s lacks the mandatory function %s()",
                           sh->id, sep, name ? name : "", m->name);
        }
        memcpy(copy + m->offset, &m->def, sizeof m->def);
    }
    *out = copy;
    return 0;
}

/* Copies the n rows behind *rows; a row's name is its second member. */
static int copy_rows(const shape *sh, int32_t n, const void *const *rows, const void ***out,
                     pb_err *err)
{
    *out = NULL;
    if (n < 0 || n > 4096 || (n && !rows))
        return pbi_err(err, PB_E_PLUGIN, "%s: %d rows%s", sh->id, n, rows ? "" : " at NULL");
    const void **copy = calloc((size_t)n + 1, sizeof *copy);
    if (!copy)
        return pbi_err(err, PB_E_NOMEM, "%s: out of memory", sh->id);
    int rc = 0;
    for (int32_t i = 0; i < n && !rc; i++) {
        void *row = NULL;
        const char *name = NULL;
        if (!rows[i]) {
            rc = pbi_err(err, PB_E_PLUGIN, "%s: row %d is NULL", sh->id, i);
            break;
        }
        memcpy(&name, (const char *)rows[i] + sizeof(size_t), sizeof name);
        rc = name && *name ? copy_shape(sh, name, rows[i], &row, err)
                           : pbi_err(err, PB_E_PLUGIN, "%s: row %d has no name", sh->id, i);
        copy[i] = row;
    }
    if (rc) {
        for (int32_t i = 0; i < n; i++)
            free((void *)(uintptr_t)copy[i]);
        free(copy);
        return rc;
    }
    *out = copy;
    return 0;
}

static int copy_kernel_rows(pb_kernel_set *set, pb_err *err)
{
    const void **linear, **kvfmt;
    int rc =
        copy_rows(&linear_shape, set->n_linear, (const void *const *)set->linear, &linear, err);
    if (!rc)
        rc = copy_rows(&kvfmt_shape, set->n_kvfmt, (const void *const *)set->kvfmt, &kvfmt, err);
    if (rc)
        return rc;
    set->linear = (const pb_linear_kernel *const *)linear;
    set->kvfmt = (const pb_kvfmt *const *)kvfmt;
    return 0;
}

int pbi_iface_normalise(const char *id, const void *vtbl, const void **out, pb_err *err)
{
    *out = vtbl;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (strcmp(shapes[i].id, id) != 0)
            continue;
        void *copy = NULL;
        int rc = copy_shape(&shapes[i], NULL, vtbl, &copy, err);
        if (!rc && strcmp(id, "kernels/1") == 0)
            rc = copy_kernel_rows(copy, err);
        if (rc)
            free(copy);
        else
            *out = copy;
        return rc;
    }
    return 0;
}
