#!/usr/bin/env bash
# Runs the tests of the ops through the code and kernels of the GPU, without one: the kernels compiled for the processor
# (scripts/cuda_emulator.cpp), and `distill check`. Needs g++. With arguments, these go to cargo test, which is all.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
g++ -O2 -std=c++17 -shared -fPIC -Wall -Wno-sign-compare -Wno-unknown-pragmas -o "$folder/libcuda_emulator.so" \
    scripts/cuda_emulator.cpp -ldl
export DISTILL_CUDA_EMULATOR=$folder
if [ $# -gt 0 ]; then
    cargo test --release --locked "$@"
else
    cargo test --release --locked --test ops --test gradients --test parity --test bf16
    cargo test --release --locked --lib stages
    cargo test --release --locked --test resume a_batch_in_parts
    cargo run --release --locked -- check --device cpu
fi
