#!/usr/bin/env python3
"""Builds image archives with real content for compare-scanners.py.

usage: scanner-images.py FOLDER
Debian comes from its archive (mmdebstrap), Python packages from pip, Node packages from npm, Go and
Rust programs from their compilers, Java archives from Debian's
packages; Alpine's and rpm's databases are written as apk and rpm write them. What is missing on the
machine is told and left out. An archive that is there already is kept.
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PYTHON = ["flask==3.0.3", "requests==2.31.0", "numpy==1.26.4", "pyyaml==6.0.1", "zope.interface==6.1"]
NODE = ["express@4.18.2", "lodash@4.17.20", "@babel/core@7.23.0", "left-pad@1.3.0"]
JAVA = ["libcommons-io-java", "libspring-web-java", "libjackson2-databind-java", "libguava-java",
        "liblog4j2-java", "libxerces2-java"]
CRATES = 'regex = "1"\nserde_json = "1"\ntime = "0.3"\n'
APK = [
    ("musl", "1.2.4-r2", "musl", "lib/ld-musl-x86_64.so.1"),
    ("busybox", "1.36.1-r5", "busybox", "bin/busybox"),
    ("libcrypto3", "3.1.4-r1", "openssl", "lib/libcrypto.so.3"),
    ("libssl3", "3.1.4-r1", "openssl", "lib/libssl.so.3"),
    ("zlib", "1.2.13-r1", "zlib", "lib/libz.so.1"),
    ("apk-tools", "2.14.0-r2", "apk-tools", "sbin/apk"),
]


def run(*command, **options):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)


def layer_of(folder):
    """A folder as a layer: names in order, no owners, no times."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(Path(folder).rglob("*")):
            info = tar.gettarinfo(path, str(path.relative_to(folder)))
            info.uid = info.gid = info.mtime = 0
            info.uname = info.gname = ""
            if info.isreg():
                with open(path, "rb") as content:
                    tar.addfile(info, content)
            else:
                tar.addfile(info)
    return out.getvalue()


def archive(target, layers):
    """What `docker save` writes."""
    ids = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": ids},
        "history": [{"created": "2024-01-01T00:00:00Z", "created_by": f"layer {i}"}
                    for i, _ in enumerate(layers)],
    }).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": [f"test/{target.stem}:1"],
                 "Layers": [f"{i[7:]}/layer.tar" for i in ids]}]
    part = target.with_suffix(".part")
    with tarfile.open(part, "w") as tar:
        def add(path, content):
            info = tarfile.TarInfo(path)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for digest, layer in zip(ids, layers):
            add(f"{digest[7:]}/layer.tar", layer)
        add(name, config)
        add("manifest.json", json.dumps(manifest).encode())
    part.rename(target)


def write(root, path, content):
    path = Path(root) / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def debian(work):
    tar = Path(work) / "debian.tar"
    run("mmdebstrap", "--quiet", "--variant=minbase", "bookworm", tar)
    return [tar.read_bytes()]


def base(work):
    """A system of which nothing is vulnerable or listed: for images of language content."""
    root = Path(work) / "base"
    write(root, "etc/os-release", 'ID=debian\nVERSION_ID="12"\n')
    write(root, "etc/debian_version", "12.5\n")
    return layer_of(root)


def alpine(work):
    root = Path(work) / "alpine"
    write(root, "etc/os-release", 'ID=alpine\nVERSION_ID=3.18.4\nNAME="Alpine Linux"\n')
    write(root, "etc/alpine-release", "3.18.4\n")
    records = []
    for name, version, origin, file in APK:
        folder, base_name = file.rsplit("/", 1)
        write(root, file, f"{name}\n").chmod(0o755)
        records.append(
            f"C:Q1{'A' * 27}=\nP:{name}\nV:{version}\nA:x86_64\nS:1\nI:1\nT:{name}\nU:x\nL:MIT\n"
            f"o:{origin}\nm:x <x@example.org>\nt:1\nc:0\nF:{folder}\nR:{base_name}\na:0:0:755\n\n")
    write(root, "lib/apk/db/installed", "".join(records))
    return [layer_of(root)]


