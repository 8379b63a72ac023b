/* SPDX-License-Identifier: MIT
 *
 * core/loader.c - finds plugin files, opens private copies of them, keeps the result.
 *
 * A file is read once, hashed, and its copy in memory (memfd) is what dlopen gets: the
 * file may then be rebuilt or overwritten under us, and the next open finds the new
 * code. PATCHBAY_PLUGIN_COPY=no opens files in place, for profilers that resolve symbols
 * by path. Test: tests/unit/test_loader.c, tests/broken.
 */
#define _GNU_SOURCE 1
#include "loader.h"
#include "account.h"
#include "error.h"
#include "fpmode.h"
#include "inspect.h"
#include "options.h"

#include <dirent.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* Ends with NULL; defined by the static build only. */
extern const pb_plugin *const pb_static_plugins[] __attribute__((weak));

static const char built_in[] = "(built in)";
static const pbi_library **libs; /* all that were handed out; never freed */
static int n_libs;

/* ---- search path ------------------------------------------------------- */

typedef struct strings {
    char **s;
    int n;
} strings;

static int add_string(strings *l, const char *s, size_t n)
{
    char **p = realloc(l->s, (size_t)(l->n + 1) * sizeof *p);
    if (!p)
        return PB_E_NOMEM;
    l->s = p;
    p[l->n] = strndup(s, n);
    return p[l->n] ? (l->n++, 0) : PB_E_NOMEM;
}

static void free_strings(strings *l)
{
    for (int i = 0; i < l->n; i++)
        free(l->s[i]);
    free(l->s);
    *l = (strings){ 0 };
}

static int contains(const strings *l, const char *s)
{
    for (int i = 0; i < l->n; i++)
        if (strcmp(l->s[i], s) == 0)
            return 1;
    return 0;
}

static int runs_from_build(void)
{
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    size_t b = strlen(PB_BUILDDIR);
    return n > (ssize_t)b && memcmp(exe, PB_BUILDDIR, b) == 0 && exe[b] == '/';
}

