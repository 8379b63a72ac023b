/* SPDX-License-Identifier: MIT
 *
 * core/engine_plan.c - who runs in the next step: asks the scheduler, holds it to its contract,
 * makes room. No device, no sampling.
 *
 * Room is made oldest first, so that a victim (always younger than the one in need) is never in
 * the part of the step that is built already. Progress: the oldest running sequence gets its
 * pages or, when it is alone and the caches were dropped too, is failed with the reason.
 */
#include "engine_impl.h"
#include <string.h>

enum { DROPPED = 1 /* of an item: not in this step */, MAX_EMPTY = 1 << 20, MAX_STALLED = 2 };

/* ---- the view --------------------------------------------------------- */

static int64_t view_match(void *h, const pb_seq *s, int64_t *n_inflight)
{
    pbi_engine *e = h;
    int64_t n;
    *n_inflight = 0;
    PBI_SITE(&e->a_match, n = e->att->match(PBI_SELF(&e->a_match), s, n_inflight));
    PBI_LOG(&e->a_match, n, "seq %llu", (unsigned long long)s->id);
    return n;
}

static int64_t tokens_free(pbi_engine *e)
{
    const pbi_pages *p = pbi_runner_pages(e->o.runner);
    int64_t least = INT64_MAX;
    for (int32_t g = 0; g < pbi_pages_groups(p); g++) {
        int32_t idle;
        int64_t n;
        PBI_SITE(&e->a_idle, idle = e->att->idle(PBI_SELF(&e->a_idle), g));
        n = ((int64_t)pbi_pages_n_free(p, g) + idle) * pbi_pages_planned(p, g)->page_tokens;
        if (n < least)
            least = n;
    }
    return least == INT64_MAX ? 0 : least;
}

static void make_view(pbi_engine *e, pb_view *v)
{
    *v = (pb_view){ .size = sizeof *v,
                    .step = e->step + 1,
                    .now_ns = pbi_device_now(pbi_runner_opts(e->o.runner)->device),
                    .n_waiting = e->waiting.n,
                    .n_running = e->n_running,
                    .waiting = e->waiting.seq + e->waiting.head,
                    .running = e->running,
                    .max_rows = e->lim.max_rows,
                    .max_seqs = e->lim.max_seqs,
                    .n_slots_free = e->n_slots,
                    .max_draft = e->max_draft,
                    .n_tokens_free = tokens_free(e),
                    .h = e,
                    .match = view_match };
}

/* ---- the scheduler's contract ----------------------------------------- */

static int blame(pbi_engine *e, const pbi_site *site, int32_t i, const char *what, int64_t value,
                 int64_t limit)
{
    return pbi_err(&e->err, PB_E_PLUGIN, "scheduler-%s.%s: entry %d: %s is %lld, limit %lld",
                   pbi_instance_use(site->in)->name, site->function, i, what, (long long)value,
                   (long long)limit);
}

/* Place of s in running, or n_running + its place in waiting; -1: it is in neither, and may be
 * no sequence at all. Schedulers mostly name them in order: the place after the last is tried
 * first. */
static int32_t place(const pbi_engine *e, const pb_seq *s, int32_t last)
{
    int32_t at = last + 1, w = at - e->n_running;
    if (at < e->n_running && e->running[at] == s)
        return at;
    if (w >= 0 && w < e->waiting.n && e->waiting.seq[e->waiting.head + w] == s)
        return at;
    at = pbi_seq_index(e, s);
    if (at >= 0)
        return at;
    at = pbi_queue_find(&e->waiting, s, 0);
    return at < 0 ? -1 : e->n_running + at;
}

/* Checks entry i and notes its place. */
static int check_entry(pbi_engine *e, int32_t i)
{
    const pb_plan *p = &e->plan[i];
    int32_t at = place(e, p->seq, i ? e->age[i - 1] : -1);
    if (at < 0)
        return pbi_err(&e->err, PB_E_PLUGIN,
                       "scheduler-%s.next: entry %d names no sequence of the view",
                       pbi_instance_use(e->s_next.in)->name, i);
    if (pbi_seq_of(p->seq)->planned == e->step + 1)
        return blame(e, &e->s_next, i, "seq named twice, id", (int64_t)p->seq->id, 1);
    if (p->n_tokens < 1 || p->n_tokens > p->seq->n_left)
        return blame(e, &e->s_next, i, "n_tokens", p->n_tokens, p->seq->n_left);
    if (p->n_draft < 0 || p->n_draft > e->max_draft)
        return blame(e, &e->s_next, i, "n_draft", p->n_draft, e->max_draft);
    if (p->n_draft > 0 && p->n_tokens != p->seq->n_left)
        return blame(e, &e->s_next, i, "n_draft before the end of the tokens, n_tokens",
                     p->n_tokens, p->seq->n_left);
    pbi_seq_of(p->seq)->planned = e->step + 1;
    e->age[i] = at;
    return 0;
}

