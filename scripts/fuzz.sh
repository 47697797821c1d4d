#!/usr/bin/env bash
# Builds the fuzz targets and runs each of them for a time, two at once. What it finds stays in
# fuzz/artifacts, what it learnt in fuzz/corpus (both beside the seeds of fuzz/seeds).
#
#   fuzz.sh SECONDS [TARGET...]     all targets without names
#   FUZZ_BUILT=DIR fuzz.sh …        programs that are built already (DIR/TARGET)
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:?usage: fuzz.sh SECONDS [TARGET...]}
shift
[ $# -gt 0 ] || set -- $(sed -n 's/^path = "fuzz_targets\/\(.*\)\.rs"$/\1/p' fuzz/Cargo.toml)

triple=$(rustc -vV | sed -n 's/^host: //p')
built=${FUZZ_BUILT:-}
if [ -z "$built" ]; then
  built=${CARGO_TARGET_DIR:-fuzz/target}/$triple/release
  RUSTC_BOOTSTRAP=1 cargo fuzz build --fuzz-dir fuzz --target-dir "${CARGO_TARGET_DIR:-fuzz/target}"
fi

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
run() {
  local target=$1 corpus=fuzz/corpus/$1 artifacts=fuzz/artifacts/$1/
  mkdir -p "$corpus" "$artifacts"
  local folders=("$corpus")
  [ ! -d "fuzz/seeds/$target" ] || folders+=("fuzz/seeds/$target")
  local status=0
  # An input that takes 10 seconds is a hang, one that takes 2 GiB a bomb.
  "$built/$target" "${folders[@]}" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -max_len="${FUZZ_MAX_LEN:-65536}" -artifact_prefix="$artifacts" -print_final_stats=1 \
    >"$logs/$target" 2>&1 || status=$?
  local runs cover
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$logs/$target")
  cover=$(grep -o 'cov: [0-9]*' "$logs/$target" | tail -n 1 || true)
  if [ $status -eq 0 ]; then
    printf '%-20s %10s runs %8s/s  %s\n' "$target" "$runs" "$((${runs:-0} / seconds))" "$cover"
  else
    printf '%-20s FAILED (%s), see %s\n' "$target" "$status" "$artifacts"
    grep -E -m 5 'panicked|ERROR|assertion|SUMMARY|Test unit' -A 2 "$logs/$target" || tail -n 5 "$logs/$target"
    touch "$logs/failed"
  fi
}
for target in "$@"; do
  while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n || true; done
  run "$target" &
done
wait
[ ! -e "$logs/failed" ]
