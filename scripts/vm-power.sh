#!/usr/bin/env bash
# Power cuts of virtual machines that keep a cluster: what was acknowledged is there after. One
# manager with its store in one file, then two with etcd, of which each loses power in turn. Writes
# after the disk's last flush are dropped, or survive sector by sector as chance has it.
#   vm-power.sh [DIRECTORY WITH brigd AND brig]
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
vm=$here/tests/lib/vm.sh
export VM_DIR=${VM_DIR:-/var/tmp/brig-vm} VM_MEM=${VM_MEM:-1024} VM_SWAP=0
bin=${1:-${CARGO_TARGET_DIR:-$here/target}/release}
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"; "$vm" clean' EXIT
say() { printf '\n── %s\n' "$*"; }

# The daemon of machine $1, until it answers.
start() {
  "$vm" -n "$1" exec systemd-run -q --unit brigd -p KillMode=process /usr/local/bin/brigd \
    --data-root /var/lib/brig -H unix:///run/brig.sock
  "$vm" -n "$1" exec sh -euc 'n=0; until brig -H unix:///run/brig.sock version >/dev/null 2>&1; do
    n=$((n + 1)); [ $n -lt 240 ] || { journalctl -u brigd | tail -20; exit 1; }; sleep 0.5; done'
}
brig() { local n=$1; shift; "$vm" -n "$n" exec brig -H unix:///run/brig.sock "$@"; }
# Writes through machine $1 until it is gone; this machine knows what was acknowledged.
write() {
  : >"$work/$2"
  "$vm" -n "$1" exec bash --norc -c 'n=0; while :; do n=$((n + 1))
    printf "%0*d" $((n * 37 % 4000)) 0 | brig -H unix:///run/brig.sock config create "'"$2"'-$n" - >/dev/null 2>&1 &&
      echo "'"$2"'-$n"
  done' >"$work/$2" 2>/dev/null &
}
# Waits until so many more writes were acknowledged in the file $1.
wait_for() {
  local n=0
  until [ "$(wc -l <"$work/$1")" -ge "$2" ]; do
    n=$((n + 1)); [ $n -lt 1800 ] || { echo "only $(wc -l <"$work/$1") writes"; exit 1; }; sleep 0.2
  done
}
# Everything that was acknowledged is known to machine $1.
check() {
  local n=0
  cat "$work"/w* | sort >"$work/acknowledged"
  until brig "$1" config ls --format '{{.Name}}' | sort >"$work/found" &&
    [ -z "$(comm -23 "$work/acknowledged" "$work/found")" ]; do
    n=$((n + 1))
    [ $n -lt 30 ] || { echo "lost:"; comm -23 "$work/acknowledged" "$work/found"; exit 1; }
    sleep 2
  done
  echo "$(wc -l <"$work/acknowledged") writes were acknowledged, all are there"
}

"$vm" build openssl tini
"$vm" -n 1 up --fresh --log
"$vm" -n 1 put "$bin/brigd" "$bin/brig" /usr/local/bin/
start 1
brig 1 swarm init --advertise-addr "$("$vm" -n 1 addr)" >/dev/null
for cut in --lose "--tear 7" "--tear 8"; do
  say "one manager, its store in a file: kill $cut"
  name=wa${cut//[^a-z0-9]/}
  write 1 "$name"
  wait_for "$name" 8
  # shellcheck disable=SC2086
  "$vm" -n 1 kill $cut
  wait || true
  "$vm" -n 1 up --log
  start 1
  check 1
done

say "two managers, with etcd"
"$vm" -n 2 up --fresh --log
"$vm" -n 2 put "$bin/brigd" "$bin/brig" /usr/local/bin/
start 2
token=$(brig 1 swarm join-token -q manager)
brig 2 swarm join --token "$token" --advertise-addr "$("$vm" -n 2 addr)" "$("$vm" -n 1 addr):2377" ||
  echo "the machine is slow: it goes on joining"
n=0
until brig 2 config ls -q >/dev/null 2>&1; do
  n=$((n + 1)); [ $n -lt 60 ] || { echo "it does not become a manager"; exit 1; }; sleep 3
done
lost=2
for cut in --lose "--tear 9"; do
  say "two managers: kill $cut of machine $lost"
  other=$((3 - lost))
  name=wb${cut//[^a-z0-9]/}
  write 1 "$name-1"
  write 2 "$name-2"
  wait_for "$name-1" 4
  wait_for "$name-2" 4
  # shellcheck disable=SC2086
  "$vm" -n "$lost" kill $cut
  sleep 1
  kill $(jobs -p) 2>/dev/null || true
  wait || true
  "$vm" -n "$lost" up --log
  start "$lost"
  check "$other"
  check "$lost"
  lost=$other
done
echo "no write was lost"
