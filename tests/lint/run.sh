#!/bin/sh
# SPDX-License-Identifier: MIT
#
# tests/lint/run.sh - each check of `patchbay lint`, proved by a planted fault: a sed expression
# makes the fault in a real plugin's source, and lint must name it; untouched, the same sources
# are clean. A fault that no longer changes its source fails the test.
set -u
src=${PATCHBAY_SRC:?run by make check} build=${PATCHBAY_BUILD:?run by make check}
lint="$build/patchbay lint --strict --timeout 3"
work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
n=0 bad=0

# compile SOURCE.c OUT.so FOLDER-OF-THE-ORIGINAL FLAGS...
compile() {
    in=$1 out=$2 dir=$3
    shift 3
    common=
    case $in in
    *attention*) common="$src/plugins/attention-common/*.c" ;;
    *model-llama* | *weights-gguf*) common=$(ls "$dir"/*.c | grep -v "/test_\|/$(basename "${in%.c}" | sed 's/.*-//').c") ;;
    esac
    # shellcheck disable=SC2086
    ${CC:-cc} -std=c11 -O1 -ffp-contract=off -fPIC -shared -fvisibility=hidden -w \
        -I"$src/include" -I"$dir" "$@" -o "$out" "$in" $common -lm
}

source_of() {
    case $1 in
    scheduler-hello) echo "$src/examples/hello-plugin/hello.c" ;;
    kernels-hello) echo "$src/examples/hello-kernel/hello.c" ;;
    constraint-mask) echo "$src/tests/plugins/mask.c" ;;
    output-force) echo "$src/tests/plugins/force.c" ;;
    attention-nocopy) echo "$src/tests/plugins/nocopy.c" ;;
    *) echo "$src/plugins/$1/${1#*-}.c" ;;
    esac
}

say() {
    n=$((n + 1))
    test "$1" = ok || bad=$((bad + 1))
    echo "$1 $n - $2"
    test "$1" = ok || test -z "${3:-}" || echo "$3" | sed 's/^/# /'
}

clean() {
    for p in "$@"; do
        from=$(source_of "$p")
        cp "$from" "$work/$p.c"
        compile "$work/$p.c" "$work/$p.so" "$(dirname "$from")" || { say "not ok" "compile $p"; continue; }
        out=$($lint "$work/$p.so") && say ok "$p is clean" || say "not ok" "$p is clean" "$out"
    done
}

# fault PLUGIN CHECK 'what lint must say' 'sed expression' [flags]
fault() {
    p=$1 check=$2 want=$3 expr=$4
    shift 4
    from=$(source_of "$p")
    sed "$expr" "$from" >"$work/$p.c"
    if cmp -s "$from" "$work/$p.c" && test $# = 0; then
        say "not ok" "$p: $expr changes nothing"
        return
    fi
    if ! compile "$work/$p.c" "$work/$p.so" "$(dirname "$from")" "$@" 2>"$work/log"; then
        say "not ok" "$p with $expr does not compile" "$(head -5 "$work/log")"
        return
    fi
    out=$($lint --check "$check" "$work/$p.so" 2>&1)
    rc=$?
    if test $rc = 4 && echo "$out" | grep -q -- "$want"; then
        say ok "$check: $want"
    else
        say "not ok" "$check: exit $rc, expected 4 and '$want' for $p with $expr" "$out"
    fi
}

clean sampler-greedy sampler-chain spec-ngram scheduler-hello kernels-hello constraint-mask output-force

fault sampler-greedy elf 'exports helper' 's/^static int create/int helper __attribute__((visibility("default"))) = 1; &/'
fault sampler-greedy elf 'wants the symbol pbi_log' 's/^static int reset/void pbi_log(void); &/; s/g->warned = 0;/pbi_log();/'
fault sampler-greedy elf 'run path /build/of/somebody' '' -Wl,-rpath,/build/of/somebody
fault sampler-greedy elf 'constructors run' 's/^static int reset/static int many; __attribute__((constructor)) static void first(void) { many++; } &/'
fault sampler-greedy load 'exports no pb_plugin_v0' 's/^PB_PLUGIN = {/static const pb_plugin unseen = {/'
fault sampler-greedy load 'Segmentation fault' 's/^static int reset/__attribute__((constructor)) static void first(void) { *(volatile int *)8 = 1; } &/'
fault sampler-greedy tables 'does not begin with a number' 's/version = "0.1"/version = "one"/'
fault sampler-greedy tables 'PB_C_ENGAGED' 's/PB_C_ENGAGED/0/'
fault sampler-chain tables '80 fit a line' 's/summary = "penalties/summary = "penalties of every kind that one could possibly wish for and some more/'
fault spec-ngram tables 'has no maximum' 's/"8", "1", "64"/"8", "1", NULL/'
fault sampler-greedy lifecycle 'left [0-9]* bytes' 's/g->host->free(g->host, g);//'
fault sampler-chain lifecycle 'left [0-9]* bytes' 's/s->host->free(s->host, s->seen);//'
fault sampler-greedy lifecycle 'reset() after start' 's/g->warned = 0;/return -3;/'
fault sampler-chain lifecycle 'past the end of a block' 's/s->n_vocab = run->n_vocab;/& ((char *)s)[sizeof *s] = 0;/'
fault sampler-greedy lifecycle 'without a message' 's/^    \*self = g;/    return PB_E_NOMEM;/'
fault sampler-greedy instances 'share one self' 's/greedy \*g = host->alloc.*/static greedy *g; if (!g) g = host->alloc(host, sizeof *g, 0, "");/'
fault sampler-greedy nomem 'in create' 's/if (!g) {/if (0) {/'
fault sampler-chain nomem 'instead of PB_E_NOMEM' 's/return fail(err, PB_E_NOMEM, "no memory for the edits/return fail(err, PB_E_IO, "/'
fault sampler-chain nomem 'bytes leak' 's/if (s->count \&\& s->seen \&\& s->edits)/s->host->alloc(s->host, 9, 0, ""); &/'
fault sampler-chain configs 'in start' 's/s->window = (int32_t)window;/& if (s->cfg->top_k == 1000000) *(volatile int *)8 = 1;/'
fault sampler-chain configs 'no end after 3 s' 's/s->window = (int32_t)window;/& while (s->cfg->top_k == 1000000) { }/'

fault sampler-chain sampler 'in another slot' 's/q.seed;/q.seed + p[i].seq->id;/'
fault sampler-chain sampler 'alone than in a batch' 's/q.seed;/q.seed + (uint64_t)i;/'
fault sampler-chain sampler 'one seed' 's/if (q->has_seed)/if (0)/'
fault sampler-chain sampler 'ascending order' 's/w = 0; w < (s->n_vocab + 63) \/ 64; w++/w = (s->n_vocab + 63) \/ 64 - 1; w >= 0; w--/'
fault sampler-chain sampler 'writes past out' 's/for (int32_t i = 0; i < n; i++) {/out[n].seed = 1; &/'
fault sampler-chain sampler 'temperature' 's/out\[i\].temperature = q.temperature;/out[i].temperature = -1;/'
fault sampler-chain sampler "core's" 's/out\[i\].seed = q.seed;/& out[i].pos = 0;/'
fault sampler-chain sampler 'edits token' 's/.id = id,/.id = id + 400,/'
fault sampler-greedy sampler 'in draw' 's/g->st->drawn += n;/__builtin_trap();/'
fault sampler-greedy sampler 'no end after 3 s' 's/out\[i\].temperature = 0.0f;/for (;;) { }/'

fault constraint-mask constraint 'forbidden before' 's/&= keep;/= keep;/'
fault constraint-mask constraint 'masked differently' 's/p\[i\].n_tail, any/i, any/'
fault constraint-mask constraint 'outside of its' 's/m->st->rows += n;/bits[n * words] = 0; &/'
fault constraint-mask constraint 'nothing is ever forbidden' 's/"3", "0", "1000000"/"0", "0", "1000000"/'
fault spec-ngram spec 'were wanted' 's/if (cap > want\[i\])/if (0)/; s/if (cap > stride)/if (0)/'
fault spec-ngram spec 'of a vocabulary' 's/d\[src - n_tok\];/& d[k] += 7000;/'
fault spec-ngram spec 'nothing was proposed' 's/"2", "1", "64"/"60", "1", "64"/; s/"4", "1", "64"/"64", "1", "64"/'
fault output-force output 'may be lowered' 's/^static int check/static int more(void *self, pb_request *r) { r->max_new++; return 0; } &/; s/\.accept = accept/.request = more, .accept = accept/'
fault output-force output 'keeps' 's/v\[i\].forced = f->ids;/v[i].keep = 9; &/'
fault output-force output 'forces token' 's/"5 6 7"/"5 6000 7"/'

fault scheduler-hello scheduler 'rows planned' 's/s->n_left < v->max_rows ? s->n_left : v->max_rows/s->n_left/'
fault scheduler-hello scheduler 'tokens planned' 's/(int32_t)n }/(int32_t)n + 1 }/'
fault scheduler-hello scheduler 'nobody got rows' 's/v->n_running ? v->running\[0\] :/v->n_running \&\& v->step < 100 ? v->running[0] : v->n_running ? NULL :/'
fault scheduler-hello scheduler 'not younger' 's/? v->running\[0\]/? v->running[v->n_running - 1]/; s/return v->running\[v->n_running - 1\] == needs ? -1 : v->n_running - 1;/return 0;/; s/v->n_running ? v->running/v->n_running > 3 ? v->running/'
fault scheduler-hello scheduler 'neither waits nor runs' 's/st->steps++;/static pb_seq other; other.n_left = 9; out[0].seq = \&other; &/'
fault scheduler-hello scheduler 'planned twice' 's/return 1;/out[1] = out[0]; return 2;/'
fault scheduler-hello scheduler 'drafts' 's/(int32_t)n }/(int32_t)n, .n_draft = 9 }/'
fault scheduler-hello scheduler 'cap is' 's/return 1;/return 100;/'

# attention-nocopy is attention with a fault; told to copy, it is right
sed 's/copy, "no"/copy, "yes"/' "$src/tests/plugins/nocopy.c" >"$work/attention-nocopy.c"
compile "$work/attention-nocopy.c" "$work/attention-nocopy.so" "$src/tests/plugins" &&
    out=$($lint "$work/attention-nocopy.so") && say ok "attention-nocopy that copies is clean" ||
    say "not ok" "attention-nocopy that copies is clean" "$out"
fault attention-nocopy attention 'copy on write' ''  -DPLANTED
fault attention-nocopy attention 'at most' 's/copy, "no"/copy, "yes"/; s/cached_tokens += n;/& return 1000;/'
fault attention-nocopy attention 'other tokens\|nothing' 's/copy, "no"/copy, "yes"/; s/r->tokens\[n\] == s->tokens\[n\]/1/'
fault attention-nocopy attention 'holds' 's/copy, "no"/copy, "yes"/; s/n_good = n;/n_good = n + 1;/'
fault attention-nocopy attention 'full though\|references held' 's/copy, "no"/copy, "yes"/; s/pba_blocks_release(&c->b, s);//'
fault attention-nocopy attention 'were reserved' 's/copy, "no"/copy, "yes"/; s/s, g, out, cap);/s, g, out, cap > 1 ? 1 : cap);/'

fault kernels-hello linear 'the reference says' 's/acc = fmaf(w->d \* dx\[b\], (float)sum, acc);/acc += w->d * dx[b] * (float)sum;/'
fault kernels-hello linear 'the reference says' 's/acc = 0;/acc = 1e-9f;/'
fault kernels-hello linear 'writes row' 's/r < panel1; r++/r <= panel1 \&\& r < a->rows; r++/'
fault kernels-hello linear 'past packed_bytes' 's/^    return 0;$/    ((block *)dst)[at * (p[0].n_cols \/ B)].d = 1; return 0;/'
fault kernels-hello linear 'both write byte' 's/at < row0 || at >= row1/at < 0/'
fault kernels-hello linear 'stored is' 's/(c % B < B \/ 2/(c % B <= B \/ 2/'
fault kernels-hello linear 'the reference says' 's/c = p\[i\].col0; c < p\[i\].col0 + p\[i\].n_cols/c = 0; c < p[i].n_cols/'

fault model-llama model 'claims' 's/^static int match(const pb_meta \*m)$/static int match(const pb_meta *m) { return 1; } static int match2(const pb_meta *m)/'
fault model-llama model 'in build' 's/if (!match(m))/*(volatile int *)8 = 1; &/'
fault model-llama model 'without a reason' 's/if (!match(m))/& return PB_E_UNSUPPORTED; &/'
fault weights-gguf weights 'accepts a missing file' 's/int rc = map_file(g, path);/if (path[0]) return 0; &/'
fault weights-gguf weights 'in open' 's/int rc = map_file(g, path);/if (path[0]) *(volatile int *)8 = 1; &/'
fault weights-gguf weights 'fails without a reason' 's/int rc = map_file(g, path);/if (path[0]) return PB_E_IO; &/'

# backend FILE 'what lint must say' 'sed expression': the same in one file of backend-sim
backend() {
    rm -rf "$work/t"
    mkdir "$work/t"
    cp -R "$src/plugins/backend-sim" "$src/plugins/backend-common" "$work/t"
    chmod -R u+w "$work/t"
    sed "$3" "$src/plugins/backend-sim/$1" >"$work/t/backend-sim/$1"
    if cmp -s "$src/plugins/backend-sim/$1" "$work/t/backend-sim/$1"; then
        say "not ok" "backend-sim: $3 changes nothing"
        return
    fi
    ${CC:-cc} -std=c11 -O1 -ffp-contract=off -fPIC -shared -fvisibility=hidden -w -I"$src/include" \
        -o "$work/backend-sim.so" "$work"/t/backend-sim/[!t]*.c "$work/t/backend-common/draw.c" -lm
    out=$($lint --check backend "$work/backend-sim.so" 2>&1)
    rc=$?
    if test $rc = 4 && echo "$out" | grep -q -- "$2"; then
        say ok "backend: $2"
    else
        say "not ok" "backend: exit $rc, expected 4 and '$2' for $1 with $3" "$out"
    fi
}
backend cost.c 'accepts an unknown operation' 's/default:$/default: break;/'
backend step.c 'alone and in one step' 's/fill_row(x, o->hash\[i\],/fill_row(x, o->hash[i] + (uint64_t)i,/'
backend step.c 'was forced' 's/\*id = d->forced;/*id = 0;/'
backend sim.c 'in half of the bytes' 's/arena_bytes/no_bytes/g; s/uint64_t no_bytes,/uint64_t arena_bytes_, /; s/^    size_t n = 0;/    uint64_t no_bytes = UINT64_MAX; (void)no_bytes; &/'

# kvfmt 'what lint must say' 'sed expression': the same in backend-cpu's plain-C KV formats
kvfmt() {
    from=$src/plugins/backend-cpu/attend_ref.c
    sed "$2" "$from" >"$work/kv.c"
    if test -n "$2" && cmp -s "$from" "$work/kv.c"; then
        say "not ok" "attend_ref.c: $2 changes nothing"
        return
    fi
    ${CC:-cc} -std=c11 -O1 -ffp-contract=off -fPIC -shared -fvisibility=hidden -w -I"$src/include" \
        -I"$src/plugins/backend-cpu" -o "$work/kernels-kvref.so" "$src/tests/lint/kvref.c" "$work/kv.c" -lm
    out=$($lint --check kvfmt "$work/kernels-kvref.so" 2>&1)
    rc=$?
    if test "$rc" = "${3:-4}" && echo "$out" | grep -q -- "$1"; then
        say ok "kvfmt: $1"
    else
        say "not ok" "kvfmt: exit $rc, expected '$1' for attend_ref.c with $2" "$out"
    fi
}
kvfmt 'pass *kvfmt' '' 0
kvfmt 'row by row\|in double' 's/tok = p % a->page_tokens;/tok = (p + (row1 - row0 > 1)) % a->page_tokens;/'
kvfmt 'in double' 's/u.last = PB_STEP_COL(a->step, kv_pos)\[r\];/u.last = PB_STEP_COL(a->step, kv_pos)[0];/'
kvfmt 'outside of layer_bytes' 's/return cpu_kv_layer_bytes(s, page_tokens, ELEM);/return cpu_kv_layer_bytes(s, page_tokens, ELEM) - 64;/'
kvfmt 'after copy()' 's/(const char \*)src + v, (size_t)n_tokens/(const char *)src + v, (size_t)(n_tokens - 1)/'
kvfmt 'window 21' 's/u.first = cpu_first_key(a->window, u.last);/u.first = 0;/'
kvfmt 'row by row' 's/it->row0 + n \/ heads, h/it->row0 + n \/ heads + 0 * (u_n = it->n_rows), h/; s/\* a->scale;/* a->scale * (u_n > 1 ? 1.0000002f : 1.0f);/; s/^static void attend(/static int u_n; &/'

# and every plugin of this build is clean
for p in "$build"/.libs/*.so; do
    out=$("$build/patchbay" lint "$p" 2>&1) && say ok "${p##*/} passes" || say "not ok" "${p##*/} passes" "$out"
done

echo "1..$n"
test $bad = 0
