"""The namespaces that a node lives in, and the end of them.

A node is a process tree with its own network, mounts and process ids. Its first process does nothing but hold
them: when it ends the kernel kills every other one, pods too, and every mount goes with the last. What is left
then, and is removed here, are the link to the machine, one mounted file that names the network, the cgroups of
pods, and the folder. So nothing has to be remembered for taking a node down, and a crash leaves no more than that.

Folders that programs insist on (``/run``, ``/var/lib/kubelet``, …) are covered inside by memory, and so are the
kernel's tunables that a kubelet sets: the machine keeps its own.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.rig.node.layout import Node, NodeError

DEADLINE_S = 90.0
APPEARS_S = 15.0
"""How long it may take until a program that was started is seen to run."""
PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COVERED = ("/var/lib/kubelet", "/var/lib/cni", "/var/log/containers")
TUNABLES = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}


def create(node: Node) -> None:
    """Make the namespaces, the link and the cgroups, and start the process that holds them."""
    node.network.touch()
    _run("unshare", f"--net={node.network}", "true")
    _run("ip", "link", "add", node.link, "type", "veth", "peer", "name", "eth0", "netns", str(node.network))
    _run("ip", "address", "add", f"{node.gateway}/30", "dev", node.link)
    _run("ip", "link", "set", node.link, "up")
    for folder in COVERED:
        Path(folder).mkdir(parents=True, exist_ok=True)
    for hierarchy in _hierarchies():
        _create_cgroup(hierarchy, node.cgroup)
    log = node.log("catatonit")
    unshare = ("unshare", "--mount", "--propagation=slave", "--pid", "--fork", "--mount-proc")
    with log.open("wb") as output:
        command = ["setsid", "--fork", *node.inside(*unshare, "sh", "-ec", _first_process(node))]
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=_environ(), check=True)
    wait(node, "catatonit", lambda: (node.folder / "isolated").exists())


def _first_process(node: Node) -> str:
    folder = shlex.quote(str(node.folder))
    lines = [
        # Volumes that pods mount into each other's view need a shared mount.
        f"mount --bind {folder} {folder}",
        f"mount --make-rshared {folder}",
        *(f"mount -t tmpfs -o mode=755 tmpfs {covered}" for covered in ("/run", *COVERED)),
        f"mkdir -p {folder}/tunables/kernel/keys {folder}/tunables/vm",
    ]
    for name, value in TUNABLES.items():
        lines += [f"echo {value} > {folder}/tunables/{name}", f"mount --bind {folder}/tunables/{name} /proc/sys/{name}"]
    lines += [
        "ip link set lo up",
        f"ip address add {node.address}/30 dev eth0",
        "ip link set eth0 up",
        f"ip route add default via {node.gateway}",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        f"touch {folder}/isolated",
        "exec catatonit -P",
    ]
    return "\n".join(lines)


def start(node: Node, program: str, *command: object) -> None:
    """Start a program of the node that outlives this process; its output goes to the log of that name."""
    holder = first(node)
    if holder is None:
        raise NodeError(f"node {node.name} ended; x and start it anew")
    enter = ("nsenter", f"--target={holder.pid}", "--mount", "--pid", "--net", "--", "setsid", "--fork")
    with node.log(program).open("wb") as output:
        subprocess.run(
            [*enter, *(str(part) for part in command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environ(),
            check=True,
        )


def wait(node: Node, program: str, is_ready: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    """Return once ``is_ready``; ``NodeError`` with the program's last words if it ends or the deadline passes."""
    end, pause = time.monotonic() + deadline_s, threading.Event()
    seen = time.monotonic()
    while not is_ready():
        now = time.monotonic()
        if program in running(node):
            seen = now
        if now > end or now - seen > APPEARS_S:
            what = f"not ready after {deadline_s:g} s" if now > end else "ended"
            words = "\n".join(node.log(program).read_text(errors="replace").splitlines()[-20:])
            raise NodeError(f"{program}: {what}; the end of {node.log(program)}:\n{words}")
        pause.wait(0.1)


