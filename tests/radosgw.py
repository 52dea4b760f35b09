"""Debian's radosgw, an S3 server, on a throwaway Ceph of one monitor and one disk in memory.

``python -m tests.radosgw`` starts one and says where, for a look by hand.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "monmaptool")
PATIENCE = 90.0  # seconds for each step; all of them together take a few

_CONF = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon}/0]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
keyring = {folder}/keyring
run dir = {folder}
admin socket =
pid file =
log file =
log to stderr = true
mon data = {folder}/mon
mon allow pool size one = true
mon max pg per osd = 1000
paxos propose interval = 0.02
paxos min wait = 0.01
mon data avail warn = 0
mon data avail crit = 0
osd data = {folder}/osd
osd objectstore = memstore
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
memstore device bytes = 4294967296
debug mon = 0/0
debug paxos = 0/0
debug osd = 0/0
debug rgw = 0/0
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{rgw} tcp_nodelay=1
"""


class Store(NamedTuple):
    """Where a server listens, and who may ask it."""

    url: str
    access_key: str
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        """What a task sets from Airflow's connection."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


def missing() -> str | None:
    """Say why it cannot be started here, or None if it can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if not absent:
        return None
    return f"no {', '.join(absent)} here: apt-get install radosgw ceph-mon ceph-osd"


@contextlib.contextmanager
def running() -> Iterator[Store]:
    """Start a store; after it, end its processes and remove its folder."""
    folder = Path(tempfile.mkdtemp(prefix="radosgw-"))
    processes: list[subprocess.Popen[bytes]] = []
    try:
        yield _start(folder, processes)
    finally:
        for process in reversed(processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, processes: list[subprocess.Popen[bytes]]) -> Store:
    fsid, conf = str(uuid.uuid4()), folder / "ceph.conf"
    mon, rgw = _free_ports(2)
    conf.write_text(_CONF.format(folder=folder, fsid=fsid, mon=mon, rgw=rgw))
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir()
    store = Store(f"http://127.0.0.1:{rgw}", "test", "test-test")

    def run(name: str, *arguments: str) -> None:
        out = folder / f"{name}.out"
        with out.open("ab") as log:
            try:
                done = subprocess.run(
                    [name, "-c", str(conf), *arguments],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=PATIENCE, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise _failed(folder, f"{name} was not done in {PATIENCE:.0f} s") from None
        if done.returncode:
            raise _failed(folder, f"{name} ended with {done.returncode}")

    setpriv = shutil.which("setpriv")  # a killed test leaves no server behind
    bound = [setpriv, "--pdeathsig", "KILL"] if setpriv else []

    def serve(name: str, *arguments: str) -> Callable[[], None]:
        with (folder / f"{name}.out").open("ab") as log:
            process = subprocess.Popen(
                [*bound, name, "-c", str(conf), "-f", *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        processes.append(process)

        def require() -> None:
            if process.poll() is not None:
                raise _failed(folder, f"{name} ended with {process.returncode}")

        return require

    address, monmap = f"[v2:127.0.0.1:{mon}]", str(folder / "monmap")
    run("monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", address, monmap)
    run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
    serve("ceph-mon", "-i", "a")
    disk = str(uuid.uuid4())
    run("ceph", "osd", "new", disk)
    run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
    serve("ceph-osd", "-i", "0")
    run(
        "radosgw-admin", "user", "create", "--uid=test", "--display-name=test",
        f"--access-key={store.access_key}", f"--secret-key={store.secret_key}",
    )  # fmt: skip
    require = serve("radosgw", "-n", "client.admin")
    until = time.monotonic() + PATIENCE
    while not _answers(store.url):
        require()
        if time.monotonic() > until:
            raise _failed(folder, f"radosgw did not answer in {PATIENCE:.0f} s")
        time.sleep(0.1)
    return store


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _free_ports(count: int) -> list[int]:
    """Give ports that nobody listens on."""
    with contextlib.ExitStack() as held:
        found = []
        for _ in range(count):
            one = held.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            found.append(int(one.getsockname()[1]))
        return found


def _failed(folder: Path, what: str) -> RuntimeError:
    """Say what failed, with the end of what each program said."""
    told = [
        f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:])
        for path in sorted(folder.glob("*.out"))
    ]
    return RuntimeError("\n".join([f"radosgw could not be started: {what}", *told]))


if __name__ == "__main__":
    with running() as started:
        print("\n".join(f"export {name}={value}" for name, value in started.environment.items()))  # noqa: T201
        signal.pause()
