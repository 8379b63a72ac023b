/* SPDX-License-Identifier: MIT
 *
 * cli/new.c - patchbay new SLOT-NAME: writes a plugin's folder that builds, lints clean and does
 * the plainest thing of its slot. Overwrites nothing. The texts are in cli/new_texts.c.
 */
#define _GNU_SOURCE 1
#include "cli.h"
#include "layers.h"
#include "new.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

typedef struct names {
    char slot[32], name[64];
} names;

/* "spec-mine" -> slot, name; 0, or 2 after saying what is wrong */
static int split(const char *command, const char *word, names *n)
{
    size_t k = strcspn(word, "-");
    const char *name = word[k] ? word + k + 1 : "";
    if (k >= sizeof n->slot || strlen(name) >= sizeof n->name || !*name)
        return pbi_usage(command, "'%s' is not SLOT-NAME, as in scheduler-mine", word);
    snprintf(n->slot, sizeof n->slot, "%.*s", (int)k, word);
    snprintf(n->name, sizeof n->name, "%s", name);
    if (!pbi_slot_iface(n->slot))
        return pbi_usage(command, "no slot is named '%s'; `patchbay help` lists them", n->slot);
    if (name[0] < 'a' || name[0] > 'z' ||
        name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_")])
        return pbi_usage(command, "name '%s' is not [a-z][a-z0-9_]*", name);
    return 0;
}

/* Writes text with @SLOT@ and the like replaced; what is put in may hold such words again. */
static void put(FILE *f, const char *text, const names *n, const pbi_new_slot *s)
{
    const struct {
        const char *word, *text;
    } table[] = { { "@SLOT@", n->slot },
                  { "@NAME@", n->name },
                  { "@STATE@", s->state },
                  { "@START@", s->start },
                  { "@STOP@", s->stop },
                  { "@LIST@", pbi_slot_is_list(n->slot) ? "\n[@SLOT@.@NAME@]\n" : "" } };
    for (const char *p = text; *p;) {
        size_t i = 0, k = sizeof table / sizeof *table;
        while (i < k && strncmp(p, table[i].word, strlen(table[i].word)) != 0)
            i++;
        if (i == k) {
            fputc(*p++, f);
            continue;
        }
        if (i < 2)
            fputs(table[i].text, f);
        else
            put(f, table[i].text, n, s);
        p += strlen(table[i].word);
    }
}

static int write_text(const char *folder, const char *file, const char *const *parts,
                      const names *n, const pbi_new_slot *s)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *f = fopen(path, "wx");
    for (int i = 0; f && parts[i]; i++)
        put(f, parts[i], n, s);
    if (f && !fclose(f)) {
        printf("  %s\n", path);
        return 0;
    }
    fprintf(stderr, "patchbay new: %s: %s\n", path, strerror(errno));
    return pbi_err_exit(PB_E_IO);
}

int pbi_cmd_new(int argc, char **argv)
{
    const pbi_arg table[] = { PBI_ARGS_END };
    names n;
    char c_file[80], ini[120], folder[120];
    int words, rc = pbi_args(argc, argv, table, &words);
    if (rc != PBI_GO)
        return rc;
    if (words != 1)
        return pbi_usage(argv[0], "which plugin? patchbay new SLOT-NAME, as in scheduler-mine");
    rc = split(argv[0], argv[1], &n);
    if (rc)
        return rc;
    const pbi_new_slot *s = pbi_new_find(n.slot);
    if (!s)
        return pbi_usage(argv[0],
                         "there is no skeleton for slot %s; start from a plugin of patchbay's own "
                         "source, plugins/%s-*",
                         n.slot, n.slot);
    snprintf(folder, sizeof folder, "%s-%s", n.slot, n.name);
    snprintf(c_file, sizeof c_file, "%s.c", n.name);
    snprintf(ini, sizeof ini, "%s.ini", n.name);
    if (mkdir(folder, 0777)) {
        fprintf(stderr, "patchbay new: %s: %s\n", folder, strerror(errno));
        return errno == EEXIST ? pbi_err_exit(PB_E_INVAL) : pbi_err_exit(PB_E_IO);
    }
    const char *const code[] = { pbi_new_head,       s->head, s->body, pbi_new_life, s->tail,
                                 pbi_new_descriptor, NULL };
    const char *const make[] = { pbi_new_makefile, NULL };
    const char *const readme[] = { pbi_new_readme, NULL };
    const char *const pipeline[] = { pbi_new_ini, NULL };
    rc = write_text(folder, c_file, code, &n, s);
    if (!rc)
        rc = write_text(folder, "Makefile", make, &n, s);
    if (!rc)
        rc = write_text(folder, "README.md", readme, &n, s);
    if (!rc)
        rc = write_text(folder, ini, pipeline, &n, s);
    if (!rc)
        printf("now: cd %s && make check\n", folder);
    return rc;
}
