#!/bin/sh
# Runs a command of tests. If it fails, what failed and why is said again at the end: it stands thousands of lines further up.
#
# usage: tests.sh COMMAND [ARGUMENT…]
set -eu

[ $# -ge 1 ] || { sed -n 's/^# usage: /usage: /p' "$0" >&2; exit 64; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
code=0
{ "$@" 2>&1 || echo $? >"$folder/code"; } | tee "$folder/log"
[ ! -e "$folder/code" ] || code=$(cat "$folder/code")
if [ "$code" -ne 0 ]; then
    echo
    echo "$* failed with exit code $code. What failed, once more:"
    # cargo: what each test printed stands between "failures:" and the list of names. go: lines with FAIL and what a test logged last.
    sed -n '/^failures:$/,/^test result: /p' "$folder/log" | tail -n 80 | cut -c1-400
    grep -E '^(test .* \.\.\. FAILED|error(\[.*\])?: | *--- FAIL: |FAIL\b)' "$folder/log" | tail -n 40 | cut -c1-400
fi
exit "$code"
