#!/bin/sh
# Measures nodeseald against a bare tonic echo server and against itself without its sandbox, all driven by the same Go client in turn.
#
# usage: bench.sh FOLDER_WITH_THE_PROGRAMS [FLAG OF THE BENCH ...]
set -eu

[ $# -ge 1 ] || { echo "usage: $0 FOLDER_WITH_THE_PROGRAMS [FLAG ...]" >&2; exit 64; }
bin=$(cd "$1" && pwd)
shift
here=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/nodeseal-bench.XXXXXX")
(cd "$here/tests/k8s" && CGO_ENABLED=0 go build -o "$dir/" ./cmd/bench ./cmd/start)
printf '[sandbox]\nmode = "off"\n' >"$dir/open.toml"
"$bin/nodeseal" dev --dir "$dir/dev" --json >"$dir/ready" 2>"$dir/err" &
dev=$!
"$bin/nodeseal" dev --dir "$dir/open" --config "$dir/open.toml" --json >"$dir/open-ready" 2>"$dir/open-err" &
open=$!
"$bin/bare-echo" "$dir/echo.sock" &
echo=$!
trap 'kill "$dev" "$open" "$echo" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

tries=600
until [ -s "$dir/ready" ] && [ -s "$dir/open-ready" ] && [ -S "$dir/echo.sock" ]; do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ] || ! kill -0 "$dev" 2>/dev/null || ! kill -0 "$open" 2>/dev/null; then
        cat "$dir/err" "$dir/open-err" >&2
        exit 69
    fi
    sleep 0.1
done
daemon() { sed 's/.*"nodeseald":\([0-9]*\).*/\1/' "$1"; }
"$dir/bench" -nodeseald-socket "$dir/dev/kms.sock" -nodeseald-pid "$(daemon "$dir/ready")" \
    -unconfined-socket "$dir/open/kms.sock" -unconfined-pid "$(daemon "$dir/open-ready")" -echo-socket "$dir/echo.sock" -echo-pid "$echo" "$@"

echo
"$dir/start" -nodeseald "$bin/nodeseald" -dev "$dir/dev"
