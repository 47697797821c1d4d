#!/usr/bin/env bash
# The integration tests that the bollard crate publishes, run against a real dockerd and against
# brigd: what passes on dockerd must pass on brigd, or be listed with its reason in
# tests/conformance/differences.txt.
#
#   conformance.sh [FILTER]     FILTER: only tests whose name contains it
#
# Everything runs in network and mount namespaces of its own: the tests want
# /var/run/docker.sock and a registry at localhost:5000.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/conformance-lib.sh

# The release whose default API version (1.40) Debian's dockerd 20.10 speaks.
BOLLARD=0.13.0

binaries=$target/conformance/binaries
source=$target/conformance/bollard-$BOLLARD

if ! inside; then
  note "building bollard $BOLLARD's tests"
  if [ ! -e "$source/.complete" ]; then
    mkdir -p "$target/conformance/fetch/src"
    printf '[package]\nname = "fetch"\nversion = "0.0.0"\n[dependencies]\nbollard = "=%s"\n[workspace]\n' \
      "$BOLLARD" >"$target/conformance/fetch/Cargo.toml"
    : >"$target/conformance/fetch/src/lib.rs"
    manifest=$(cargo metadata --format-version 1 \
      --manifest-path "$target/conformance/fetch/Cargo.toml" |
      jq -r '.packages[] | select(.name == "bollard") | .manifest_path')
    rm -rf "$source"
    cp -r "$(dirname "$manifest")" "$source"
    printf '\n[workspace]\n' >>"$source/Cargo.toml"
    touch "$source/.complete"
  fi
  # As a dependency is built: lints of a later compiler are not its business.
  RUSTFLAGS="--cap-lints warn" cargo test --manifest-path "$source/Cargo.toml" --locked \
    --target-dir "$target/conformance/build" --no-run --message-format=json 2>"$target/conformance/build.log" |
    jq -r 'select(.reason == "compiler-artifact" and .profile.test and .executable and
      (.target.kind | index("test"))) | .executable' >"$binaries" ||
    { tail -n 30 "$target/conformance/build.log" >&2; die "bollard's tests do not build"; }
  [ -s "$binaries" ] || die "bollard has no tests"
  enter "$@"
fi

prepare

note "a registry at localhost:5000"
export REGISTRY_PASSWORD=conformance
printf '%s' "$REGISTRY_PASSWORD" | htpasswd -i -B -c "$work/htpasswd" bollard 2>/dev/null
cat >"$work/registry.yml" <<YAML
version: 0.1
storage: {filesystem: {rootdirectory: $work/registry}, delete: {enabled: true}}
http: {addr: "localhost:5000"}
auth: {htpasswd: {realm: conformance, path: $work/htpasswd}}
YAML
docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
pids+=($!)

# The images that the tests name, made of Debian's busybox.
root=$work/root
mkdir "$root"
scripts/busybox-image.sh --rootfs "$work/rootfs.tar"
tar -C "$root" -xf "$work/rootfs.tar"
mkdir -p "$root/www" "$root/usr/sbin"
printf '#!/bin/sh\necho Hello from Docker!\n' >"$root/hello"
printf '#!/bin/sh\nexec httpd "$@"\n' >"$root/usr/sbin/run_uhttpd"
chmod 0755 "$root/hello" "$root/usr/sbin/run_uhttpd"
for image in hello-world:linux alpine:latest fussybeaver/uhttpd:latest; do
  rm -rf "$work/image"
  mkdir "$work/image"
  tar -C "$root" --numeric-owner --owner=0 --group=0 -cf "$work/image/layer.tar" .
  digest=$(sha256sum "$work/image/layer.tar" | cut -d' ' -f1)
  command='["/bin/sh"]'
  [ "$image" = hello-world:linux ] && command='["/hello"]'
  printf '{"architecture":"amd64","os":"linux","created":"2020-01-01T00:00:00Z","config":{"Cmd":%s,"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"2020-01-01T00:00:00Z","created_by":"busybox"}]}' \
    "$command" "$digest" >"$work/image/config.json"
  printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$image" >"$work/image/manifest.json"
  tar -C "$work/image" -cf "$work/image.tar" manifest.json config.json layer.tar
  for _ in $(seq 50); do
    skopeo copy -q --dest-tls-verify=false --dest-creds "bollard:$REGISTRY_PASSWORD" \
      "docker-archive:$work/image.tar" "docker://localhost:5000/$image" 2>"$work/skopeo.log" && continue 2
    sleep 0.1
  done
  die "cannot fill the registry: $(cat "$work/skopeo.log")"
done

serve() { # serve NAME: starts an engine as a swarm of its own
  start "$1"
  curl -sf --unix-socket "$work/$1.sock" -H 'Content-Type: application/json' \
    -d '{"ListenAddr":"127.0.0.1:'"$swarm_port"'","AdvertiseAddr":"127.0.0.1"}' http://x/swarm/init >/dev/null ||
    die "$1: no swarm"
  swarm_port=$((swarm_port + 1))
}
swarm_port=23701

check() { # check NAME: runs every test alone; NAME.passed and NAME.failed list them
  local name=$1 binary test
  : >"$work/$name.passed"
  : >"$work/$name.failed"
  rm -f /run/docker.sock
  ln -s "$work/$name.sock" /run/docker.sock
  while read -r binary; do
    while read -r test; do
      local label
      label=$(basename "$binary" | sed 's/-[0-9a-f]*$//')::$test
      [[ $label == *"${filter}"* ]] || continue
      if (cd "$source" && timeout 60 "$binary" --exact "$test" --test-threads 1) >"$work/out" 2>&1; then
        echo "$label" >>"$work/$name.passed"
      else
        echo "$label" >>"$work/$name.failed"
        { echo "--- $name: $label"; grep -vE '^(running|test |note:|$)' "$work/out" | head -n 12; } >>"$work/$name.why"
      fi
    done < <("$binary" --list 2>/dev/null | sed -n 's/: test$//p')
  done <"$binaries"
}
filter=${1:-}

serve dockerd
check dockerd
[ -s "$work/dockerd.passed" ] || { cat "$work/dockerd.why" >&2; die "nothing passes on dockerd: these tests tell nothing"; }
stop
serve brigd
check brigd

sort -o "$work/dockerd.passed" "$work/dockerd.passed"
sort -o "$work/brigd.passed" "$work/brigd.passed"
comm -23 "$work/dockerd.passed" "$work/brigd.passed" >"$work/missing"
sed -n 's/^\([^ #][^ ]*\):.*/\1/p' tests/conformance/differences.txt | sort >"$work/listed"
note "bollard $BOLLARD: $(wc -l <"$work/dockerd.passed") pass on dockerd, $(wc -l <"$work/brigd.passed") on brigd," \
  "$(comm -12 "$work/dockerd.passed" "$work/brigd.passed" | wc -l) on both"
echo "not on dockerd: $(tr '\n' ' ' <"$work/dockerd.failed")"
unexplained=$(comm -23 "$work/missing" "$work/listed")
if [ -n "$unexplained" ]; then
  cat "$work/brigd.why" 2>/dev/null || true
  die "pass on dockerd, not on brigd, and not listed: $unexplained"
fi
