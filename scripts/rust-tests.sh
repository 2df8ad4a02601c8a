#!/bin/sh
# Runs the tests of all packages, each with as many threads as it asks for.
#
# usage: rust-tests.sh
#
# A binary that mostly waits says `//! Threads: N for each processor.` in the first lines of its source; without it N is 1. All
# calls of cargo name the whole workspace: features are united over what is named, and a call that names one package builds
# everything once more.
set -eu

cd "$(dirname "$0")/.."
processors=$(nproc)
# A line for each binary of tests: N, and its name.
list() {
    find . -name target -prune -o -name Cargo.toml -print | while read -r manifest; do
        for source in "${manifest%Cargo.toml}"tests/*.rs "${manifest%Cargo.toml}"tests/*/main.rs; do
            [ -e "$source" ] || continue
            number=$(sed -n 's,^//! Threads: \([1-9]\) for each processor\.$,\1,p' "$source")
            if [ -z "$number" ] && grep -q '^//! Threads: ' "$source"; then
                echo "error: $source: what it says of threads cannot be read" >&2
                echo "hint: //! Threads: 2 for each processor." >&2
                exit 65
            fi
            case $source in
            */main.rs) source=${source%/main.rs} ;;
            esac
            echo "${number:-1} $(basename "$source" .rs)"
        done
    done
}
binaries=$(list)
binaries=$(echo "$binaries" | sort)
code=0
for number in $(echo "$binaries" | cut -d ' ' -f 1 | uniq); do
    set --
    [ "$number" -ne 1 ] || set -- --lib --bins
    for name in $(echo "$binaries" | sed -n "s/^$number //p"); do
        set -- "$@" --test "$name"
    done
    RUST_TEST_THREADS=$((number * processors)) scripts/tests.sh cargo test --workspace --no-fail-fast "$@" || code=$?
done
scripts/tests.sh cargo test --workspace --doc || code=$?
exit "$code"
