#!/bin/sh
# SPDX-License-Identifier: MIT
# ref.sh - logits with f32 activations and f32 KV against tools/ref_llama.py, a float32
# computation of its own in NumPy: stories260K always, SmolLM2 where ./demo has fetched it (or
# PATCHBAY_MODEL names it). And the greedy text of SmolLM2 makes sense.
set -u
src=$(cd "${PATCHBAY_SRC:-.}" && pwd)
pb=$(cd "${PATCHBAY_BUILD:-.}" && pwd)/patchbay
data=${PATCHBAY_DATA:-$src/../shared/data}
[ -x "$pb" ] || { echo "$pb is not built"; exit 1; }
python=
for p in python3 /usr/bin/python3; do
    [ -n "$python" ] || { $p -c 'import numpy' 2>/dev/null && python=$p; }
done
[ -n "$python" ] || { echo "skipped: no python3 with numpy (python3-numpy)"; exit 77; }
stories=$data/models/stories260K/stories260K.gguf
smol=${PATCHBAY_MODEL:-${XDG_CACHE_HOME:-$HOME/.cache}/patchbay/SmolLM2-135M-Instruct.Q4_1.gguf}
[ -r "$stories" ] || [ -r "$smol" ] || { echo "skipped: neither $stories nor $smol is there"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

# close MODEL IDS LIMIT: largest difference of a logit, relative to the spread of its row
close() {
    echo "$2" >ids.json
    "$pb" score -m "$1" --ids ids.json --logits ours.npy --json --set backend.activations=f32 \
        --set backend.kv=f32 >out 2>err || { echo "FAIL: score: $(cat err)"; exit 1; }
    "$python" "$src/tools/ref_llama.py" "$1" ids.json ref.npy || exit 1
    "$python" -c "
import sys, numpy as np
a, b = np.load('ours.npy'), np.load('ref.npy')
assert a.shape == b.shape, (a.shape, b.shape)
worst = np.max(np.abs(a - b) / b.std(1, keepdims=True))
print('$(basename "$1"): %d tokens, largest difference %.2e of a row\'s spread, the limit is $3' % (len(a), worst))
sys.exit(not worst < $3 or not (a.argmax(1) == b.argmax(1)).all())" || { echo "FAIL: $1"; exit 1; }
}

[ -r "$stories" ] && close "$stories" '[1, 403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395]' 1e-4
if [ -r "$smol" ]; then
    close "$smol" '[1, 504, 3575, 282, 4649, 314, 7042, 30, 657, 314, 253, 9399, 6330, 28, 284, 351, 5345, 314]' 1e-4
fi
# the demo's model; another may have another opinion
if [ -r "$smol" ] && [ -z "${PATCHBAY_MODEL:-}" ]; then
    "$pb" run -m "$smol" -p 'The capital of France is' -n 24 >text 2>err || { cat err; exit 1; }
    echo "The capital of France is$(cat text)"
    grep -q Paris text || { echo "FAIL: no Paris"; exit 1; }
fi
echo "ref: all good"
