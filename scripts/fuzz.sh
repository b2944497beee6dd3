#!/usr/bin/env bash
# Fuzzes every parser for so many seconds each (60 if not said) and prints a table; fails if one of them crashed.
# Needs `cargo install cargo-fuzz` and a C++ compiler. What crashed a parser stays in tests/fuzz/artifacts/NAME.
#
#   scripts/fuzz.sh [SECONDS [NAME...]]
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
names=("${@:2}")
[ ${#names[@]} -gt 0 ] || mapfile -t names < <(cargo fuzz list --fuzz-dir tests/fuzz)

# Inputs pass through files: in memory, where the system has such a place.
scratch=$(mktemp -d "$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)/distill-fuzz-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
export TMPDIR=$scratch

# The stable compiler can instrument for coverage, but wants to be told that this is meant.
export RUSTC_BOOTSTRAP=1
FUZZ_CORPUS=$PWD/tests/fuzz/corpus cargo test -q --test hostile good_files > /dev/null
cargo fuzz build --fuzz-dir tests/fuzz -s none > "$scratch/build.log" 2>&1 || { cat "$scratch/build.log"; exit 1; }

failed=0
printf '%-16s %12s %10s  %s\n' parser inputs coverage result
for name in "${names[@]}"; do
    log=$scratch/$name.log result=ok
    cargo fuzz run --fuzz-dir tests/fuzz -s none "$name" -- -max_total_time="$seconds" -timeout=10 \
        -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 > "$log" 2>&1 || { result=CRASHED failed=1; }
    inputs=$(sed -n 's/^stat::number_of_executed_units: //p' "$log")
    coverage=$(grep -o 'cov: [0-9]*' "$log" | tail -1)
    printf '%-16s %12s %10s  %s\n' "$name" "${inputs:--}" "${coverage#cov: }" "$result"
    if [ $result != ok ]; then tail -20 "$log"; fi
done
exit $failed
