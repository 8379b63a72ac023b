/* SPDX-License-Identifier: MIT
 *
 * core/stepbuild.c - one buffer, columns one after another, each on a cache line of its own so
 * that an upload or a vector load of a column needs no care.
 */
#include "stepbuild.h"
#include <stdlib.h>
#include <string.h>

enum { LINE = 64 };

/* where columns go; first pass counts, second pass writes */
typedef struct layout {
    uint64_t at;
} layout;

static uint32_t column(layout *l, uint64_t n, size_t each)
{
    uint64_t at = l->at;
    l->at = (at + n * each + LINE - 1) / LINE * LINE;
    return (uint32_t)at;
}

static int32_t *col(const pb_step *s, uint32_t offset)
{
    return (int32_t *)(void *)((char *)(uintptr_t)s + offset);
}

/* pages of group g that hold an item's positions */
static int64_t pages_needed(const pbi_step_builder *b, int32_t g, const pbi_step_item *it)
{
    int64_t end = it->seq->n_valid + it->n_tokens + it->n_draft;
    return (end + b->plan[g].page_tokens - 1) / b->plan[g].page_tokens;
}

static int grow(pbi_step_builder *b, size_t bytes, pb_err *err)
{
    size_t cap = b->cap ? b->cap : 4096;
    void *raw;
    if (bytes <= b->cap)
        return 0;
    while (cap < bytes)
        cap *= 2;
    raw = malloc(cap + LINE);
    if (!raw)
        return pbi_err(err, PB_E_NOMEM, "out of memory for a step of %zu bytes", bytes);
    free(b->raw);
    b->raw = raw;
    b->buf = (char *)(((uintptr_t)raw + LINE - 1) / LINE * LINE);
    b->cap = cap;
    return 0;
}

void pbi_step_builder_free(pbi_step_builder *b)
{
    free(b->raw);
    b->raw = NULL;
    b->buf = NULL;
    b->cap = 0;
}

static void count(const pbi_step_builder *b, int32_t n_items, const pbi_step_item *items,
                  pb_step *h, uint64_t *n_table)
{
    for (int32_t i = 0; i < n_items; i++) {
        const pbi_step_item *it = &items[i];
        h->n_rows += it->n_tokens + it->n_draft;
        h->n_out += it->n_tokens + it->n_draft - it->want_from;
        for (int32_t g = 0; g < b->n_groups; g++)
            *n_table += (uint64_t)pages_needed(b, g, it);
    }
}

static void place(pb_step *h, uint64_t n_table, layout *l)
{
    uint64_t rows = (uint64_t)h->n_rows, seqs = (uint64_t)h->n_seqs;
    column(l, 1, sizeof *h);
    h->token = column(l, rows, 4);
    h->pos = column(l, rows, 4);
    h->kv_pos = column(l, rows, 4);
    h->row_begin = column(l, seqs + 1, 4);
    h->slot = column(l, seqs, 4);
    h->adapter = column(l, seqs, 4);
    h->table_begin = column(l, (uint64_t)h->n_groups * (seqs + 1), 4);
    h->table = column(l, n_table, sizeof(pb_page));
    h->copy = column(l, (uint64_t)h->n_copies, sizeof(pb_copy));
    h->out_row = column(l, (uint64_t)h->n_out, 4);
    h->size = sizeof *h;
    h->bytes = (size_t)l->at;
}

static void write_rows(const pb_step *s, int32_t n_items, pbi_step_item *items)
{
    int32_t *token = col(s, s->token), *pos = col(s, s->pos), *kv_pos = col(s, s->kv_pos);
    int32_t *begin = col(s, s->row_begin), *out = col(s, s->out_row), row = 0, n_out = 0;
    for (int32_t i = 0; i < n_items; i++) {
        pbi_step_item *it = &items[i];
        const pb_seq *q = it->seq;
        int32_t n = it->n_tokens + it->n_draft;
        begin[i] = row;
        col(s, s->slot)[i] = q->slot;
        col(s, s->adapter)[i] = -1;
        it->first_out = n_out;
        memcpy(token + row, q->tokens + q->n_valid, (size_t)it->n_tokens * 4);
        if (it->n_draft)
            memcpy(token + row + it->n_tokens, it->draft, (size_t)it->n_draft * 4);
        for (int32_t k = 0; k < n; k++)
            pos[row + k] = kv_pos[row + k] = (int32_t)q->n_valid + k;
        for (int32_t k = it->want_from; k < n; k++)
            out[n_out++] = row + k;
        row += n;
    }
    begin[n_items] = row;
}

static int write_tables(const pbi_step_builder *b, const pb_step *s, int32_t n_items,
                        const pbi_step_item *items, pb_err *err)
{
    int32_t *begin = col(s, s->table_begin), *table = col(s, s->table), at = 0;
    const pbi_use *use = pbi_instance_use(b->att_in);
    void *self = pbi_instance_self(b->att_in);
    for (int32_t g = 0; g < b->n_groups; g++) {
        for (int32_t i = 0; i < n_items; i++) {
            int32_t need = (int32_t)pages_needed(b, g, &items[i]), n;
            *begin++ = at;
            PBI_CALL(b->st_table, n = b->att->table(self, items[i].seq, g, table + at, need));
            if (b->log)
                pbi_calls_print(b->att_in, "table", n, "seq %llu, group %d, cap %d: from page %d",
                                (unsigned long long)items[i].seq->id, g, need,
                                n > 0 ? table[at] : -1);
            if (n < need || n > need)
                return pbi_err(
                    err, PB_E_PLUGIN,
                    "%s-%s.table: seq %llu, group %d: %d pages, but %lld tokens in pages"
                    " of %d need %d",
                    use->slot, use->name, (unsigned long long)items[i].seq->id, g, n,
                    (long long)(items[i].seq->n_valid + items[i].n_tokens + items[i].n_draft),
                    b->plan[g].page_tokens, need);
            at += n;
        }
        *begin++ = at;
    }
    return 0;
}

int pbi_step_build(pbi_step_builder *b, uint64_t n, int32_t flags, int32_t n_items,
                   pbi_step_item *items, const pbi_pages *pages, const pb_step **out, pb_err *err)
{
    pb_step h = { .n = n, .n_seqs = n_items, .n_groups = b->n_groups, .flags = flags };
    const pb_copy *copies = pbi_pages_copies(pages, &h.n_copies);
    uint64_t n_table = 0;
    layout l = { 0 };
    int rc;
    count(b, n_items, items, &h, &n_table);
    place(&h, n_table, &l);
    if (l.at > UINT32_MAX)
        return pbi_err(err, PB_E_INTERNAL, "step of %llu bytes, at most %u",
                       (unsigned long long)l.at, UINT32_MAX);
    rc = grow(b, h.bytes, err);
    if (rc)
        return rc;
    memcpy(b->buf, &h, sizeof h);
    *out = (const pb_step *)(const void *)b->buf;
    write_rows(*out, n_items, items);
    if (h.n_copies)
        memcpy(b->buf + h.copy, copies, (size_t)h.n_copies * sizeof *copies);
    return write_tables(b, *out, n_items, items, err);
}
