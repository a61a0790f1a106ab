#!/bin/sh
# The dependency law: which folder may include what. Each row: a folder, then the
# prefixes its #include "..." lines may start with. Same-folder includes are allowed.
# A backend (cpu) sees the tables of ops and the program of eval, never their functions.
set -eu
cd "$(dirname "$0")/../.."
law='
include/tenon  tenon/
src/base  base/ tenon/status.h
src/core  core/ base/ tenon/
src/ops   ops/ core/ base/ tenon/
src/eval  eval/ core/ ops/ base/ tenon/
src/trans trans/ ops/ core/ eval/ base/ tenon/
src/io    io/ base/ core/ tenon/
src/cpu   cpu/ core/ base/ eval/program.h ops/prims.h ops/ew.h ops/ids.h ops/elementwise.def ops/reduce.def ops/prims.def tenon/
src/nn    nn/ io/ base/ tenon/
src/llm   llm/ io/ base/ tenon/
cmd       cmd/ base/ tenon/
examples  tenon/ common/
'
failed=0
for file in $(find include src cmd examples -name '*.[ch]' -o -name '*.def' | sort); do
    echo "$law" | awk -v file="$file" '
        NF && index(file, $1 "/") == 1 { for (i = 2; i <= NF; i++) allow[++n] = $i }
        END {
            if (!n) { print file ": in a folder the dependency law does not name"; exit 1 }
            while ((getline line < file) > 0) {
                at++
                if (line !~ /^[ \t]*#[ \t]*include[ \t]*"/) continue
                split(line, q, "\"")
                ok = (index(q[2], "/") == 0)
                for (i = 1; i <= n; i++) if (index(q[2], allow[i]) == 1) ok = 1
                if (!ok) { print file ":" at ": " q[2] " is not below this layer"; bad = 1 }
            }
            exit bad
        }' || failed=1
done
[ $failed = 0 ] && echo "includes obey the layers"
exit $failed
