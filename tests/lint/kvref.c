/* SPDX-License-Identifier: MIT
 * tests/lint/kvref.c - backend-cpu's plain-C KV formats as a kernels plugin, for the faults that
 * tests/lint/run.sh plants. */
#include <patchbay/plugin.h>

extern const pb_kvfmt *const cpu_kvfmt_any[];

static const pb_kernel_set set = { .size = sizeof set, .n_kvfmt = 2, .kvfmt = cpu_kvfmt_any };

static int create(const pb_host *host, const void *config, void **self, pb_err *err)
{
    (void)host, (void)config, (void)self, (void)err;
    return 0;
}

static void destroy(void *self)
{
    (void)self;
}

static const pb_iface ifaces[] = { { "kernels/1", &set }, { NULL, NULL } };
PB_PLUGIN = { PB_HEAD,          .slot = "kernels", .name = "kvref",
              .version = "0.1", .license = "MIT",  .summary = "test: plain-C KV formats",
              .ifaces = ifaces, .create = create,  .destroy = destroy };
