#!/usr/bin/env bash
# docker's SDK for Python against a real dockerd and against brigd: what it gets must be the same,
# or be listed with its reason in tests/conformance/python-differences.txt.
#
# Everything runs in network and mount namespaces of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/conformance-lib.sh

SDK=7.1.0
WEBSOCKET=1.8.0
# What Debian's dockerd 20.10 speaks.
VERSION=1.41

venv=$target/conformance/python-$SDK

if ! inside; then
  if [ ! -e "$venv/.complete" ]; then
    note "installing docker's SDK for Python $SDK"
    /usr/bin/python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "docker==$SDK" "websocket-client==$WEBSOCKET"
    touch "$venv/.complete"
  fi
  enter
fi

prepare
scripts/busybox-image.sh "$work/busybox.tar"

check() { # check NAME: starts an engine, runs the script, stops the engine
  start "$1"
  timeout 300 "$venv/bin/python" scripts/conformance-python.py "$work/$1.sock" "$work/busybox.tar" "$VERSION" \
    >"$work/$1.out" 2>"$work/$1.why" || { cat "$work/$1.why" >&2; die "the script fails on $1"; }
  stop
}

check dockerd
check brigd

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
