#!/bin/bash
# Sets up what is missing and runs all tests; ends with a line "N passed, N failed, N skipped". Without root the tests that need it are
# skipped, and the lines before say what is missing; with TESTS_MUST_RUN=1, as in CI, that fails.
set -uo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root" || exit 1

bash scripts/setup.sh --test || fail "the set-up failed (above)"
rm -rf build/results
mkdir -p build/results

# One part of the run: its name, and the command. A part that leaves no result counts as one failure.
part() {
  local name=$1
  shift
  say "$name"
  "$@"
  local status=$?
  [ $status = 0 ] || say "$name: failed (status $status)"
  if ! compgen -G "build/results/$name.*" >/dev/null; then
    [ $status = 0 ] && echo "1 passed, 0 failed, 0 skipped" >"build/results/$name.txt"
    [ $status = 0 ] || echo "0 passed, 1 failed, 0 skipped" >"build/results/$name.txt"
  fi
}

# A project of the tests, or a share of it, as the part of that name.
vitest() {
  local name=$1 project=$2
  shift 2
  npx --no-install vitest run --project "$project" "$@" --reporter=default --reporter=json \
    --outputFile.json="build/results/$name.json"
}

# Begins a command beside what follows, whose output is shown when it is waited for.
declare -A begun
beside() {
  local lane=$1
  shift
  "$@" >"build/$lane.log" 2>&1 &
  begun[$lane]=$!
}
wait_for() {
  wait "${begun[$1]}"
  local status=$?
  unset "begun[$1]"
  cat "build/$1.log"
  return $status
}
# each is a group of processes, which end together
set -m
trap 'for one in "${begun[@]}"; do kill -- "-$one" 2>/dev/null; done' EXIT

checks() {
  part types npx --no-install tsc -b
  part style npx --no-install eslint .
  part format npx --no-install prettier --check --log-level warn .
  part imports npx --no-install depcruise daemon/src sdk/src cli/src --config .dependency-cruiser.cjs --output-type err
  part unused npx --no-install knip
  part unit vitest unit unit
  if is_root; then
    part native make -s -C native check "FUZZ_SECONDS=${FUZZ_SECONDS:-15}"
  fi
}

# Half of what makes sandboxes, by the names of the files.
half() { part "system-$1" vitest "system-$1" system "--shard=$1/2"; }
kernel_and_half() {
  part kernel vitest kernel kernel
  half 1
}

# Two at a time, as many a test only waits; beside both the machine, which takes what they leave of the processors.
beside vm env VM_SECONDS="${VM_SECONDS:-2700}" nice -n 5 bash scripts/test-vm.sh --short
beside kernel-and-half kernel_and_half
checks
half 2
wait_for kernel-and-half
part vm wait_for vm

is_root || say "skipped for lack of root: the native part, the kernel and system tests, the virtual machine; run: sudo npm test"
node scripts/sum-results.mjs build/results