static int search_path(strings *dirs)
{
    int rc = 0;
    const char *env = getenv("PATCHBAY_PLUGIN_PATH");
    for (const char *p = env; p && *p && !rc;) {
        size_t n = strcspn(p, ":");
        if (n)
            rc = add_string(dirs, p, n);
        p += n + (p[n] == ':');
    }
    if (!rc && runs_from_build())
        rc = add_string(dirs, PB_BUILDDIR "/.libs", strlen(PB_BUILDDIR "/.libs"));
    if (!rc)
        rc = add_string(dirs, PB_PKGLIBDIR, strlen(PB_PKGLIBDIR));
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* "attention-paged.so" -> 1 and the lengths; names of unknown slots are no plugins of ours */
static int is_plugin_file(const char *file)
{
    size_t n = strlen(file), slot = strcspn(file, "-");
    if (n < 6 || strcmp(file + n - 3, ".so") != 0 || slot + 4 >= n)
        return 0;
    for (int i = 0; i < pbi_n_slots; i++)
        if (strlen(pbi_slots[i]) == slot && memcmp(pbi_slots[i], file, slot) == 0)
            return 1;
    return 0;
}

/* Plugin files of a folder, sorted; a missing folder has none. */
static int list_folder(const char *dir, strings *files)
{
    DIR *d = opendir(dir);
    int rc = 0;
    for (struct dirent *e; d && !rc && (e = readdir(d));)
        if (is_plugin_file(e->d_name))
            rc = add_string(files, e->d_name, strlen(e->d_name));
    if (d)
        closedir(d);
    if (files->n)
        qsort(files->s, (size_t)files->n, sizeof *files->s, by_name);
    return rc;
}

/* ---- one file ---------------------------------------------------------- */

typedef struct image {
    void *map;
    size_t n;
    uint64_t hash;
} image;

/* dlopen, debuggers and sanitizers read past the end of a truncated file; so its headers are
 * checked before. Section headers come last in the file. */
static int check_elf(const image *im, pb_err *err)
{
    const ElfW(Ehdr) *h = im->map;
    if (im->n < sizeof *h || memcmp(h->e_ident, ELFMAG, SELFMAG) != 0)
        return pbi_err(err, PB_E_PLUGIN, "not a shared object");
    if (h->e_ident[EI_CLASS] != (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32) ||
        h->e_type != ET_DYN || h->e_phentsize != sizeof(ElfW(Phdr)))
        return pbi_err(err, PB_E_PLUGIN, "not a shared object for this machine");
    size_t n = h->e_phnum;
    if (h->e_phoff > im->n || (im->n - h->e_phoff) / sizeof(ElfW(Phdr)) < n)
        return pbi_err(err, PB_E_PLUGIN, "truncated: %zu bytes end inside its program headers",
                       im->n);
    if (h->e_shoff > im->n || im->n - h->e_shoff < (size_t)h->e_shnum * h->e_shentsize)
        return pbi_err(err, PB_E_PLUGIN, "truncated: %zu bytes end before its section headers",
                       im->n);
    for (size_t i = 0; i < n; i++) {
        ElfW(Phdr) p;
        memcpy(&p, (const char *)im->map + h->e_phoff + i * sizeof p, sizeof p);
        if (p.p_type == PT_LOAD && (p.p_offset > im->n || im->n - p.p_offset < p.p_filesz))
            return pbi_err(err, PB_E_PLUGIN, "truncated: %zu bytes, segment %zu ends at %llu",
                           im->n, i, (unsigned long long)(p.p_offset + p.p_filesz));
    }
    return 0;
}

static int map_file(const char *path, image *im, pb_err *err)
{
    *im = (image){ 0 };
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
    if (fd < 0)
        return pbi_err(err, errno == ENOENT ? PB_E_INVAL : PB_E_IO, "%s", strerror(errno));
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size <= 0) {
        rc = pbi_err(err, PB_E_PLUGIN, "not a shared object");
    } else {
        im->n = (size_t)st.st_size;
        im->map = mmap(NULL, im->n, PROT_READ, MAP_PRIVATE, fd, 0);
        if (im->map == MAP_FAILED) {
            im->map = NULL;
            rc = pbi_err(err, PB_E_IO, "cannot map it: %s", strerror(errno));
        }
    }
    close(fd);
    if (!rc)
        rc = check_elf(im, err);
    if (!rc)
        im->hash = XXH3_64bits(im->map, im->n);
    return rc;
}

/* A copy in memory, reachable by a path that debuggers can open while we live. The file
 * descriptor stays open, so that the path is never given to other content. */
static int private_copy(const image *im, const char *file, char *path, size_t n, pb_err *err)
{
    char name[200];
    snprintf(name, sizeof name, "%.150s:%016llx", file, (unsigned long long)im->hash);
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0)
        return pbi_err(err, PB_E_IO, "cannot copy it to memory: %s", strerror(errno));
    for (size_t at = 0; at < im->n;) {
        ssize_t k = write(fd, (const char *)im->map + at, im->n - at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0) {
            int e = errno;
            close(fd);
            return pbi_err(err, PB_E_IO, "cannot copy it to memory: %s", strerror(e));
        }
        at += (size_t)k;
    }
    snprintf(path, n, "/proc/%ld/fd/%d", (long)getpid(), fd);
    return 0;
}

