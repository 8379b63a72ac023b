#!/bin/sh
# SPDX-License-Identifier: MIT
#
# tools/compatibility.sh PATCHBAY CONF - prints docs/compatibility.md: every plugin that swaps, alone
# and with every other, run on a tiny model. Run by `make compatibility`; the test suite compares.
# It fails when a plugin of one of these slots is not among the factors below.
set -eu
patchbay=$1
conf=$2
unset PATCHBAY_LOG
set -- \
	'attention=paged|contiguous|hash|radix' \
	'scheduler=continuous|static|chunked,scheduler.budget=16' \
	'sampler=greedy|chain,sampler.temperature=1' \
	'constraint=|grammar,constraint.grammar.text=root ::= [a-z ]*|json|regex,constraint.regex.pattern=[a-z ]*' \
	'spec=|ngram' \
	'process=inline|split' \
	'output=|brief,output.brief.max_tokens=5|budget,output.budget.tokens=4' \
	'backend=cpu|sim'
missing=$("$patchbay" plugins | awk '{ print $1, $2 }' |
	while read -r slot name; do
		case $slot in
		attention | scheduler | sampler | constraint | spec | process | output | backend)
			case " $* " in
			*"$slot="*"$name"*) ;;
			*) echo "$slot-$name" ;;
			esac ;;
		esac
	done)
if [ -n "$missing" ]; then
	echo "not among the factors of tools/compatibility.sh: $missing" >&2
	exit 1
fi
cat <<'EOF'
# Which plugins go together

Made by `make compatibility`: each plugin below alone (the diagonal) and with each of the others was
run on a tiny synthetic model, several requests at once, and its tokens and the hashes of its logits
were compared with those of the base pipeline (`attention=paged scheduler=continuous sampler=greedy
process=inline backend=cpu`, nothing else). The numbers above the columns are those of the rows.

EOF
"$patchbay" ablate "$conf/synthetic.ini" --pairs -f "$conf/requests/shared.jsonl" -n 12 --factors "$@"
