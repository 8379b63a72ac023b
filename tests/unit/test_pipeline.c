/* SPDX-License-Identifier: MIT
 * tests/unit/test_pipeline.c - inheritance, --set, lists, defaults, messages, composition, and
 * the numeric key; with plugins that live in this file. */
#define _GNU_SOURCE 1
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "error.h"
#include "pipeline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- plugins ----------------------------------------------------------- */

/* No function of these is called: a vtable whose every function is `nothing`. */
static void nothing(void)
{
}
#define FN (void *)(uintptr_t)nothing
static const void *const fns[] = { FN, FN, FN, FN, FN, FN, FN, FN, FN, FN, FN, FN, FN, FN, FN };
#define VTBL(T)                                                                                    \
    static union {                                                                                 \
        size_t size;                                                                               \
        void *fn[16];                                                                              \
        T t;                                                                                       \
    } T##_vtbl
VTBL(pb_model);
VTBL(pb_weights);
VTBL(pb_backend);
VTBL(pb_attention);
VTBL(pb_sched);
VTBL(pb_sampler);
VTBL(pb_spec);
VTBL(pb_process);
VTBL(pb_output);

#define FILL(T) (memcpy(&T##_vtbl.fn[1], fns, sizeof fns), T##_vtbl.size = sizeof(T), (void)0)

static int create(const pb_host *host, const void *config, void **self, pb_err *err)
{
    (void)host, (void)config, (void)self, (void)err;
    return 0;
}
static void destroy(void *self)
{
    (void)self;
}

typedef struct config {
    int64_t page_size, limit;
    int32_t kind, flag;
    const char *text;
} config;
static const pb_option paged_options[] = {
    PB_INT(config, page_size, "16", "1", "4096", PB_O_POW2, "tokens", "a page holds so many"),
    PB_ENUM(config, kind, "fast", "fast|exact", 0, "which way"), PB_OPTIONS_END
};
static const pb_option backend_options[] = {
    PB_ENUM(config, kind, "f16", "f32|f16", PB_O_OUTPUT, "KV format"),
    PB_INT(config, limit, "4", "0", "9", PB_O_DEPRECATED, NULL, "does not matter"), PB_OPTIONS_END
};
static const pb_option output_options[] = {
    PB_INT(config, limit, "100", "1", "1000", PB_O_OUTPUT, "tokens", "how many"),
    PB_STR(config, text, "", 0, "what is said"), PB_OPTIONS_END
};
static const pb_option needy_options[] = {
    PB_STR(config, text, NULL, PB_O_REQUIRED, "which words to look for"), PB_OPTIONS_END
};

static const pb_option small_options[] = {
    PB_INT(config, page_size, "4", "1", "16", 0, "tokens", "a page holds so many"), PB_OPTIONS_END
};

static int check_paged(const void *c, pb_err *err)
{
    if (((const config *)c)->kind == 1 && ((const config *)c)->page_size > 256)
        return pbi_err(err, PB_E_INVAL, "kind = exact allows pages up to 256 tokens");
    return 0;
}

#define IFACE(slot_, T)                                                                            \
    static const pb_iface T##_ifaces[] = { { slot_ "/1", &T##_vtbl }, { NULL, NULL } }
IFACE("model", pb_model);
IFACE("weights", pb_weights);
IFACE("backend", pb_backend);
IFACE("attention", pb_attention);
IFACE("scheduler", pb_sched);
IFACE("sampler", pb_sampler);
IFACE("spec", pb_spec);
IFACE("process", pb_process);
IFACE("output", pb_output);

#define PLUGIN(slot_, name_, T, opts, ...)                                                         \
    {                                                                                              \
        PB_HEAD, .slot = slot_, .name = name_, .version = "1", .license = "MIT",                   \
                 .summary = "a test", .options = opts, .config_size = sizeof(config),              \
                 .ifaces = T##_ifaces, .create = create, .destroy = destroy, __VA_ARGS__           \
    }

