/* SPDX-License-Identifier: MIT
 *
 * cli/args.c - options of commands from tables, and the messages that all commands share.
 * Options of pipelines are not here: those are core/options.c. Test: tests/e2e/cli.sh.
 */
#include "cli.h"
#include "options.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int pbi_fail(const char *command, const pb_err *err)
{
    fflush(stdout);
    fprintf(stderr, "patchbay%s%s: %s: %s\n", command ? " " : "", command ? command : "",
            pbi_err_kind(err->code), err->msg);
    return pbi_err_exit(err->code);
}

int pbi_usage(const char *command, const char *fmt, ...)
{
    pb_err err = { .code = PB_E_INVAL };
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err.msg, sizeof err.msg, fmt, ap);
    va_end(ap);
    return pbi_fail(command, &err);
}

static void print_help(const char *command, const pbi_arg *table)
{
    const pbi_command *c = pbi_command_find(command);
    printf("usage: patchbay %s %s\n%s\n", command, c ? c->usage : "", c ? c->summary : "");
    for (const pbi_arg *a = table; a->name; a++) {
        char left[64];
        snprintf(left, sizeof left, "%s%s%s%s%s", a->name, a->alias ? ", " : "",
                 a->alias ? a->alias : "", a->value ? " " : "", a->value ? a->value : "");
        printf("  %-26s %s\n", left, a->help ? a->help : "");
    }
}

static int unknown_arg(const char *command, const char *word, const pbi_arg *table)
{
    const char *names[64];
    char name[64];
    int n = 0;
    snprintf(name, sizeof name, "%.*s", (int)strcspn(word, "="), word);
    for (const pbi_arg *a = table; a->name && n < 63; a++)
        names[n++] = a->name;
    const char *near = pbi_nearest(name, names, n);
    if (near)
        return pbi_usage(command, "no option %s; did you mean %s?", name, near);
    return pbi_usage(command, "no option %s; see patchbay %s --help", name, command);
}

/* Lists of texts live as long as the process; this frees them at its end. */
enum { MAX_LISTS = 16, MAX_LIST = 1024 };
static const char **lists[MAX_LISTS];

static void free_lists(void)
{
    for (int i = 0; i < MAX_LISTS; i++)
        free(lists[i]);
}

static const char **new_list(void)
{
    int i = 0;
    while (i < MAX_LISTS && lists[i])
        i++;
    if (!i)
        atexit(free_lists);
    return i < MAX_LISTS ? (lists[i] = calloc(MAX_LIST, sizeof(char *))) : NULL;
}

static int store(const char *command, const pbi_arg *a, const char *text)
{
    pbi_texts *list = a->out;
    switch (a->kind) {
    case PBI_ARG_FLAG: *(int *)a->out = 1; return PBI_GO;
    case PBI_ARG_TEXT: *(const char **)a->out = text; return PBI_GO;
    case PBI_ARG_INT:
        if (pbi_parse_int(text, a->out))
            return pbi_usage(command, "%s %s: an integer is needed", a->name, text);
        return PBI_GO;
    case PBI_ARG_FLOAT:
        if (pbi_parse_float(text, a->out))
            return pbi_usage(command, "%s %s: a number is needed", a->name, text);
        return PBI_GO;
    default: {
        if (!list->s && !(list->s = new_list()))
            return pbi_usage(command, "out of memory");
        if (list->n == MAX_LIST)
            return pbi_usage(command, "%s: more than %d of them", a->name, MAX_LIST);
        list->s[list->n++] = text;
        return PBI_GO;
    }
    }
}

/* The option that word spells, and its value when attached ("--x=v", "-xv"). */
static const pbi_arg *match(const pbi_arg *table, const char *word, const char **attached)
{
    *attached = NULL;
    for (const pbi_arg *a = table; a->name; a++) {
        const char *const names[] = { a->name, a->alias };
        for (int i = 0; i < 2; i++) {
            size_t n = names[i] ? strlen(names[i]) : 0;
            if (!n || strncmp(word, names[i], n) != 0)
                continue;
            if (!word[n])
                return a;
            if (word[n] == '=' && word[1] == '-') {
                *attached = word + n + 1;
                return a;
            }
            if (n == 2 && word[1] != '-' && a->kind != PBI_ARG_FLAG) {
                *attached = word + n;
                return a;
            }
        }
    }
    return NULL;
}

int pbi_args(int argc, char **argv, const pbi_arg *table, int *n_words)
{
    int words = 0, ended = 0;
    for (int i = 1; i < argc; i++) {
        char *word = argv[i];
        const char *attached;
        if (ended || word[0] != '-' || !word[1]) {
            argv[++words] = word;
            continue;
        }
        if (strcmp(word, "--") == 0) {
            ended = 1;
            continue;
        }
        const pbi_arg *a = match(table, word, &attached);
        if (!a && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)) {
            print_help(argv[0], table);
            return 0;
        }
        if (!a)
            return unknown_arg(argv[0], word, table);
        if (a->kind == PBI_ARG_FLAG && attached)
            return pbi_usage(argv[0], "%s takes no value", a->name);
        if (a->kind != PBI_ARG_FLAG && !attached) {
            if (i + 1 >= argc)
                return pbi_usage(argv[0], "%s needs %s", word, a->value ? a->value : "a value");
            attached = argv[++i];
        }
        int rc = store(argv[0], a, attached);
        if (rc != PBI_GO)
            return rc;
    }
    *n_words = words;
    return PBI_GO;
}

int pbi_common_load(const pbi_common *c, pbi_pipeline **out, pb_err *err)
{
    if (c->pipeline)
        return pbi_pipeline_load(c->pipeline, c->set.n, c->set.s, out, err);
    return pbi_pipeline_parse("", "(no pipeline)", c->set.n, c->set.s, out, err);
}
