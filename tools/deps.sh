#!/bin/sh
# Installs the system packages Tenon needs, and says which and what for.
#     tools/deps.sh [--check] [build] [run] [test] [peer]     (default: build)
# --check only reports: exit status 0 when all is there, 1 when not.
# A package counts as present when what it is needed for works (a program, a
# library, a file), whoever installed it; only what is missing is asked of apt-get.
set -u
check=0
groups=
for arg; do
    case $arg in
    --check) check=1 ;;
    build | run | test | peer) groups="$groups $arg" ;;
    *) echo "usage: tools/deps.sh [--check] [build] [run] [test] [peer]" >&2; exit 2 ;;
    esac
done
groups=" ${groups:-build} "
case $groups in *" run "* | *" test "*) groups="$groups build " ;; esac

# group | probe | Debian package | what for
table='
build|cmd:cc|gcc|C compiler
build|hdr:stdio.h|libc6-dev|C library headers
build|hdr:linux/futex.h|linux-libc-dev|Linux headers (futex)
build|cmd:make|make|the commands in Makefile
build|cmd:python3|python3|Meson runs on it; scripts
build|cmd:meson|meson|build system
build|cmd:ninja|ninja-build|runs what Meson plans
build|cmd:pkg-config|pkg-config|finds libraries
build|pc:jansson|libjansson-dev|JSON: config.json, tokenizer.json, safetensors
build|pc:libpcre2-8|libpcre2-dev|regular expressions of tokenizers
build|pc:libutf8proc|libutf8proc-dev|Unicode normalisation and classes
run|py:pip|python3-pip|downloads the model package
run|file:/etc/ssl/certs/ca-certificates.crt|ca-certificates|secure downloads
test|py:pip|python3-pip|reference packages of the parity tests
test|py:ensurepip|python3-venv|keeps those packages out of the system
test|file:/etc/ssl/certs/ca-certificates.crt|ca-certificates|secure downloads
test|cmd:clang|clang|second compiler, for the sanitizer builds and fuzzers
test|clangrt:asan|libclang-rt-14-dev|run-time of clang sanitizers
test|cmd:clang-format|clang-format|layout check
test|cmd:g++|g++|the public headers as C++
test|cmd:git|git|which files are ours (layout check)
test|cmd:perl|perl|prove
test|cmd:mandoc|mandoc|manual page check
test|cmd:aarch64-linux-gnu-gcc|gcc-aarch64-linux-gnu|builds the NEON kernels
test|file:/usr/aarch64-linux-gnu/include/stdio.h|libc6-dev-arm64-cross|C library for that build
test|cmd:qemu-aarch64|qemu-user|runs the NEON tests
test|pc:zlib|zlib1g-dev|gzip files and pictures of the training examples
test|file:/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz|dataset-fashion-mnist|pictures that the examples learn from
peer|file:/usr/lib/python3/dist-packages/torch/__init__.py|python3-torch|training is compared with PyTorch (500 MB)
'

present() {
    case $1 in
    cmd:*) command -v "${1#cmd:}" >/dev/null 2>&1 ;;
    pc:*) pkg-config --exists "${1#pc:}" 2>/dev/null ;;
    file:*) [ -e "${1#file:}" ] ;;
    py:*) python3 -c "import ${1#py:}" >/dev/null 2>&1 ;;
    hdr:*) echo "#include <${1#hdr:}>" | cc -E - >/dev/null 2>&1 ;;
    clangrt:*) ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt."${1#clangrt:}"-*.a >/dev/null 2>&1 ||
        [ -n "$(find "$(clang -print-resource-dir 2>/dev/null)" -name "*rt*${1#clangrt:}*" 2>/dev/null | head -1)" ] ;;
    esac
}

missing=
old_ifs=$IFS
IFS='
'
for row in $table; do
    IFS='|'
    # shellcheck disable=SC2086
    set -- $row
    IFS=$old_ifs
    case $groups in *" $1 "*) ;; *) continue ;; esac
    present "$2" && continue
    case " $missing " in *" $3 "*) continue ;; esac
    [ -n "$missing" ] || echo "system packages needed:" >&2
    printf '  %-24s %s\n' "$3" "$4" >&2
    missing="$missing $3"
done
IFS=$old_ifs

if [ -z "$missing" ]; then
    echo "system packages: all there" >&2
    exit 0
fi
[ $check = 0 ] || exit 1
if ! command -v apt-get >/dev/null 2>&1; then
    echo "no apt-get here: install the above with this system's package manager" >&2
    exit 1
fi
sudo=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || { echo "become root, or install sudo, to install them" >&2; exit 1; }
    sudo=sudo
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
quiet() { "$@" >"$log" 2>&1 || { cat "$log" >&2; return 1; }; }
install() {
    # shellcheck disable=SC2086
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
}
echo "installing with apt-get ..." >&2
if ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 && install >"$log" 2>&1; then
    exit 0
fi
# No package lists, or lists too old to download from.
quiet $sudo apt-get update || exit 1
quiet install