static int check_plan(pbi_engine *e, int32_t n)
{
    int32_t n_new = 0;
    int64_t rows = 0;
    if (n < 0 || n > e->lim.max_seqs)
        return blame(e, &e->s_next, 0, "count", n, e->lim.max_seqs);
    for (int32_t i = 0; i < n; i++) {
        int rc = check_entry(e, i);
        if (rc)
            return rc;
        n_new += e->age[i] >= e->n_running;
        rows += e->plan[i].n_tokens + e->plan[i].n_draft;
    }
    for (int32_t i = 0; i < n; i++) /* an empty step does not count up */
        pbi_seq_of(e->plan[i].seq)->planned = 0;
    if (rows > e->lim.max_rows)
        return blame(e, &e->s_next, n - 1, "rows of all", rows, e->lim.max_rows);
    if (n_new > e->n_slots)
        return blame(e, &e->s_next, n - 1, "new sequences", n_new, e->n_slots);
    return 0;
}

/* Running ones first, oldest first; then the new ones as the scheduler named them. Mostly they
 * are in order already: insertion sort. */
static void sort_plan(pbi_engine *e, int32_t n)
{
    for (int32_t i = 1; i < n; i++) {
        pb_plan p = e->plan[i];
        int32_t a = e->age[i], k = i;
        for (; a < e->n_running && k > 0 && e->age[k - 1] > a; k--) {
            e->plan[k] = e->plan[k - 1];
            e->age[k] = e->age[k - 1];
        }
        e->plan[k] = p;
        e->age[k] = a;
    }
}

/* ---- drafts ----------------------------------------------------------- */

static int check_drafts(pbi_engine *e, int32_t n)
{
    for (int32_t k = 0; k < n; k++) {
        const int32_t *d = e->draft + (size_t)k * (size_t)e->max_draft;
        if (e->spec_n[k] < 0 || e->spec_n[k] > e->spec_want[k])
            return pbi_err(&e->err, PB_E_PLUGIN,
                           "spec-%s.propose: seq %llu: %d proposals, asked "
                           "for %d",
                           pbi_instance_use(e->d_propose.in)->name,
                           (unsigned long long)e->spec_seq[k]->id, e->spec_n[k], e->spec_want[k]);
        for (int32_t j = 0; j < e->spec_n[k]; j++)
            if (d[j] < 0 || d[j] >= e->n_vocab)
                return pbi_err(&e->err, PB_E_PLUGIN,
                               "spec-%s.propose: seq %llu: proposal %d is token %d, the vocabulary "
                               "has %d",
                               pbi_instance_use(e->d_propose.in)->name,
                               (unsigned long long)e->spec_seq[k]->id, j, d[j], e->n_vocab);
    }
    return 0;
}

/* Proposals of the running sequences that may have some; draft_row[i]: row of plan i, or -1. */
static int propose(pbi_engine *e, int32_t n_plan)
{
    int32_t n = 0;
    int64_t budget = e->lim.max_out - n_plan;
    int rc;
    for (int32_t i = 0; i < n_plan; i++) {
        pb_plan *p = &e->plan[i];
        int64_t room = pbi_seq_of(p->seq)->limit - p->seq->n_tokens - 1, want = p->n_draft;
        want = want < room ? want : room;
        want = want < budget ? want : budget;
        p->n_draft = 0;
        e->draft_row[i] = -1;
        if (want < 1 || p->seq->state != PB_SEQ_RUNNING)
            continue;
        budget -= want;
        e->spec_seq[n] = p->seq;
        e->spec_want[n] = (int32_t)want;
        e->spec_n[n] = 0;
        e->draft_row[i] = n++;
    }
    if (!n)
        return 0;
    PBI_SITE(&e->d_propose, rc = e->spec->propose(PBI_SELF(&e->d_propose), n, e->spec_seq,
                                                  e->spec_want, e->draft, e->max_draft, e->spec_n));
    PBI_LOG(&e->d_propose, rc, "%d sequences, first seq %llu: %d of %d", n,
            (unsigned long long)e->spec_seq[0]->id, e->spec_n[0], e->spec_want[0]);
    if (rc < 0)
        return pbi_err(&e->err, rc, "spec-%s.propose failed (%d)",
                       pbi_instance_use(e->d_propose.in)->name, rc);
    rc = check_drafts(e, n);
    for (int32_t i = 0; i < n_plan && !rc; i++)
        if (e->draft_row[i] >= 0)
            e->plan[i].n_draft = e->spec_n[e->draft_row[i]];
    return rc;
}

/* ---- room ------------------------------------------------------------- */

