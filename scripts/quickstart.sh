#!/bin/sh
# Starts Nodeseal in a folder of its own with a software TPM, encrypts and decrypts a DEK through its socket, and prints what
# kube-apiserver needs. Everything stops and goes at the end.
#
# usage: quickstart.sh FOLDER_WITH_THE_PROGRAMS
set -eu

[ $# -eq 1 ] || { echo "usage: $0 FOLDER_WITH_THE_PROGRAMS" >&2; exit 64; }
nodeseal=$1/nodeseal
dir=$(mktemp -d "${TMPDIR:-/tmp}/nodeseal-quickstart.XXXXXX")
"$nodeseal" dev --dir "$dir" >"$dir.out" 2>&1 &
dev=$!
trap 'kill "$dev" 2>/dev/null || true; wait "$dev" 2>/dev/null || true; rm -rf "$dir" "$dir.out"' EXIT
trap 'exit 130' INT TERM

echo "starting nodeseald, nodeseal-sealer and a software TPM in $dir"
tries=600
until grep -q '^ready$' "$dir.out"; do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ] || ! kill -0 "$dev" 2>/dev/null; then
        cat "$dir.out" "$dir"/log/*.log >&2 || true
        exit 69
    fi
    sleep 0.1
done

config=$dir/nodeseal.toml
echo
echo "== nodeseal status --probe: a DEK encrypted and decrypted through the socket, the KEK sealed in the TPM"
"$nodeseal" status --probe --config "$config"
echo
echo "== nodeseal keys list"
"$nodeseal" keys list --config "$config"
echo
echo "== nodeseal encryption-config: put this into a file and give it to kube-apiserver with --encryption-provider-config"
"$nodeseal" encryption-config --config "$config"
echo
echo "To keep one running: $nodeseal dev --dir DIR"
