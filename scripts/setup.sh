#!/bin/bash
# Brings a checkout into a state in which squashd runs, or with --test in which the tests do. What is there already is left alone:
# the second time it needs no network and takes a moment.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"

want_tests=false
[ "${1:-}" = --test ] && want_tests=true

check_machine() {
  [ "$(uname -s)" = Linux ] || fail "squash needs Linux, this is $(uname -s)"
  command -v node >/dev/null || fail "there is no node; install Node.js 20 or newer with npm"
  command -v npm >/dev/null || fail "there is no npm; install Node.js 20 or newer with npm"
  local version major
  version=$(node --version) # v20.1.2; at each start, so without running a script, which takes longer
  major=${version#v}
  [ "${major%%.*}" -ge 20 ] || fail "Node.js $version is too old; 20 or newer is needed"
}

install_debian() {
  need_packages "${build_packages[@]}" "${run_packages[@]}"
  $want_tests && is_root || return 0
  need_packages "${test_packages[@]}"
  # the sanitizers' runtime has the compiler's version in its name
  need_packages "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
}

install_npm() {
  local stamp=node_modules/.setup-stamp
  is_newer "$stamp" package-lock.json package.json sdk/package.json daemon/package.json cli/package.json || return 0
  say "installing npm packages"
  npm ci --no-audit --no-fund --loglevel=error || fail "npm ci failed (above); is the package registry reachable? (npm config get registry)"
  touch "$stamp"
}

build() {
  local stamp=build/.build-stamp
  is_newer "$stamp" native/src native/seccomp native/Makefile sdk/src daemon/src cli/src test bench tsconfig.json tsconfig.base.json \
    ./*/tsconfig.json node_modules/.setup-stamp || [ ! -x native/build/sq-host ] || [ ! -e daemon/dist/main.js ] || return 0
  say "building native"
  make -s -C native || fail "the native part does not build (above)"
  say "building TypeScript"
  npx --no-install tsc -b || fail "the TypeScript does not build (above)"
  mkdir -p build
  touch "$stamp"
}

check_machine
install_debian
install_npm
build