static const pb_plugin plugins[] = {
    PLUGIN("model", "llama", pb_model, NULL, .flags = PB_EXACT),
    PLUGIN("weights", "gguf", pb_weights, NULL, .flags = PB_EXACT),
    PLUGIN("backend", "cpu", pb_backend, backend_options, .flags = PB_EXACT),
    PLUGIN("attention", "contiguous", pb_attention, NULL, .flags = PB_EXACT),
    PLUGIN("attention", "paged", pb_attention, paged_options, .check = check_paged,
           .provides = "kv.paged kv.shared"),
    PLUGIN("scheduler", "continuous", pb_sched, NULL, .flags = PB_EXACT),
    PLUGIN("sampler", "greedy", pb_sampler, NULL, .flags = PB_EXACT),
    PLUGIN("process", "inline", pb_process, NULL, .flags = PB_EXACT),
    PLUGIN("spec", "tree", pb_spec, NULL, .needs = "kv.shared attention.paged"),
    PLUGIN("spec", "lonely", pb_spec, NULL, .needs = "kv.nobody"),
    PLUGIN("spec", "words", pb_spec, needy_options, .flags = PB_DISTRIBUTION),
    PLUGIN("output", "brief", pb_output, output_options, .flags = PB_LOSSY),
    PLUGIN("output", "budget", pb_output, output_options, .flags = PB_LOSSY),
    PLUGIN("attention", "small", pb_attention, small_options, .flags = PB_EXACT),
};
#define P(i) &plugins[i]
extern const pb_plugin *const pb_static_plugins[];
const pb_plugin *const pb_static_plugins[] = { P(0), P(1), P(2),  P(3),  P(4),  P(5),  P(6), P(7),
                                               P(8), P(9), P(10), P(11), P(12), P(13), NULL };

/* ---- helpers ----------------------------------------------------------- */

static char dir[] = "/tmp/pb-pipeline-XXXXXX";

