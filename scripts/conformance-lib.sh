# What the conformance scripts share: an engine's folders in namespaces of its own. Sourced.
# Before: `set -euo pipefail`, the repository's root as the working directory.

script=$(basename "$0")
target=${CARGO_TARGET_DIR:-$PWD/target}
brigd=${BRIGD:-$target/debug/brigd}
START=60 # seconds that an engine may take

die() { echo "$script: $*" >&2; exit 1; }
note() { echo "== $*"; }

inside() { [ "${CONFORMANCE_INSIDE:-}" = yes ]; }

# enter ARGUMENTS...: runs the script once more, in network and mount namespaces of its own
enter() { exec env CONFORMANCE_INSIDE=yes unshare --mount --net --propagation private "scripts/$script" "$@"; }

finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  "$brigd" --data-root "$work/brigd" --exec-root "$work/brigd-run" \
    --config-file "$work/empty.json" --purge >/dev/null 2>&1 || true
  awk -v below="$work/" 'index($2, below) == 1 {print $2}' /proc/self/mounts | tac |
    while read -r mounted; do umount -l "$mounted" || true; done
  rm -rf "$work"
}

# prepare: makes $work, which goes at the end with all that runs; the engines find an empty /run
prepare() {
  work=$(mktemp -d /var/tmp/brig-conformance-XXXXXX)
  pids=()
  trap finish EXIT
  ip link set lo up
  mount -t tmpfs tmpfs /run
  echo '{}' >"$work/empty.json"
}

# start dockerd|brigd: starts an engine at $work/NAME.sock and waits until it answers
start() {
  local name=$1 end=$((SECONDS + START)) program=dockerd more=(--cgroup-parent "$(basename "$work")")
  [ "$name" = dockerd ] || { program=$brigd; more=(); }
  note "$name"
  "$program" --config-file "$work/empty.json" --data-root "$work/$name" --exec-root "$work/$name-run" \
    --pidfile "$work/$name.pid" -H "unix://$work/$name.sock" "${more[@]}" >"$work/$name.log" 2>&1 &
  pids+=($!)
  until curl -sf --unix-socket "$work/$name.sock" http://x/_ping >/dev/null; do
    [ $SECONDS -lt $end ] || { tail -n 20 "$work/$name.log" >&2; die "$name does not start"; }
    sleep 0.1
  done
}

# stop: ends the engine that was started last
stop() {
  kill "${pids[-1]}"
  wait "${pids[-1]}" 2>/dev/null || true
}