static int reserve(pbi_engine *e, const pb_seq *s, int64_t n_end)
{
    int rc;
    PBI_SITE(&e->a_reserve, rc = e->att->reserve(PBI_SELF(&e->a_reserve), s, n_end));
    PBI_LOG(&e->a_reserve, rc, "seq %llu, n_end %lld", (unsigned long long)s->id, (long long)n_end);
    if (rc && rc != PB_E_FULL)
        return pbi_err(&e->err, rc < 0 ? rc : PB_E_PLUGIN,
                       "attention-%s.reserve: seq %llu up to %lld: failed (%d)",
                       pbi_instance_use(e->a_reserve.in)->name, (unsigned long long)s->id,
                       (long long)n_end, rc);
    return rc;
}

/* The sequence to preempt for s: index in running, -1: s waits, below: error. */
static int32_t choose_victim(pbi_engine *e, const pb_seq *s)
{
    int32_t at = pbi_seq_index(e, s), v;
    pb_view view;
    make_view(e, &view);
    PBI_SITE(&e->s_victim, v = e->sched->victim(PBI_SELF(&e->s_victim), &view, s));
    PBI_LOG(&e->s_victim, v, "needs seq %llu, %d running", (unsigned long long)s->id, e->n_running);
    if (v < -1 || v >= e->n_running || (v >= 0 && v <= at))
        return blame(e, &e->s_victim, 0, "index that is not younger than the needy one's: it", v,
                     at);
    /* the oldest may not wait for the younger ones */
    return v < 0 && at == 0 ? e->n_running - 1 : v;
}

/* s is alone and there is no room: drop the caches once, then give up on it. */
static int cannot_fit(pbi_engine *e, pbi_sequence *s, int64_t n_end)
{
    pbi_pages *p = pbi_runner_pages(e->o.runner);
    pb_err why = { 0 };
    int rc;
    if (!s->renewed) {
        s->renewed = 1;
        rc = pbi_seq_preempt(e, s, PB_REL_SWAPPED);
        return rc ? rc : pbi_runner_renew(e->o.runner, &e->err);
    }
    pbi_err(&why, PB_E_NOMEM,
            "no room for KV of %lld tokens: kv_bytes = %lld makes %d pages of %d tokens",
            (long long)n_end, (long long)pbi_runner_opts(e->o.runner)->kv_bytes,
            pbi_pages_planned(p, 0)->n_pages - 1, pbi_pages_planned(p, 0)->page_tokens);
    return pbi_seq_finish(e, s, PBI_DONE_ERROR, &why);
}

/* takes the victim's entry out of what is still to be built */
static void drop_entry(pbi_engine *e, int32_t n_plan, const pb_seq *s)
{
    for (int32_t i = 0; i < n_plan; i++)
        if (e->plan[i].seq == s)
            e->plan[i].seq = NULL;
}

/* Makes room for entry p of a running sequence. 0: it has it; DROPPED: not in this step. */
static int make_room(pbi_engine *e, pb_plan *p, int32_t n_plan)
{
    const pb_seq *s = p->seq;
    for (;;) {
        int64_t n_end = s->n_valid + p->n_tokens + p->n_draft;
        int rc = reserve(e, s, n_end);
        int32_t v;
        if (rc != PB_E_FULL)
            return rc;
        if (p->n_draft) { /* nobody is thrown out for a guess */
            p->n_draft = 0;
            continue;
        }
        if (e->n_running == 1) {
            rc = cannot_fit(e, pbi_seq_of(s), n_end);
            return rc ? rc : DROPPED;
        }
        v = choose_victim(e, s);
        if (v < 0)
            return v == -1 ? DROPPED : v;
        drop_entry(e, n_plan, e->running[v]);
        rc = pbi_seq_preempt(e, pbi_seq_of(e->running[v]), PB_REL_PREEMPTED);
        if (rc)
            return rc;
    }
}

/* A waiting sequence joins, or stays where it is when there is no room for it. */
static int join(pbi_engine *e, pb_plan *p)
{
    const pb_seq *s = p->seq;
    int64_t n_end;
    int rc = pbi_seq_admit(e, s, pbi_queue_find(&e->waiting, s, 0));
    if (rc)
        return rc;
    if (p->n_tokens > s->n_left)
        p->n_tokens = (int32_t)s->n_left;
    n_end = s->n_valid + p->n_tokens;
    rc = reserve(e, s, n_end);
    if (rc == PB_E_FULL && e->n_running == 1) {
        rc = cannot_fit(e, pbi_seq_of(s), n_end);
        return rc ? rc : DROPPED;
    }
    if (rc == PB_E_FULL) {
        rc = pbi_seq_preempt(e, pbi_seq_of(s), PB_REL_SWAPPED);
        return rc ? rc : DROPPED;
    }
    if (!rc && pbi_seq_of(s)->n_cached < 0) {
        pbi_seq_of(s)->t_admit = pbi_device_now(pbi_runner_opts(e->o.runner)->device);
        pbi_seq_of(s)->n_cached = s->n_valid < s->n_prompt ? s->n_valid : s->n_prompt;
        e->st.n_cached_tokens += pbi_seq_of(s)->n_cached;
        e->st.n_prompt_tokens += s->n_prompt;
    }
    return rc;
}