static int setup(void **state)
{
    (void)state;
    FILL(pb_model), FILL(pb_weights), FILL(pb_backend), FILL(pb_attention), FILL(pb_sched);
    FILL(pb_sampler), FILL(pb_spec), FILL(pb_process), FILL(pb_output);
    setenv("PATCHBAY_PLUGIN_PATH", "/nonexistent", 1);
    return mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    char cmd[100];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static pbi_pipeline *load(const char *text, int n_set, const char *const *set)
{
    pbi_pipeline *p = NULL;
    pb_err err = { 0 };
    if (pbi_pipeline_parse(text, "p.ini", n_set, set, &p, &err))
        fail_msg("%s", err.msg);
    return p;
}

static void refused(const char *text, const char *set, const char *message)
{
    pbi_pipeline *p = NULL;
    pb_err err = { 0 };
    int rc = pbi_pipeline_parse(text, "p.ini", set ? 1 : 0, &set, &p, &err);
    if (!rc)
        fail_msg("taken, instead of: %s", message);
    assert_null(p);
    assert_int_equal(rc, PB_E_INVAL);
    assert_int_equal(err.code, PB_E_INVAL);
    size_t n = strlen(message);
    if (n > 2 && strcmp(message + n - 2, ", ") == 0) /* the rest depends on the installation */
        assert_memory_equal(err.msg, message, n);
    else
        assert_string_equal(err.msg, message);
}

static const pbi_setting *setting(const pbi_pipeline *p, const char *slot, int i, const char *key)
{
    const pbi_use *u = pbi_pipeline_use(p, slot, i);
    assert_non_null(u);
    for (int k = 0; k < u->n_settings; k++)
        if (strcmp(u->settings[k].opt->name, key) == 0)
            return &u->settings[k];
    fail_msg("no setting %s", key);
    return NULL;
}

/* ---- tests ------------------------------------------------------------- */

static void test_defaults(void **state)
{
    static const char *const names[] = { "llama",      "gguf",   "cpu",   "contiguous",
                                         "continuous", "greedy", "inline" };
    pbi_pipeline *p = load("", 0, NULL);
    (void)state;
    assert_int_equal(p->n_uses, 7);
    for (int i = 0; i < 7; i++) {
        assert_string_equal(p->uses[i]->name, names[i]);
        assert_string_equal(p->uses[i]->origin, "default");
    }
    assert_int_equal(p->core.max_seqs, 16);
    assert_int_equal(p->core.kv_bytes, 1 << 30);
    assert_null(pbi_pipeline_use(p, "spec", 0));
    assert_string_equal(setting(p, "backend", 0, "kind")->text, "f16");
    assert_string_equal(setting(p, "backend", 0, "kind")->origin, "default");
    pbi_pipeline_free(p);
    pbi_pipeline_free(NULL);
}

static void test_values(void **state)
{
    const char *const set[] = { "attention.page_size=64", "pipeline.kv_bytes=1048576",
                                "attention.kind=exact" };
    pbi_pipeline *p = load("[pipeline]\nthreads = 3\nparanoid = yes\n"
                           "[attention]\npage_size = 032\nplugin = paged\n",
                           3, set);
    const config *c = pbi_pipeline_use(p, "attention", 0)->config;
    (void)state;
    assert_int_equal(p->core.threads, 3);
    assert_int_equal(p->core.paranoid, 1);
    assert_int_equal(p->core.kv_bytes, 1 << 20);
    assert_int_equal(c->page_size, 64);
    assert_int_equal(c->kind, 1);
    assert_string_equal(setting(p, "attention", 0, "page_size")->origin, "--set");
    assert_string_equal(pbi_pipeline_use(p, "attention", 0)->origin, "p.ini:6");
    assert_string_equal(p->core_settings[4].text, "1M"); /* canonical */
    pbi_pipeline_free(p);
    p = load("[attention]\nplugin = paged\npage_size = 032\n", 0, NULL);
    assert_string_equal(setting(p, "attention", 0, "page_size")->text, "32");
    assert_string_equal(setting(p, "attention", 0, "page_size")->origin, "p.ini:3");
    pbi_pipeline_free(p);
}

static void test_base(void **state)
{
    pbi_pipeline *p = NULL;
    pb_err err = { 0 };
    (void)state;
    assert_int_equal(system("mkdir -p sub"), 0);
    put("root.ini", "[pipeline]\nthreads = 2\nmax_seqs = 4\n[attention]\nplugin = paged\n"
                    "page_size = 8\nkind = exact\n");
    put("sub/mid.ini", "[pipeline]\nbase = ../root.ini\nthreads = 5\n");
    put("top.ini", "[pipeline]\nbase = sub/mid.ini\n[attention]\npage_size = 32\n");
    assert_int_equal(pbi_pipeline_load("top.ini", 0, NULL, &p, &err), 0);
    const config *c = pbi_pipeline_use(p, "attention", 0)->config;
    assert_int_equal(p->core.threads, 5);
    assert_int_equal(p->core.max_seqs, 4);
    assert_int_equal(c->page_size, 32);
    assert_int_equal(c->kind, 1);
    assert_string_equal(setting(p, "attention", 0, "page_size")->origin, "top.ini:4");
    assert_string_equal(setting(p, "attention", 0, "kind")->origin, "sub/../root.ini:7");
    pbi_pipeline_free(p);
    /* another plugin: what it knows as well stays, so that one thing changes; the rest goes */
    put("small.ini", "[pipeline]\nbase = root.ini\n[attention]\nplugin = small\n");
    assert_int_equal(pbi_pipeline_load("small.ini", 0, NULL, &p, &err), 0);
    assert_int_equal(pbi_pipeline_use(p, "attention", 0)->n_settings, 1);
    assert_string_equal(setting(p, "attention", 0, "page_size")->text, "8");
    assert_string_equal(setting(p, "attention", 0, "page_size")->origin, "root.ini:6");
    pbi_pipeline_free(p);
    put("wide.ini", "[pipeline]\nbase = root.ini\n[attention]\npage_size = 64\n");
    put("narrow.ini", "[pipeline]\nbase = wide.ini\n[attention]\nplugin = small\n");
    assert_int_equal(pbi_pipeline_load("narrow.ini", 0, NULL, &p, &err), PB_E_INVAL);
    assert_string_equal(err.msg, "wide.ini:4: [attention] small: page_size = 64: allowed is 1..16 "
                                 "tokens");
    put("silent.ini", "[pipeline]\nbase = unnamed.ini\n[attention]\nplugin = small\n");
    put("unnamed.ini", "[attention]\nwhatever = 3\n"); /* for contiguous, the default */
    assert_int_equal(pbi_pipeline_load("silent.ini", 0, NULL, &p, &err), 0);
    pbi_pipeline_free(p);
    put("own.ini", "[pipeline]\nbase = root.ini\n[attention]\nplugin = small\nkind = exact\n");
    assert_int_equal(pbi_pipeline_load("own.ini", 0, NULL, &p, &err), PB_E_INVAL);
    assert_string_equal(err.msg, "own.ini:5: [attention] kind: small has no such option; it has "
                                 "page_size");
    put("swap.ini", "[pipeline]\nbase = root.ini\n[attention]\nplugin = contiguous\n");
    assert_int_equal(pbi_pipeline_load("swap.ini", 0, NULL, &p, &err), 0);
    assert_string_equal(pbi_pipeline_use(p, "attention", 0)->name, "contiguous");
    pbi_pipeline_free(p);
    const char *set[] = { "attention=contiguous", "attention.page_size=8" };
    assert_int_equal(pbi_pipeline_load("top.ini", 1, set, &p, &err), 0);
    pbi_pipeline_free(p);
    assert_int_equal(pbi_pipeline_load("top.ini", 2, set, &p, &err), PB_E_INVAL);
    assert_string_equal(err.msg,
                        "--set: [attention] page_size: contiguous has no such option; it has none");
    /* the same plugin said again keeps them */
    set[0] = "attention=paged";
    assert_int_equal(pbi_pipeline_load("root.ini", 1, set, &p, &err), 0);
    assert_string_equal(setting(p, "attention", 0, "page_size")->text, "8");
    pbi_pipeline_free(p);
}

static void test_base_mistakes(void **state)
{
    pbi_pipeline *p = NULL;
    pb_err err = { 0 };
    (void)state;
    put("a.ini", "[pipeline]\nthreads = 1\nbase = b.ini\n");
    put("b.ini", "[pipeline]\nbase = ./a.ini\n");
    assert_int_equal(pbi_pipeline_load("a.ini", 0, NULL, &p, &err), PB_E_INVAL);
    assert_string_equal(err.msg, "b.ini:2: base = goes in a circle: a.ini -> b.ini -> a.ini");
    put("self.ini", "[pipeline]\nbase = self.ini\n");
    assert_int_equal(pbi_pipeline_load("self.ini", 0, NULL, &p, &err), PB_E_INVAL);
    assert_string_equal(err.msg, "self.ini:2: base = goes in a circle: self.ini -> self.ini");
    put("lost.ini", "[pipeline]\nbase = nowhere.ini\n");
    assert_int_equal(pbi_pipeline_load("lost.ini", 0, NULL, &p, &err), PB_E_INVAL);
    assert_string_equal(err.msg, "lost.ini:2: base =: nowhere.ini: No such file or directory");
    assert_int_equal(pbi_pipeline_load("nowhere.ini", 0, NULL, &p, &err), PB_E_INVAL);
    assert_string_equal(err.msg, "nowhere.ini: No such file or directory");
    put("inner.ini", "[pipeline]\nthreads 3\n");
    put("outer.ini", "[pipeline]\nbase = inner.ini\n");
    assert_int_equal(pbi_pipeline_load("outer.ini", 0, NULL, &p, &err), PB_E_INVAL);
    assert_string_equal(err.msg, "inner.ini:2: neither [section] nor key = value");
    for (int i = 0; i < 20; i++) {
        char path[20], text[60];
        snprintf(path, sizeof path, "c%d.ini", i);
        snprintf(text, sizeof text, "[pipeline]\nbase = c%d.ini\n", i + 1);
        put(path, text);
    }
    assert_int_equal(pbi_pipeline_load("c0.ini", 0, NULL, &p, &err), PB_E_INVAL);
    assert_string_equal(err.msg, "c15.ini:2: more than 16 files in the chain of base =");
}

static void test_mistakes(void **state)
{
    (void)state;
    refused("[atention]\nplugin = paged\n", NULL,
            "p.ini:1: unknown section [atention]; did you mean [attention]?");
    refused("[quux]\nplugin = paged\n", NULL,
            "p.ini:1: unknown section [quux]; it names neither a slot nor [pipeline]");
    refused("[attention]\nplugin = paegd\n", NULL,
            "p.ini:2: [attention] plugin = paegd: no plugin 'paegd' for slot attention; did you "
            "mean 'paged'?; looked in /nonexistent, ");
    refused("[attention]\nplugin = paged\npage_sise = 3\n", NULL,
            "p.ini:3: [attention] page_sise: paged has no such option; did you mean 'page_size'?");
    refused("[attention]\nplugin = paged\nbogus = 3\n", NULL,
            "p.ini:3: [attention] bogus: paged has no such option; it has page_size, kind");
    refused("[attention]\nplugin = paged\npage_size = 24\n", NULL,
            "p.ini:3: [attention] paged: page_size = 24: allowed is 1..4096, a power of two "
            "tokens");
    refused("[attention]\nplugin = paged\npage_size = 512\nkind = exact\n", NULL,
            "p.ini:2: [attention] paged: kind = exact allows pages up to 256 tokens");
    refused("[pipeline]\ntreads = 3\n", NULL,
            "p.ini:2: [pipeline] treads: the core has no such option; did you mean 'threads'?");
    refused("[pipeline]\nthreads = -1\n", NULL,
            "p.ini:2: [pipeline] the core: threads = -1: allowed is 0..1024 threads");
    refused("[model]\nplugin = none\n", NULL,
            "p.ini:2: [model] plugin = none: this slot cannot be empty");
    refused("[spec]\nlimit = 3\n", NULL,
            "p.ini:2: [spec] limit: no plugin is in slot spec; add plugin = NAME");
    refused("[spec]\nplugin = words\n", NULL,
            "p.ini:2: [spec] words needs option text: which words to look for");
    refused("[attention.paged]\npage_size = 3\n", NULL,
            "p.ini:1: [attention.paged]: slot attention takes one plugin; write its options in "
            "[attention]");
    refused("", "attention.page_size=9",
            "--set: [attention] page_size: contiguous has no such option; it has none");
    refused("", "attention", "--set attention: write SLOT.KEY=VALUE or SLOT=PLUGIN");
    refused("", "attention.=3", "--set attention.=3: write SLOT.KEY=VALUE or SLOT=PLUGIN");
    refused("", "attention.page_size=",
            "--set attention.page_size=: write SLOT.KEY=VALUE or "
            "SLOT=PLUGIN");
    refused("", "threads=3", "--set threads=3: write --set pipeline.threads=3");
    refused("", "atention.x=3", "--set: unknown section [atention]; did you mean [attention]?");
}

static void test_lists(void **state)
{
    pbi_pipeline *p = load("[output]\nplugin = budget , brief\n[output.brief]\nlimit = 7\n"
                           "text = be short\n",
                           0, NULL);
    (void)state;
    assert_string_equal(pbi_pipeline_use(p, "output", 0)->name, "budget");
    assert_string_equal(pbi_pipeline_use(p, "output", 1)->name, "brief");
    assert_null(pbi_pipeline_use(p, "output", 2));
    assert_string_equal(setting(p, "output", 0, "limit")->text, "100");
    assert_string_equal(setting(p, "output", 1, "limit")->text, "7");
    assert_string_equal(((const config *)pbi_pipeline_use(p, "output", 1)->config)->text,
                        "be short");
    pbi_pipeline_free(p);
    const char *set[] = { "output.brief.limit=9" };
    p = load("[output]\nplugin = brief\n", 1, set);
    assert_string_equal(setting(p, "output", 0, "limit")->text, "9");
    pbi_pipeline_free(p);
    refused("[output]\nplugin = brief\nlimit = 3\n", NULL,
            "p.ini:3: [output] limit: slot output takes a list of plugins; write options of one in "
            "[output.NAME]");
    refused("[output]\nplugin = brief\n[output.budget]\nlimit = 3\n", NULL,
            "p.ini:4: [output.budget]: [output] plugin = does not list budget");
    refused("[output]\nplugin = brief, brief\n", NULL, "p.ini:2: [output] names brief twice");
    refused("[output.brief]\nplugin = budget\n", NULL,
            "p.ini:2: [output.brief] takes options; list plugins in [output] plugin =");
    refused("[output]\nplugin = brief\n[output.brief]\nlimti = 3\n", NULL,
            "p.ini:4: [output] limti: brief has no such option; did you mean 'limit'?");
    /* a shorter list in a later layer drops the options of what left, and only those */
    put("both.ini", "[output]\nplugin = brief, budget\n[output.brief]\nlimit = 3\n"
                    "[output.budget]\nlimit = 4\n");
    p = load("[pipeline]\nbase = both.ini\n[output]\nplugin = budget\n", 0, NULL);
    assert_string_equal(setting(p, "output", 0, "limit")->text, "4");
    pbi_pipeline_free(p);
    p = load("[pipeline]\nbase = both.ini\n[output]\nplugin = none\n", 0, NULL);
    assert_null(pbi_pipeline_use(p, "output", 0));
    pbi_pipeline_free(p);
}

static void test_composition(void **state)
{
    (void)state;
    pbi_pipeline_free(load("[spec]\nplugin = tree\n[attention]\nplugin = paged\n", 0, NULL));
    refused("[attention]\nplugin = contiguous\n[spec]\nplugin = tree\n", NULL,
            "p.ini:4: [spec] tree needs 'kv.shared', but [attention] is contiguous (p.ini:2); "
            "provided by attention-paged");
    refused("[spec]\nplugin = lonely\n", NULL,
            "p.ini:2: [spec] lonely needs 'kv.nobody', which nothing in this pipeline provides");
}

/* A deprecated option still works, and says so where it is set. */
static void test_deprecated(void **state)
{
    char out[300] = "";
    FILE *f = tmpfile();
    (void)state;
    assert_non_null(f);
    fflush(stderr);
    int saved = dup(2);
    dup2(fileno(f), 2);
    pbi_pipeline_free(load("", 0, NULL));
    pbi_pipeline *p = load("[backend]\nlimit = 7\n", 0, NULL);
    fflush(stderr);
    dup2(saved, 2);
    close(saved);
    rewind(f);
    size_t n = fread(out, 1, sizeof out - 1, f);
    out[n] = 0;
    fclose(f);
    assert_string_equal(setting(p, "backend", 0, "limit")->text, "7");
    assert_string_equal(out, "patchbay: p.ini:2: [backend] limit is deprecated: does not matter\n");
    pbi_pipeline_free(p);
}

static void test_numeric_key(void **state)
{
    char key[512], other[512];
    uint64_t a, b;
    pbi_pipeline *p = load("", 0, NULL);
    (void)state;
    pbi_pipeline_numeric_key(p, key, sizeof key, &a);
    assert_string_equal(key, "cpu kind=f16 context=0 seed=0");
    pbi_pipeline_free(p);
    /* threads, attention plugin and page size are never in the key */
    p = load("[attention]\nplugin = paged\npage_size = 1\n[pipeline]\nthreads = 7\nmax_rows = 3\n"
             "[backend]\nlimit = 9\n",
             0, NULL);
    pbi_pipeline_numeric_key(p, other, sizeof other, &b);
    assert_string_equal(other, key);
    assert_true(a == b);
    pbi_pipeline_free(p);
    const char *set[] = { "output=brief", "backend.kind=f32" };
    p = load("", 2, set);
    pbi_pipeline_numeric_key(p, other, sizeof other, &b);
    assert_string_equal(other, "cpu kind=f32 context=0 seed=0; output brief limit=100");
    assert_true(a != b);
    /* cut to the buffer, terminated, the hash of the whole */
    uint64_t c;
    pbi_pipeline_numeric_key(p, other, 5, &c);
    assert_string_equal(other, "cpu ");
    assert_true(b == c);
    pbi_pipeline_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),    cmocka_unit_test(test_values),
        cmocka_unit_test(test_base),        cmocka_unit_test(test_base_mistakes),
        cmocka_unit_test(test_mistakes),    cmocka_unit_test(test_lists),
        cmocka_unit_test(test_composition), cmocka_unit_test(test_numeric_key),
        cmocka_unit_test(test_deprecated),
    };
    return cmocka_run_group_tests_name("pipeline", tests, setup, teardown);
}
