#!/bin/sh
# Lists our C files: what git knows, or, in an unpacked archive, what is there.
cd "$(dirname "$0")/.." || exit 1
{ git ls-files -- '*.c' '*.h' 2>/dev/null | grep . || find include src cmd tests bench examples tools -name '*.[ch]'; } |
    while read -r f; do [ -f "$f" ] && echo "$f"; done | sort
