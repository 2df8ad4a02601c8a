#!/bin/sh
# Each feature alone, and none: builds without a warning, and passes all tests that there are for it. What combines features is
# `make test`.
#
# The tests that stop an operation of the state directory at every step are the same in each, and are left to `make test`.
#
# usage: features.sh [FEATURE…]
set -eu

cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- "" tpm2 tpm2,recovery pkcs11 vault aws azure etcd
for feature; do
    echo "== ${feature:-none}"
    cargo clippy --quiet --all-targets --no-default-features --features "$feature" -- -D warnings
    # What asks for features that this build lacks cannot be named.
    case $feature in
    tpm2,recovery) tests="--test tpm --test service" ;;
    tpm2) tests="--test tpm" ;;
    *) tests= ;;
    esac
    # shellcheck disable=SC2086 # a list of words
    scripts/tests.sh cargo test --quiet --no-fail-fast --lib --bins --test providers --test sandbox $tests \
        --no-default-features --features "$feature" -- --skip crash::
done
