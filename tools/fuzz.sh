#!/usr/bin/env bash
# fuzz.sh SECONDS: runs every libFuzzer target that long from its committed corpus, under ASan and UBSan.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$1
cmake -S vpp-plugin -B build/fuzz -G Ninja -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DPENSTOCK_FUZZ=ON -DPENSTOCK_SANITIZE=address,undefined >/dev/null
cmake --build build/fuzz >/dev/null
for target in build/fuzz/tests-core/fuzz_*; do
    [ -x "$target" ] && [ -f "$target" ] || continue
    name=$(basename "$target")
    corpus=build/fuzz/corpus/$name
    mkdir -p "$corpus" "build/fuzz/seed/$name"
    seeds=tests/core/corpus/$name
    [ -d "$seeds" ] || seeds=build/fuzz/seed/$name
    echo "fuzz: $name for $seconds s"
    log=build/fuzz/$name.log
    if ! "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 \
        -artifact_prefix=build/fuzz/ "$corpus" "$seeds" >"$log" 2>&1; then
        # What went wrong stands far above the statistics.
        grep -v '^#[0-9]' "$log" | head -n 100
        echo "fuzz: $name FAILED: the input is in build/fuzz/, everything it said in $log" >&2
        exit 1
    fi
    grep '^stat::' "$log"
done
