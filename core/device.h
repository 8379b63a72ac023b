/* SPDX-License-Identifier: MIT
 *
 * core/device.h - one device: the backend instance, kernels plugins, packed weights, KV
 * arenas. Shared by all runners on it; knows no sequence and no policy.
 *
 * Invariants: equal (content, slice, role) is packed once and shared; an arena's content
 * belongs to the runner that used it last.
 */
#ifndef PBI_DEVICE_H
#define PBI_DEVICE_H
#include "instance.h"

typedef struct pbi_device pbi_device;

typedef struct pbi_device_options {
    const pbi_use *backend;
    int n_kernels;
    const pbi_use *const *kernels;
    /* for the backend's host services; outlive the device */
    const pb_team *team;
    const pb_clock *clock;
    int64_t (*now_ns)(void *arg); /* the engine's clock */
    void *now_arg;
    pb_run run; /* limits for start() */
} pbi_device_options;

/* Creates and starts kernels and backend. [main] */
int pbi_device_open(const pbi_device_options *o, pbi_device **out, pb_err *err);
/* All runners must be closed and weights released before. */
void pbi_device_close(pbi_device *d);
const pb_backend *pbi_device_backend(const pbi_device *d);
pbi_instance *pbi_device_instance(const pbi_device *d); /* the backend's */
int64_t pbi_device_now(const pbi_device *d);
const pbi_device_options *pbi_device_opts(const pbi_device *d);
int pbi_device_instances(const pbi_device *d, pbi_instance *const **out); /* backend, kernels */

/* Packs what is not yet resident and sets p->weights[i].packed. progress (may be NULL) gets
 * 0..1. On error nothing is kept. [main] */
int pbi_device_weights(pbi_device *d, pb_program *p, void (*progress)(void *arg, double done),
                       void *arg, pb_err *err);
void pbi_device_weights_release(pbi_device *d, pb_program *p);
/* bytes that packed weights occupy, each counted once */
int64_t pbi_device_weight_bytes(const pbi_device *d);
int64_t pbi_device_weight_count(const pbi_device *d);

/* An arena of at least `bytes`: the shared one (made, or made anew if it is too small), or
 * one of its own. */
typedef struct pbi_arena {
    void *mem;
    uint64_t bytes;
    const void *user; /* who wrote it last */
    int shared, refs;
    struct pbi_arena *next;
} pbi_arena;
int pbi_device_arena(pbi_device *d, uint64_t bytes, int own, pbi_arena **out, pb_err *err);
void pbi_device_arena_release(pbi_device *d, pbi_arena *a);
#endif
