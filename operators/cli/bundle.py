"""``penstock bundle``: one variant of a Model with the server and all that it needs, as a folder for another machine.

For devices at the edge, of another architecture than this machine, without Kubernetes and maybe without a network: what
is installed there is this folder, and a unit of systemd that runs it. Packages are the versions that this environment
has, as wheels for the target; the device brings Python and glibc.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from typing import Any

import jinja2

from operators.api.errors import OperatorError
from operators.api.model import Model
from operators.api.runtime import ServingRuntimeSpec
from operators.api.status import Recipe
from operators.cli import build
from operators.planning import builds
from serving import contract
from serving.contract import Exit

TARGETS = {"linux/arm64": "aarch64-manylinux_2_28", "linux/amd64": "x86_64-manylinux_2_28"}
"""Platform of wheels for each; Debian 12, Ubuntu 22.04 and Jetson Linux 36 have that glibc."""
OURS = ("onnxruntime", *contract.ENGINE_SUFFIXES, "auto")
"""Runtimes that are our own server."""
_KILL_GRACE_S = 7
_TEMPLATES = pathlib.Path(__file__).parent / "bundle_files"


class NotBundled(OperatorError):
    """There is nothing that can be bundled so; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is to be bundled, and for what."""

    file: str
    """YAML with the Model, - for standard input."""
    name: str | None
    """Which Model, where there are several."""
    variant: str | None
    target: str
    python: str
    """Version of the Python that the device has: 3.11."""
    output: pathlib.Path | None
    """Folder, or a file that ends in .tar.gz; None: MODEL-OS-ARCH.tar.gz here."""
    store: pathlib.Path
    """Where what was built is kept."""


@dataclasses.dataclass(frozen=True)
class _Chosen:
    """The variant that goes along, and what was proved of it."""

    name: str
    uri: str
    digest: str | None
    proof: dict[str, Any]
    left_out: str = ""
    """A better one that was not taken, and why, as a line of its own."""


def main(asked: Asked) -> str:
    """Write the bundle and say what it is.

    Raises:
        NotBundled: no variant may serve there, packages for it do not exist, or the place is taken.
    """
    model = build.model_of(asked.file, asked.name)
    if model.spec.runtime not in OURS:
        raise NotBundled(
            f"model {model.metadata.name}: runtime {model.spec.runtime} is not bundled; a bundle has Penstock's own "
            f"server, so use one of {', '.join(OURS)}"
        )
    output = asked.output or pathlib.Path(f"{model.metadata.name}-{asked.target.replace('/', '-')}.tar.gz")
    if output.exists():
        raise NotBundled(f"{output} exists; remove it, or name another with --output")
    chosen = _chosen(model, asked)
    with tempfile.TemporaryDirectory(prefix="penstock-bundle-") as scratch:
        folder = pathlib.Path(scratch) / output.name.removesuffix(".tar.gz")
        (folder / "model").mkdir(parents=True)
        file = _fetched(chosen, folder / "model")
        if settings := _settings(model):
            (folder / "model" / "penstock.json").write_text(settings)
        _packages(folder / "lib", asked, file)
        told = _told(model, chosen, asked, file, folder / "lib")
        (folder / "bundle.json").write_text(json.dumps(told, indent=1) + "\n")
        _written(folder, model, told)
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.name.endswith(".tar.gz"):
            with tarfile.open(output, "w:gz") as archive:
                archive.add(folder, folder.name)
        else:
            shutil.copytree(folder, output)
    size = sum(one.stat().st_size for one in (output, *output.rglob("*")) if one.is_file())
    what = f"{model.metadata.name}, variant {chosen.name}, for {asked.target}, {size / 2**20:.0f} MiB"
    return f"{output}: {what}; its README.md says how to install it{chosen.left_out}"


def _chosen(model: Model, asked: Asked) -> _Chosen:
    """The variant that is asked for, else the best that is as good on every processor of the target."""
    name = model.metadata.name
    if not any(builds.is_built(model, one) for one in model.spec.variants) and model.spec.runtime != "auto":
        named = [one for one in model.spec.variants if asked.variant in (None, one.name)]
        if not named:
            raise NotBundled(f"model {name} has no variant {asked.variant}; it has {_listed(model)}")
        source = named[0].source or model.spec.source
        return _Chosen(named[0].name, source.uri, source.digest, {})
    report = build.run(model, asked.store)
    served = [one for one in report["variants"] if one["accepted"]]
    if asked.variant is not None:
        found = [one for one in served if one["name"] == asked.variant]
        if not found:
            why = next((one["reason"] for one in report["variants"] if one["name"] == asked.variant), "there is none")
            raise NotBundled(f"model {name}: variant {asked.variant} may not serve: {why}")
    else:
        # What is proven for features of one kind of processor is not proven for a device that nobody has seen.
        found = sorted((one for one in served if not one.get("forCpu")), key=lambda one: -one.get("gain", 1))
    if not found:
        raise NotBundled(f"model {name} has no variant that is as good on every processor; name one with --variant")
    best = found[0]
    proof = {key: best[key] for key in ("quality", "gain") if key in best}
    rival = max(served, key=lambda one: one.get("gain", 1))
    left_out = ""
    if asked.variant is None and rival is not best:
        has = " or ".join(rival["forCpu"])
        left_out = (
            f"\n{rival['name']} takes {rival['gain']:.1f} times less, proven for processors with {has} alone; "
            f"--variant {rival['name']} packs it"
        )
    return _Chosen(best["name"], best["uri"], best["digest"], proof, left_out)


def _listed(model: Model) -> str:
    return ", ".join(one.name for one in model.spec.variants)


def _settings(model: Model) -> str:
    spec = model.spec
    recipe = Recipe(
        uri="",
        digest="",
        runtime=ServingRuntimeSpec(image="-", formats=("onnx",)),
        resources=spec.resources,
        batching=spec.batching,
        limits=spec.limits,
    )
    return recipe.settings


def _fetched(chosen: _Chosen, folder: pathlib.Path) -> pathlib.Path:
    """The artifact in ``folder``, by the model server's own fetch, which checks its digest."""
    words = [sys.executable, "-m", "serving", "fetch", "--uri", chosen.uri, "--to", str(folder)]
    done = subprocess.run(
        [*words, *(("--digest", chosen.digest) if chosen.digest else ())], capture_output=True, text=True, check=False
    )
    if done.returncode != Exit.OK:
        raise NotBundled((done.stderr.strip().splitlines() or ["the fetch failed"])[-1].removeprefix("error: "))
    files = [one for one in sorted(folder.rglob("*")) if one.is_file()]
    if files[0].name.endswith(contract.IMPORTED + contract.NEVER_READ):
        raise NotBundled(f"{chosen.uri} is no file that a server loads; add an evaluation, so that a build imports it")
    return files[0]


