#!/bin/sh
# Shows for each line of src/sandbox/policy/ whether the tests execute it, and writes that down in executed.txt beside them.
#
# usage: seccomp.sh FOLDER_WITH_THE_PROGRAMS
#
# Both daemons run under strace(1) wherever the tests start them, by programs of their names in a folder of their own. What they
# do before their filter is in force counts for nothing. That takes some minutes, so it is no part of `make test`, which only holds
# the policy to what was written down.
set -eu

[ $# -eq 1 ] || { echo "usage: $0 FOLDER_WITH_THE_PROGRAMS" >&2; exit 64; }
bin=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$here"
dir=$(mktemp -d "${TMPDIR:-/tmp}/nodeseal-seccomp.XXXXXX")
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
# A daemon that has become another user starts nothing here, but its folder must let it read.
chmod 755 "$dir"
mkdir "$dir/programs" "$dir/real"
mkdir -m 1777 "$dir/logs"
cp "$bin/nodeseal" "$dir/programs/"
for program in nodeseald nodeseal-sealer; do
    cp "$bin/$program" "$dir/real/"
    # --daemonize: the daemon keeps its process id and its parent. Numbers instead of names: for whoever counts, and strace need not
    # read the daemon's memory. One filter has more instructions than strace shows by itself, and its last one tells which it is.
    cat >"$dir/programs/$program" <<EOF
#!/bin/sh
exec strace --daemonize=grandchild -f -qqq -s 0 -e signal=none -e 'raw=!seccomp,execve' -e 'abbrev=!seccomp' \\
    -o "$dir/logs/$program.\$\$" "$dir/real/$program" "\$@"
EOF
    chmod 755 "$dir/programs/$program"
done

failed=
try() {
    echo "== $*"
    "$@" >"$dir/output" 2>&1 || { failed="$failed
  $*"; grep -E '^test .*FAILED|^---- |panicked at|^--- FAIL' "$dir/output" || tail -n 20 "$dir/output"; }
}
# Tests that need a daemon's full speed, or copy the programs to a place of their own.
slow="--skip torture:: --skip floods:: --skip a_tpm_that_hangs --skip two_thousand_idle --skip root_becomes_the_configured_user"
# shellcheck disable=SC2086 # a list of words
{
    try scripts/quickstart.sh "$dir/programs"
    try env NODESEAL_PROGRAMS="$dir/programs" cargo test -q --test service -- $slow
    try env NODESEAL_PROGRAMS="$dir/programs" cargo test -q --test providers -- rooted:: kms_plugin:: wired::
    try env NODESEAL_BIN="$dir/programs" tests/k8s/run.sh e2e -run '^TestProvider'
}
# The probes last: they are told apart by the filters that the daemons were seen to set.
cargo test -q --test sandbox --no-run
try strace -f -qqq -s 0 -e signal=none -e 'raw=!seccomp,execve' -e 'abbrev=!seccomp' -o "$dir/logs/probes" \
    cargo test -q --test sandbox -- passes

# What is asked is whether a line was executed. A test whose time was up under strace can only have executed too little.
[ -z "$failed" ] || echo "not all tests passed under strace, so that calls may be missing:$failed"
python3 scripts/seccomp-count.py src/sandbox/policy "$dir/logs"
