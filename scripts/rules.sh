#!/bin/sh
# Tries the alerts of packaging/monitoring: each fires in its own case, and none on a healthy day.
#
# usage: rules.sh
set -eu

[ $# -eq 0 ] || { echo "usage: $0" >&2; exit 64; }

promtool=$(command -v promtool) || promtool=${XDG_CACHE_HOME:-$HOME/.cache}/nodeseal/promtool/usr/bin/promtool
if ! [ -x "$promtool" ]; then
    echo "error: promtool is missing" >&2
    echo "hint: run scripts/need.sh rules" >&2
    exit 69
fi
cd "$(dirname "$0")/../packaging/monitoring"
"$promtool" check rules nodeseal.rules.yaml
"$promtool" test rules nodeseal.rules.test.yaml
