# The tests that run in the virtual machine. Usage: tests.sh short|full
# What takes a moment elsewhere takes seconds here: see patience.ts. A property is tried a few times instead of many.
export TESTS_MUST_RUN=1 TEST_RUNS=4 TEST_PATIENCE=6 NO_COLOR=1

# One project of the tests, or those files of it that are named.
run() {
  name=$1
  project=$2
  shift 2
  start=$(cut -d. -f1 /proc/uptime)
  node node_modules/vitest/vitest.mjs run --project "$project" "$@" --reporter=verbose --reporter=json \
    --outputFile.json="/results/$name.json"
  status=$?
  [ -e "/results/$name.json" ] || echo "0 passed, 1 failed, 0 skipped" >"/results/$name.txt"
  echo "vm: $name ended with status $status, took $(($(cut -d. -f1 /proc/uptime) - start)) s"
}

run unified vm
case $1 in
# what is left out proves nothing of a kernel: undoing in its order, and reading an image
short) run kernel kernel --exclude '**/faults.test.ts' --exclude '**/erofs-tree.test.ts' ;;
full)
  run kernel kernel
  run system system
  ;;
esac
exit 0
