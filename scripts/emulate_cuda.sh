#!/usr/bin/env bash
# Runs the tests of the ops through the code and kernels of the GPU, without one: the kernels compiled for the processor
# (scripts/cuda_emulator.cpp). Needs g++. Arguments go to cargo test.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
g++ -O2 -std=c++17 -shared -fPIC -Wall -Wno-sign-compare -Wno-unknown-pragmas -o "$folder/libcuda_emulator.so" \
    scripts/cuda_emulator.cpp -ldl
[ $# -gt 0 ] || set -- --test ops --test gradients --test parity --test bf16
DISTILL_CUDA_EMULATOR=$folder cargo test --release --locked "$@"
