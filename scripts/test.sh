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

vitest() { npx --no-install vitest run --project "$1" --reporter=default --reporter=json --outputFile.json="build/results/$1.json"; }

# beside all others and first, as it takes the longest and waits for nothing of theirs
vm_log=build/vm-tests.log
VM_SECONDS=${VM_SECONDS:-2700} nice -n 5 bash scripts/test-vm.sh --short >$vm_log 2>&1 &
vm=$!
trap 'kill $vm 2>/dev/null' EXIT
part types npx --no-install tsc -b
part style npx --no-install eslint .
part format npx --no-install prettier --check --log-level warn .
part imports npx --no-install depcruise daemon/src sdk/src cli/src --config .dependency-cruiser.cjs --output-type err
part unused npx --no-install knip
part unit vitest unit
if is_root; then
  part native make -s -C native check "FUZZ_SECONDS=${FUZZ_SECONDS:-15}"
fi
part kernel vitest kernel
part system vitest system
wait_for_vm() {
  wait $vm
  local status=$?
  cat $vm_log
  return $status
}
part vm wait_for_vm

is_root || say "skipped for lack of root: the native part, the kernel and system tests, the virtual machine; run: sudo npm test"
node scripts/sum-results.mjs build/results
