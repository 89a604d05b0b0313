#!/usr/bin/env bash
# Runs the native tests and fuzzers; writes one line "N passed, N failed" to <results>/native.txt.
# Usage: check.sh <build dir> <seconds for each fuzzer> <results dir>
set -u
build=$1 seconds=$2 results=$3
passed=0 failed=0
output=$("$build/test_native" 2>&1) || true
echo "$output"
if [[ $output =~ ([0-9]+)\ passed,\ ([0-9]+)\ failed ]]; then
  passed=${BASH_REMATCH[1]} failed=${BASH_REMATCH[2]}
else
  failed=1 # it crashed before it could count
fi
for target in session host netlink; do
  log="$build/fuzz_$target.log"
  if "$build/fuzz_$target" -max_total_time="$seconds" -max_len=4096 -timeout=5 -rss_limit_mb=1024 -artifact_prefix="$build/crash-$target-" \
    "$build/corpus/$target" >"$log" 2>&1; then
    echo "fuzz_$target: $(grep -o 'Done [0-9]* runs.*' "$log")"
    passed=$((passed + 1))
  else
    tail -n 40 "$log"
    failed=$((failed + 1))
  fi
done
echo "$passed passed, $failed failed" | tee "$results/native.txt"
[[ $failed -eq 0 ]]