def _packages(lib: pathlib.Path, asked: Asked, artifact: pathlib.Path) -> None:
    """The model server, and what it imports for this artifact, as wheels for the target."""
    engine = next((name for name, end in contract.ENGINE_SUFFIXES.items() if artifact.name.endswith(end)), None)
    extras = ["serve", *([engine] if engine else [])]
    wanted = [
        one.partition(";")[0].strip()
        for one in importlib.metadata.requires("penstock") or ()
        if any(f"extra == '{extra}'" in one.replace('"', "'") for extra in extras) and not one.startswith("penstock")
    ]
    have = {one.name: one.version for one in importlib.metadata.distributions() if one.name != "penstock"}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as versions:
        versions.write("".join(f"{name}=={version}\n" for name, version in sorted(have.items())))
        versions.flush()
        words = ["pip", "install", "--quiet", "--target", str(lib), "--only-binary", ":all:", "--link-mode", "copy"]
        words += ["--python-platform", TARGETS[asked.target], "--python-version", asked.python]
        done = subprocess.run(
            [sys.executable, "-m", "uv", *words, "--constraint", versions.name, *wanted],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise NotBundled(
            f"packages for {asked.target} and Python {asked.python} cannot be had: {done.stderr.strip()[-600:]}"
        )
    shutil.rmtree(lib / "bin", ignore_errors=True)
    spec = importlib.util.find_spec("serving")
    assert spec is not None
    assert spec.submodule_search_locations
    shutil.copytree(spec.submodule_search_locations[0], lib / "serving", ignore=shutil.ignore_patterns("__pycache__"))


def _told(model: Model, chosen: _Chosen, asked: Asked, file: pathlib.Path, lib: pathlib.Path) -> dict[str, Any]:
    packages = importlib.metadata.distributions(path=[str(lib)])
    return {
        "penstock": importlib.metadata.version("penstock"),
        "model": model.metadata.name,
        "variant": chosen.name,
        "file": file.name,
        "digest": chosen.digest,
        **chosen.proof,
        "target": asked.target,
        "python": asked.python,
        "packages": {one.name: one.version for one in sorted(packages, key=lambda one: one.name)},
    }


def _written(folder: pathlib.Path, model: Model, told: dict[str, Any]) -> None:
    """The files around model and packages, from templates."""
    limits = model.spec.resources.limits
    values = {**told, "memory": limits.memory, "stop_s": contract.DRAIN_TIMEOUT_S + _KILL_GRACE_S}
    values |= {"machine": TARGETS[told["target"]].partition("-")[0]}
    values |= {"refused": int(Exit.REFUSED), "http": contract.HTTP_PORT, "grpc": contract.GRPC_PORT}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    for name in ("run", "README.md", "service"):
        target = folder / (f"penstock-{told['model']}.service" if name == "service" else name)
        target.write_text(environment.get_template(f"{name}.jinja").render(values))
    (folder / "run").chmod(0o755)
