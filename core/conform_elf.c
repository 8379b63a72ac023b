/* SPDX-License-Identifier: MIT
 *
 * core/conform_elf.c - what a plugin's file says before anything of it runs: exported and
 * wanted symbols, needed libraries, run path, constructors. 64-bit ELF only, as is the
 * project; every offset is checked against the file's size before use.
 */
#define _GNU_SOURCE 1
#include "conform_checks.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct image {
    const char *p;
    size_t n;
    const Elf64_Ehdr *eh;
    const Elf64_Shdr *sh;
} image;

/* A section of the wanted type, inside the file; NULL: none. */
static const Elf64_Shdr *section(const image *im, uint32_t type)
{
    for (int i = 0; i < im->eh->e_shnum; i++) {
        const Elf64_Shdr *s = &im->sh[i];
        if (s->sh_type == type && s->sh_offset <= im->n && s->sh_size <= im->n - s->sh_offset &&
            s->sh_offset % 8 == 0)
            return s;
    }
    return NULL;
}

static const char *string_at(const image *im, const Elf64_Shdr *users, uint64_t at)
{
    if (users->sh_link >= im->eh->e_shnum)
        return "";
    const Elf64_Shdr *s = &im->sh[users->sh_link];
    if (s->sh_offset > im->n || s->sh_size > im->n - s->sh_offset || at >= s->sh_size)
        return "";
    const char *c = im->p + s->sh_offset + at;
    return memchr(c, 0, s->sh_size - at) ? c : "";
}

static int is_linkers(const char *name)
{
    static const char *const words[] = { "_init", "_fini",      "_edata",
                                         "_end",  "_bss_start", "__bss_start" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(name, words[i]))
            return 1;
    return 0;
}

static int check_symbols(pbi_lint *l, const image *im)
{
    const Elf64_Shdr *s = section(im, SHT_DYNSYM);
    if (!s)
        return pbi_say(l, PBI_FAIL, "no table of dynamic symbols");
    const Elf64_Sym *sym = (const void *)(im->p + s->sh_offset);
    int found = 0;
    for (size_t i = 1; i < s->sh_size / sizeof *sym; i++) {
        const char *name = string_at(im, s, sym[i].st_name);
        int undefined = sym[i].st_shndx == SHN_UNDEF, bind = ELF64_ST_BIND(sym[i].st_info);
        int hidden = ELF64_ST_VISIBILITY(sym[i].st_other) != STV_DEFAULT;
        if (undefined && (!strncmp(name, "pb_", 3) || !strncmp(name, "pbi_", 4)))
            return pbi_say(l, PBI_FAIL,
                           "wants the symbol %s; services of the core come through pb_host", name);
        if (undefined || bind == STB_LOCAL || hidden || is_linkers(name))
            continue;
        if (!strncmp(name, "__odr_asan", 10)) /* AddressSanitizer's mark of a global */
            continue;
        if (!strncmp(name, "pb_plugin_v", 11)) {
            found++;
            if (ELF64_ST_TYPE(sym[i].st_info) != STT_OBJECT)
                return pbi_say(l, PBI_FAIL, "%s is not data", name);
        } else {
            return pbi_say(l, PBI_FAIL,
                           "exports %s as well; build with -fvisibility=hidden, so that plugins "
                           "cannot meet each other's symbols",
                           name);
        }
    }
    return found ? PBI_PASS : pbi_say(l, PBI_FAIL, "exports no pb_plugin_v0");
}

/* A library that every program has. */
static int is_system(const char *lib)
{
    static const char *const words[] = { "libc.so",   "libm.so",    "libpthread.so",
                                         "libdl.so",  "librt.so",   "libgcc_s.so",
                                         "ld-linux",  "libasan.so", "libubsan.so",
                                         "libtsan.so" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strncmp(lib, words[i], strlen(words[i])))
            return 1;
    return 0;
}

static int check_dynamic(pbi_lint *l, const image *im)
{
    const Elf64_Shdr *s = section(im, SHT_DYNAMIC);
    if (!s)
        return pbi_say(l, PBI_FAIL, "no dynamic section");
    const Elf64_Dyn *d = (const void *)(im->p + s->sh_offset);
    uint64_t n_init = 0;
    const char *needs = NULL;
    int sanitized = 0;
    for (size_t i = 0; i < s->sh_size / sizeof *d && d[i].d_tag != DT_NULL; i++) {
        const char *text = string_at(im, s, d[i].d_un.d_val);
        if (d[i].d_tag == DT_TEXTREL)
            return pbi_say(l, PBI_FAIL, "its code is patched at load; build with -fPIC");
        if ((d[i].d_tag == DT_RPATH || d[i].d_tag == DT_RUNPATH) && strncmp(text, "$ORIGIN", 7))
            return pbi_say(l, PBI_FAIL, "carries the run path %s of the machine that built it",
                           text);
        if (d[i].d_tag == DT_INIT_ARRAYSZ)
            n_init = d[i].d_un.d_val / sizeof(void *);
        if (d[i].d_tag == DT_NEEDED) {
            sanitized |= strstr(text, "san.so") != NULL;
            needs = is_system(text) ? needs : text;
        }
    }
    if (n_init > 1 && !sanitized) /* one is the compiler's own */
        return pbi_say(l, PBI_WARN, "%d constructors run at load, before probe()", (int)n_init - 1);
    if (needs)
        return pbi_say(l, PBI_WARN, "needs %s, which a user may not have", needs);
    return PBI_PASS;
}

static int check_image(pbi_lint *l, image *im)
{
    im->eh = (const void *)im->p;
    if (im->n < sizeof *im->eh || memcmp(im->p, ELFMAG, SELFMAG) || im->p[EI_CLASS] != ELFCLASS64 ||
        im->eh->e_type != ET_DYN)
        return pbi_say(l, PBI_FAIL, "not a 64-bit shared object");
    if (im->eh->e_shentsize != sizeof *im->sh || im->eh->e_shoff % 8 || im->eh->e_shoff > im->n ||
        (im->n - im->eh->e_shoff) / sizeof *im->sh < im->eh->e_shnum)
        return pbi_say(l, PBI_FAIL, "truncated: %zu bytes end inside its section headers", im->n);
    im->sh = (const void *)(im->p + im->eh->e_shoff);
    int status = check_symbols(l, im);
    return status == PBI_PASS ? check_dynamic(l, im) : status;
}

int pbi_check_elf(pbi_lint *l)
{
    struct stat st;
    int fd = open(l->path, O_RDONLY | O_CLOEXEC), status;
    if (fd < 0)
        return pbi_say(l, PBI_FAIL, "%s", strerror(errno));
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size <= 0) {
        close(fd);
        return pbi_say(l, PBI_FAIL, "not a shared object");
    }
    image im = { .n = (size_t)st.st_size };
    im.p = mmap(NULL, im.n, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (im.p == MAP_FAILED)
        return pbi_say(l, PBI_FAIL, "cannot map it: %s", strerror(errno));
    status = check_image(l, &im);
    munmap((void *)im.p, im.n);
    return status;
}
