#!/usr/bin/env bash
# Everything that is wrong without running anything. Each check runs even if one before it failed.
set -uo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
failed=()

check() {
    local name=$1
    shift
    printf '%-28s' "lint: $name"
    if output=$("$@" 2>&1); then
        echo ok
    else
        echo FAILED
        echo "$output"
        failed+=("$name")
    fi
}

c_files() { git ls-files --cached --others --exclude-standard '*.c' '*.h' '*.cpp'; }
check_format() { c_files | xargs "$bin/clang-format" --dry-run -Werror; }

# Both compilers must accept every C file without a warning, tests and fuzz targets included.
warnings_as_errors() {
    local compiler=$1
    shift
    cmake -S vpp-plugin -B "build/lint-$compiler" -G Ninja -DCMAKE_C_COMPILER="$compiler" \
        -DCMAKE_BUILD_TYPE=Debug -DPENSTOCK_WERROR=ON -DPENSTOCK_TESTS=ON -DPENSTOCK_BENCH=ON "$@" &&
        cmake --build "build/lint-$compiler"
}

check_tidy() {
    git ls-files --cached --others --exclude-standard 'vpp-plugin/core/*.c' 'vpp-plugin/embedded/*.c' \
        'vpp-plugin/sim/*.c' 'tests/core/*.c' 'tests/sim/*.c' |
        xargs -P "$(nproc)" -n 4 "$bin/clang-tidy" --quiet -p build/lint-clang
}

# The build of the Python extension knows where the headers of Python and nanobind are.
check_bindings() {
    local builds=(build/*-linux_*/compile_commands.json)
    [ -e "${builds[0]}" ] || { echo "the extension was not built: make build"; return 1; }
    git ls-files --cached --others --exclude-standard 'vpp-plugin/python/*.cpp' |
        xargs -P "$(nproc)" -n 1 "$bin/clang-tidy" --quiet -p "$(dirname "${builds[0]}")"
}

# The plugin needs VPP's headers, and those that are generated while it is built.
vpp=${PENSTOCK_VPP_PREFIX:-/usr}
check_plugin() {
    local build=build/lint-vpp${vpp//\//-}
    PATH="/usr/bin:$PATH" cmake -S vpp-plugin -B "$build" -G Ninja -DPENSTOCK_VPP=ON -DPENSTOCK_FUZZ=ON \
        -DCMAKE_PREFIX_PATH="$vpp" -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Debug &&
        PATH="/usr/bin:$PATH" cmake --build "$build" --target lb_rl_plugin lb_rl_xdp &&
        git ls-files --cached --others --exclude-standard 'vpp-plugin/vpp/*.c' 'tests/vpp/*.c' ':!vpp-plugin/vpp/xdp' |
        xargs -P "$(nproc)" -n 2 "$bin/clang-tidy" --quiet -p "$build"
}

check ruff "$bin/ruff" check .
check "ruff format" "$bin/ruff" format --check .
check mypy "$bin/mypy"
check import-linter "$bin/lint-imports"
check clang-format check_format
check "gcc -Werror" warnings_as_errors gcc
check "clang -Werror" warnings_as_errors clang -DPENSTOCK_FUZZ=ON
check clang-tidy check_tidy
check "clang-tidy, bindings" check_bindings
if [ -e "$vpp/include/vlib/vlib.h" ]; then
    check "VPP plugin" check_plugin
else
    printf '%-28s%s\n' "lint: VPP plugin" "skipped: no headers of VPP in $vpp (PENSTOCK_VPP_PREFIX)"
fi
check "go vet" tools/go_modules.sh go vet ./...
check "generated files" "$bin/python" -m tools.generate --check
check "references of docs" "$bin/python" -m tools.check_docs

if [ ${#failed[@]} -gt 0 ]; then
    echo "lint failed: ${failed[*]}" >&2
    exit 1
fi