static void *open_object(const image *im, const char *path, const char *file, pb_err *err)
{
    char copy[64];
    const char *in_place = getenv("PATCHBAY_PLUGIN_COPY"), *what = path;
    if (!in_place || strcmp(in_place, "no") != 0) {
        pb_err why = { 0 };
        if (private_copy(im, file, copy, sizeof copy, &why) == 0 && access(copy, R_OK) == 0)
            what = copy;
        else { /* a system that forbids memory files, or has no /proc */
            snprintf(why.msg + strlen(why.msg), sizeof why.msg - strlen(why.msg),
                     "%s%.200s is opened in place; do not rebuild it while this runs",
                     why.code ? "; " : "", path);
            pbi_log(PB_LOG_WARN, NULL, NULL, why.msg);
        }
    }
    uint64_t before = pbi_fp_get();
    void *h = dlopen(what, RTLD_NOW | RTLD_LOCAL);
    uint64_t after = pbi_fp_get();
    if (!h) {
        const char *why = dlerror(), *text = why ? strstr(why, ": ") : NULL;
        pbi_err(err, PB_E_PLUGIN, "%s", text ? text + 2 : why ? why : "dlopen failed");
        return NULL;
    }
    if ((after ^ before) & PBI_FP_BITS) {
        pbi_fp_set(before);
        pbi_err(err, PB_E_PLUGIN,
                "changes the floating-point mode of the process when loaded (%llx -> %llx)%s",
                (unsigned long long)before, (unsigned long long)after,
                after & PBI_FP_FLUSH ? ": denormals become zero; link it without -ffast-math" : "");
        return NULL;
    }
    return h;
}

static const pb_plugin *find_descriptor(void *h, pb_err *err)
{
    void *sym = dlsym(h, "pb_plugin_v0");
    if (!sym) {
        for (int v = 1; v < 10; v++) {
            char name[24];
            snprintf(name, sizeof name, "pb_plugin_v%d", v);
            if (dlsym(h, name)) {
                pbi_err(err, PB_E_PLUGIN,
                        "built for plugin ABI %d, this patchbay speaks %d.%d; rebuild it against "
                        "this patchbay's headers",
                        v, PB_ABI_MAJOR, PB_ABI_MINOR);
                return NULL;
            }
        }
        pbi_err(err, PB_E_PLUGIN,
                "exports no pb_plugin_v0: not a plugin, or built without "
                "PB_PLUGIN");
        return NULL;
    }
    Dl_info info;
    void *extra = NULL;
    size_t avail = sizeof(pb_plugin);
    if (dladdr1(sym, &info, &extra, RTLD_DL_SYMENT) && extra)
        avail = ((const ElfW(Sym) *)extra)->st_size;
    return pbi_inspect_head(sym, avail, err) ? NULL : sym;
}

static const pbi_library *keep(const pb_plugin *desc, const char *path, uint64_t hash)
{
    const pbi_library **p = realloc(libs, (size_t)(n_libs + 1) * sizeof *p);
    if (!p)
        return NULL;
    libs = p;
    pbi_library *lib = calloc(1, sizeof *lib);
    char *own = strdup(path);
    if (!lib || !own) {
        free(lib);
        free(own);
        return NULL;
    }
    *lib = (pbi_library){
        .slot = desc->slot, .name = desc->name, .path = own, .hash = hash, .desc = desc
    };
    libs[n_libs++] = lib;
    return lib;
}

/* The file's name says what the INI will call it; two files must not claim one name. */
static int check_file_name(const char *path, const char *file, const pb_plugin *d, pb_err *err)
{
    char want[128], beside[4096];
    snprintf(want, sizeof want, "%s-%s.so", d->slot, d->name);
    if (strcmp(want, file) == 0)
        return 0;
    snprintf(beside, sizeof beside, "%.*s%s", (int)(file - path), path, want);
    if (access(beside, F_OK) == 0)
        return pbi_err(err, PB_E_PLUGIN,
                       "claims to be %s-%s, and so does %s; one of them needs another name",
                       d->slot, d->name, beside);
    return pbi_err(err, PB_E_PLUGIN, "says that it is %s-%s; rename the file to %s", d->slot,
                   d->name, want);
}

static int open_mapped(const char *path, const image *im, const pbi_library **out, pb_err *err)
{
    const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path;
    for (int i = 0; i < n_libs; i++)
        if (libs[i]->hash == im->hash && strcmp(libs[i]->path, built_in) != 0) {
            *out = libs[i];
            return check_file_name(path, file, libs[i]->desc, err);
        }
    const pb_plugin *own = NULL, *desc = NULL;
    void *h = open_object(im, path, file, err);
    if (h)
        own = find_descriptor(h, err);
    if (!own)
        return PB_E_PLUGIN;
    int rc = pbi_inspect_identity(own, err);
    if (!rc)
        rc = check_file_name(path, file, own, err);
    if (!rc)
        rc = pbi_inspect(own, &desc, err);
    if (rc)
        return rc;
    *out = keep(desc, path, im->hash);
    return *out ? 0 : pbi_err(err, PB_E_NOMEM, "out of memory");
}

