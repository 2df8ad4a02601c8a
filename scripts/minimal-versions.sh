#!/bin/sh
# Builds the programs with the oldest versions of our own dependencies that Cargo.toml allows: what it says is enough has to be.
#
# usage: minimal-versions.sh TARGET-FOLDER
#
# What these depend on themselves is as new as can be, since that is not ours to say.
set -eu

[ $# -eq 1 ] || { echo "usage: $0 TARGET-FOLDER" >&2; exit 64; }
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
target=$(cd "$1" && pwd)
"$here/scripts/manifest.sh" "$target/sources"
cd "$target/sources"
# The tools of this repository are not what is shipped.
sed -i 's/^members = .*/members = []/' Cargo.toml
rm Cargo.lock
# The option is not a stable one yet; what it does is said in the file that it writes, and a build of it asks for nothing of the kind.
RUSTC_BOOTSTRAP=1 cargo -Zdirect-minimal-versions generate-lockfile
CARGO_TARGET_DIR=$target cargo check --locked --lib --bins
