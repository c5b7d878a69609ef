#!/usr/bin/env bash
# fuzz.sh SECONDS [TARGET...]: runs every fuzz target, or those named, that long from its committed corpus: libFuzzer on C
# under ASan and UBSan, on Python (control socket, files of models) by atheris, and in VPP where VPP is installed.
# As many run at a time as there are processors.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$1
shift
wanted=" $* "
skipped=()

configure() { # DIRECTORY CMAKE_ARGUMENT...
    cmake -S vpp-plugin -B "$1" -G Ninja -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Release \
        -DPENSTOCK_FUZZ=ON -DPENSTOCK_SANITIZE=address,undefined "${@:2}" >/dev/null
}

# fuzz NAME SEEDS COMMAND...: starts a target. What it finds is in build/fuzz, and its corpus grows in build/fuzz/corpus.
fuzz() {
    local name=$1
    [[ $wanted == "  " || $wanted == *" $name "* ]] || return 0
    while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do ended; done
    echo "fuzz: $name for $seconds s"
    try "$@" &
}

try() { # NAME SEEDS COMMAND...
    local name=$1 seeds=$2
    shift 2
    local corpus=build/fuzz/corpus/$name log=build/fuzz/$name.log
    mkdir -p "$corpus"
    if ! "$@" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 \
        -artifact_prefix=build/fuzz/ "$corpus" "$seeds" >"$log" 2>&1; then
        # What went wrong stands far above the statistics.
        grep -v '^#[0-9]' "$log" | head -n 100
        echo "fuzz: $name FAILED: the input is in build/fuzz/, everything it said in $log" >&2
        exit 1
    fi
    printf 'fuzz: %s\n%s\n' "$name" "$(grep '^stat::' "$log" || true)"
}

failed=0
ended() { # waits for the next target that ends
    wait -n || failed=1
}

skip() {
    echo "fuzz: $1 skipped: $2"
    skipped+=("$1")
}

configure build/fuzz
cmake --build build/fuzz >/dev/null
for name in fuzz_packet fuzz_arena fuzz_shm fuzz_weights; do
    fuzz "$name" "tests/core/corpus/$name" "build/fuzz/tests-core/$name"
done

if .venv/bin/python -c 'import atheris' 2>/dev/null; then
    fuzz fuzz_control tests/embedded/corpus/fuzz_control \
        env PYTHONPATH=. .venv/bin/python tests/embedded/fuzz_control.py -max_len=8192
    fuzz fuzz_model tests/agent/corpus/fuzz_model \
        env PYTHONPATH=. .venv/bin/python tests/agent/fuzz_model.py -max_len=8192
else
    skip "fuzz_control fuzz_model" "no atheris for this Python or machine"
fi

vpp=${PENSTOCK_VPP_PREFIX:-/usr}
if [ -x "$vpp/bin/vpp" ] && [ -e "$vpp/include/vlib/vlib.h" ]; then
    build=build/fuzz-vpp${vpp//\//-}
    # VPP's generator of API code wants the system's Python, with its `ply`.
    PATH="/usr/bin:$PATH" configure "$build" -DPENSTOCK_VPP=ON -DCMAKE_PREFIX_PATH="$vpp"
    PATH="/usr/bin:$PATH" cmake --build "$build" --target lb_rl_plugin >/dev/null
    fuzz fuzz_cli tests/vpp/corpus/fuzz_cli "$build/tests-vpp/fuzz_cli" -dict=tests/vpp/fuzz_cli.dict
    fuzz fuzz_api tests/vpp/corpus/fuzz_api "$build/tests-vpp/fuzz_api"
else
    skip "fuzz_cli fuzz_api" "no VPP in $vpp: install it and its headers, or name its prefix by PENSTOCK_VPP_PREFIX"
fi
while [ -n "$(jobs -p)" ]; do ended; done
[ ${#skipped[@]} -eq 0 ] || echo "fuzz: not run: ${skipped[*]}"
exit $failed
