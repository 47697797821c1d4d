#!/usr/bin/env python3
"""Compares brig's inventory of image archives with Trivy's and Syft's, and times all three.

usage: compare-scanners.py INVENTORY ARCHIVE...
INVENTORY is `cargo build --release -p brig-scan --example inventory`'s program; the others come from
`scripts/setup.sh bench`. Prints what only one of two lists; docs/inventory.md explains the rest.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse

SCANNERS = os.environ.get("BRIG_SCANNERS", "/var/tmp/brig-scanners")


def packages(document):
    """The packages of a CycloneDX document, each tool's way of writing the same made equal."""
    found = set()
    for component in json.loads(document).get("components", []):
        purl = component.get("purl", "")
        kind, _, rest = purl.removeprefix("pkg:").partition("/")
        if not kind or kind == "oci":
            continue
        rest, _, inside = rest.partition("#")
        rest = rest.split("?")[0]
        name, _, version = rest.rpartition("@") if "@" in rest[1:] else (rest, "", "")
        name, version = urllib.parse.unquote(name), urllib.parse.unquote(version)
        if kind in ("deb", "rpm", "apk"):
            name, version = name.split("/")[-1], version.split(":", 1)[-1]
        elif kind == "golang":
            # Syft writes a part of a module's path behind `#`; Trivy writes names in lower case.
            name = (f"{name}/{inside}" if inside else name).lower()
            version = version.removeprefix("go").removeprefix("v")
        elif kind == "pypi":
            name = name.lower().replace("_", "-").replace(".", "-")
        elif kind == "composer":
            version = version.removeprefix("v")
        found.add((kind, name, version))
    return found


def run(command, env):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done, wall, cpu


def main():
    inventory, archives = sys.argv[1], sys.argv[2:]
    for archive in archives:
        lists = {}
        for tool in ("brig", "trivy", "syft"):
            best = None
            for _ in range(3):
                cache = tempfile.mkdtemp()
                env = {"PATH": "/usr/bin:/bin", "HOME": cache, "SYFT_CHECK_FOR_APP_UPDATE": "false"}
                command = {
                    "brig": [inventory, archive, "cyclonedx"],
                    "trivy": [f"{SCANNERS}/trivy", "image", "--input", archive, "--format",
                              "cyclonedx", "--offline-scan", "--cache-dir", cache, "-q"],
                    "syft": [f"{SCANNERS}/syft", f"docker-archive:{archive}", "-o",
                             "cyclonedx-json", "-q"],
                }[tool]
                done, wall, cpu = run(command, env)
                shutil.rmtree(cache, ignore_errors=True)
                best = min(best or (wall, cpu), (wall, cpu))
            if done.returncode:
                print(f"{archive}: {tool} failed: {done.stderr.decode(errors='replace')[-200:]}")
                continue
            lists[tool] = packages(done.stdout)
            print(f"{archive}: {tool}: {len(lists[tool])} packages, {best[0]:.2f} s, cpu {best[1]:.2f} s")
        for other in ("trivy", "syft"):
            if other in lists and "brig" in lists:
                print(f"  only brig, not {other}: {sorted(lists['brig'] - lists[other])}")
                print(f"  only {other}, not brig: {sorted(lists[other] - lists['brig'])}")


main()
