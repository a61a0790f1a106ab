#!/bin/sh
# The shared library exports what the public headers declare, all of it and nothing else;
# the static one defines only tn_ and tni_ names.
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
names=$(mktemp)
trap 'rm -f "$names"' EXIT
sed 's|/\*.*\*/||' include/tenon/*.h | awk '/^TN_API/ { on = 1 } on { printf "%s ", $0 } /;/ { if (on) print ""; on = 0 }' |
    grep -o 'tn_[a-z0-9_]*(' | tr -d '(' | sort -u >"$names"
report "declared in the public headers, but nowhere defined:" \
    "$(nm -D --defined-only "$dir/libtenon.so" | awk '{ print $3 }' | sort -u | comm -23 "$names" -)"
report "exported, but in no public header:" \
    "$(nm -D --defined-only "$dir/libtenon.so" | awk '{ print $3 }' | sort -u | comm -13 "$names" -)"
[ $failed = 0 ] && echo "exported symbols are the public names, all declared ($(wc -l <"$names"))"
exit $failed
