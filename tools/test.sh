#!/usr/bin/env bash
# C unit tests under ASan and UBSan, those with threads under TSan, and all once more for coverage, Go tests, then the Python tests, and those of
# packet threads once more under each sanitizer. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
reports=build/reports
mkdir -p "$reports"
# Twice as many as processors: tests wait most of their time. Each has an API server of its own: memory is the limit.
workers=$(($(nproc) < 4 ? 2 * $(nproc) : 8))
parallel=(-n "$workers" --dist worksteal)

# c_tests NAME TESTS EXCEPT CMAKE_OPTION...: TESTS are names as CMake has them, or `all`; EXCEPT is a pattern.
c_tests() {
    local name=$1 tests=$2 except=$3 wanted=.
    shift 3
    [ "$tests" = all ] || wanted="^(core|sim)\\.(${tests// /|})\$"
    cmake -S vpp-plugin -B "build/$name" -G Ninja -DPENSTOCK_TESTS=ON "$@" >/dev/null
    # shellcheck disable=SC2086 # several targets
    cmake --build "build/$name" --target $tests >/dev/null
    ctest --test-dir "build/$name" --output-on-failure --no-tests=error -j "$(nproc)" -R "$wanted" -E "$except" \
        --output-junit "$PWD/$reports/ctest-$name.xml" | tail -n 25
}

# sanitized NAME SANITIZERS: real traffic through a data plane whose extension has been built with them.
sanitized() {
    local build=build/extension-$1
    cmake -S vpp-plugin -B "$build" -G Ninja -DSKBUILD=ON -DPENSTOCK_SANITIZE="$2" -DCMAKE_C_COMPILER=gcc \
        -DCMAKE_CXX_COMPILER=g++ -DPython_EXECUTABLE="$PWD/$bin/python" \
        -Dnanobind_DIR="$("$bin/python" -m nanobind --cmake_dir)" >/dev/null
    cmake --build "$build" --target penstock_core >/dev/null
    PENSTOCK_SANITIZER=$1 "$bin/python" -m pytest -q "${parallel[@]}" -m sanitized --junitxml="$reports/pytest-$1.xml" tests/embedded
}

echo "== C tests: ASan, UBSan"
c_tests sanitized all '^$' -DCMAKE_C_COMPILER=clang -DPENSTOCK_SANITIZE=address,undefined
echo "== C tests: TSan"
c_tests threads "test_threads test_workers test_batches" '^$' -DCMAKE_C_COMPILER=clang -DPENSTOCK_SANITIZE=thread
echo "== C tests: coverage of the core"
find build -path '*/coverage/*' -name '*.gcda' -delete 2>/dev/null || true
# A process that is killed writes no counts.
c_tests coverage all "killed|torture" -DCMAKE_C_COMPILER=gcc -DPENSTOCK_COVERAGE=ON
gcovr --root . --filter 'vpp-plugin/core/' --print-summary --fail-under-line 90 \
    --txt "$reports/core-coverage.txt" build/coverage

echo "== Go tests"
tools/go_modules.sh go test ./...

echo "== Python tests"
rm -f .coverage*
"$bin/python" -m pytest "${parallel[@]}" --cov --cov-report= --junitxml="$reports/pytest.xml" "$@"
"$bin/python" -m coverage report --skip-covered --fail-under=85 | tail -n 40

echo "== Packet threads: ASan, UBSan"
sanitized address address,undefined
echo "== Packet threads: TSan"
sanitized thread thread
"$bin/python" -m tools.summary "$reports"/ctest-*.xml "$reports"/pytest*.xml
