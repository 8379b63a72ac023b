/* SPDX-License-Identifier: MIT
 *
 * cli/show.c - patchbay show: the effective pipeline as an INI that says the same as the one
 * it came from, each value with its origin; and with --program the model's operations.
 */
#include "cli.h"
#include "layers.h"
#include "model.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- values ------------------------------------------------------------ */

enum { COMMENT_WIDTH = 96, LINE_WIDTH = 190 }; /* the reader's limit is just above */

/* A comment in lines of words, so that what is printed can be read again. */
static void print_comment(FILE *f, const char *text)
{
    size_t at = 0;
    fputc(';', f);
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, " ");
        if (at && at + n > COMMENT_WIDTH) {
            fputs("\n;  ", f);
            at = 0;
        }
        fprintf(f, " %.*s", (int)n, p);
        at += n + 1;
        p += n + (p[n] == ' ');
    }
    fputc('\n', f);
}

static void print_settings(FILE *f, const pbi_setting *s, int n)
{
    for (int i = 0; i < n; i++) {
        char left[600];
        const char *text = s[i].text ? s[i].text : "";
        snprintf(left, sizeof left, "%s%s = %s", *text ? "" : "; ", s[i].opt->name, text);
        const char *origin = s[i].origin ? s[i].origin : "default";
        const char *out = s[i].opt->flags & PB_O_OUTPUT ? ", may change the output" : "";
        const char *old = s[i].opt->flags & PB_O_DEPRECATED ? ", deprecated" : "";
        if (strlen(left) + strlen(origin) + 40 > LINE_WIDTH)
            fprintf(f, "; %s%s%s:\n%s\n", origin, out, old, left);
        else
            fprintf(f, "%-32s ; %s%s%s\n", left, origin, out, old);
    }
}

static void print_plugins(FILE *f, const pbi_pipeline *p, const char *slot)
{
    char left[1024], origin[1024] = "";
    size_t used = 0;
    const pbi_use *u;
    for (int i = 0; (u = pbi_pipeline_use(p, slot, i)); i++) {
        snprintf(left + used, sizeof left - used, "%s%s", i ? ", " : "plugin = ", u->name);
        used = strlen(left);
        snprintf(origin, sizeof origin, "%s", u->origin);
    }
    fprintf(f, "\n[%s]\n%-32s ; %s\n", slot, left, origin);
    for (int i = 0; (u = pbi_pipeline_use(p, slot, i)); i++) {
        int settable = 0; /* a section of nothing but comments would be refused as empty */
        for (int k = 0; k < u->n_settings; k++)
            settable |= u->settings[k].text && *u->settings[k].text;
        if (pbi_slot_is_list(slot) && u->n_settings)
            fprintf(f, "\n%s[%s.%s]\n", settable ? "" : "; ", slot, u->name);
        print_settings(f, u->settings, u->n_settings);
    }
}

void pbi_print_pipeline(FILE *f, const pbi_pipeline *p)
{
    char key[2048], line[2200];
    uint64_t hash;
    pbi_pipeline_numeric_key(p, key, sizeof key, &hash);
    snprintf(line, sizeof line, "numeric key: %s (%016" PRIx64 ")", key, hash);
    fprintf(f, "; %s, resolved\n", p->path);
    print_comment(f, line);
    fputs("\n[pipeline]\n", f);
    print_settings(f, p->core_settings, p->n_core_settings);
    for (int i = 0; i < pbi_n_slots; i++)
        if (pbi_pipeline_use(p, pbi_slots[i], 0))
            print_plugins(f, p, pbi_slots[i]);
}

static int print_program(const pbi_pipeline *p, const char *path, pb_err *err)
{
    pbi_model *m = NULL;
    int rc = pbi_model_open(p, path, PBI_MODEL_NO_TEXT, &m, err);
    if (!rc)
        pbi_program_print(pbi_program_get(m->program), stdout);
    pbi_model_close(m);
    return rc;
}

int pbi_cmd_show(int argc, char **argv)
{
    pbi_common c = { 0 };
    int program = 0, n;
    const pbi_arg table[] = { PBI_ARG_PIPELINE(&c),
                              PBI_ARG_MODEL(&c),
                              PBI_ARG_SET(&c),
                              PBI_ARG_JSON(&c),
                              { .name = "--program",
                                .kind = PBI_ARG_FLAG,
                                .out = &program,
                                .help = "print the model's operations instead; with -m" },
                              PBI_ARGS_END };
    int rc = pbi_args(argc, argv, table, &n);
    if (rc != PBI_GO)
        return rc;
    if (n > 1 || (n && c.pipeline))
        return pbi_usage(argv[0], "one pipeline at a time");
    if (n)
        c.pipeline = argv[1];
    pbi_pipeline *p = NULL;
    pb_err err = { 0 };
    rc = pbi_common_load(&c, &p, &err);
    if (!rc && program)
        rc = print_program(p, c.model ? c.model : "", &err);
    if (rc)
        rc = pbi_fail(argv[0], &err);
    else if (c.json && !program)
        rc = pbi_print_json(pbi_pipeline_json(p));
    else if (!program)
        pbi_print_pipeline(stdout, p);
    pbi_pipeline_free(p);
    return rc;
}
