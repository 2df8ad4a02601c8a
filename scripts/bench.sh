#!/bin/sh
# Measures nodeseald against a bare tonic echo server, both driven by the same Go client in turn.
#
# usage: bench.sh FOLDER_WITH_THE_PROGRAMS [FLAG OF THE BENCH ...]
set -eu

[ $# -ge 1 ] || { echo "usage: $0 FOLDER_WITH_THE_PROGRAMS [FLAG ...]" >&2; exit 64; }
bin=$(cd "$1" && pwd)
shift
here=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/nodeseal-bench.XXXXXX")
(cd "$here/tests/k8s" && CGO_ENABLED=0 go build -o "$dir/" ./cmd/bench ./cmd/start)
"$bin/nodeseal" dev --dir "$dir/dev" --json >"$dir/ready" 2>"$dir/err" &
dev=$!
"$bin/bare-echo" "$dir/echo.sock" &
echo=$!
trap 'kill "$dev" "$echo" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

tries=600
until [ -s "$dir/ready" ] && [ -S "$dir/echo.sock" ]; do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ] || ! kill -0 "$dev" 2>/dev/null; then
        cat "$dir/err" >&2
        exit 69
    fi
    sleep 0.1
done
daemon=$(sed 's/.*"nodeseald":\([0-9]*\).*/\1/' "$dir/ready")
"$dir/bench" -nodeseald-socket "$dir/dev/kms.sock" -nodeseald-pid "$daemon" -echo-socket "$dir/echo.sock" -echo-pid "$echo" "$@"

echo
"$dir/start" -nodeseald "$bin/nodeseald" -dev "$dir/dev"
