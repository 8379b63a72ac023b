/* SPDX-License-Identifier: MIT
 *
 * cli/help.c - patchbay help: generated from the tables of commands, slots and plugins, as text
 * or as the source of a man page (--man). No fact about an option is written here.
 */
#include "cli.h"
#include "load.h"
#include "layers.h"
#include "options.h"

#include <stdio.h>
#include <string.h>

/* In the order of pbi_slots. */
static const struct {
    const char *slot, *decides;
} slots[] = {
    { "model", "the architecture: writes the program of operations" },
    { "weights", "how a model is read from disk" },
    { "backend", "memory and execution of a device" },
    { "kernels", "single operations and KV formats of the CPU (a list)" },
    { "attention", "which page holds which position, what is reused" },
    { "scheduler", "what runs in the next step, who is preempted" },
    { "sampler", "how a row of logits becomes a token" },
    { "constraint", "which tokens are allowed (a list)" },
    { "spec", "proposes tokens that a step then verifies" },
    { "parallel", "ranks and collectives" },
    { "process", "where front and engine run" },
    { "output", "how long an answer is (a list)" },
};

static const char *decides(const char *slot)
{
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++)
        if (strcmp(slots[i].slot, slot) == 0)
            return slots[i].decides;
    return "";
}

/* Words of s in lines of 80 columns, each after `indent` spaces. */
static void wrap(const char *s, int indent)
{
    int col = 0;
    while (*s) {
        int n = (int)strcspn(s, " ");
        if (col && col + 1 + n > 80) {
            putchar('\n');
            col = 0;
        }
        col += col ? printf(" %.*s", n, s) : printf("%*s%.*s", indent, "", n, s);
        s += n;
        s += *s == ' ';
    }
    putchar('\n');
}

/* roff: backslashes, hyphens that are typed, and lines that begin with a control character */
static void roff(const char *s)
{
    if (*s == '.' || *s == '\'')
        fputs("\\&", stdout);
    for (; *s; s++) {
        if (*s == '\\')
            fputs("\\e", stdout);
        else if (*s == '-')
            fputs("\\-", stdout);
        else if (*s == '|')
            fputs(" | ", stdout); /* a line may break between choices */
        else
            putchar(*s);
    }
}

/* ---- text -------------------------------------------------------------- */

static void option_flags(const pb_option *o, char *buf, size_t n)
{
    snprintf(buf, n, "%s%s%s%s", o->flags & PB_O_REQUIRED ? " Required." : "",
             o->flags & PB_O_OUTPUT ? " May change the output." : "",
             o->flags & PB_O_LIVE ? " May change while running." : "",
             o->flags & PB_O_DEPRECATED ? " Deprecated." : "");
}

static void print_option(const pb_option *o)
{
    char range[256], flags[128], text[1200];
    pbi_option_range(o, range, sizeof range);
    option_flags(o, flags, sizeof flags);
    printf("  %s = %s\n", o->name, o->def ? o->def : o->flags & PB_O_REQUIRED ? "(required)" : "");
    size_t n = strlen(o->help);
    snprintf(text, sizeof text, "%s%s%s", o->help, n && o->help[n - 1] == '.' ? "" : ".", flags);
    wrap(text, 6);
    printf("      %s%s%s\n", range, o->unit && o->type != PB_T_BYTES ? " " : "",
           o->unit && o->type != PB_T_BYTES ? o->unit : "");
}

static void print_options(const pb_option *o)
{
    if (!o || !o->name)
        puts("  none");
    for (; o && o->name; o++)
        print_option(o);
}

static void print_plugin(const pbi_library *l)
{
    const pb_plugin *d = l->desc;
    printf("%s-%s %s (%s): %s\n", l->slot, l->name, d->version, d->license, d->summary);
    printf("from %s\n", l->path);
    printf("compared with the plainest pipeline: %s\n", pbi_class_name(d->flags));
    if (d->needs)
        printf("needs: %s\n", d->needs);
    if (d->provides)
        printf("provides: %s\n", d->provides);
    printf("\nIn an INI:\n  [%s]\n  plugin = %s\n", l->slot, l->name);
    printf("\nOptions%s%s%s%s%s:\n", pbi_slot_is_list(l->slot) ? ", in [" : "",
           pbi_slot_is_list(l->slot) ? l->slot : "", pbi_slot_is_list(l->slot) ? "." : "",
           pbi_slot_is_list(l->slot) ? l->name : "", pbi_slot_is_list(l->slot) ? "]" : "");
    print_options(d->options);
    if (d->counters && d->counters->name)
        puts("\nCounters:");
    for (const pb_counter *c = d->counters; c && c->name; c++) {
        char text[600];
        printf("  %s%s%s%s\n", c->name, c->unit ? " (" : "", c->unit ? c->unit : "",
               c->unit ? ")" : "");
        snprintf(text, sizeof text, "%s%s", c->help,
                 c->flags & PB_C_ENGAGED ? "; zero means that the plugin never did its work" : "");
        wrap(text, 6);
    }
}

