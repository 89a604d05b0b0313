#!/bin/busybox sh
# Process 1 on the disk: makes of the machine what squashd needs, with control groups of version 2 only, runs the tests, writes their
# results to the second disk as a tar archive, and switches the machine off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C

mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777,size=700m tmp /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for module in loop overlay erofs squashfs btrfs veth sch_tbf nf_tables nft_ct nft_chain_nat nft_nat nft_masq nft_fib_inet nft_reject_inet nft_limit nft_connlimit nft_log nf_conntrack_netlink nfnetlink_log; do modprobe "$module" || echo "vm: cannot load $module"; done
ip link set lo up
hostname vm
ulimit -n 65536

# the last word of the kernel's command line: how many seconds the tests may take, and which they are
word=$(sed 's/.* vm=//' /proc/cmdline)
echo "vm: Linux $(uname -r) is up after $(cut -d' ' -f1 /proc/uptime) s, its control groups have $(cat /sys/fs/cgroup/cgroup.controllers)"
cd /squash || poweroff -f
{
  setsid timeout -s KILL "${word%%,*}" sh test/vm/tests.sh "${word#*,}"
  echo $? >/run/status
} </dev/null 2>&1 | cat # to the tests the output is no terminal, on which they would draw
status=$(cat /run/status)
if [ $status = 0 ]; then
  echo "vm: all tests ended after $(cut -d' ' -f1 /proc/uptime) s"
else
  echo "vm: the tests were cut off (status $status) after $(cut -d' ' -f1 /proc/uptime) s; what ran then:"
  ps -o pid,stat,args | grep -v ' \[' | tail -n 40
  dmesg | tail -n 40
fi
tar -cf /dev/vdb -C / results || echo "vm: the results could not be written"
sync
poweroff -f