int pbi_loader_open_file(const char *path, const pbi_library **out, pb_err *err)
{
    image im;
    *out = NULL;
    int rc = map_file(path, &im, err);
    if (!rc)
        rc = open_mapped(path, &im, out, err);
    if (im.map)
        munmap(im.map, im.n);
    if (rc) {
        *out = NULL;
        pbi_err_prefix(err, "%s", path);
    }
    return rc;
}

/* ---- built-in plugins -------------------------------------------------- */

static int open_static(const pb_plugin *d, const pbi_library **out, pb_err *err)
{
    for (int i = 0; i < n_libs; i++)
        if (strcmp(libs[i]->path, built_in) == 0 && strcmp(libs[i]->slot, d->slot) == 0 &&
            strcmp(libs[i]->name, d->name) == 0) {
            *out = libs[i];
            return 0;
        }
    const pb_plugin *desc = NULL;
    int rc = pbi_inspect_head(d, sizeof *d, err);
    if (!rc)
        rc = pbi_inspect(d, &desc, err);
    if (rc) {
        pbi_err_prefix(err, "%s-%s %s", d->slot, d->name, built_in);
        return rc;
    }
    uint64_t hash = XXH3_64bits(d->slot, strlen(d->slot));
    hash = XXH3_64bits_withSeed(d->name, strlen(d->name), hash);
    hash = XXH3_64bits_withSeed(d->version, strlen(d->version), hash);
    *out = keep(desc, built_in, hash);
    return *out ? 0 : pbi_err(err, PB_E_NOMEM, "out of memory");
}

static const pb_plugin *find_static(const char *slot, const char *name)
{
    for (const pb_plugin *const *p = pb_static_plugins; p && *p; p++)
        if (strcmp((*p)->slot, slot) == 0 && strcmp((*p)->name, name) == 0)
            return *p;
    return NULL;
}

/* ---- by name ----------------------------------------------------------- */

static int not_found(const char *slot, const char *name, const strings *dirs, pb_err *err)
{
    strings names = { 0 };
    char where[300] = "";
    for (const pb_plugin *const *p = pb_static_plugins; p && *p; p++)
        if (strcmp((*p)->slot, slot) == 0)
            add_string(&names, (*p)->name, strlen((*p)->name));
    for (int i = 0; i < dirs->n; i++) {
        strings files = { 0 };
        list_folder(dirs->s[i], &files);
        for (int k = 0; k < files.n; k++)
            if (strncmp(files.s[k], slot, strlen(slot)) == 0 && files.s[k][strlen(slot)] == '-')
                add_string(&names, files.s[k] + strlen(slot) + 1,
                           strlen(files.s[k]) - strlen(slot) - 4);
        free_strings(&files);
        size_t used = strlen(where);
        snprintf(where + used, sizeof where - used, "%s%s", i ? ", " : "", dirs->s[i]);
    }
    const char *near = pbi_nearest(name, (const char *const *)names.s, names.n);
    int rc =
        pbi_err(err, PB_E_INVAL, "no plugin '%.60s' for slot %s%s%s%s; looked in %s", name, slot,
                near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "", where);
    free_strings(&names);
    return rc;
}

static int open_by_name(const char *slot, const char *name, const pbi_library **out, pb_err *err)
{
    strings dirs = { 0 };
    int rc = search_path(&dirs), found = 0;
    if (rc)
        rc = pbi_err(err, rc, "out of memory");
    for (int i = 0; i < dirs.n && !rc && !found; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s-%s.so", dirs.s[i], slot, name);
        if (access(path, F_OK) == 0) {
            found = 1;
            rc = pbi_loader_open_file(path, out, err);
        }
    }
    if (!rc && !found)
        rc = not_found(slot, name, &dirs, err);
    free_strings(&dirs);
    return rc;
}

