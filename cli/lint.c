/* SPDX-License-Identifier: MIT
 *
 * cli/lint.c - patchbay lint: does a plugin keep its contract? Prints one verdict a line. Exit
 * status 0 = nothing worse than a warning, 4 = a finding. The checks are core/conform_*.c.
 */
#define _GNU_SOURCE 1
#include "cli.h"
#include "conform.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct lint_args {
    const char *check;
    int64_t seed, timeout;
    int in_process, json, strict, tap;
} lint_args;

/* Lines of a plugin; what does not concern its slot is left out. */
static int is_silent(const pbi_finding *f)
{
    return f->status == PBI_SKIP && f->check->slot && f->slot[0] &&
           strcmp(f->check->slot, f->slot) != 0;
}

static void print_line(const pbi_finding *f)
{
    int tty = isatty(STDOUT_FILENO);
    const char *colour = f->status >= PBI_FAIL   ? "\033[31m"
                         : f->status == PBI_WARN ? "\033[33m"
                         : f->status == PBI_PASS ? "\033[32m"
                                                 : "";
    printf("  %s%-7s%s %-10s %s%s%s\n", tty ? colour : "", pbi_status_name(f->status),
           tty ? "\033[0m" : "", f->check->name, f->text[0] ? f->text : f->check->what,
           f->text[0] && f->status >= PBI_FAIL ? "; the check: " : "",
           f->text[0] && f->status >= PBI_FAIL ? f->check->what : "");
}

static void print_tap(const pbi_finding *f, int number)
{
    int bad = f->status >= PBI_FAIL;
    printf("%sok %d %s%s%s%s\n", bad ? "not " : "", number, f->check->name,
           f->status == PBI_SKIP ? " # SKIP" : "", f->text[0] ? " " : "", f->text);
}

static json_t *finding_json(const pbi_finding *f)
{
    json_t *j = json_object();
    json_object_set_new(j, "check", json_string(f->check->name));
    json_object_set_new(j, "what", json_string(f->check->what));
    const char *status = pbi_status_name(f->status);
    char lower[16];
    size_t n = 0;
    for (; status[n] && n < sizeof lower - 1; n++)
        lower[n] = (char)(status[n] | 0x20);
    lower[n] = 0;
    json_object_set_new(j, "status", json_string(lower));
    json_object_set_new(j, "text", json_string_nocheck(f->text));
    json_object_set_new(j, "seconds", json_real(f->seconds));
    return j;
}

/* All checks of one file; returns its worst status. */
static int lint_file(const char *path, const lint_args *a, json_t *all, int *number)
{
    int worst = PBI_PASS, n[PBI_TIMEOUT + 1] = { 0 };
    json_t *list = json_array();
    if (!a->json && !a->tap)
        printf("%s\n", path);
    for (int i = 0; i < pbi_n_checks; i++) {
        pbi_finding f;
        if (a->check && strcmp(a->check, pbi_checks[i].name) != 0)
            continue;
        pbi_conform_run(&pbi_checks[i], path, (uint64_t)a->seed, a->in_process, (int)a->timeout,
                        &f);
        if (is_silent(&f))
            continue;
        n[f.status]++;
        worst = f.status > worst ? f.status : worst;
        json_array_append_new(list, finding_json(&f));
        if (a->tap)
            print_tap(&f, ++*number);
        else if (!a->json)
            print_line(&f);
        if (pbi_checks[i].before_load && f.status >= PBI_FAIL && !strcmp(f.check->name, "load"))
            break; /* nothing else can run */
    }
    if (!a->json && !a->tap)
        printf("  %d passed, %d skipped, %d warned, %d failed\n", n[PBI_PASS], n[PBI_SKIP],
               n[PBI_WARN], n[PBI_FAIL] + n[PBI_CRASH] + n[PBI_TIMEOUT]);
    json_t *j = json_object();
    json_object_set_new(j, "path", json_string_nocheck(path));
    json_object_set_new(j, "ok", json_boolean(worst < PBI_FAIL));
    json_object_set_new(j, "checks", list);
    json_array_append_new(all, j);
    return worst;
}

static int known_check(const char *name)
{
    for (int i = 0; i < pbi_n_checks; i++)
        if (!strcmp(name, pbi_checks[i].name))
            return 1;
    return 0;
}

int pbi_cmd_lint(int argc, char **argv)
{
    lint_args a = { .seed = 1, .timeout = 20 };
    const pbi_arg table[] = {
        { .name = "--check",
          .kind = PBI_ARG_TEXT,
          .out = &a.check,
          .value = "NAME",
          .help = "only this check" },
        { .name = "--seed",
          .kind = PBI_ARG_INT,
          .out = &a.seed,
          .value = "N",
          .help = "of the random runs; 1 if not given" },
        { .name = "--timeout",
          .kind = PBI_ARG_INT,
          .out = &a.timeout,
          .value = "S",
          .help = "seconds that a check may take; 20 if not given" },
        { .name = "--in-process",
          .kind = PBI_ARG_FLAG,
          .out = &a.in_process,
          .help = "no child processes: for a debugger" },
        { .name = "--strict",
          .kind = PBI_ARG_FLAG,
          .out = &a.strict,
          .help = "a warning is a finding" },
        { .name = "--tap", .kind = PBI_ARG_FLAG, .out = &a.tap, .help = "print TAP" },
        { .name = "--json", .kind = PBI_ARG_FLAG, .out = &a.json, .help = "print one JSON value" },
        PBI_ARGS_END
    };
    int n, worst = PBI_PASS, number = 0, rc = pbi_args(argc, argv, table, &n);
    if (rc != PBI_GO)
        return rc;
    if (!n)
        return pbi_usage(argv[0], "which plugin? patchbay lint PLUGIN.so...");
    if (a.timeout < 1 || a.timeout > 3600)
        return pbi_usage(argv[0], "--timeout %lld: not in 1..3600", (long long)a.timeout);
    if (a.check && !known_check(a.check))
        return pbi_usage(argv[0], "no check is named '%s'; `patchbay lint PLUGIN.so` shows all",
                         a.check);
    json_t *all = json_array();
    for (int i = 1; i <= n; i++) {
        int status = lint_file(argv[i], &a, all, &number);
        worst = status > worst ? status : worst;
    }
    if (a.tap)
        printf("1..%d\n", number);
    if (a.json)
        rc = pbi_print_json(all);
    else {
        json_decref(all);
        rc = 0;
    }
    return worst >= (a.strict ? PBI_WARN : PBI_FAIL) ? pbi_err_exit(PB_E_PLUGIN) : rc;
}
