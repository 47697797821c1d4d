#!/usr/bin/env bash
# Installs what brig needs from Debian's packages; does nothing where all of it is there.
#   setup.sh run    to build and run brig
#   setup.sh test   to run the tests and benchmarks as well
#   setup.sh conformance   to run other projects' tests against brigd and dockerd
set -euo pipefail

run_packages=(gcc libc6-dev crun conmon nftables iproute2 tini busybox-static openssl apparmor)
test_packages=(etcd-server etcd-client runc docker.io docker-registry notary skopeo buildah golang-cfssl util-linux procps passwd jq hyperfine iputils-ping faketime openssh-server openssh-client docker-compose age python3 strace apache2-utils)
conformance_packages=("${test_packages[@]}" curl python3-venv)

want=("${run_packages[@]}")
case "${1:-run}" in
  run) ;;
  test) want+=("${test_packages[@]}") ;;
  conformance) want+=("${conformance_packages[@]}") ;;
  *) echo "usage: setup.sh run|test|conformance" >&2; exit 2 ;;
esac

missing=()
for package in "${want[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done

if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ]; then
    echo "setup.sh: missing packages: ${missing[*]}" >&2
    echo "setup.sh: run as root, or: sudo apt-get install ${missing[*]}" >&2
    exit 1
  fi
  echo "installing: ${missing[*]}"
  # Services of these packages must not start by themselves: the tests start their own.
  policy=/usr/sbin/policy-rc.d
  made_policy=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 0755 "$policy"
    made_policy=yes
  fi
  trap '[ -z "$made_policy" ] || rm -f "$policy"' EXIT
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if [ "${1:-run}" = test ] && ! cargo nextest --version >/dev/null 2>&1; then
  echo "installing cargo-nextest"
  cargo install --quiet --locked cargo-nextest
fi
