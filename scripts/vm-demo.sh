#!/usr/bin/env bash
# The demo, an installation with its systemd unit, AppArmor, resource limits under cgroup v2 and a
# power cut, on a stock Debian 12 in a virtual machine. Slow where the machine cannot lend its
# processor to guests.
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

release=${CARGO_TARGET_DIR:-$here/target}/release
stage=$(mktemp -d)
trap 'rm -rf "$stage"; "$vm" clean' EXIT
# The layout of `make install`, without building again.
make -s -C "$here" -o build install DESTDIR="$stage" RELEASE="$release"

say() { printf '\n── %s\n' "$*"; }

"$vm" build openssl tini
"$vm" up --fresh
"$vm" exec mkdir -p /root/brig/target
"$vm" put "$stage/usr" /root/brig/
"$vm" put "$here/scripts" /root/brig/
"$vm" exec sh -euc '
  uname -r
  stat -fc "%T" /sys/fs/cgroup
  cp -a /root/brig/usr/. /usr/
  ln -s /usr/local/bin /root/brig/target/release
'
say "the demo"
"$vm" exec sh -c 'cd /root/brig && scripts/demo.sh run && scripts/demo.sh clean'

say "the unit; AppArmor"
"$vm" exec bash --norc -euxc '
  systemctl daemon-reload
  systemctl enable --now brig
  /root/brig/scripts/busybox-image.sh /tmp/busybox.tar busybox:latest
  brig load -q -i /tmp/busybox.tar
  brig info -f "{{.SecurityOptions}}" | grep -w name=apparmor
  brig run --rm busybox cat /proc/self/attr/current | grep -x "docker-default (enforce)"
  brig run --rm --security-opt apparmor=unconfined busybox cat /proc/self/attr/current | grep -x unconfined
  brig run --rm --privileged busybox cat /proc/self/attr/current | grep -x unconfined
  ! brig run --rm --cap-add SYS_ADMIN busybox mount -t tmpfs none /tmp
  brig run --rm --cap-add SYS_ADMIN --security-opt apparmor=unconfined busybox mount -t tmpfs none /tmp
  brig run -d --name confined busybox sleep 1000
  test "$(brig inspect -f "{{.AppArmorProfile}}" confined)" = docker-default
  grep -x "docker-default (enforce)" "/proc/$(brig inspect -f "{{.State.Pid}}" confined)/attr/current"
  brig exec confined cat /proc/self/attr/current | grep -x "docker-default (enforce)"
  brig run -d --name loose --security-opt apparmor=unconfined busybox sleep 1000
  test "$(brig inspect -f "{{.AppArmorProfile}}" loose)" = unconfined
  grep -x unconfined "/proc/$(brig inspect -f "{{.State.Pid}}" loose)/attr/current"
  brig rm -f confined loose
'

say "limits under cgroup v2: run, update, stats"
"$vm" exec bash --norc -euxc '
  brig info -f "{{.CgroupVersion}}" | grep -x 2
  test "$(brig run --rm -m 64m busybox cat /sys/fs/cgroup/memory.max)" = 67108864
  # Half a processor is kept busy, and 16 MiB are held in a tmpfs, which is charged to the container.
  brig run -d --name busy -m 64m --cpus 0.5 --pids-limit 50 --tmpfs /hold busybox \
    sh -c "dd if=/dev/zero of=/hold/16m bs=1M count=16 2>/dev/null; while :; do :; done"
  own=/sys/fs/cgroup$(sed -n "s/^0:://p" "/proc/$(brig inspect -f "{{.State.Pid}}" busy)/cgroup")
  test "$(cat "$own/memory.max")" = 67108864
  test "$(cat "$own/cpu.max")" = "50000 100000"
  test "$(cat "$own/pids.max")" = 50
  brig update -m 96m --memory-swap 128m --cpus 0.25 --cpu-shares 512 --pids-limit 70 busy
  test "$(cat "$own/memory.max")" = 100663296
  test "$(cat "$own/memory.swap.max")" = 33554432
  test "$(cat "$own/cpu.max")" = "25000 100000"
  test "$(cat "$own/pids.max")" = 70
  # 1 + ((512 - 2) * 9999) / 262142
  test "$(cat "$own/cpu.weight")" = 20
  test "$(brig inspect -f "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}" busy)" = "100663296 250000000"
  # Not to be exceeded: the limits. The rest is what the container does. A machine whose emulated
  # processors are kept waiting loses ticks, by which single shares are too large.
  told=
  for n in $(seq 10); do
    sleep 5
    brig stats --no-stream --format "{{.MemUsage}} {{.CPUPerc}} {{.PIDs}}" busy >/tmp/stats
    cat /tmp/stats
    awk "
      { split(\$1, memory, /MiB/) }
      !(memory[1] >= 16 && memory[1] <= 96 && \$3 == \"96MiB\" && \$5 == 1) { exit 1 }
    " /tmp/stats
    told=$(awk "{ split(\$4, cpu, /%/); if (cpu[1] > 5 && cpu[1] < 40) print \"yes\" }" /tmp/stats)
    [ -z "$told" ] || break
  done
  test "$told" = yes
  test "$(sed -n "s/^nr_throttled //p" "$own/cpu.stat")" -gt 0
  brig rm -f busy
'

say "containers outlive the daemon"
"$vm" exec bash --norc -euxc '
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

say "a power cut: restart policies"
"$vm" exec bash --norc -euxc '
  brig run -d --name always --restart always -p 8080:80 busybox httpd -f -h /var/www
  brig run -d --name unless --restart unless-stopped busybox sleep 100000
  brig run -d --name never busybox sleep 100000
  brig run -d --name stopped --restart unless-stopped busybox sleep 100000
  brig stop -t 0 stopped
  test "$(brig ps -q | wc -l)" = 3
'
"$vm" kill
"$vm" up
"$vm" exec bash --norc -euxc '
  # The machine answers before all of its services do: this waits for the job that boot began.
  systemctl start brig
  running() { brig inspect -f "{{.State.Running}}" "$1"; }
  for n in $(seq 60); do [ "$(running always)" = false ] || [ "$(running unless)" = false ] || break; sleep 1; done
  brig ps -a
  test "$(running always)" = true
  test "$(running unless)" = true
  test "$(running never)" = false
  test "$(running stopped)" = false
  exec 3<>/dev/tcp/127.0.0.1/8080
  printf "GET / HTTP/1.0\r\n\r\n" >&3
  tail -n 1 <&3 | grep -x brig
  grep -x "docker-default (enforce)" "/proc/$(brig inspect -f "{{.State.Pid}}" always)/attr/current"
  brig start never
  test "$(running never)" = true
'
echo "the virtual machine agrees"
