#!/bin/bash
# Runs tests in a virtual machine that is what many users have, and this machine may not be: Debian's kernel, and control groups of
# version 2 only. QEMU emulates its processor, so that no KVM is needed. Ends with a line "N passed, N failed, N skipped", which is
# also in build/results/vm.txt; what the machine said is in build/vm/console.log.
# Usage: test-vm.sh [--short]     with --short the part of the tests that continuous integration runs
# VM_SECONDS is how long the tests may take.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"

tests=full
seconds=${VM_SECONDS:-3000}
case "${1:-}" in
--short)
  tests=short
  seconds=${VM_SECONDS:-900}
  ;;
"") ;;
*) fail "there is no $1; the only option is --short" ;;
esac

vm=build/vm
kernel=$vm/kernel
console=$vm/console.log
image=linux-image-cloud-amd64
packages=(attr qemu-system-x86 busybox-static nftables iproute2 e2fsprogs btrfs-progs erofs-utils squashfs-tools kmod procps util-linux)
qemu_pid=

main() {
  [ "$(uname -m)" = x86_64 ] || skip "the virtual machine has an x86-64 processor, and runs this machine's programs"
  is_root || [ -z "$(missing_packages "${packages[@]}")" ] || skip "only root can install $(missing_packages "${packages[@]}" | xargs)"
  need_packages "${packages[@]}"
  bash scripts/setup.sh
  mkdir -p $vm build/results
  exec 9>$vm/lock
  flock -n 9 || fail "another run of this script is going on"
  trap clean_up EXIT
  get_kernel
  prepare_modules
  make_first_root
  make_disk
  run_machine
  report
}

# The tests cannot run here, which is no failure by itself: see scripts/sum-results.mjs.
skip() {
  say "the tests in the virtual machine are skipped: $1"
  mkdir -p build/results
  echo "0 passed, 0 failed, 1 skipped" | tee build/results/vm.txt
  exit 0
}

clean_up() {
  [ -z "$qemu_pid" ] || kill -KILL "$qemu_pid" 2>/dev/null || true
  rm -rf $vm/disk $vm/disk.img $vm/first $vm/first.gz $vm/results.img $kernel.draft
}

# Name of the package that holds the current kernel, empty when apt knows none.
kernel_package() { apt-cache depends --important $image 2>/dev/null | sed -n 's/^ *Depends: *\(linux-image-.*\)/\1/p' | head -n 1; }

