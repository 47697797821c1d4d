#!/usr/bin/env bash
# docker's SDK for Python against a real dockerd and against brigd: what it gets must be the same,
# or be listed with its reason in tests/conformance/python-differences.txt.
#
# Everything runs in network and mount namespaces of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD

SDK=7.1.0
WEBSOCKET=1.8.0
START=60 # seconds
# What Debian's dockerd 20.10 speaks.
VERSION=1.41

target=${CARGO_TARGET_DIR:-$here/target}
venv=$target/conformance/python-$SDK
brigd=${BRIGD:-$target/debug/brigd}
die() { echo "conformance-python.sh: $*" >&2; exit 1; }
note() { echo "== $*"; }

if [ "${CONFORMANCE_INSIDE:-}" != yes ]; then
  if [ ! -e "$venv/.complete" ]; then
    note "installing docker's SDK for Python $SDK"
    /usr/bin/python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "docker==$SDK" "websocket-client==$WEBSOCKET"
    touch "$venv/.complete"
  fi
  exec env CONFORMANCE_INSIDE=yes unshare --mount --net --propagation private "$0"
fi

work=$(mktemp -d /var/tmp/brig-conformance-XXXXXX)
pids=()
finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  "$brigd" --data-root "$work/brigd" --exec-root "$work/brigd-run" \
    --config-file "$work/empty.json" --purge >/dev/null 2>&1 || true
  awk -v below="$work/" 'index($2, below) == 1 {print $2}' /proc/self/mounts | tac |
    while read -r mounted; do umount -l "$mounted" || true; done
  rm -rf "$work"
}
trap finish EXIT

ip link set lo up
mount -t tmpfs tmpfs /run
echo '{}' >"$work/empty.json"
scripts/busybox-image.sh "$work/busybox.tar"

check() { # check NAME PROGRAM ARGUMENTS...: starts an engine, runs the script, stops the engine
  local name=$1 end=$((SECONDS + START))
  shift
  note "$name"
  "$@" >"$work/$name.log" 2>&1 &
  pids+=($!)
  until curl -sf --unix-socket "$work/$name.sock" http://x/_ping >/dev/null; do
    [ $SECONDS -lt $end ] || { tail -n 20 "$work/$name.log" >&2; die "$name does not start"; }
    sleep 0.1
  done
  timeout 300 "$venv/bin/python" scripts/conformance-python.py "$work/$name.sock" "$work/busybox.tar" "$VERSION" \
    >"$work/$name.out" 2>"$work/$name.why" || { cat "$work/$name.why" >&2; die "the script fails on $name"; }
  kill "${pids[-1]}"
  wait "${pids[-1]}" 2>/dev/null || true
}

check dockerd dockerd --config-file "$work/empty.json" --data-root "$work/dockerd" --exec-root "$work/dockerd-run" \
  --pidfile "$work/dockerd.pid" -H "unix://$work/dockerd.sock" --cgroup-parent "$(basename "$work")"
check brigd "$brigd" --config-file "$work/empty.json" --data-root "$work/brigd" \
  --exec-root "$work/brigd-run" --pidfile "$work/brigd.pid" -H "unix://$work/brigd.sock"

failed=
while IFS=: read -r name _; do
  theirs=$(grep "^$name:" "$work/dockerd.out")
  ours=$(grep "^$name:" "$work/brigd.out" || true)
  grep -q "^$name:" tests/conformance/python-differences.txt && continue
  # What fails on dockerd tells nothing about brigd.
  [[ $theirs == *'{"exception"'* ]] || [ "$ours" != "$theirs" ] || continue
  printf 'dockerd %s\nbrigd   %s\n' "$theirs" "$ours"
  failed="$failed $name"
done <"$work/dockerd.out"
note "docker's SDK for Python $SDK: $(wc -l <"$work/dockerd.out") checks"
if [ -n "$failed" ]; then
  cat "$work/dockerd.why" "$work/brigd.why"
  die "not the same, and not listed:$failed"
fi
