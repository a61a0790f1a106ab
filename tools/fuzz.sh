#!/bin/sh
# Runs each fuzzer of a -Dfuzz=true build for so many seconds, from the committed corpus
# into a scratch one; a crash leaves its input in build/fuzz-found.
#     tools/fuzz.sh builddir seconds [name ...]
set -eu
cd "$(dirname "$0")/.."
dir=$1
seconds=$2
shift 2
if [ $# = 0 ]; then
    for program in "$dir"/tests/fuzz_*; do
        [ ! -f "$program" ] || set -- "$@" "${program##*/fuzz_}"
    done
fi
mkdir -p build/fuzz-found
status=0
for name; do
    mkdir -p "build/fuzz-corpus/$name" "tests/fuzz/corpus/$name"
    echo "== fuzz_$name for $seconds s"
    "$dir/tests/fuzz_$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -verbosity=0 -artifact_prefix="build/fuzz-found/$name-" "build/fuzz-corpus/$name" "tests/fuzz/corpus/$name" || status=1
done
exit $status
