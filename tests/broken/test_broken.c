/* SPDX-License-Identifier: MIT
 * tests/broken/test_broken.c - every broken plugin is refused by name and reason, and the good
 * one beside them loads. */
#define _GNU_SOURCE 1
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "error.h"
#include "fpmode.h"
#include "loader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[1024];

static int setup(void **state)
{
    const char *build = getenv("PATCHBAY_BUILD");
    (void)state;
    snprintf(folder, sizeof folder, "%s/tests/broken/.libs", build ? build : ".");
    return setenv("PATCHBAY_PLUGIN_PATH", folder, 1);
}

/* The name, and what the message must say beside the file's path. */
static const struct {
    const char *name, *why;
} cases[] = {
    { "magic", "no plugin descriptor (magic 12345678" },
    { "size", "its descriptor has" },
    { "short", "its descriptor has" },
    { "layout", "built against other headers" },
    { "abi", "built for plugin ABI 0." },
    { "future", "built for plugin ABI 2" },
    { "nosymbol", "exports no pb_plugin_v0" },
    { "slot", "slot 'flux' is unknown" },
    { "nolicense", "field license is missing" },
    { "badname", "name 'Bad' is not of the form" },
    { "nocreate", "lacks the mandatory function create()" },
    { "nodestroy", "lacks the mandatory function destroy()" },
    { "nodraw", "interface sampler/1 lacks the mandatory function draw()" },
    { "vtsize", "interface sampler/1 says it has" },
    { "iface", "slot sampler needs interface sampler/1" },
    { "undefined", "undefined symbol: a_function_that_nobody_defines" },
    { "renamed", "says that it is sampler-other; rename the file to sampler-other.so" },
    { "badopt", "option depth: its default is not valid: depth = 99: allowed is 1..8 steps" },
    { "overlap", "options depth and width share bytes" },
    { "offset", "option width: offset 16 in a config of 16 bytes" },
    { "unaligned", "option width: offset 4 in a config of 16 bytes" },
    { "twice", "option depth occurs twice" },
    { "nohelp", "option width has no help text" },
    { "badcounter", "counter drawn: offset 8 in a stats block of 8 bytes" },
#if defined(__x86_64__) || defined(__aarch64__)
    { "fastmath", "link it without -ffast-math" },
#endif
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const pbi_library *lib = NULL;
        pb_err err = { 0 };
        char file[64];
        int rc = pbi_loader_open("sampler", cases[i].name, &lib, &err);
        snprintf(file, sizeof file, "/sampler-%s.so: ", cases[i].name);
        if (rc != PB_E_PLUGIN || lib || !strstr(err.msg, cases[i].why) || !strstr(err.msg, file))
            fail_msg("%s: %d %s", cases[i].name, rc, err.msg);
        assert_int_equal(err.code, PB_E_PLUGIN);
    }
}

static void test_claimed_twice(void **state)
{
    const pbi_library *lib = NULL;
    pb_err err = { 0 };
    (void)state;
    assert_int_equal(pbi_loader_open("sampler", "twin", &lib, &err), PB_E_PLUGIN);
    assert_non_null(strstr(err.msg, "/sampler-twin.so"));
    assert_non_null(strstr(err.msg, "claims to be sampler-good, and so does"));
    assert_non_null(strstr(err.msg, "/sampler-good.so"));
}

static void test_good(void **state)
{
    const pbi_library *lib = NULL, *again = NULL;
    pb_err err = { 0 };
    char path[1100];
    (void)state;
    assert_int_equal(pbi_loader_open("sampler", "good", &lib, &err), 0);
    assert_string_equal(lib->name, "good");
    assert_int_not_equal(lib->hash, 0);
    snprintf(path, sizeof path, "%s/sampler-good.so", folder);
    assert_string_equal(lib->path, path);
    assert_int_equal(pbi_loader_open_file(path, &again, &err), 0);
    assert_ptr_equal(lib, again);
    assert_int_equal(pbi_loader_open("attention", path, &again, &err), PB_E_INVAL);
    assert_non_null(strstr(err.msg, "a plugin for slot sampler, not for attention"));
    assert_int_equal(pbi_loader_open("sampler", "godo", &again, &err), PB_E_INVAL);
    assert_non_null(strstr(err.msg, "did you mean 'good'?"));
    assert_non_null(strstr(err.msg, folder));
    /* optional functions were filled in */
    assert_non_null(lib->desc->start);
    assert_non_null(lib->desc->stop);
    assert_non_null(lib->desc->check);
}

