#!/bin/sh
# SPDX-License-Identifier: MIT
# run.sh - run and score as a user sees them, on a real small model: the members of their JSON,
# prompts of every odd kind, exit statuses, and that -p, --ids and -f agree.
set -u
pb=$(cd "${PATCHBAY_BUILD:-.}" && pwd)/patchbay
data=${PATCHBAY_DATA:-${PATCHBAY_SRC:-.}/../shared/data}
model=$data/models/stories260K/stories260K.gguf
[ -x "$pb" ] || { echo "$pb is not built"; exit 1; }
[ -r "$model" ] || { echo "skipped: $model is absent"; exit 77; }
command -v python3 >/dev/null || { echo "skipped: python3 reads the JSON"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0
fail() {
    echo "FAIL: $*"
    failed=1
}

# expect STATUS WORDS COMMAND...: exit status, and WORDS somewhere in the output
expect() {
    want=$1 words=$2
    shift 2
    "$pb" "$@" >out 2>err
    got=$?
    if [ "$got" != "$want" ] || ! grep -qF -- "$words" out err; then
        fail "patchbay $*: status $got, expected $want with '$words'; it said: $(cat out err)"
    fi
}

# json EXPRESSION: true of `out`, which is one JSON value d
json() {
    python3 -c "
import json, sys
d = json.load(open('out'))
r = d['requests'][0] if isinstance(d, dict) and d.get('requests') else None
sys.exit(0 if ($1) else 1)" || fail "not so: $1; $(head -c 600 out)"
}

# ---- run ----------------------------------------------------------------
expect 0 'output_ids' run -m "$model" -p 'Once upon a time' -n 12 --json
json "set(d) == {'requests', 'totals', 'plugins', 'pipeline', 'numeric_key'}"
json "set(r) >= {'prompt_ids', 'output_ids', 'text', 'finish_reason', 'cached_tokens', 'ttft_ms', 'tpot_ms', 'e2e_ms'}"
json "r['prompt_ids'] == [1, 403, 407, 261, 378] and len(r['output_ids']) == 12"
json "r['finish_reason'] == 'length' and r['text'].startswith(', there was a')"
json "0 < r['ttft_ms'] <= r['e2e_ms'] and abs(r['e2e_ms'] - r['ttft_ms'] - 11 * r['tpot_ms']) < 1e-6"
json "d['totals']['prompt_tokens'] == 5 and d['totals']['output_tokens'] == 12"
json "{p['slot'] for p in d['plugins']} >= {'model', 'weights', 'backend', 'attention', 'scheduler', 'sampler', 'process'}"
json "all(isinstance(p['memory_bytes'], int) for p in d['plugins'])"
json "next(p for p in d['plugins'] if p['slot'] == 'backend')['counters']['steps'] == d['totals']['steps']"
json "d['numeric_key'].startswith('cpu activations=q8 kv=f16')"
cp out first
expect 0 'output_ids' run -m "$model" --ids 1,403,407,261,378 -n 12 --json
json "r['output_ids'] == json.load(open('first'))['requests'][0]['output_ids']"
printf '{"prompt": "Once upon a time"}\n\n{"ids": [1, 403, 407, 261, 378], "max_tokens": 3}\n' >two.jsonl
expect 0 'output_ids' run -m "$model" -f two.jsonl -n 12 --json
json "r['output_ids'] == json.load(open('first'))['requests'][0]['output_ids']"
json "d['requests'][1]['output_ids'] == r['output_ids'][:3]"
"$pb" run -m "$model" -f - -n 12 --json <two.jsonl >out 2>err || fail "requests from stdin: $(cat err)"
json "len(d['requests']) == 2"
expect 0 ', there was a little girl' run -m "$model" -p 'Once upon a time' -n 12

# an end of text ends; --ignore-eos goes on
printf '{"prompt": "The end", "stop": [" "]}\n' >stop.jsonl
expect 0 'stop' run -m "$model" -f stop.jsonl --json
json "r['finish_reason'] == 'stop' and ' ' not in r['text']"
expect 0 'context' run -m "$model" -p 'Once' -n -1 --ignore-eos --json --set pipeline.context=64
json "r['finish_reason'] == 'context' and len(r['prompt_ids']) + len(r['output_ids']) == 64"

# an output plugin sees requests before they are sent, wherever the engine runs
for process in inline split; do
    expect 0 '' run -m "$model" -p 'Once' -n 50 --json --set output=brief \
        --set output.brief.max_tokens=5 --set process=$process
    json "len(r['output_ids']) == 5"
    json "next(p for p in d['plugins'] if p['slot'] == 'output')['counters']['lowered'] == 1"
    expect 0 '' run -m "$model" -p 'Once' -n 3 --json --set output=brief \
        --set output.brief.max_tokens=5 --set process=$process
    json "len(r['output_ids']) == 3"
    json "next(p for p in d['plugins'] if p['slot'] == 'output')['counters']['lowered'] == 0"
done

# odd prompts: a defined answer or a refusal that says why, never a crash
expect 0 '' run -m "$model" -p '' -n 2 --json
json "r['prompt_ids'] == [1] and len(r['output_ids']) == 2"
expect 2 'the prompt is empty' run -m "$model" -p '' --no-bos -n 2
expect 2 'the prompt is empty' run -m "$model" --ids '' -n 2
expect 0 '' run -m "$model" -p 'x' -n 0 --json
json "r['output_ids'] == [] and r['finish_reason'] == 'length' and r['ttft_ms'] is None"
expect 2 'prompt id 512 at index 1 is outside of the vocabulary 0..511' run -m "$model" --ids 1,512 -n 2
expect 2 '"-3" is no token id' run -m "$model" --ids 1,-3 -n 2
expect 2 'the prompt has 65 tokens, the context 64' run -m "$model" \
    --ids "1$(printf ',403%.0s' $(seq 64))" -n 2 --set pipeline.context=64
expect 0 '' run -m "$model" -p "$(printf 'a\377\376\300b')" -n 2 --json
json "len(r['output_ids']) == 2"

# one bad request does not take the others with it
printf '{"ids": [1, 9999]}\n{"ids": [1, 403], "max_tokens": 2}\n' >mixed.jsonl
expect 2 'request 0: prompt id 9999' run -m "$model" -f mixed.jsonl --json
json "r['finish_reason'] == 'error' and len(d['requests'][1]['output_ids']) == 2"

# mistakes in requests and on the command line
bad_line() {
    printf '{"prompt": "x"}\n%s\n' "$2" >bad.jsonl
    expect 2 "bad.jsonl:2: $1" run -m "$model" -f bad.jsonl -n 2
}
bad_line '"prompt" must be a text' '{"prompt": 3}'
bad_line 'unknown key "promt"; did you mean "prompt"?' '{"promt": "x"}'
bad_line 'a request has either "prompt" or "ids"' '{"prompt": "x", "ids": [1]}'
bad_line 'column' '{"prompt": '
bad_line 'a request is an object' '[1]'
bad_line 'temperature -1 is outside of 0..100' '{"prompt": "x", "temperature": -1}'
bad_line 'top_p 7 is outside of 0..1' '{"prompt": "x", "top_p": 7}'
bad_line 'repeat_penalty 0 is outside of 0.01..100' '{"prompt": "x", "repeat_penalty": 0}'
bad_line 'top_k -4 is outside of 0..1000000' '{"prompt": "x", "top_k": -4}'
bad_line '"max_tokens" must be a whole number' '{"prompt": "x", "max_tokens": 1.5}'
expect 2 'temperature -1 is outside' run -m "$model" -p x --temperature -1
expect 2 'top_k' run -m "$model" -p x --top-k -5
expect 2 '--seed' run -m "$model" -p x --seed -5
expect 2 '-n -7' run -m "$model" -p x -n -7
expect 2 'give one of' run -m "$model" -p x --ids 1
expect 2 'give one of' run -m "$model"
expect 2 'nothere.jsonl' run -m "$model" -f nothere.jsonl
expect 2 'nothere.gguf' run -m nothere.gguf -p x

# sampled text is the seed's
expect 0 '' run -m "$model" -p 'Once' -n 24 --seed 5 --temperature 1 --set sampler=chain --json
cp out seed5
expect 0 '' run -m "$model" -p 'Once' -n 24 --seed 5 --temperature 1 --set sampler=chain --json
json "r['output_ids'] == json.load(open('seed5'))['requests'][0]['output_ids']"
expect 0 '' run -m "$model" -p 'Once' -n 24 --seed 6 --temperature 1 --set sampler=chain --json
json "r['output_ids'] != json.load(open('seed5'))['requests'][0]['output_ids']"

# Ctrl-C: what was answered is printed, finish_reason abort
"$pb" run -m "$model" -p 'Once' -n 400 --ignore-eos --json --set backend.isa=any >out 2>err &
pid=$!
sleep 0.5
kill -INT $pid
wait $pid
[ $? -le 130 ] || fail "an interrupted run crashed: $(cat err)"
json "r['finish_reason'] in ('abort', 'length')"

# ---- score --------------------------------------------------------------
echo '[1, 403, 407, 261, 378]' >ids.json
printf 'Once upon a time' >text
expect 0 'perplexity' score -m "$model" --ids ids.json --logits a.npy --json
json "len(d['nll']) == 4 and all(x > 0 for x in d['nll'])"
json "abs(d['mean_nll'] - sum(d['nll']) / 4) < 1e-9 and abs(d['perplexity'] - __import__('math').exp(d['mean_nll'])) < 1e-6 * d['perplexity']"
cp out ids.out
expect 0 'perplexity' score -m "$model" -f text --json
json "d['nll'] == json.load(open('ids.out'))['nll']"
python3 - <<'PY' || fail "a.npy is no float32 [5, 512] of NumPy's format"
import ast, struct, sys, math, json
b = open("a.npy", "rb").read()
assert b[:8] == b"\x93NUMPY\x01\x00"
n = struct.unpack("<H", b[8:10])[0]
h = ast.literal_eval(b[10:10 + n].decode())
assert (10 + n) % 64 == 0 and h == {"descr": "<f4", "fortran_order": False, "shape": (5, 512)}, h
v = struct.unpack("<%df" % (5 * 512), b[10 + n:])
row = v[512:1024]
lse = max(row) + math.log(sum(math.exp(x - max(row)) for x in row))
assert abs(lse - row[407] - json.load(open("ids.out"))["nll"][1]) < 1e-5
PY
expect 2 'nothere.json' score -m "$model" --ids nothere.json
expect 2 '' score -m "$model"
[ $failed = 0 ] && echo "run: all good"
exit $failed
