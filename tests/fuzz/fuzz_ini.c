/* SPDX-License-Identifier: MIT
 *
 * tests/fuzz/fuzz_ini.c - random bytes, and random edits of good pipelines, through the INI
 * reader and the pipeline's layers: never a crash, a hang or a leak; what is refused has a
 * message with file and line; what is taken says the same when it is written out and read again.
 * Runs PATCHBAY_FUZZ_SECONDS (default 2); prints its seed, which PATCHBAY_FUZZ_SEED repeats.
 */
#define _GNU_SOURCE 1
#include "inifile.h"
#include "layers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_TEXT = 4096 };

static uint64_t rng;
static uint32_t rnd(uint32_t n)
{
    rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
    return (uint32_t)(rng >> 32) % n;
}

static const char *const seeds[] = {
    "[pipeline]\nthreads = 2 ; two\n\n[attention]\nplugin = paged\npage_size = 16\n",
    "; comment\n[output]\nplugin = brief, budget\n[output.brief]\nlimit = 3\ntext = a = b\n",
    "\xEF\xBB\xBF[backend]\r\nplugin = cpu\r\nkv=f16\r\n",
    "[spec]\nplugin=ngram\nmin = 2\nmax = 9\n[sampler]\nplugin = chain\ntop_p = 0.9\n",
};
static const char *const bits[] = { "[",
                                    "]",
                                    "=",
                                    "\n",
                                    " ",
                                    "\t",
                                    ";",
                                    "#",
                                    ":",
                                    "\r\n",
                                    "[a]",
                                    "k = v\n",
                                    "  k = v\n",
                                    "plugin = none\n",
                                    "[attention]\n",
                                    "\xEF\xBB\xBF",
                                    "base = x\n",
                                    "[output.x]\n",
                                    "[.]\n",
                                    "[[" };

static size_t make(char *out)
{
    size_t n = 0;
    if (rnd(8) == 0) {
        n = rnd(MAX_TEXT / 4);
        for (size_t i = 0; i < n; i++)
            out[i] = (char)rnd(256);
        return n;
    }
    const char *s = seeds[rnd(sizeof seeds / sizeof *seeds)];
    n = strlen(s);
    memcpy(out, s, n);
    for (uint32_t edits = rnd(12); edits > 0; edits--) {
        size_t at = n ? rnd((uint32_t)n) : 0;
        switch (rnd(5)) {
        case 0: /* a byte */
            if (n)
                out[at] = (char)rnd(256);
            break;
        case 1: { /* cut */
            size_t k = rnd((uint32_t)(n - at) + 1);
            memmove(out + at, out + at + k, n - at - k);
            n -= k;
            break;
        }
        case 2: { /* repeat a part */
            size_t k = rnd((uint32_t)(n - at) + 1);
            if (n + k <= MAX_TEXT) {
                memmove(out + at + k, out + at, n - at);
                n += k;
            }
            break;
        }
        case 3: { /* a long run */
            size_t k = rnd(300);
            if (n + k <= MAX_TEXT) {
                memmove(out + at + k, out + at, n - at);
                memset(out + at, 'a' + (int)rnd(26), k);
                n += k;
            }
            break;
        }
        default: {
            const char *b = bits[rnd(sizeof bits / sizeof *bits)];
            size_t k = strlen(b);
            if (n + k <= MAX_TEXT) {
                memmove(out + at + k, out + at, n - at);
                memcpy(out + at, b, k);
                n += k;
            }
        }
        }
    }
    return n;
}

static void die(const char *what, const char *text, size_t n, uint64_t seed, const char *msg)
{
    fprintf(stderr, "fuzz_ini: %s: %s\nPATCHBAY_FUZZ_SEED=%llu repeats it; the text was:\n", what,
            msg, (unsigned long long)seed);
    fwrite(text, 1, n, stderr);
    exit(1);
}

