#!/usr/bin/env bash
# The demo and the systemd unit on a stock Debian 12 in a virtual machine: its own kernel, systemd,
# cgroup v2. Slow where the machine cannot lend its processor to guests.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
vm=$here/tests/lib/vm.sh
export VM_DIR=${VM_DIR:-/var/tmp/brig-vm}

for program in debootstrap qemu-system-x86_64 depmod; do
  command -v "$program" >/dev/null || {
    echo "vm-demo.sh: $program is missing: apt-get install debootstrap qemu-system-x86 kmod e2fsprogs cpio xz-utils lz4 python3 openssh-client" >&2
    exit 1
  }
done

"$vm" build openssl tini
trap '"$vm" clean' EXIT
"$vm" up --fresh
"$vm" exec mkdir -p /root/brig/target/release
"$vm" put "$here/target/release/brigd" "$here/target/release/brig" /root/brig/target/release/
"$vm" put "$here/scripts" "$here/packaging" /root/brig/
"$vm" exec sh -c 'uname -r; stat -fc "%T" /sys/fs/cgroup'
"$vm" exec sh -c 'cd /root/brig && scripts/demo.sh run && scripts/demo.sh clean'
"$vm" exec bash -euxc '
  cd /root/brig
  install -m 0755 target/release/brigd target/release/brig /usr/local/bin/
  sed "s|@PREFIX@|/usr/local|g" packaging/systemd/brig.service >/etc/systemd/system/brig.service
  systemctl daemon-reload
  systemctl start brig
  scripts/busybox-image.sh /tmp/busybox.tar busybox:latest
  brig load -q -i /tmp/busybox.tar
  test "$(brig run --rm -m 64m busybox cat /sys/fs/cgroup/memory.max)" = 67108864
  brig info -f "{{.SecurityOptions}}" | grep -w name=apparmor
  brig run --rm busybox cat /proc/self/attr/current | grep -x "docker-default (enforce)"
  brig run --rm --security-opt apparmor=unconfined busybox cat /proc/self/attr/current | grep -x unconfined
  brig run --rm --privileged busybox cat /proc/self/attr/current | grep -x unconfined
  ! brig run --rm --cap-add SYS_ADMIN busybox mount -t tmpfs none /tmp
  brig run --rm --cap-add SYS_ADMIN --security-opt apparmor=unconfined busybox mount -t tmpfs none /tmp
  brig run -d --name confined busybox sleep 1000
  test "$(brig inspect -f "{{.AppArmorProfile}}" confined)" = docker-default
  brig exec confined cat /proc/self/attr/current | grep -x "docker-default (enforce)"
  brig rm -f confined
  brig run -d --name web -p 8080:80 busybox httpd -f -h /var/www
  pid=$(brig inspect -f "{{.State.Pid}}" web)
  systemctl restart brig
  test "$(brig inspect -f "{{.State.Pid}}" web)" = "$pid"
  systemctl stop brig
  kill -0 "$pid"
  systemctl start brig
  exec 3<>/dev/tcp/127.0.0.1/8080
  printf "GET / HTTP/1.0\r\n\r\n" >&3
  tail -n 1 <&3 | grep -x brig
  brig rm -f web
'
echo "the virtual machine agrees"
