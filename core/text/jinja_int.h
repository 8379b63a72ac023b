/* SPDX-License-Identifier: MIT
 *
 * core/text/jinja_int.h - what the files of the template interpreter share: arena, values,
 * syntax tree. Invariant: all memory of a parse or a rendering is in one arena with a limit,
 * and an error leaves by longjmp to the entry, which frees that arena.
 */
#ifndef PBI_JINJA_INT_H
#define PBI_JINJA_INT_H
#include "jinja.h"
#include <setjmp.h>
#include <stdbool.h>

/* ---- arena and errors -------------------------------------------------- */

typedef struct jchunk {
    struct jchunk *next;
    size_t used, cap;
    _Alignas(16) char mem[];
} jchunk;

typedef struct jctx {
    jchunk *chunk;
    size_t bytes, max_bytes;
    int64_t steps;
    int depth, max_depth, line;
    const struct tm *now;
    pb_err *err;
    jmp_buf fail;
} jctx;

void *jx_alloc(jctx *c, size_t n); /* zeroed, aligned to 16 */
void jx_free_all(jctx *c);
_Noreturn void jx_fail(jctx *c, int code, const char *fmt, ...) PBI_PRINTF(3, 4);
void jx_steps(jctx *c, int64_t n);
void jx_enter(jctx *c); /* one level of nesting deeper */
static inline void jx_leave(jctx *c)
{
    c->depth--;
}

/* ---- values ------------------------------------------------------------ */

typedef enum jkind { J_UNDEF, J_NONE, J_BOOL, J_INT, J_FLOAT, J_STR, J_LIST, J_DICT, J_FUNC } jkind;

/* user: [n] marks, or NULL: all bytes have mark */
typedef struct jstr {
    const char *s;
    size_t n;
    const unsigned char *user;
    unsigned char mark;
} jstr;

typedef struct jval jval;
typedef struct jargs {
    int n, n_named;
    jval **v;
    jstr *name;
    jval **named;
} jargs;
typedef struct jfunc {
    const char *name;
    jval *(*fn)(jctx *c, jval *self, const jargs *a); /* builtin or method */
    jval *self;
    void *macro, *run; /* jnode of a macro or call block, its jscope and jrun */
    void *scope;
} jfunc;

struct jval {
    jkind kind;
    bool tuple, space; /* of a list; of a dict: namespace, may be written */
    union {
        int64_t i;
        double f;
        jstr s;
        struct {
            jval **v;
            size_t n, cap;
        } l;
        struct {
            jval **k, **v;
            size_t n, cap;
        } d;
        jfunc *fn;
        const char *undef; /* name, for messages */
    } u;
};

extern jval jv_none, jv_true, jv_false;
jval *jv_undef(jctx *c, const char *name, size_t n);
jval *jv_int(jctx *c, int64_t i);
jval *jv_float(jctx *c, double f);
static inline jval *jv_bool(bool b)
{
    return b ? &jv_true : &jv_false;
}
jval *jv_str(jctx *c, jstr s);
jval *jv_text(jctx *c, const char *s); /* literal of the program */
jval *jv_list(jctx *c);
void jv_push(jctx *c, jval *list, jval *v);
jval *jv_dict(jctx *c);
void jv_put(jctx *c, jval *dict, jval *k, jval *v);
jval *jv_get(jctx *c, const jval *dict, const jval *k);
jval *jv_get_text(jctx *c, const jval *dict, const char *k); /* NULL: none */
jval *jv_func(jctx *c, const char *name, jval *(*fn)(jctx *, jval *, const jargs *), jval *self);
jval *jv_from_json(jctx *c, const json_t *j, int mark);

bool jv_truth(const jval *v);
bool jv_equal(jctx *c, const jval *a, const jval *b);
int jv_compare(jctx *c, const jval *a, const jval *b, bool fold_case); /* error if no order */
bool jv_contains(jctx *c, const jval *in, const jval *v);
/* items of a list, keys of a dict, characters of a string, nothing of undefined */
jval *jv_iter(jctx *c, const jval *v);
const char *jv_type(const jval *v);
bool jv_number(const jval *v, double *f);
int64_t jv_length(jctx *c, const jval *v);

