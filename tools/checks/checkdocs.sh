#!/bin/sh
# Every public function is documented: a comment of at least a few words directly above
# it (or above the unbroken run of declarations it stands in), or on its own line.
# Manual pages are checked by mandoc where it is installed.
set -eu
cd "$(dirname "$0")/../.."
status=0
for header in include/tenon/*.h; do
    awk -v file="$header" '
        function words(s) { gsub(/[\/*]/, " ", s); return split(s, w, /[ \t]+/) }
        /^[ \t]*$/ { covered = 0; next }
        in_comment { text = text " " $0 }
        !in_comment && /^[ \t]*\/\*/ { in_comment = 1; text = $0 }
        in_comment { if (/\*\//) { in_comment = 0; covered = words(text) >= 3 } next }
        /^TN_API/ { pending = $0; line = NR }
        !/^TN_API/ && pending != "" { pending = pending " " $0 }
        pending != "" && /;/ {
            c = index(pending, "/*")
            if (!covered && !(c && words(substr(pending, c)) >= 3)) {
                match(pending, /tn_[a-z0-9_]*\(/)
                print file ":" line ": " substr(pending, RSTART, RLENGTH - 1) " has no comment"
                bad = 1
            }
            pending = ""
        }
        END { exit bad }' "$header" || status=1
done
if command -v mandoc >/dev/null 2>&1; then
    for page in docs/*.1; do
        [ ! -e "$page" ] || mandoc -T lint -W warning "$page" || status=1
    done
fi
[ $status = 0 ] && echo "public functions are documented"
exit $status
