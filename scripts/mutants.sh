#!/bin/sh
# Changes one line after the other of the parts that are pure, and runs their unit tests: a change that no test notices is printed.
#
# usage: mutants.sh FOLDER [FILE…]
set -eu

[ $# -ge 1 ] || { echo "usage: $0 FOLDER [FILE…]" >&2; exit 64; }
cd "$(dirname "$0")/.."
folder=$1
shift
[ $# -gt 0 ] || set -- 'src/envelope/*.rs' 'src/types/*.rs' 'src/keyring/ring/*.rs' src/provider/observed.rs src/provider/lease.rs \
    src/provider/breaker.rs src/sandbox/needs.rs src/seal/protocol.rs
mkdir -p "$folder"
for file; do
    set -- "$@" --file "$file"
    shift
done
# Each test of these parts takes no time; what waits for one forever was changed into a loop. One at a time: a build takes all there is.
exec "${XDG_CACHE_HOME:-$HOME/.cache}/nodeseal/cargo-mutants/bin/cargo-mutants" mutants --no-shuffle --jobs 1 --output "$folder" \
    --no-default-features --features tpm2,vault --minimum-test-timeout 120 "$@" \
    -- --lib -- envelope:: types:: ring:: observed lease breaker needs protocol
