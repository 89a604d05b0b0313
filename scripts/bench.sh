#!/bin/bash
# Measures squashd and its peers on this machine, and prints one table. Not a test: numbers depend on the machine.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"

is_root || fail "the measurements need root; run: sudo npm run bench"
bash scripts/setup.sh
need_packages "${peer_packages[@]}" "${test_packages[@]}"
npx --no-install tsc -b
# in a network namespace of its own, where squashd changes routes and firewall rules as it likes
exec unshare --net sh -c 'ip link set lo up && exec node build/test/bench/main.js'