def running(node: Node) -> set[str]:
    """The names of the programs and Python modules that run."""
    names = set()
    for process in _members(node):
        with contextlib.suppress(psutil.Error):
            names |= {
                Path(process.exe()).name,
                *(Path(part).stem for part in process.cmdline() if part.endswith(".py")),
            }
    return names


def remove(node: Node) -> None:
    """End and remove everything; safe to call at any time, and again."""
    members = _members(node)
    for process in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _, alive = psutil.wait_procs(members, DEADLINE_S)
    if alive:
        raise NodeError(f"processes of node {node.name} do not end: {', '.join(str(process) for process in alive)}")
    subprocess.run(["ip", "link", "delete", node.link], capture_output=True)  # gone with its network, at times
    for mount in _mounts_below(node.folder):
        _run("umount", mount)
    for hierarchy in _hierarchies():
        _remove_cgroup(hierarchy / node.cgroup)
    if left := _mounts_below(node.folder):
        raise NodeError(f"still mounted: {', '.join(left)}; unmount and take node {node.name} down again")
    shutil.rmtree(node.folder)


def uncover(nodes: Path) -> None:
    """With the last node, remove the folders that were made to be covered."""
    if not any(nodes.glob("*/subnet")):
        for folder in COVERED:
            with contextlib.suppress(OSError):  # somebody else's, and in use
                Path(folder).rmdir()


def _members(node: Node) -> list[psutil.Process]:
    """The processes in the node's network. Pods have networks of their own, and end with the first process."""
    found: list[psutil.Process] = []
    with contextlib.suppress(FileNotFoundError):
        network = node.network.stat()
        for pid in psutil.pids():
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                if os.path.samestat(os.stat(f"/proc/{pid}/ns/net"), network):
                    found.append(psutil.Process(pid))
    return found


def first(node: Node) -> psutil.Process | None:
    """The process that holds the namespaces, if it lives."""
    for process in _members(node):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            ids = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
            if len(ids) == 2 and ids[1] == "1":
                return process
    return None


def _mounts() -> list[tuple[str, str]]:
    """Mount points and types, those mounted last first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    parts = [(line.split()[4], line.split(" - ")[1].split()[0]) for line in lines]
    # Blanks are written as octal numbers, the rest as it is.
    plain = [(path.encode().decode("unicode_escape").encode("latin-1").decode(), kind) for path, kind in parts]
    return plain[::-1]


def _mounts_below(folder: Path) -> list[str]:
    return [path for path, _ in _mounts() if Path(path).is_relative_to(folder)]


def _hierarchies() -> list[Path]:
    """Where cgroups are mounted: once with version 2, once a controller with version 1."""
    return [Path(path) for path, kind in _mounts() if kind in ("cgroup", "cgroup2") and os.access(path, os.W_OK)]


def _create_cgroup(hierarchy: Path, name: str) -> None:
    offered = hierarchy / "cgroup.controllers"
    if offered.exists():
        for controller in offered.read_text().split():
            with contextlib.suppress(OSError):  # one that cannot be handed down; the kubelet names it if it needs it
                (hierarchy / "cgroup.subtree_control").write_text(f"+{controller}")
    (hierarchy / name).mkdir(exist_ok=True)
    for setting in ("cpuset.cpus", "cpuset.mems"):
        if (hierarchy / setting).exists() and not offered.exists():  # version 1 hands nothing down
            (hierarchy / name / setting).write_text((hierarchy / setting).read_text())


def _remove_cgroup(cgroup: Path) -> None:
    end, pause = time.monotonic() + DEADLINE_S, threading.Event()
    while cgroup.exists():
        for folder, _, _ in os.walk(cgroup, topdown=False):
            with contextlib.suppress(OSError):  # busy for as long as the kernel buries the last process
                os.rmdir(folder)
        if time.monotonic() > end:
            raise NodeError(f"{cgroup} is still in use: see `find {cgroup} -name cgroup.procs -exec cat {{}} +`")
        pause.wait(0.02)


def _environ() -> dict[str, str]:
    return {"PATH": PROGRAMS}


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise NodeError(f"`{shlex.join(command)}` failed: {done.stderr.strip()}")