static int print_slot(const char *slot)
{
    const pbi_library *const *libs;
    int n, found = 0;
    if (pbi_loader_list(&libs, &n, NULL, NULL))
        return pbi_usage("help", "out of memory");
    printf("[%s] decides %s\n\nPlugins:\n", slot, decides(slot));
    for (int i = 0; i < n; i++)
        if (strcmp(libs[i]->slot, slot) == 0) {
            printf("  %-14s %s\n", libs[i]->name, libs[i]->desc->summary);
            found = 1;
        }
    puts(found ? "\npatchbay help SLOT-NAME shows the options of one." : "  none is installed");
    return 0;
}

static int print_all(void)
{
    puts("patchbay: an LLM inference runtime whose every optimization is a plugin\n\nCommands:");
    for (const pbi_command *c = pbi_commands; c->name; c++)
        printf("  %-10s %s\n", c->name, c->summary);
    puts("\nSlots of a pipeline:");
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++)
        printf("  %-10s %s\n", slots[i].slot, slots[i].decides);
    puts("\npatchbay help COMMAND, help SLOT, help SLOT-NAME, help SLOT-NAME OPTION and\n"
         "help pipeline (options of the core), help workloads and help metrics say "
         "more.\n\nEnvironment:");
    puts("  PATCHBAY_PLUGIN_PATH  folders of plugins, before the installed ones; colons between\n"
         "  PATCHBAY_PLUGIN_COPY  no: open plugin files in place, so that profilers find them\n"
         "  PATCHBAY_LOG          debug, info, warn (default) or error: what is said on stderr");
    return 0;
}

static int print_command(const pbi_command *c)
{
    char help[] = "--help", name[32];
    snprintf(name, sizeof name, "%s", c->name);
    char *argv[] = { name, help, NULL };
    if (strcmp(c->name, "help") == 0) {
        printf("usage: patchbay help %s\n%s\n", c->usage, c->summary);
        return 0;
    }
    return c->fn(2, argv);
}

/* ---- man --------------------------------------------------------------- */

static void man_options(const pb_option *o)
{
    puts(".SH OPTIONS");
    if (!o || !o->name)
        puts("None.");
    for (; o && o->name; o++) {
        char range[256], flags[128];
        pbi_option_range(o, range, sizeof range);
        option_flags(o, flags, sizeof flags);
        printf(".TP\n.B ");
        roff(o->name);
        printf(" = ");
        roff(o->def ? o->def : "");
        putchar('\n');
        roff(o->help);
        size_t n = strlen(o->help);
        printf("%s%s\nAllowed: ", n && o->help[n - 1] == '.' ? "" : ".", flags);
        roff(range);
        if (o->unit && o->type != PB_T_BYTES) {
            putchar(' ');
            roff(o->unit);
        }
        puts(".");
    }
}

static void man_plugin(const pbi_library *l)
{
    const pb_plugin *d = l->desc;
    printf(".\\\" made by: patchbay help --man %s-%s\n", l->slot, l->name);
    printf(".TH PATCHBAY\\-%s\\-%s 7 \"\" \"patchbay %s\" \"patchbay plugins\"\n", l->slot, l->name,
           d->version);
    printf(".SH NAME\npatchbay\\-%s\\-%s \\- ", l->slot, l->name);
    roff(d->summary);
    printf("\n.SH SYNOPSIS\n.nf\n[%s]\nplugin = %s\n.fi\n.SH DESCRIPTION\nFills slot\n.BR %s ,\n"
           "which decides ",
           l->slot, l->name, l->slot);
    roff(decides(l->slot));
    printf(".\nCompared with the plainest pipeline its answers are\n.BR %s .\n",
           pbi_class_name(d->flags));
    if (d->needs) {
        printf("It needs ");
        roff(d->needs);
        puts(".");
    }
    if (d->provides) {
        printf("It provides ");
        roff(d->provides);
        puts(".");
    }
    man_options(d->options);
    if (d->counters && d->counters->name)
        puts(".SH COUNTERS");
    for (const pb_counter *c = d->counters; c && c->name; c++) {
        printf(".TP\n.B ");
        roff(c->name);
        if (c->unit) {
            printf(" (");
            roff(c->unit);
            putchar(')');
        }
        putchar('\n');
        roff(c->help);
        puts(".");
    }
    puts(".SH SEE ALSO\n.BR patchbay (1),\n.BR patchbay.ini (5),\n.BR patchbay\\-plugin (7)");
}

