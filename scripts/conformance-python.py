"""What docker's SDK for Python gets from an engine, as one line of JSON per check.

conformance-python.sh runs it against dockerd and brigd and compares the lines: ids, times and
sizes are left out, everything else must be the same.

  conformance-python.py SOCKET BUSYBOX.tar API-VERSION
"""

import io
import json
import socket as sockets
import sys
import tarfile
import threading
import time
import traceback

import docker
import websocket

SOCKET, ARCHIVE, VERSION = sys.argv[1:]
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def tar_of(name, content, mode=0o640):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), mode
        archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def exactly(socket, length):
    """A socket gives what has come so far, which may be less."""
    got = b""
    while len(got) < length:
        piece = socket.read(length - len(got))
        if not piece:
            break
        got += piece
    return got


def untar(chunks):
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        return {
            member.name: [oct(member.mode & 0o7777), archive.extractfile(member).read().decode()]
            for member in archive.getmembers()
            if member.isfile()
        }


def error_of(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except docker.errors.APIError as error:
        return [type(error).__name__, error.status_code]
    return None


@check
def load(client):
    with open(ARCHIVE, "rb") as archive:
        return [image.tags for image in client.images.load(archive)]


@check
def run(client):
    output = client.containers.run("busybox", ["sh", "-c", "echo out; echo err >&2"], stderr=True, remove=True)
    try:
        client.containers.run("busybox", "sh -c 'echo why >&2; exit 3'", remove=True)
    except docker.errors.ContainerError as error:
        failed = [error.exit_status, error.stderr.decode()]
    return [sorted(output.decode().split()), failed]


@check
def logs(client):
    container = client.containers.run("busybox", "sh -c 'seq 1 5; sleep 0.3; echo end'", detach=True)
    followed = b"".join(container.logs(stream=True, follow=True)).decode()
    status = container.wait()["StatusCode"]
    last = container.logs(tail=2).decode()
    stamped = len(container.logs(timestamps=True, tail=1).split(b" ")[0])
    container.remove()
    return [followed, status, last, stamped]


@check
def attributes(client):
    container = client.containers.create(
        "busybox", "sleep 100", name="attributes", environment={"A": "1"}, labels={"l": "v"}, hostname="h",
        mem_limit="64m", cap_drop=["ALL"], working_dir="/tmp", user="7", tmpfs={"/t": "size=1m"},
        healthcheck={"test": ["CMD", "true"], "interval": 1_000_000_000}, restart_policy={"Name": "on-failure", "MaximumRetryCount": 2},
    )
    found, host = container.attrs["Config"], container.attrs["HostConfig"]
    listed = [c.name for c in client.containers.list(all=True, filters={"label": ["l=v"], "status": ["created"]})]
    container.rename("renamed")
    container.reload()
    name = container.name
    container.remove()
    return [
        {key: found[key] for key in ("Cmd", "Hostname", "User", "WorkingDir", "Labels", "Healthcheck", "Tty")},
        "A=1" in found["Env"],
        {key: host[key] for key in ("Memory", "CapDrop", "RestartPolicy", "Tmpfs", "NetworkMode")},
        listed, name, error_of(client.containers.get, "renamed"),
    ]


@check
def execute(client):
    container = client.containers.run("busybox", "sleep 100", detach=True)
    code, output = container.exec_run("sh -c 'echo $V; id -u; exit 4'", environment={"V": "x"}, user="5")
    split = container.exec_run("sh -c 'echo o; echo e >&2'", demux=True).output
    streamed = b"".join(container.exec_run("seq 1 3", stream=True).output).decode()
    # 126 until Docker Engine 20.10, 127 since.
    missing = container.exec_run("nothing-like-it").exit_code in (126, 127)
    _, socket = container.exec_run("cat", stdin=True, socket=True, tty=True)
    socket._sock.sendall(b"typed\n")
    echoed = exactly(socket, 5).decode()
    socket.close()
    # In the order of their numbers, which begin again at some time; and cat may have ended.
    top = "sleep 100" in [process[-1] for process in container.top()["Processes"]]
    container.remove(force=True)
    return [code, output.decode(), [part.decode() for part in split], streamed, missing, echoed, top]


@check
def attach_socket(client):
    container = client.containers.create("busybox", "cat", stdin_open=True)
    socket = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    container.start()
    socket._sock.sendall(b"hello\n")
    header, text = exactly(socket, 8), exactly(socket, 6)
    socket.close()
    container.remove(force=True)
    return [header.hex(), text.decode()]


@check
def attach(client):
    container = client.containers.create("busybox", "sh -c 'echo one; echo two >&2'")
    stream = container.attach(stream=True, demux=True, logs=True)
    container.start()
    got = sorted([(out or b"").decode(), (err or b"").decode()] for out, err in stream)
    container.remove(force=True)
    return got


@check
def attach_websocket(client):
    container = client.containers.create("busybox", "sh -c 'cat; seq 1 20000'", stdin_open=True)
    container.start()
    unix = sockets.socket(sockets.AF_UNIX)
    unix.connect(SOCKET)
    # The package takes ports of TCP only; over another socket it does the handshake itself.
    web = websocket.create_connection(
        f"ws://localhost/v{VERSION}/containers/{container.id}/attach/ws?stdin=1&stdout=1&stderr=1&stream=1", socket=unix)
    web.send("hello\n")
    kind, answer = web.recv_data()
    web.send("x" * 70000 + "\n")
    got = b""
    while len(got) < 70001:
        got += web.recv_data()[1]
    web.close()
    container.remove(force=True)
    return [kind, answer.decode(), got == b"x" * 70000 + b"\n"]


@check
def states(client):
    container = client.containers.run("busybox", "sleep 100", detach=True)
    seen = []
    for change in (container.pause, container.unpause, lambda: container.restart(timeout=0), lambda: container.kill("SIGKILL"), lambda: container.wait(), container.start, lambda: container.stop(timeout=0)):
        change()
        container.reload()
        seen.append(container.status)
    container.update(mem_limit="128m", memswap_limit="128m")
    container.reload()
    seen.append(container.attrs["HostConfig"]["Memory"])
    container.remove()
    return seen


@check
def stats(client):
    container = client.containers.run("busybox", "sleep 100", detach=True)
    once = container.stats(stream=False)
    streamed = next(container.stats(decode=True))
    container.remove(force=True)
    wanted = ("cpu_stats", "memory_stats", "pids_stats", "networks", "blkio_stats", "name", "id", "read", "preread")
    return [[key for key in wanted if key not in found] for found in (once, streamed)] + [
        once["pids_stats"]["current"], once["memory_stats"]["usage"] > 0, list(once["networks"]),
        once["cpu_stats"]["cpu_usage"]["total_usage"] > 0,
    ]


@check
def archives(client):
    container = client.containers.create("busybox", "true")
    put = container.put_archive("/tmp", tar_of("file", b"content"))
    chunks, stat = container.get_archive("/tmp/file")
    changed = [change for change in container.diff() if change["Path"].startswith("/tmp")]
    exported = len(b"".join(container.export())) > 500_000
    missing = error_of(container.get_archive, "/nope")
    nowhere = error_of(container.put_archive, "/nope", tar_of("file", b""))
    container.remove()
    return [put, untar(chunks), stat["name"], stat["size"], oct(stat["mode"]), changed, exported, missing, nowhere]


@check
def events(client):
    seen, ready = [], threading.Event()

    def listen():
        for event in client.events(decode=True, filters={"type": "container", "label": "watched"}, since=since, until=since + 4):
            seen.append(event["Action"])

    since = int(time.time())
    listener = threading.Thread(target=listen)
    listener.start()
    client.containers.run("busybox", "true", labels=["watched"], remove=True)
    listener.join()
    return seen


@check
def images(client):
    image = client.images.get("busybox")
    image.tag("other/name", tag="1")
    tags = sorted(client.images.get("busybox").tags)
    listed = sorted(tag for found in client.images.list(name="other/name") for tag in found.tags)
    client.images.remove("other/name:1")
    container = client.containers.run("busybox", "touch /made", detach=True)
    container.wait()
    committed = container.commit("committed", tag="x", changes=["ENV C=1"])
    config = committed.attrs["Config"]
    container.remove()
    ran = client.containers.run("committed:x", "sh -c 'ls /made; echo $C'", remove=True).decode()
    client.images.remove("committed:x")
    return [tags, listed, sorted(config["Env"]), ran, len(image.history()), error_of(client.images.get, "nope")]


@check
def build(client):
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for name, text in {
            "Dockerfile": "FROM busybox\nARG WHO\nENV A=b\nLABEL l=v\nRUN echo $WHO > /who\nCOPY file /file\nCMD cat /who /file\n",
            "file": "copied\n",
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    image, lines = client.images.build(
        fileobj=io.BytesIO(context.getvalue()), custom_context=True, tag="built:1", buildargs={"WHO": "me"}, rm=True)
    steps = [line["stream"].strip() for line in lines if line.get("stream", "").startswith("Step ")]
    ran = client.containers.run("built:1", remove=True).decode()
    labels = image.labels
    client.images.remove("built:1")
    try:
        client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN exit 9\n"), rm=True, forcerm=True)
        failed = None
    except docker.errors.BuildError as error:
        failed = "9" in error.msg
    return [len(steps), ran, labels, failed]


@check
def save(client):
    client.images.get("busybox").tag("saved", tag="1")
    saved = b"".join(client.images.get("saved:1").save(named=True))
    client.images.remove("saved:1")
    return [image.tags for image in client.images.load(saved)][0].count("saved:1")


@check
def networks(client):
    pool = docker.types.IPAMPool(subnet="10.213.7.0/24", gateway="10.213.7.1")
    network = client.networks.create("inner", driver="bridge", labels={"n": "1"}, ipam=docker.types.IPAMConfig(pool_configs=[pool]))
    container = client.containers.run("busybox", "sleep 100", detach=True, name="peer", network="inner")
    answer = client.containers.run("busybox", "ping -c 1 -W 5 peer", network="inner", remove=True).decode()
    network.reload()
    there = [c.name for c in network.containers]
    ipam = network.attrs["IPAM"]["Config"]
    in_use = error_of(network.remove)
    network.disconnect(container)
    client.networks.get("bridge").connect(container, aliases=None)
    container.reload()
    on = list(container.attrs["NetworkSettings"]["Networks"])
    container.remove(force=True)
    network.remove()
    return ["1 packets received" in answer, there, ipam, in_use, on, [n.name for n in client.networks.list(filters={"label": "n=1"})]]


@check
def ports(client):
    container = client.containers.run("busybox", "sleep 100", detach=True, ports={"80/tcp": ("127.0.0.1", None), "53/udp": ("127.0.0.1", 25353)})
    container.reload()
    bound = container.ports
    container.remove(force=True)
    return [sorted(bound), bound["53/udp"], bound["80/tcp"][0]["HostIp"]]


@check
def volumes(client):
    volume = client.volumes.create("kept", labels={"v": "1"})
    client.containers.run("busybox", "sh -c 'echo x > /v/f'", volumes={"kept": {"bind": "/v", "mode": "rw"}}, remove=True)
    read = client.containers.run("busybox", "cat /v/f", volumes=["kept:/v:ro"], remove=True).decode()
    refused = None
    try:
        client.containers.run("busybox", "touch /v/g", mounts=[docker.types.Mount("/v", "kept", read_only=True)], remove=True)
    except docker.errors.ContainerError as error:
        refused = error.exit_status
    attributes = {key: volume.attrs[key] for key in ("Driver", "Labels", "Name", "Scope", "Options")}
    listed = [found.name for found in client.volumes.list(filters={"label": "v=1"})]
    volume.remove()
    return [attributes, read, refused, listed, error_of(client.volumes.get, "kept")]


@check
def errors(client):
    container = client.containers.create("busybox", "true", name="taken")
    found = [
        error_of(client.containers.create, "busybox", name="taken"),
        error_of(client.containers.create, "nope:1"),
        error_of(container.kill),
        error_of(container.exec_run, "true"),
        error_of(client.networks.get, "nope"),
        error_of(client.plugins.get, "nope"),
        error_of(client.swarm.reload) is not None,
        client.plugins.list(),
    ]
    container.remove()
    return found


@check
def swarm(client):
    client.swarm.init(advertise_addr="127.0.0.1", listen_addr="127.0.0.1:23790")
    secret = client.secrets.create(name="s", data=b"hidden", labels={"k": "v"})
    config = client.configs.create(name="c", data=b"shown")
    service = client.services.create(
        "busybox", ["sh", "-c", "cat /run/secrets/s /c; sleep 100"], name="svc", env=["E=1"],
        secrets=[docker.types.SecretReference(secret.id, "s")], configs=[docker.types.ConfigReference(config.id, "c", filename="/c")],
    )
    end, output = time.time() + 40, b""
    while b"hiddenshown" not in output and time.time() < end:
        time.sleep(0.2)
        output = b"".join(service.logs(stdout=True))
    service.reload()
    service.scale(2)
    service.reload()
    replicas = service.attrs["Spec"]["Mode"]
    nodes = [[node.attrs["Spec"]["Role"], node.attrs["Status"]["State"]] for node in client.nodes.list()]
    listed = [client.secrets.list()[0].name, client.configs.list()[0].name]
    service.remove()
    client.swarm.leave(force=True)
    return [b"hiddenshown" in output, replicas, nodes, listed]


@check
def prune(client):
    client.containers.create("busybox", "true")
    # No other: a swarm that was left leaves no task behind.
    for found in client.containers.list(all=True):
        print("prune finds", found.name, found.status, found.attrs["State"]["Error"], file=sys.stderr)
    removed = client.containers.prune()["ContainersDeleted"]
    return [len(removed), sorted(client.volumes.prune()), sorted(client.df()), client.containers.list(all=True)]


def main():
    client = docker.DockerClient(base_url=f"unix://{SOCKET}", version=VERSION, timeout=60)
    for function in CHECKS:
        try:
            result = function(client)
        except Exception as error:
            result = {"exception": f"{type(error).__name__}: {error}"}
            traceback.print_exc()
            for container in client.containers.list(all=True):
                container.remove(force=True)
        print(f"{function.__name__}: {json.dumps(result, sort_keys=True, default=str)}", flush=True)


main()
