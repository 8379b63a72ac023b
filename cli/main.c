/* SPDX-License-Identifier: MIT
 * cli/main.c - dispatch of patchbay's commands. */
#include <stdio.h>

int main(int argc, char **argv)
{
    (void)argc, (void)argv;
    fputs("usage: patchbay COMMAND\n", stderr);
    return 2;
}
