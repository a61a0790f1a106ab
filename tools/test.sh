#!/bin/sh
# Everything that must pass, the cheap parts first; goes on after a failure, so that one
# run tells all. The last line counts: "N passed, M failed".
#     tools/test.sh [step ...]        steps: check unit asan py neon tsan (default: all)
# A TAP program counts by its checks, a script as one.
set -u
cd "$(dirname "$0")/.." || exit 1
steps=${*:-check unit py asan neon tsan}
passed=0
failed=0
bad=

count() { # name, passed, failed
    passed=$((passed + $2))
    failed=$((failed + $3))
    [ "$3" = 0 ] || bad="$bad $1"
}

one() { # name, command...: one result
    name=$1
    shift
    if "$@"; then count "$name" 1 0; else count "$name" 0 1; fi
}

# What Meson's log of a build directory says, in checks: "passed failed".
tally() {
    python3 - "$1" <<'PY'
import json, re, sys
good = bad = 0
try:
    lines = open(sys.argv[1] + "/meson-logs/testlog.json").read().splitlines()
except OSError:
    lines = []
for line in lines:
    t = json.loads(line)
    n = len(re.findall(r"^ok ", t.get("stdout") or "", re.M))
    m = len(re.findall(r"^not ok ", t.get("stdout") or "", re.M))
    fail = t["result"] not in ("OK", "SKIP", "EXPECTEDFAIL")
    good += n
    bad += max(m, 1) if fail else 0
print(good, bad)
PY
}

suite() { # make target, build directory
    rm -f "$2/meson-logs/testlog.json"
    if make --no-print-directory "$1"; then rc=0; else rc=1; fi
    # shellcheck disable=SC2046
    set -- "$1" $(tally "$2")
    [ $rc = 0 ] || [ "$3" != 0 ] || set -- "$1" "$2" 1
    count "$1" "$2" "$3"
}

pytests() {
    ls tests/py/test_*.py >/dev/null 2>&1 || return 0
    tools/venv.sh || { count py 0 1; return; }
    log=build/py.log
    TENON_PROGRAM=$PWD/build/tenon TENON_LIBRARY=$PWD/build/libtenon.so \
        build/venv/bin/python -m pytest -q -p no:cacheprovider --durations=8 tests/py 2>&1 | tee "$log"
    good=$(sed -n 's/.*[^0-9]\([0-9]\{1,\}\) passed.*/\1/p; s/^\([0-9]\{1,\}\) passed.*/\1/p' "$log" | tail -1)
    poor=$(grep -E ' in [0-9.]+s' "$log" | grep -oE '[0-9]+ (failed|errors?)' | awk '{ n += $1 } END { print n + 0 }')
    [ -n "$good" ] || [ "$poor" != 0 ] || poor=1
    count py "${good:-0}" "$poor"
}

tools/deps.sh build run test || exit 1
started=$(date +%s)
for step in $steps; do
    echo "== $step ($(($(date +%s) - started)) s)"
    case $step in
    check)
        make --no-print-directory all || { count build 0 1; break; }
        for check in checkdeps checkgen checkformat checkdocs checkheaders checksyms checkinstall; do
            one $check tools/checks/$check.sh
        done
        one checksize tools/checks/checksize.py
        one checkreadme tools/checks/checkreadme.py
        ;;
    unit) suite unit build ;;
    asan | neon | tsan) suite "$step" "build/$step" ;;
    py) pytests ;;
    *) echo "tools/test.sh: no step $step" >&2; exit 2 ;;
    esac
done
[ -z "$bad" ] || echo "failed in:$bad"
echo "took $(($(date +%s) - started)) s"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
