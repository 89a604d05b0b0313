# Shared by the scripts here: what they say, and how they get what they need.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export LC_ALL=C

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
fail() {
  printf '\033[31mCannot go on:\033[0m %s\n' "$*" >&2
  exit 1
}

is_root() { [ "$(id -u)" = 0 ]; }

# Debian packages, by what they are for.
build_packages=(gcc libc6-dev make musl-tools libseccomp-dev linux-libc-dev)
run_packages=(squashfs-tools erofs-utils e2fsprogs btrfs-progs busybox-static mmdebstrap nftables zstd)
test_packages=(attr clang conntrack llvm iproute2 openssl procps curl git wget python3-requests docker-registry
  radosgw ceph-mon ceph-osd
  golang-go default-jre-headless ecj) # for clients in sandboxes; ecj instead of a JDK, which takes 70 MB more
# what the measurements compare with
peer_packages=(bubblewrap runc podman mitmproxy)

# Prints those of the named packages that are not installed.
missing_packages() {
  # names that it does not know are told on its standard error, and are missing all the same
  local installed
  installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null || true)
  local name
  for name in "$@"; do
    grep -qx "$name installed" <<<"$installed" || printf '%s\n' "$name"
  done
}

# Installs what is missing of the named packages; asks the network only when something is.
need_packages() {
  local missing
  mapfile -t missing < <(missing_packages "$@")
  [ "${#missing[@]}" -gt 0 ] || return 0
  is_root || fail "these Debian packages are missing, and only root can install them: ${missing[*]}
  run: apt-get install ${missing[*]}"
  command -v apt-get >/dev/null || fail "there is no apt-get here; install by hand what these Debian packages hold: ${missing[*]}"
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  local log="$root/build/apt.log" options=(-y --no-install-recommends -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120)
  mkdir -p "$root/build"
  apt-get install "${options[@]}" "${missing[@]}" >"$log" 2>&1 && return 0
  # the lists are absent in a fresh image, and outdated in an old one
  apt-get update >"$log" 2>&1 && apt-get install "${options[@]}" "${missing[@]}" >>"$log" 2>&1 && return 0
  tail -n 15 "$log" >&2
  fail "apt-get could not install ${missing[*]} (above: the end of build/apt.log); mend that and start again"
}

# Whether a file or folder below any of the named ones is newer than the stamp, or the stamp is missing.
is_newer() {
  local stamp=$1
  shift
  [ -e "$stamp" ] || return 0
  [ -n "$(find "$@" -newer "$stamp" -print -quit 2>/dev/null)" ]
}