/* ---- dispatch ---------------------------------------------------------- */

static int is_slot(const char *word, size_t n)
{
    for (int i = 0; i < pbi_n_slots; i++)
        if (strlen(pbi_slots[i]) == n && memcmp(pbi_slots[i], word, n) == 0)
            return 1;
    return 0;
}

static int show_options(const pb_option *table, const pbi_library *l, const char *option, int man)
{
    if (option) {
        const pb_option *o = pbi_option_find(table, sizeof *table, option);
        const char *names[256] = { NULL };
        int n = 0;
        for (const pb_option *k = table; k && k->name && n < 256; k++)
            names[n++] = k->name;
        if (!o) {
            const char *near = pbi_nearest(option, names, n);
            return pbi_usage("help", "%s has no option '%s'%s%s%s", l ? l->name : "the core",
                             option, near ? "; did you mean '" : "", near ? near : "",
                             near ? "'?" : "");
        }
        print_option(o);
    } else if (man && l)
        man_plugin(l);
    else if (man)
        man_options(table);
    else if (l)
        print_plugin(l);
    else {
        puts("[pipeline]: options of the core, and base = FILE, which inherits\n");
        print_options(table);
    }
    return 0;
}

/* "attention-paged", a path, or a name that only one slot has */
static int find_plugin(const char *word, const pbi_library **out, pb_err *err)
{
    char slot[32];
    size_t n = strcspn(word, "-.");
    *out = NULL;
    if (strchr(word, '/'))
        return pbi_loader_open_file(word, out, err);
    if (word[n] && n < sizeof slot && is_slot(word, n)) {
        memcpy(slot, word, n);
        slot[n] = 0;
        return pbi_loader_open(slot, word + n + 1, out, err);
    }
    const pbi_library *const *libs;
    const char *names[512] = { NULL };
    int n_libs = 0, n_names = 0;
    if (pbi_loader_list(&libs, &n_libs, NULL, NULL))
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    for (int i = 0; i < n_libs; i++) {
        if (strcmp(libs[i]->name, word) == 0) {
            if (*out)
                return pbi_err(err, PB_E_INVAL, "'%s' is in several slots: %s-%s, %s-%s", word,
                               (*out)->slot, word, libs[i]->slot, word);
            *out = libs[i];
        }
        if (n_names < 400)
            names[n_names++] = libs[i]->name;
    }
    for (int i = 0; i < pbi_n_slots; i++)
        names[n_names++] = pbi_slots[i];
    for (const pbi_command *c = pbi_commands; c->name; c++)
        names[n_names++] = c->name;
    if (*out)
        return 0;
    const char *near = pbi_nearest(word, names, n_names);
    return pbi_err(err, PB_E_INVAL, "no command, slot or plugin '%s'%s%s%s", word,
                   near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

int pbi_cmd_help(int argc, char **argv)
{
    int man = 0, n;
    const pbi_arg table[] = { { .name = "--man",
                                .kind = PBI_ARG_FLAG,
                                .out = &man,
                                .help = "print the source of a man page" },
                              PBI_ARGS_END };
    int rc = pbi_args(argc, argv, table, &n);
    if (rc != PBI_GO)
        return rc;
    const char *word = n ? argv[1] : NULL, *option = n > 1 ? argv[2] : NULL;
    const pbi_library *lib = NULL;
    pb_err err = { 0 };
    if (!word)
        return print_all();
    if (n > 2)
        return pbi_usage(argv[0], "unexpected '%s'", argv[3]);
    if (pbi_command_find(word) && !option)
        return print_command(pbi_command_find(word));
    if (strcmp(word, "metrics") == 0 || strcmp(word, "workloads") == 0) {
        (*word == 'm' ? pbi_load_help : pbw_help)(stdout);
        return 0;
    }
    if (strcmp(word, "pipeline") == 0)
        return show_options(pbi_core_options, NULL, option, man);
    if (is_slot(word, strlen(word)) && !option)
        return print_slot(word);
    rc = find_plugin(word, &lib, &err);
    return rc ? pbi_fail(argv[0], &err) : show_options(lib->desc->options, lib, option, man);
}
