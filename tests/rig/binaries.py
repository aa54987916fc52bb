"""Kubernetes and what tests put beside it: found, or built once from Go modules.

Looked for in the folder ``KUBEBUILDER_ASSETS`` first, where that is set (it usually has no
kube-controller-manager), then in a cache folder that is named by everything a build depends on. What is
missing is built there; the first build of a control plane takes about 8 minutes on two cores, and processes
that start at the same time wait for the one that builds.

``python -m tests.rig.binaries [TIER…]`` does the same ahead of time and prints where they are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

MODULES = Path(__file__).parent / "go"
KUBERNETES_VERSION = "v1.34.4"


class NoBinaries(Exception):
    """The binaries are not there and cannot be built; the message says what to install or set."""


@dataclasses.dataclass(frozen=True)
class Target:
    """One program, its package, the module it is built in, and how long that takes from nothing."""

    name: str
    package: str
    module: str
    minutes: float


TARGETS = (
    Target("etcd", "go.etcd.io/etcd/server/v3", "etcd", 1),
    Target("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", "kubernetes", 5),
    Target("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", "kubernetes", 1.5),
    Target("kubectl", "k8s.io/kubernetes/cmd/kubectl", "kubernetes", 0.7),
)
S3_GATEWAY = Target("versitygw", "github.com/versity/versitygw/cmd/versitygw", "s3", 1)
"""An S3 server over a folder (Apache-2.0)."""
REGISTRY = Target("registry", "github.com/distribution/distribution/v3/cmd/registry", "registry", 2)
"""An OCI registry over a folder (Apache-2.0)."""
HELM = Target("helm", "helm.sh/helm/v3/cmd/helm", "helm", 3)
KUBECONFORM = Target("kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform", "kubeconform", 0.2)
"""Holds manifests against JSON schemas (Apache-2.0)."""
KSERVE = Target("manager", "github.com/kserve/kserve/cmd/manager", "kserve", 4)
"""KServe's controller (Apache-2.0)."""
KUBERAY = Target("ray-operator", "github.com/ray-project/kuberay/ray-operator", "kuberay", 3)
"""KubeRay's operator (Apache-2.0)."""
NODE = (
    Target("kubelet", "k8s.io/kubernetes/cmd/kubelet", "kubernetes", 0.6),
    Target("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", "kubernetes", 0.2),
    Target("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", "kubernetes", 0.2),
    Target("coredns", ".", "coredns", 1.5),
)
"""What a node runs beside a control plane."""
TIERS = {
    "storage": (S3_GATEWAY, REGISTRY),
    "apiserver": (*TARGETS, HELM, KUBECONFORM, KSERVE, KUBERAY),
    "cluster": (*TARGETS, *NODE, S3_GATEWAY, HELM, REGISTRY, KUBECONFORM, KSERVE),
}
"""What each test tier needs."""


@dataclasses.dataclass(frozen=True)
class Binaries:
    """Where each program is."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kubectl: Path


def locate(environ: Mapping[str, str], say: Callable[[str], None]) -> Binaries:
    """Find every program, building what is missing; ``say`` gets a line for each build.

    Raises:
        NoBinaries: something is missing and cannot be built.
    """
    return Binaries(**{target.name.replace("-", "_"): find(target, environ, say) for target in TARGETS})


def find(target: Target, environ: Mapping[str, str], say: Callable[[str], None]) -> Path:
    """One program, given or built. Raises ``NoBinaries`` as ``locate`` does."""
    assets = environ.get("KUBEBUILDER_ASSETS")
    provided = Path(assets) / target.name if assets else None
    return provided if provided and provided.is_file() else built(target, environ, say)


def built(target: Target, environ: Mapping[str, str], say: Callable[[str], None]) -> Path:
    """One program from the cache, built there if it is missing. Raises ``NoBinaries`` as ``locate`` does."""
    cache = environ.get("PENSTOCK_CACHE") or (environ.get("XDG_CACHE_HOME") or "~/.cache") + "/penstock"
    root = Path(cache).expanduser() / "rig"
    go = shutil.which("go", path=environ.get("PATH"))
    if go is None:
        raise NoBinaries(
            f"{target.name}: no `go` in PATH to build it with; install Go 1.26 or newer, or set "
            f"KUBEBUILDER_ASSETS to a folder that holds {', '.join(t.name for t in TARGETS)}"
        )
    build_environ = {**environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
    module = MODULES / target.module
    folder = root / f"{target.module}-{_fingerprint(go, module, build_environ)}"
    binary = folder / target.name
    if binary.is_file():
        return binary
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f"{target.name}.lock"):
        if not binary.is_file():
            say(f"building {target.name}, once: about {target.minutes:g} min on two cores")
            _build(go, target, module, binary, build_environ)
            say(f"built {binary}")
    return binary


def sources(module: str, package: str, environ: Mapping[str, str]) -> Path:
    """The folder of a module's sources, fetched with the checksum that go.sum has for them. Raises ``NoBinaries``."""
    command = ["go", "mod", "download", "-json", package]
    quiet = {**environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
    done = subprocess.run(command, cwd=MODULES / module, env=quiet, capture_output=True, text=True)
    if done.returncode != 0:
        raise NoBinaries(f"{module}: `{' '.join(command)}` failed:\n{done.stdout}{done.stderr}")
    return Path(json.loads(done.stdout)["Dir"])


def _flags(module: str) -> list[str]:
    link = "-s -w"
    if module == "kubernetes":
        version = "k8s.io/component-base/version"
        major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
        link += (
            f" -X {version}.gitVersion={KUBERNETES_VERSION} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
        )
    return ["-trimpath", "-ldflags", link]


def _fingerprint(go: str, module: Path, environ: Mapping[str, str]) -> str:
    version = subprocess.run([go, "env", "GOVERSION"], env=environ, capture_output=True, check=True).stdout
    parts = (
        *(path.read_bytes() for path in sorted(module.iterdir()) if path.is_file()),
        repr(_flags(module.name)).encode(),
        version.strip(),
    )
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]


def _build(go: str, target: Target, module: Path, binary: Path, environ: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory(dir=binary.parent) as folder:
        made = Path(folder) / target.name
        command = [go, "build", *_flags(target.module), "-o", str(made), target.package]
        done = subprocess.run(command, cwd=module, env=environ, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise NoBinaries(f"{target.name}: `{' '.join(command)}` in {module} failed:\n{done.stderr[-2000:]}")
        made.replace(binary)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(tiers: Sequence[str], environ: Mapping[str, str]) -> int:
    """Print where the programs of these tiers are, or of all, building them first where needed."""
    targets = dict.fromkeys(target for tier in tiers or TIERS for target in TIERS[tier])
    try:
        for target in targets:
            print(find(target, environ, _say), flush=True)
    except NoBinaries as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
