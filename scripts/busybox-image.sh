#!/usr/bin/env bash
# Makes a small image from Debian's busybox, without any network.
#   busybox-image.sh OUT.tar NAME:TAG      a docker archive, for `load`
#   busybox-image.sh --rootfs OUT.tar      the root file system alone, for `import`
set -euo pipefail

only_rootfs=
if [ "${1:-}" = --rootfs ]; then
  only_rootfs=yes
  shift
fi
out=${1:?where to write the archive}
name=${2:-busybox:latest}
busybox=$(command -v busybox) || { echo "busybox-image.sh: busybox is missing: apt-get install busybox-static" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{bin,dev,etc,home,proc,root,run,sys,usr/bin,usr/sbin,sbin,var/www}
mkdir -m 1777 "$root/tmp"
cp "$busybox" "$root/bin/busybox"
chmod 0755 "$root/bin/busybox"
for applet in $("$busybox" --list); do
  [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
printf 'root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\nwww-data:x:33:\nstaff:x:50:nobody\nnogroup:x:65534:\n' >"$root/etc/group"
echo 'brig' >"$root/var/www/index.html"

pack() { # pack FOLDER OUT: the same bytes each time
  tar --numeric-owner --owner=0 --group=0 --sort=name --mtime=@0 -C "$1" -cf "$2" .
}

if [ -n "$only_rootfs" ]; then
  pack "$root" "$out"
  exit 0
fi

image=$work/image
mkdir "$image"
pack "$root" "$work/layer.tar"
layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
mkdir "$image/$layer"
mv "$work/layer.tar" "$image/$layer/layer.tar"
case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac
printf '{"architecture":"%s","os":"linux","created":"2024-01-01T00:00:00Z","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"2024-01-01T00:00:00Z","created_by":"busybox-image.sh"}]}' \
  "$arch" "$layer" >"$work/config.json"
config=$(sha256sum "$work/config.json" | cut -d' ' -f1)
mv "$work/config.json" "$image/$config.json"
printf '[{"Config":"%s.json","RepoTags":["%s"],"Layers":["%s/layer.tar"]}]' "$config" "$name" "$layer" >"$image/manifest.json"
pack "$image" "$out"
