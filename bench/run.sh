#!/bin/sh
# Every measurement, one file each in build/bench-results. Takes half an hour and a machine
# with nothing else to do. The comparison with llama.cpp is left out when its peer cannot be built.
#     bench/run.sh [name ...]         names: fused node compile fold gemm quant train llm (default: all)
set -eu
cd "$(dirname "$0")/.."
out=build/bench-results
mkdir -p $out
[ $# -gt 0 ] || set -- fused node compile fold gemm quant train llm
for name in "$@"; do
    echo "== $name -> $out/$name.txt"
    case $name in
    llm)
        model=$(tools/fetch_smollm2.sh)
        peer=$(bench/peer_llama.sh) || { echo "no peer: left out"; continue; }
        python3 bench/bench_llm.py --model "$model" --peer "$peer/llama-bench" \
            --out $out/llm.jsonl | tee $out/llm.txt
        ;;
    train) # beside PyTorch (tools/deps.sh peer) and MLX (make test), where they are
        ninja -C build bench/bench_train >/dev/null
        bench/train_steps.py | tee $out/train.txt
        ;;
    fused | node | compile | fold | gemm | quant)
        ninja -C build "bench/bench_$name" >/dev/null
        "build/bench/bench_$name" | tee "$out/$name.txt"
        ;;
    *) echo "bench/run.sh: no measurement $name" >&2; exit 2 ;;
    esac
done
