#!/bin/sh
# trains.sh PROGRAM STEPS [ARGUMENT...]: a short run of a training example succeeds, its loss falls,
# and it leaves the curve as numbers and as a picture; a rate that is far too large stops it.
# Where its data is not installed: skipped.
set -u
program=$1
steps=$2
shift 2
name=${program##*/}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
echo 1..2
case $name in
train_mlp | train_cnn)
    if [ ! -f /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz ]; then
        echo "ok 1 - $name # SKIP Debian's dataset-fashion-mnist is not installed"
        echo "ok 2 - $name # SKIP the same"
        exit 0
    fi ;;
esac
good() {
    # TENON_TEST_RUN: an emulator, when the program is for another machine.
    # shellcheck disable=SC2086
    ${TENON_TEST_RUN:-} "$program" --steps "$steps" --out "$out/run" "$@" >"$out/text" 2>"$out/log" || return 1
    awk -F, -v steps="$steps" 'NR > 1 { v[++n] = $2 }
        END { for (i = 1; i <= 5; i++) { a += v[i]; b += v[n + 1 - i] } exit !(n == steps && b < 0.95 * a) }' "$out/run/loss.csv" || return 1
    [ "$(head -c 8 "$out/run/loss.png" | od -An -tx1 | tr -d ' ')" = 89504e470d0a1a0a ] && [ -s "$out/text" ]
}
if good "$@"; then
    echo "ok 1 - $name learns"
else
    echo "not ok 1 - $name learns"
    tail -3 "$out/log" >&2
    tail -5 "$out/run/loss.csv" >&2
fi
# The message is the last line, and nothing goes on as if all were well.
stops() {
    # shellcheck disable=SC2086
    ${TENON_TEST_RUN:-} "$program" --rate 1e30 --steps "$steps" --out "$out/wild" "$@" >"$out/text" 2>"$out/log" && return 1
    tail -1 "$out/log" | grep -q '^step [0-9]*: the loss is -\{0,1\}\(nan\|inf\)' && [ ! -s "$out/text" ]
}
if stops "$@"; then
    echo "ok 2 - $name stops when the loss is no number"
else
    echo "not ok 2 - $name stops when the loss is no number"
    tail -3 "$out/log" >&2
fi