/* string building with marks */
typedef struct jbuf {
    char *s;
    unsigned char *user;
    size_t n, cap;
} jbuf;
void jb_put(jctx *c, jbuf *b, jstr s);
void jb_text(jctx *c, jbuf *b, const char *s);
void jb_byte(jctx *c, jbuf *b, char ch, unsigned char mark);
jstr jb_str(const jbuf *b);
jstr js_sub(jstr s, size_t from, size_t n);
bool js_is(jstr s, const char *t);
size_t js_char(jstr s, size_t at); /* bytes of the character at at */
jstr js_trim(jstr s, bool left, bool right, const jstr *set);
/* first place of t in s from byte `from`, or SIZE_MAX */
size_t js_find(jctx *c, jstr s, jstr t, size_t from);
jstr jv_print(jctx *c, const jval *v);                            /* Python's str() */
void jv_print_into(jctx *c, jbuf *b, const jval *v, bool quoted); /* quoted: repr() */
void jv_json(jctx *c, jbuf *b, const jval *v, const jargs *a);    /* jinja_json.c */

/* ---- names (jinja_lib.c) ----------------------------------------------- */

jval *jl_filter(jctx *c, jstr name, jval *v, const jargs *a);
bool jl_test(jctx *c, jstr name, jval *v, const jargs *a);
jval *jl_global(jctx *c, jstr name);             /* NULL: none */
jval *jl_method(jctx *c, jval *self, jstr name); /* NULL: none */
jval *jl_attr(jctx *c, jval *v, jstr name);      /* dict member, then method */
jval *jl_item(jctx *c, jval *v, const jval *key);
jval *jl_arg(const jargs *a, int i, const char *name); /* NULL: not given */
jval *jl_call(jctx *c, jval *f, const jargs *a);

/* arguments (jinja_method.c): by position or name; an error if it has another type */
bool jl_flag_arg(const jargs *a, int i, const char *name, bool def);
int64_t jl_int_arg(jctx *c, const jargs *a, int i, const char *name, int64_t def);
jstr jl_str_arg(jctx *c, const jargs *a, int i, const char *name);
jstr jl_as_str(jctx *c, const jval *v);
/* what filters and methods share */
enum { JL_LOWER, JL_UPPER, JL_TITLE, JL_CAPITAL };
jval *jl_recase(jctx *c, jstr s, int how);
jval *jl_replace(jctx *c, jstr s, jstr from, jstr to, int64_t count);
jval *jl_split_at(jctx *c, jstr s, jstr sep, int64_t max);
jval *jl_trimmed(jctx *c, jstr s, const jargs *a, bool left, bool right);
jval *jl_join(jctx *c, const jval *l, jstr sep, const jval *attr);
jval *jl_m_items(jctx *c, jval *self, const jargs *a);

/* ---- syntax tree (jinja_parse.c) --------------------------------------- */

typedef enum jtag {
    N_TEXT,
    N_OUT,
    N_BODY,
    N_IF,
    N_FOR,
    N_SET,
    N_SETBLOCK,
    N_MACRO,
    N_CALLBLOCK,
    N_FILTERBLOCK,
    N_BREAK,
    N_CONTINUE,
    N_LIT,
    N_NAME,
    N_ATTR,
    N_ITEM,
    N_SLICE,
    N_CALL,
    N_FILTER,
    N_TEST,
    N_BIN,
    N_AND,
    N_OR,
    N_NOT,
    N_NEG,
    N_POS,
    N_CMP,
    N_COND,
    N_LIST,
    N_TUPLE,
    N_DICT
} jtag;

typedef struct jnode jnode;
struct jnode {
    jtag tag;
    int line, n, n_named;
    int op; /* N_BIN, N_CMP (ops in opv); N_TEST: 1 = negated */
    jnode *a, *b, *c, *d;
    jnode **kid;        /* [n] */
    unsigned char *opv; /* N_CMP: [n - 1]; arguments: 1 = starred */
    jstr *name;         /* [n_named]; macro parameters */
    jnode **named;
    jstr s;
    jval *lit;
};

enum {
    OP_ADD = 1,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOOR,
    OP_MOD,
    OP_POW,
    OP_CAT,
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOTIN
};

struct pbi_jinja {
    jctx c; /* owns the tree */
    pbi_jinja_limits limits;
    jnode *root;
    char *source; /* names point into it */
};
jnode *jp_template(jctx *c, const char *src, size_t n);
jval *jv_arith(jctx *c, int op, jval *a, jval *b);
#endif
