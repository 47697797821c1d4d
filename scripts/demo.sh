#!/usr/bin/env bash
# The main job, narrated: a sealed secret reaches a running container, on this machine, without
# any network. `demo.sh clean` removes everything it left.
set -euo pipefail

root=${BRIG_DEMO_ROOT:-/var/tmp/brig-demo}
data=$root/data
run=$root/run
bin=$(cd "$(dirname "$0")/.." && pwd)/target/release
scripts=$(cd "$(dirname "$0")" && pwd)
swarm_addr=127.0.0.1:${BRIG_DEMO_PORT:-23770}
export BRIG_HOST=unix://$run/brig.sock
brig=$bin/brig

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' good=$'\e[32m' bad=$'\e[31m' off=$'\e[0m'; else bold='' dim='' good='' bad='' off=''; fi

now_ms() { local t=${EPOCHREALTIME/[.,]/}; echo $((t / 1000)); }
say() { printf '\n%s── %s%s\n' "$bold" "$*" "$off"; }
ok() { printf '%s✓ %s%s\n' "$good" "$*" "$off"; }
fail() { printf '%s✗ %s%s\n' "$bad" "$*" "$off" >&2; exit 1; }
# step COMMAND…: shows the command, runs it, shows how long it took
step() {
  printf '%s$ %s%s\n' "$bold" "${shown:-$*}" "$off"
  local from to
  from=$(now_ms)
  "$@" || fail "exit status $?"
  to=$(now_ms)
  printf '%s  (%d ms)%s\n' "$dim" $((to - from)) "$off"
}

clean() {
  if [ -S "$run/brig.sock" ] && [ -x "$brig" ]; then
    timeout 60 "$brig" swarm leave --force >/dev/null 2>&1 || :
    local left
    left=$(timeout 20 "$brig" ps -aq 2>/dev/null) || left=
    # shellcheck disable=SC2086
    [ -z "$left" ] || timeout 60 "$brig" rm -f $left >/dev/null 2>&1 || :
  fi
  if [ -s "$run/brigd.pid" ]; then
    local pid
    pid=$(cat "$run/brigd.pid")
    if kill -TERM "$pid" 2>/dev/null; then
      for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
      kill -KILL "$pid" 2>/dev/null || :
    fi
  fi
  if [ -d "$data" ] && [ -x "$bin/brigd" ]; then
    "$bin/brigd" --data-root "$data" --exec-root "$run" --purge >/dev/null 2>&1 || :
  fi
  rm -rf "$root"
}

if [ "${1:-run}" = clean ]; then
  clean
  echo "nothing of the demo is left"
  exit 0
fi
[ "$(id -u)" = 0 ] || fail "a container engine needs root: sudo make demo"

clean
mkdir -p "$root"
began=$(now_ms)

say "An image from Debian's busybox, made here: no network is used"
step "$scripts/busybox-image.sh" "$root/busybox.tar" busybox:latest

say "brigd starts: its own data root, its own socket"
shown="brigd --data-root $data --exec-root $run &"
start_daemon() {
  # The subshell ends at once, so the daemon belongs to nobody's job list.
  (setsid "$bin/brigd" --data-root "$data" --exec-root "$run" -H "unix://$run/brig.sock" \
    --pidfile "$run/brigd.pid" >"$root/brigd.log" 2>&1 </dev/null &)
  for _ in $(seq 200); do
    "$brig" version >/dev/null 2>&1 && return 0
    sleep 0.02
  done
  tail -n 20 "$root/brigd.log" >&2
  return 1
}
step start_daemon
unset shown
step "$brig" load -i "$root/busybox.tar"
step "$brig" run --rm --network none busybox echo "a container ran"

say "One command makes a cluster: its own CA, a node certificate, a sealed store"
step "$brig" swarm init --advertise-addr 127.0.0.1 --listen-addr "$swarm_addr"
certificate=$data/swarm/certificates/swarm-node.crt
printf '%s$ openssl x509 -in %s -noout -text%s\n' "$bold" "$certificate" "$off"
openssl x509 -in "$certificate" -noout -text |
  grep -E 'Issuer:|Subject:|Not Before|Not After|Public Key Algorithm|ASN1 OID|DNS:|TLS Web' | sed 's/^ */    /'
openssl verify -CAfile "$data/swarm/certificates/swarm-root-ca.crt" "$certificate" | sed 's/^/    /'

say "A secret goes in by standard input, and a service is granted it"
plain=mysecret-$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
shown="echo \"${plain%%-*}-…\" | brig secret create my_secret -"
create_secret() { echo "$plain" | "$brig" secret create my_secret -; }
step create_secret
unset shown
step "$brig" service create --quiet --name my_service --secret my_secret busybox sleep 1000
printf '%s  (five seconds of it: watching that the task stays up, as docker does)%s\n' "$dim" "$off"
step "$brig" service ps my_service

container=$("$brig" ps -q --filter label=com.docker.swarm.service.name=my_service | head -n 1)
[ -n "$container" ] || fail "no container of my_service is running"

say "Inside that container, and only there, it is a file on a tmpfs"
shown="brig exec $container grep /run/secrets /proc/mounts"
step "$brig" exec "$container" grep /run/secrets /proc/mounts
shown="brig exec $container ls -ln /run/secrets"
step "$brig" exec "$container" ls -ln /run/secrets
unset shown
seen=$("$brig" exec "$container" cat /run/secrets/my_secret)
[ "$seen" = "$plain" ] || fail "the container reads something else"
ok "the container reads the value"
if grep -q "brig-secrets" /proc/self/mountinfo; then fail "the tmpfs is in the host's mount table"; fi
ok "the host's mount table does not have the tmpfs"

say "On disk it is nowhere: data root, run directory, log, metadata"
if grep -rqaF -- "$plain" "$data" "$run" "$root/brigd.log" 2>/dev/null; then
  grep -rlaF -- "$plain" "$data" "$run" "$root/brigd.log" >&2
  fail "the plaintext is on disk"
fi
ok "searched $(du -sh "$root" | cut -f1): the value is in no file"
if grep -rqaF -- my_secret "$data/swarm" 2>/dev/null; then fail "the secret's name is in the store in clear"; fi
ok "the secret's name is in no file of the store"
for object in "service inspect my_service" "secret inspect my_secret" "inspect $container" "logs $container"; do
  # shellcheck disable=SC2086
  if "$brig" $object 2>/dev/null | grep -qF -- "$plain"; then fail "brig $object shows the value"; fi
done
ok "inspect and logs do not show it"
if printf '%s' "$("$brig" secret rm my_secret 2>&1)" | grep -q "in use"; then ok "the secret cannot be removed while it is in use"; else fail "secret rm was not refused"; fi

say "brigd is killed and comes back: the container goes on, its secret stays where it was"
before=$("$brig" inspect --format '{{.State.Pid}}' "$container")
# 0 names this script's own processes to kill.
[ "$before" -gt 0 ] || fail "the container has ended: $("$brig" inspect --format '{{json .State}}' "$container")"
kill -KILL "$(cat "$run/brigd.pid")"
shown="kill -9 brigd; brigd --data-root $data … &"
step start_daemon
unset shown
after=$("$brig" inspect --format '{{.State.Pid}}' "$container")
[ "$before" = "$after" ] || fail "the container was restarted (pid $before, then $after)"
ok "the same process: pid $after"

say "The service goes, and the tmpfs with it"
step "$brig" service rm my_service
for _ in $(seq 200); do kill -0 "$before" 2>/dev/null || break; sleep 0.1; done
if kill -0 "$before" 2>/dev/null; then fail "the container is still running"; fi
ok "process $before and its mount namespace are gone; the tmpfs existed nowhere else"
for _ in $(seq 100); do "$brig" secret rm my_secret >/dev/null 2>&1 && break; sleep 0.1; done
if [ -n "$("$brig" secret ls -q)" ]; then fail "the secret could not be removed"; fi
ok "the secret is removed"

printf '\n%sdone in %d ms. brigd is still running: BRIG_HOST=%s brig ps; make demo-clean stops it and removes %s%s\n' \
  "$bold" $(($(now_ms) - began)) "$BRIG_HOST" "$root" "$off"
