#!/bin/sh
# Measures what a Vault adds to a node, mode by mode, beside bare calls to the same Vault, and how a node wakes up with many KEKs of others.
#
# usage: bench-providers.sh FOLDER_WITH_THE_PROGRAMS [FLAG OF bench-providers ...]
#
# NODESEAL_SERVERS  folder with Vault, which tests/providers/build-vault.sh builds (default: nodeseal/servers in the user's cache)
set -eu

[ $# -ge 1 ] || { echo "usage: $0 FOLDER_WITH_THE_PROGRAMS [FLAG ...]" >&2; exit 64; }
bin=$(cd "$1" && pwd)
shift
here=$(cd "$(dirname "$0")/.." && pwd)
: "${NODESEAL_SERVERS:=${XDG_CACHE_HOME:-$HOME/.cache}/nodeseal/servers}"
[ -x "$NODESEAL_SERVERS/vault" ] || {
    echo "error: Vault is missing" >&2
    echo "hint: tests/providers/build-vault.sh $NODESEAL_SERVERS" >&2
    exit 69
}
dir=$(mktemp -d "${TMPDIR:-/tmp}/nodeseal-bench.XXXXXX")
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
(cd "$here/tests/k8s" && CGO_ENABLED=0 go build -o "$dir/" ./cmd/bench-providers ./cmd/plugin)
mkdir "$dir/run"
# What the start of a real kube-apiserver takes is measured where there is one (tests/k8s/build-servers.sh).
servers=
if [ -x "$NODESEAL_SERVERS/kube-apiserver" ] && [ -x "$NODESEAL_SERVERS/etcd" ]; then
    servers=$NODESEAL_SERVERS
else
    echo "no kube-apiserver in $NODESEAL_SERVERS: the time to its readyz is left out" >&2
fi
export NODESEAL_SERVERS
"$dir/bench-providers" -servers "$servers" -bin "$bin" -vault "$NODESEAL_SERVERS/vault" -plugin "$dir/plugin" -dir "$dir/run" "$@"
