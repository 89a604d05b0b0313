#!/bin/busybox sh
# Process 1 of the first root, which is in memory: loads the drivers of the disk, and goes over to it.
give_up() {
  echo "vm: $1"
  busybox poweroff -f
}
busybox mount -t devtmpfs dev /dev
for module in $(busybox cat /modules/order); do busybox insmod "/modules/$module" || give_up "cannot load $module"; done
tries=0
until [ -b /dev/vda ] && [ -b /dev/vdb ]; do
  tries=$((tries + 1))
  [ $tries -lt 600 ] || give_up "there is no disk"
  busybox usleep 50000
done
busybox mount -t ext4 /dev/vda /disk || give_up "the disk cannot be mounted"
busybox mount --move /dev /disk/dev
exec busybox switch_root -c /dev/console /disk /squash/test/vm/init.sh