/* ---- items ------------------------------------------------------------ */

/* Which of its rows are wanted; *budget: wanted rows left beyond one for each sequence. What does
 * not fit is left to later steps. */
static void set_wanted(pbi_step_item *it, int64_t *budget)
{
    const pbi_sequence *s = pbi_seq_of(it->seq);
    int64_t from = it->n_tokens + it->n_draft, first = s->next_row - s->v.n_valid, over;
    if (it->n_tokens == it->seq->n_left && it->seq->n_tokens < s->limit)
        from = it->n_tokens - 1;
    if (s->v.flags & PB_SEQ_ALL_LOGITS)
        from = first < 0 ? 0 : first < from ? first : from;
    over = it->n_tokens + it->n_draft - from - 1 - *budget;
    if (over > 0 && it->n_draft) {
        int64_t n = over < it->n_draft ? over : it->n_draft;
        it->n_draft -= (int32_t)n;
        over -= n;
    }
    if (over > 0)
        it->n_tokens -= (int32_t)over;
    it->want_from = (int32_t)from;
    if (it->n_tokens + it->n_draft - from > 1)
        *budget -= it->n_tokens + it->n_draft - from - 1;
}

static void add_item(pbi_engine *e, const pb_plan *p, int32_t row, int64_t *budget)
{
    pbi_step_item *it = &e->items[e->n_items];
    *it = (pbi_step_item){ .seq = p->seq, .n_tokens = p->n_tokens, .n_draft = p->n_draft };
    if (p->n_draft)
        it->draft = e->draft + (size_t)row * (size_t)e->max_draft;
    set_wanted(it, budget);
    e->ids[e->n_items++] = p->seq->id;
}

static int build_items(pbi_engine *e, int32_t n)
{
    int64_t budget = e->lim.max_out - n, preempted = e->st.n_preempted;
    e->n_items = 0;
    for (int32_t i = 0; i < n; i++) {
        int rc, is_new;
        if (!e->plan[i].seq) /* a victim */
            continue;
        is_new = e->plan[i].seq->state == PB_SEQ_WAITING;
        if (is_new && e->st.n_preempted > preempted)
            break; /* a victim is older than they are */
        rc = is_new ? join(e, &e->plan[i]) : make_room(e, &e->plan[i], n);
        if (rc < 0)
            return rc;
        if (rc == DROPPED && (is_new || e->n_running == 0))
            break; /* nobody overtakes; and after a renewal nothing is as it was planned */
        if (rc == 0)
            add_item(e, &e->plan[i], e->draft_row[i], &budget);
    }
    return 0;
}

/* ---- nothing came of it ----------------------------------------------- */

/* The scheduler planned nothing although there is work. */
static int nothing_planned(pbi_engine *e)
{
    if (++e->n_empty < (e->n_running ? 1000 : MAX_EMPTY))
        return 0;
    return pbi_err(&e->err, PB_E_PLUGIN,
                   "scheduler-%s.next: planned nothing %d times with %d running and %d waiting",
                   pbi_instance_use(e->s_next.in)->name, e->n_empty, e->n_running, e->waiting.n);
}

/* All that was planned waits for pages that others hold: free some. */
static int nothing_fits(pbi_engine *e)
{
    if (++e->n_stalled < MAX_STALLED || e->n_running < 2)
        return 0;
    e->n_stalled = 0;
    return pbi_seq_preempt(e, pbi_seq_of(e->running[e->n_running - 1]), PB_REL_PREEMPTED);
}

int pbi_engine_plan(pbi_engine *e)
{
    pb_view v;
    int32_t n;
    int rc;
    e->n_items = 0;
    make_view(e, &v);
    PBI_SITE(&e->s_next, n = e->sched->next(PBI_SELF(&e->s_next), &v, e->plan, e->lim.max_seqs));
    PBI_LOG(&e->s_next, n, "step %llu, %d waiting, %d running, %lld tokens free",
            (unsigned long long)v.step, v.n_waiting, v.n_running, (long long)v.n_tokens_free);
    rc = check_plan(e, n);
    if (rc)
        return rc;
    if (n == 0)
        return nothing_planned(e);
    e->n_empty = 0;
    sort_plan(e, n);
    rc = propose(e, n);
    if (!rc)
        rc = build_items(e, n);
    if (rc)
        return rc;
    if (e->n_items == 0)
        return nothing_fits(e);
    e->n_stalled = 0;
    return 0;
}
