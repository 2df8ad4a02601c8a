#!/bin/sh
# Prints nodeseal-crates.inc: every crate of Cargo.lock that comes from crates.io, with its checksum. Run it after each change of Cargo.lock:
#   sh packaging/yocto/crates.sh > packaging/yocto/recipes-security/nodeseal/nodeseal-crates.inc
set -eu
lock=$(dirname "$0")/../../Cargo.lock
echo "# Made by packaging/yocto/crates.sh out of Cargo.lock."
awk -F'"' '
	/^\[\[package\]\]/ { name = version = "" }
	/^name = / { name = $2 }
	/^version = / { version = $2 }
	/^checksum = / {
		uris = uris "    crate://crates.io/" name "/" version " \\\n"
		sums = sums "SRC_URI[" name "-" version ".sha256sum] = \"" $2 "\"\n"
	}
	END { printf "SRC_URI += \" \\\n%s\"\n\n%s", uris, sums }
' "$lock"
