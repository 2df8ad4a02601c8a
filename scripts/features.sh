#!/bin/sh
# Each feature alone, and none: builds without a warning, and passes the library's tests. What combines features is `make test`.
#
# The tests that stop an operation of the state directory at every step are the same in each, and are left to `make test`.
#
# usage: features.sh [FEATURE…]
set -eu

cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- "" tpm2 pkcs11 vault aws azure
for feature; do
    echo "== ${feature:-none}"
    cargo clippy --quiet --all-targets --no-default-features --features "$feature" -- -D warnings
    cargo test --quiet --lib --bins --no-default-features --features "$feature" -- --skip crash::
done
