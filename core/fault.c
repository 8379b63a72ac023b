/* SPDX-License-Identifier: MIT
 *
 * core/fault.c - a crash says whose it is. The handler writes one line with async-signal-safe
 * calls only, then lets the signal do its work, so that cores and debuggers see the place.
 * Test: tests/unit/test_instance.c.
 */
#define _GNU_SOURCE 1
#include "instance.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static void put(const char *s)
{
    ssize_t n = write(STDERR_FILENO, s, strlen(s));
    (void)n;
}

static const int sigs[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT };
static const char *const words[] = { "segmentation fault", "bus error", "arithmetic fault",
                                     "illegal instruction", "abort" };
enum { N_SIGS = sizeof sigs / sizeof *sigs };
static struct sigaction before[N_SIGS]; /* a sanitizer's, or the default */

static void on_fault(int sig, siginfo_t *info, void *context)
{
    const pbi_call *c = pbi_call_now;
    int i = 0;
    (void)context;
    while (i + 1 < N_SIGS && sigs[i] != sig)
        i++;
    put("patchbay: ");
    put(words[i]);
    if (c) {
        put(" in plugin ");
        put(c->slot);
        put("-");
        put(c->name);
        put(", function ");
        put(c->function);
        put("()\n");
    } else
        put(" outside of any plugin\n");
    sigaction(sig, &before[i], NULL);
    if (info->si_code <= 0) /* sent by someone: will not happen again by itself */
        raise(sig);
}

void pbi_fault_handler_install(void)
{
    static char stack[64 * 1024]; /* a stack overflow leaves no room on the other one */
    static int installed;
    if (installed++)
        return;
    stack_t ss = { .ss_sp = stack, .ss_size = sizeof stack };
    sigaltstack(&ss, NULL);
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sa.sa_sigaction = on_fault;
    sa.sa_flags = SA_ONSTACK | SA_SIGINFO;
    sigemptyset(&sa.sa_mask);
    for (int i = 0; i < N_SIGS; i++)
        sigaction(sigs[i], &sa, &before[i]);
}