/* Every entry, written out plainly. */
static char *print(const pbi_ini *ini, size_t *n)
{
    char *buf = NULL;
    FILE *f = open_memstream(&buf, n);
    for (int s = 0; f && s < ini->n_sections; s++) {
        fprintf(f, "[%s]\n", ini->sections[s].name);
        for (int i = 0; i < ini->n_entries; i++)
            if (ini->entries[i].section == s)
                fprintf(f, "%s=%s\n", ini->entries[i].key, ini->entries[i].value);
    }
    if (f)
        fclose(f);
    return buf;
}

static int same(const pbi_ini *a, const pbi_ini *b)
{
    if (a->n_entries != b->n_entries || a->n_sections != b->n_sections)
        return 0;
    for (int i = 0; i < a->n_entries; i++)
        if (strcmp(a->entries[i].key, b->entries[i].key) != 0 ||
            strcmp(a->entries[i].value, b->entries[i].value) != 0)
            return 0;
    return 1;
}

/* Lines that must have become an entry: nothing may be dropped, merged or cut. */
static int count_lines(const char *text, size_t n, size_t *bytes)
{
    int count = 0;
    size_t at = n >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    *bytes = 0;
    while (at < n) {
        size_t end = at;
        while (end < n && text[end] != '\n')
            end++;
        while (at < end && strchr(" \t\r\v\f", text[at]))
            at++;
        if (at < end && !strchr(";#[", text[at])) {
            const char *eq = memchr(text + at, '=', end - at);
            count++;
            *bytes += eq ? (size_t)(eq - text) - at : 0;
        }
        at = end + 1;
    }
    return count;
}

static int one(const char *text, size_t n, uint64_t seed)
{
    pbi_ini *ini = NULL, *again = NULL;
    pb_err err = { 0 };
    pbi_layers layers;
    if (pbi_ini_parse(text, n, "f.ini", &ini, &err)) {
        if (strncmp(err.msg, "f.ini:", 6) != 0 || atoi(err.msg + 6) < 1 || ini)
            die("a refusal without its line", text, n, seed, err.msg);
        return 0;
    }
    size_t n_out = 0, key_bytes = 0, bytes;
    if (ini->n_entries != count_lines(text, n, &bytes))
        die("lines were dropped or merged", text, n, seed, "");
    for (int i = 0; i < ini->n_entries; i++)
        key_bytes += strlen(ini->entries[i].key);
    if (key_bytes > bytes || memchr(text, 0, n))
        die("a key or a NUL byte was mangled", text, n, seed, "");
    char *out = print(ini, &n_out);
    if (out && pbi_ini_parse(out, n_out, "out.ini", &again, &err) == 0) {
        if (!same(ini, again))
            die("reads differently when written out", text, n, seed, out);
        pbi_ini_free(again);
    } else
        die("is refused when written out", text, n, seed, err.msg);
    free(out);
    pbi_ini_free(ini);
    const char *set[] = { "attention=paged", "output.brief.limit=4" };
    if (pbi_layers_read(text, n, "f.ini", &layers, &err) == 0) {
        pbi_layers_set(&layers, 2, set, &err);
        pbi_layers_free(&layers);
    }
    return 1;
}

int main(void)
{
    const char *env = getenv("PATCHBAY_FUZZ_SECONDS"), *fixed = getenv("PATCHBAY_FUZZ_SEED");
    double seconds = env ? atof(env) : 2;
    uint64_t start = fixed ? strtoull(fixed, NULL, 10) : (uint64_t)time(NULL) << 20;
    static char text[MAX_TEXT + 1];
    struct timespec t0, t;
    long taken = 0, runs = 0;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    for (;; runs++) {
        uint64_t seed = start + (uint64_t)runs;
        rng = seed * 0x9E3779B97F4A7C15u + 1;
        size_t n = make(text);
        taken += one(text, n, seed);
        clock_gettime(CLOCK_MONOTONIC, &t);
        if (fixed ||
            (double)(t.tv_sec - t0.tv_sec) + (double)(t.tv_nsec - t0.tv_nsec) * 1e-9 > seconds)
            break;
    }
    printf("fuzz_ini: %ld texts from seed %llu, %ld taken\n", runs + 1, (unsigned long long)start,
           taken);
    return fixed || taken > 0 ? 0 : 1;
}
