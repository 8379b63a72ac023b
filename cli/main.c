/* SPDX-License-Identifier: MIT
 * cli/main.c - dispatch of patchbay's commands. */
#include "cli.h"
#include "config.h"
#include "instance.h"
#include "options.h"

#include <stdio.h>
#include <string.h>

const pbi_command pbi_commands[] = {
#define PBI_COMMAND(name, usage, summary) { #name, usage, summary, pbi_cmd_##name },
#include "commands.inc"
#undef PBI_COMMAND
    { NULL, NULL, NULL, NULL }
};

const pbi_command *pbi_command_find(const char *name)
{
    for (const pbi_command *c = pbi_commands; c->name; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

static int unknown(const char *name)
{
    const char *names[64];
    int n = 0;
    for (const pbi_command *c = pbi_commands; c->name && n < 64; c++)
        names[n++] = c->name;
    const char *near = pbi_nearest(name, names, n);
    if (near)
        return pbi_usage(NULL, "no command '%s'; did you mean '%s'?", name, near);
    return pbi_usage(NULL, "no command '%s'; see patchbay help", name);
}

int main(int argc, char **argv)
{
    pbi_fault_handler_install();
    if (argc < 2) {
        char *help[] = { (char *)"help", NULL };
        pbi_cmd_help(1, help);
        return 2;
    }
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        printf("patchbay %s, plugin ABI %d.%d\n", PACKAGE_VERSION, PB_ABI_MAJOR, PB_ABI_MINOR);
        return 0;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    const pbi_command *c = pbi_command_find(name);
    return c ? c->fn(argc - 1, argv + 1) : unknown(name);
}