int pbi_loader_open(const char *slot, const char *name, const pbi_library **out, pb_err *err)
{
    *out = NULL;
    if (!pbi_slot_iface(slot))
        return pbi_err(err, PB_E_INVAL, "no slot '%.40s'", slot);
    if (strchr(name, '/')) {
        int rc = pbi_loader_open_file(name, out, err);
        if (!rc && strcmp((*out)->slot, slot) != 0) {
            rc = pbi_err(err, PB_E_INVAL, "%s: a plugin for slot %s, not for %s", name,
                         (*out)->slot, slot);
            *out = NULL;
        }
        return rc;
    }
    const pb_plugin *d = find_static(slot, name);
    return d ? open_static(d, out, err) : open_by_name(slot, name, out, err);
}

/* ---- all --------------------------------------------------------------- */

static int slot_index(const char *slot)
{
    int i = 0;
    while (i < pbi_n_slots && strcmp(pbi_slots[i], slot) != 0)
        i++;
    return i;
}

static int by_slot(const void *a, const void *b)
{
    const pbi_library *x = *(const pbi_library *const *)a, *y = *(const pbi_library *const *)b;
    int d = slot_index(x->slot) - slot_index(y->slot);
    return d ? d : strcmp(x->name, y->name);
}

typedef struct listing {
    const pbi_library **libs;
    int n;
} listing;

static int list_add(listing *l, const pbi_library *lib)
{
    for (int i = 0; i < l->n; i++) /* built-in ones win over files */
        if (strcmp(l->libs[i]->slot, lib->slot) == 0 && strcmp(l->libs[i]->name, lib->name) == 0)
            return 0;
    const pbi_library **p = realloc(l->libs, (size_t)(l->n + 1) * sizeof *p);
    if (!p)
        return PB_E_NOMEM;
    l->libs = p;
    p[l->n++] = lib;
    return 0;
}

int pbi_loader_list(const pbi_library *const **out, int *n,
                    void (*on_bad)(void *arg, const char *path, const pb_err *why), void *arg)
{
    static listing last; /* what the caller holds from before stays valid until the next call */
    listing l = { 0 };
    strings dirs = { 0 }, seen = { 0 };
    const pbi_library *lib;
    pb_err err = { 0 };
    int rc = search_path(&dirs);
    for (const pb_plugin *const *p = pb_static_plugins; p && *p && !rc; p++)
        if (open_static(*p, &lib, &err) == 0)
            rc = list_add(&l, lib);
        else if (on_bad)
            on_bad(arg, built_in, &err);
    for (int i = 0; i < dirs.n && !rc; i++) {
        strings files = { 0 };
        rc = list_folder(dirs.s[i], &files);
        for (int k = 0; k < files.n && !rc; k++) {
            char path[4096];
            if (contains(&seen, files.s[k])) /* the first folder of the search path wins */
                continue;
            rc = add_string(&seen, files.s[k], strlen(files.s[k]));
            snprintf(path, sizeof path, "%s/%s", dirs.s[i], files.s[k]);
            if (rc)
                break;
            if (pbi_loader_open_file(path, &lib, &err) == 0)
                rc = list_add(&l, lib);
            else if (on_bad)
                on_bad(arg, path, &err);
        }
        free_strings(&files);
    }
    free_strings(&dirs);
    free_strings(&seen);
    if (rc) {
        free(l.libs);
        return rc;
    }
    if (l.n)
        qsort(l.libs, (size_t)l.n, sizeof *l.libs, by_slot);
    free(last.libs);
    last = l;
    *out = (const pbi_library *const *)l.libs;
    *n = l.n;
    return 0;
}

const void *pbi_library_iface(const pbi_library *lib, const char *id)
{
    for (const pb_iface *i = lib->desc->ifaces; i && i->id; i++)
        if (strcmp(i->id, id) == 0)
            return i->vtbl;
    return NULL;
}
