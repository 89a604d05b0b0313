#!/bin/bash
# Measures squashd and its peers on this machine, and prints one table. Not a test: numbers depend on the machine.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"

is_root || fail "the measurements need root; run: sudo npm run bench"
bash scripts/setup.sh
need_packages "${peer_packages[@]}"
npx --no-install tsc -b
exec node build/test/bench/main.js
