#!/bin/sh
# The committed generated files are what tools/gen.c and build/tenon write today.
set -eu
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
tools/gen.sh "$tmp"
failed=0
[ -f "$tmp/docs/tenon.1" ] || { echo "docs/tenon.1 needs build/tenon (make all)"; failed=1; }
for made in $(cd "$tmp" && find . -type f | sed 's|^\./||'); do
    if ! cmp -s "$made" "$tmp/$made"; then
        echo "$made: not current (make gen)"
        diff "$made" "$tmp/$made" 2>&1 | head -5
        failed=1
    fi
done
[ $failed = 0 ] && echo "generated files are current"
exit $failed
