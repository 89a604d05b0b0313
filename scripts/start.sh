#!/bin/bash
# Sets up what is missing, makes a base module where there is none, and runs squashd in the foreground.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"

is_root || fail "squashd makes namespaces and mounts, which needs root; run: sudo npm start"
bash scripts/setup.sh

squashd=(node daemon/dist/main.js)
modules="${SQUASH_DATA_DIR:-${SQUASH_DATA:-/data}}/modules"

if ! compgen -G "$modules/000-*.squashfs" >/dev/null && ! compgen -G "$modules/000-*.erofs" >/dev/null; then
  say "making a base module: Debian, from this machine's package mirror (about a minute)"
  if ! "${squashd[@]}" mkbase debian; then
    say "no Debian base could be made (above); making one of BusyBox, which needs no network"
    "${squashd[@]}" mkbase busybox || fail "no base module could be made (above)"
  fi
fi
exec "${squashd[@]}"
