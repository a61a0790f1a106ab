#!/bin/sh
# The shared library exports tn_ names only; the static one defines only tn_ and tni_.
#     checksyms.sh [build directory]
set -eu
cd "$(dirname "$0")/../.."
dir=${1:-build}
failed=0
report() { # what, list
    [ -z "$2" ] && return
    echo "$1"
    echo "$2" | sed 's/^/  /' | head -20
    failed=1
}
report "$dir/libtenon.so exports what is not public:" \
    "$(nm -D --defined-only "$dir/libtenon.so" | awk '$3 !~ /^tn_/ { print $3 }')"
report "$dir/libtenon.a defines names outside tn_ and tni_:" \
    "$(nm -g --defined-only "$dir/libtenon.a" 2>/dev/null | awk 'NF == 3 && $3 !~ /^tni?_/ { print $3 }' | sort -u)"
missing=$(sed 's|/\*.*\*/||' include/tenon/*.h | grep -o '^TN_API[^;{]*' | grep -o 'tn_[a-z0-9_]*(' | tr -d '(' | sort -u |
    while read -r name; do
        nm -D --defined-only "$dir/libtenon.so" | grep -q " $name\$" || echo "$name"
    done)
report "declared in the public headers, but nowhere defined:" "$missing"
[ $failed = 0 ] && echo "exported symbols are the public names"
exit $failed
