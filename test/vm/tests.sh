# The tests that run in the virtual machine. Usage: tests.sh short|full
# What takes a moment elsewhere takes seconds here: see patience.ts. A property is tried a few times instead of many.
export TESTS_MUST_RUN=1 TEST_RUNS=4 TEST_PATIENCE=6 NO_COLOR=1

# Files that are left out prove nothing of a kernel: undoing in its order, and reading an image.
case $1 in
short) set -- test/vm daemon/test/kernel test/system/lifecycle --exclude '**/faults.test.ts' --exclude '**/erofs-tree.test.ts' ;;
full) set -- ;;
esac
# all in one run, as each would load vitest and the tests anew
start=$(cut -d. -f1 /proc/uptime)
node node_modules/vitest/vitest.mjs run --project vm --project kernel --project system --no-file-parallelism "$@" --reporter=verbose \
  --reporter=json --outputFile.json=/results/tests.json
status=$?
[ -e /results/tests.json ] || echo "0 passed, 1 failed, 0 skipped" >/results/tests.txt
echo "vm: the tests ended with status $status, took $(($(cut -d. -f1 /proc/uptime) - start)) s"
exit 0