def rpm(work):
    root = Path(work) / "rpm"
    write(root, "etc/os-release", 'ID="almalinux"\nVERSION_ID="9.3"\n')
    write(root, "etc/almalinux-release", "AlmaLinux release 9.3 (Shamrock Pampas Cat)\n")
    build = Path(work) / "build"
    for name, version in (("openssl-libs", "3.0.7"), ("bash", "5.1.8"), ("zlib", "1.2.11")):
        spec = write(build, f"{name}.spec",
                     f"Name: {name}\nVersion: {version}\nRelease: 24.el9\nEpoch: 1\nLicense: MIT\n"
                     f"Summary: x\nVendor: AlmaLinux\nBuildArch: noarch\n%description\nx\n%files\n")
        run("rpmbuild", "-bb", "--quiet", "--define", f"_topdir {build}", spec)
    database = root / "var/lib/rpm"
    database.mkdir(parents=True)
    packages = [str(path) for path in build.rglob("*.rpm")]
    run("rpm", "--root", root, "--define", "_dbpath /var/lib/rpm",
        "--define", "_db_backend sqlite", "-i", "--justdb", "--nodeps", "--ignorearch",
        "--nosignature", *packages)
    return [layer_of(root)]


def python(work):
    root = Path(work) / "python"
    run(sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--disable-pip-version-check",
        "--root-user-action=ignore", "--target",
        root / "usr/local/lib/python3.11/site-packages", *PYTHON)
    return [base(work), layer_of(root)]


def node(work):
    root = Path(work) / "node"
    app = root / "app"
    write(app, "package.json", '{"name":"app","version":"1.0.0","private":true}')
    run("npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", *NODE, cwd=app)
    return [base(work), layer_of(root)]


def go(work):
    """Programs that others built, with many modules, and one of our own."""
    root, source = Path(work) / "go", Path(work) / "go-source"
    write(source, "main.go", "package main\n\nfunc main() { println(1) }\n")
    write(source, "go.mod", "module example.org/app\n\ngo 1.18\n")
    (root / "usr/local/bin").mkdir(parents=True)
    run("go", "build", "-o", root / "usr/local/bin/app", ".", cwd=source)
    scanners = os.environ.get("BRIG_SCANNERS", "/var/tmp/brig-scanners")
    programs = [f"{scanners}/trivy", f"{scanners}/syft", "/usr/bin/skopeo", "/usr/bin/etcd",
                "/usr/bin/docker", "/usr/bin/docker-registry"]
    for program in filter(os.path.exists, programs):
        shutil.copy(program, root / "usr/local/bin" / os.path.basename(program))
    return [base(work), layer_of(root)]


def rust(work):
    root, source = Path(work) / "rust", Path(work) / "rust-source"
    write(source, "Cargo.toml", '[package]\nname = "app"\nversion = "0.3.0"\nedition = "2021"\n'
          f"[dependencies]\n{CRATES}")
    write(source, "src/main.rs", 'fn main() { println!("{}", serde_json::json!({"a": '
          'regex::Regex::new("a").is_ok(), "b": time::Date::MIN.to_string()})); }\n')
    (root / "usr/local/bin").mkdir(parents=True)
    target = source / "target"
    # `scripts/setup.sh bench` puts cargo-auditable there.
    scanners = os.environ.get("BRIG_SCANNERS", "/var/tmp/brig-scanners")
    path = f"{scanners}/bin:{os.environ['PATH']}"
    run("cargo", "auditable", "build", "-q", "--target-dir", target, cwd=source,
        env={**os.environ, "PATH": path})
    run("strip", "-o", root / "usr/local/bin/app", target / "debug/app")
    return [base(work), layer_of(root)]


def java(work):
    root, packages = Path(work) / "java", Path(work) / "debs"
    packages.mkdir()
    run("apt-get", "download", "-qq", *JAVA, cwd=packages, stderr=subprocess.DEVNULL)
    for package in sorted(packages.glob("*.deb")):
        run("dpkg-deb", "-x", package, packages / "root")
    # Away from the places of Debian's packages: as an application brings them.
    shutil.copytree(packages / "root/usr/share/java", root / "opt/app/lib", symlinks=False,
                    ignore_dangling_symlinks=True)
    return [base(work), layer_of(root)]


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for build in (debian, alpine, rpm, python, node, go, rust, java):
        target = folder / f"{build.__name__}.tar"
        if target.exists():
            continue
        with tempfile.TemporaryDirectory(dir=folder) as work:
            try:
                archive(target, build(work))
                print(f"{target}: {target.stat().st_size >> 20} MiB")
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"{target}: left out: {error}")


main()