/* A file may be cut, or not be a plugin at all; dlopen must not see it. */
static void test_bad_files(void **state)
{
    char dir[] = "/tmp/pb-broken-XXXXXX", path[1100], copy[1100];
    static char bytes[1 << 20];
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/sampler-good.so", folder);
    snprintf(copy, sizeof copy, "%s/sampler-cut.so", dir);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    for (size_t cut = 0; cut < n; cut += cut < 4096 ? 61 : 1999) {
        const pbi_library *lib = NULL;
        pb_err err = { 0 };
        f = fopen(copy, "wb");
        assert_non_null(f);
        assert_int_equal(fwrite(bytes, 1, cut, f), cut);
        fclose(f);
        assert_int_equal(pbi_loader_open_file(copy, &lib, &err), PB_E_PLUGIN);
        assert_non_null(strstr(err.msg, copy));
    }
    unlink(copy);
    rmdir(dir);
}

/* The refused library's mode does not stay. */
static void test_mode_restored(void **state)
{
    const pbi_library *lib = NULL;
    pb_err err = { 0 };
    (void)state;
    pbi_loader_open("sampler", "fastmath", &lib, &err);
    assert_int_equal(pbi_fp_get() & PBI_FP_BITS, 0);
    pbi_fp_set(pbi_fp_get() | PBI_FP_FLUSH);
    assert_int_equal(pbi_fp_restore(), PBI_FP_FLUSH != 0);
    assert_int_equal(pbi_fp_restore(), 0);
}

typedef struct seen {
    int n, twin, magic;
} seen;

static void on_bad(void *arg, const char *path, const pb_err *why)
{
    seen *s = arg;
    s->n++;
    s->twin |= strstr(path, "twin") && strstr(why->msg, "sampler-good");
    s->magic |= strstr(path, "magic") && why->code == PB_E_PLUGIN;
}

static void test_list(void **state)
{
    const pbi_library *const *libs;
    seen s = { 0 };
    int n, good = 0;
    (void)state;
    assert_int_equal(pbi_loader_list(&libs, &n, on_bad, &s), 0);
    for (int i = 0; i < n; i++)
        good += strcmp(libs[i]->name, "good") == 0;
    assert_int_equal(good, 1);
    assert_true(s.n >= (int)(sizeof cases / sizeof *cases));
    assert_true(s.twin && s.magic);
}

/* The file is rebuilt under a running process: the next open gets the new code. */
static void test_rebuilt(void **state)
{
    char dir[] = "/tmp/pb-rebuilt-XXXXXX", from[1100], to[1100], cmd[2400];
    const pbi_library *a = NULL, *b = NULL;
    pb_err err = { 0 };
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(to, sizeof to, "%s/sampler-good.so", dir);
    snprintf(from, sizeof from, "%s/sampler-good.so", folder);
    snprintf(cmd, sizeof cmd, "cp '%s' '%s'", from, to);
    assert_int_equal(system(cmd), 0);
    assert_int_equal(pbi_loader_open_file(to, &a, &err), 0);
    snprintf(cmd, sizeof cmd, "cp '%s/sampler-twin.so' '%s'", folder, to);
    assert_int_equal(system(cmd), 0);
    assert_int_equal(pbi_loader_open_file(to, &b, &err), 0);
    assert_ptr_not_equal(a, b);
    assert_int_not_equal(a->hash, b->hash);
    assert_string_equal(a->desc->summary, "a test"); /* the old code is still there */
    unlink(to);
    rmdir(dir);
}

/* An earlier folder of the search path wins, and that is no clash. */
static void test_first_folder_wins(void **state)
{
    char dir[] = "/tmp/pb-first-XXXXXX", cmd[2400], path[2200];
    const pbi_library *lib = NULL;
    pb_err err = { 0 };
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(cmd, sizeof cmd, "cp '%s/sampler-twin.so' '%s/sampler-good.so'", folder, dir);
    assert_int_equal(system(cmd), 0);
    snprintf(path, sizeof path, "%s:%s", dir, folder);
    setenv("PATCHBAY_PLUGIN_PATH", path, 1);
    assert_int_equal(pbi_loader_open("sampler", "good", &lib, &err), 0);
    snprintf(path, sizeof path, "%s/sampler-good.so", dir);
    setenv("PATCHBAY_PLUGIN_PATH", folder, 1);
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused), cmocka_unit_test(test_claimed_twice),
        cmocka_unit_test(test_good),    cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_list),    cmocka_unit_test(test_mode_restored),
        cmocka_unit_test(test_rebuilt), cmocka_unit_test(test_first_folder_wins)
    };
    return cmocka_run_group_tests_name("broken plugins", tests, setup, NULL);
}
