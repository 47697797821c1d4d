#!/usr/bin/env bash
# Installs brig as `docker` too: it answers to that name.
#   link-docker.sh yes|no|auto|remove DESTDIR PREFIX
# auto links unless another docker is on the PATH or in the place, and not into a package's tree.
set -euo pipefail

mode=$1 dest=$2 bin=$3/bin
link=$dest$bin/docker

ours() { [ -L "$link" ] && [ "$(readlink "$link")" = brig ]; }

case $mode in
  yes) ;;
  no) exit 0 ;;
  remove)
    if ours; then rm -f "$link"; fi
    exit 0
    ;;
  auto)
    if [ -n "$dest" ]; then exit 0; fi
    found=$(type -P docker || :)
    if [ -n "$found" ] && ! { ours && [ "$found" -ef "$link" ]; }; then
      echo "docker stays $found; LINK_DOCKER=yes makes $link brig"
      exit 0
    fi
    ;;
  *)
    echo "LINK_DOCKER is $mode: expected yes, no or auto" >&2
    exit 2
    ;;
esac
if [ -e "$link" ] || [ -L "$link" ]; then
  if ! ours; then
    echo "$link is there and is not brig: it stays" >&2
    exit 0
  fi
fi
ln -sfn brig "$link"
echo "$link is brig"