# Fetches Debian's kernel for clouds into $kernel, once: `vmlinuz` and `lib/modules`. To get a newer one, remove that folder.
get_kernel() {
  [ ! -e $kernel/vmlinuz ] || return 0
  local draft=$kernel.draft package log=$vm/apt.log
  : >$log
  package=$(kernel_package)
  if [ -z "$package" ] && is_root; then
    apt-get update -o Acquire::Retries=3 >>$log 2>&1 || true
    package=$(kernel_package)
  fi
  rm -rf $draft
  mkdir -p $draft
  say "fetching ${package:-$image}"
  if [ -z "$package" ] || ! fetch_package "$package" $draft >>$log 2>&1; then
    # the lists may name a version that the mirror no longer has
    if ! is_root || ! apt-get update -o Acquire::Retries=3 >>$log 2>&1 || ! fetch_package "$(kernel_package)" $draft >>$log 2>&1; then
      tail -n 15 $log >&2
      fail "Debian's kernel could not be fetched (above: the end of $log); make the package mirror reachable and start again, or put the
  kernel there by hand: dpkg -x linux-image-…-cloud-amd64_….deb $kernel && mv $kernel/boot/vmlinuz-* $kernel/vmlinuz"
    fi
  fi
  mv $draft/boot/vmlinuz-* $draft/vmlinuz
  rm -rf $draft/*.deb $draft/boot $draft/usr
  rm -rf $kernel
  mv $draft $kernel
}

fetch_package() {
  (cd "$2" && apt-get download -o Acquire::Retries=3 -o APT::Sandbox::User=root "$1" && dpkg -x ./*.deb .)
}

# The images and the program that the tests make where they are missing; in the machine there is no compiler, and time is dearer.
prepare_modules() {
  release=$(cd $kernel/lib/modules && echo *)
  [ -e "$kernel/lib/modules/$release/modules.dep" ] || depmod -b $kernel "$release"
  node --input-type=module -e '
    const { prepareTestImages } = await import(process.cwd() + "/build/test/test/vm/prepare.js");
    prepareTestImages();' || fail "the tests' images could not be made (above)"
}

# The first root, in memory: BusyBox and the drivers of the disk.
make_first_root() {
  local path
  rm -rf $vm/first
  mkdir -p $vm/first/{bin,dev,disk,modules}
  cp /bin/busybox $vm/first/bin/
  cp test/vm/first.sh $vm/first/init
  for driver in virtio_pci virtio_blk; do modprobe -d $kernel -S "$release" --show-depends $driver; done |
    awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >$vm/first/modules/paths
  while read -r path; do
    cp "$path" $vm/first/modules/
    basename "$path"
  done <$vm/first/modules/paths >$vm/first/modules/order
  (cd $vm/first && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >$vm/first.gz
}

# Copies programs with the libraries that they need to where they lie here.
put_programs() {
  local program file
  for program in "$@"; do
    {
      echo "$program"
      ldd "$program" | grep -o '/[^ ]*' || true
    } | while read -r file; do
      [ ! -e "$vm/disk$file" ] || continue
      mkdir -p "$vm/disk$(dirname "$file")"
      cp -L "$file" "$vm/disk$file"
    done
  done
}

# The disk: this machine's Node.js and tools, the kernel's modules, and this checkout as /squash.
make_disk() {
  local disk=$vm/disk name entry
  rm -rf $disk
  mkdir -p $disk/{bin,sbin,usr/bin,usr/sbin,lib/modules,lib64,dev,proc,sys,run,tmp,root,etc,results,squash/build,squash/native/build}
  for name in node mksquashfs sqfstar unsquashfs mkfs.erofs mkfs.ext4 mkfs.btrfs losetup unshare nsenter setpriv prlimit nft ip tc pgrep find getfattr \
    setfattr sha1sum chown touch; do put_programs "$(command -v $name)"; done
  # native parts of npm packages: only their libraries, they themselves come with the checkout
  find node_modules -name '*.node' -exec ldd {} + 2>/dev/null | grep -o '=> /[^ ]*' | cut -c4- | sort -u | while read -r name; do put_programs "$name"; done
  cp /bin/busybox $disk/bin/
  for name in $(busybox --list); do [ -n "$(find $disk/{bin,sbin,usr/bin,usr/sbin} -name "$name")" ] || ln -s busybox "$disk/bin/$name"; done
  echo "root:x:0:0:root:/root:/bin/sh" >$disk/etc/passwd
  echo "root:x:0:" >$disk/etc/group
  # links instead of copies where the folders share a file system
  cp -al "$kernel/lib/modules/$release" $disk/lib/modules/ 2>/dev/null || cp -a "$kernel/lib/modules/$release" $disk/lib/modules/
  for entry in *; do
    case $entry in
    build | native) ;;
    node_modules) cp -al "$entry" $disk/squash/ 2>/dev/null || cp -a "$entry" $disk/squash/ ;;
    *) cp -a "$entry" $disk/squash/ ;;
    esac
  done
  cp -a native/Makefile $disk/squash/native/
  cp -a native/test $disk/squash/native/
  cp -a native/build/sq-host native/build/free-marks.so $disk/squash/native/build/
  cp -a build/test build/test-modules build/test-probe $disk/squash/build/
  rm -f $vm/disk.img
  mke2fs -q -t ext4 -O ^has_journal -E root_owner=0:0,nodiscard -d $disk $vm/disk.img 1g >/dev/null
}

# Starts the machine and waits for its end, saying what it says of its own on the way.
run_machine() {
  local deadline=$((SECONDS + seconds + 60)) shown=0 lines
  rm -rf $vm/results $vm/results.img
  truncate -s 32M $vm/results.img
  : >$console
  say "starting a virtual machine with Linux $release, emulated; the tests may take $seconds s"
  qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m 2048 -nodefaults -no-user-config -display none -no-reboot \
    -serial "file:$console" -kernel $kernel/vmlinuz -initrd $vm/first.gz -append "console=ttyS0 quiet panic=-1 cgroup_no_v1=all vm=$seconds,$tests" \
    -drive id=disk,file=$vm/disk.img,format=raw,if=none,cache=unsafe -device virtio-blk-pci,drive=disk \
    -drive id=results,file=$vm/results.img,format=raw,if=none -device virtio-blk-pci,drive=results \
    </dev/null 9>&- &
  qemu_pid=$!
  while kill -0 $qemu_pid 2>/dev/null; do
    lines=$(wc -l <$console)
    [ "$lines" = $shown ] || sed -n "$((shown + 1)),${lines}{s/\r//;/^vm: /p}" $console >&2
    shown=$lines
    if [ $SECONDS -gt $deadline ]; then
      kill -KILL $qemu_pid
      say "the virtual machine hangs, and is switched off"
    fi
    sleep 0.5
  done
  wait $qemu_pid || true
  qemu_pid=
  sed -n "$((shown + 1)),\${s/\r//;/^vm: /p}" $console >&2
}

# Adds up what the machine wrote to its second disk. Whatever keeps it from that is one failure.
report() {
  local problem='' status=0
  mkdir -p $vm/results
  tar -xf $vm/results.img -C $vm --no-same-owner 2>/dev/null || true
  if grep -aq 'Kernel panic' $console; then
    problem="the kernel of the virtual machine panicked"
  elif grep -aqE 'BUG: |Oops: |general protection fault|KASAN|UBSAN' $console; then
    problem="the kernel of the virtual machine found a fault in itself"
  elif ! grep -aq '^vm: all tests ended' $console; then
    problem="the virtual machine did not come to the end of its tests"
  fi
  rm -f $vm/results/dmesg.txt
  if [ -n "$problem" ]; then
    echo "0 passed, 1 failed, 0 skipped" >$vm/results/machine.txt
  fi
  node scripts/sum-results.mjs $vm/results >$vm/sum.txt || status=1
  if [ $status != 0 ]; then
    say "the end of $console:"
    tail -n 60 $console | tr -d '\r' >&2
    [ -z "$problem" ] || say "$problem"
  fi
  cat $vm/sum.txt
  tail -n 1 $vm/sum.txt >build/results/vm.txt
  exit $status
}

main
