"""Runs inside a build, with the Python of the base image and nothing else: ``python3 -m images.install STEP …``.

``tools LOCK`` installs what installs the rest. ``dependencies LOCK…`` makes the environment ``/opt/penstock``
and leaves out what no server runs. ``application IMAGE LOCK…`` writes what these locks have beyond that,
those of our own packages that were copied in, and the image's bill of materials to ``/out``, laid out as the image's
root: a small layer of its own, on one that images share.

Wheels come from the folder ``/wheels`` where it holds some, else from the package index; their hashes are those of
the lock either way. Commands are run without a shell, since a base may have none.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from images import inventory

WHEELS = Path("/wheels")
TOOLS = Path("/tools")
ENVIRONMENT = Path("/opt/penstock")
OUT = Path("/out")
SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"

UNUSED = (
    "numpy/**/tests",
    "nvidia_pytriton.libs/libpython*",  # for the stub of one Python that the base is not
    "onnx/backend/test",
    "onnxruntime/capi/libonnxruntime.so.*",  # for programs in C; the Python module has its own copy of all of it
    "onnxruntime/tools",
    "onnxruntime/transformers/models",
    "pytriton/*.py",  # only the server beside that is run
    "pytriton/[!t]*",
    "**/[!_]*_test.py",  # scipy has modules of its own that end so
    "**/*.pyi",
    "**/*.pyx",
    "**/*.pxd",
    "**/*.c",
    "**/*.h",
)
"""What packages carry for tests, compilers and editors, as patterns below site-packages."""

LAZY = r"/kubernetes/(aio/)?client/(api|models)/\w+_"
"""Thousands of modules of which few are ever imported, one by one: not worth compiling."""

AWS_MODELS = ("s3", "sts", "sso", "sso-oidc", "signin")
"""Of the hundreds of services that botocore describes: the store, and those that give credentials for it."""


def tools(lock: str) -> None:
    """Install uv and hatchling with the base's pip, or with pip's own wheel where the base has none."""
    wheels = sorted(WHEELS.glob("pip-*.whl"))
    pip = [str(wheels[0] / "pip")] if wheels else ["-m", "pip"]
    source = ["--no-index", f"--find-links={WHEELS}"] if wheels else []
    options = ["--no-cache-dir", "--no-compile", "--disable-pip-version-check", "--root-user-action=ignore"]
    run(
        sys.executable, *pip, "install", "--quiet", *options, *source,
        f"--target={TOOLS}", "--only-binary=:all:", "--require-hashes", f"--requirement={lock}",
    )  # fmt: skip


def dependencies(locks: Sequence[str]) -> None:
    """Make the environment from the locks, without what is unused, compiled."""
    uv("venv", "--quiet", f"--python={sys.executable}", str(ENVIRONMENT))
    add(locks)
    for script in (ENVIRONMENT / "bin").iterdir():
        if not script.name.startswith("python"):
            script.unlink()


def add(locks: Sequence[str]) -> None:
    """Install locks into the environment."""
    requirements = [f"--requirements={lock}" for lock in locks]
    # A lock names everything: what it leaves out is not needed.
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    uv("pip", "install", f"--python={ENVIRONMENT}", *options, *requirements)
    prune(ENVIRONMENT / SITE)
    compile_all(ENVIRONMENT / SITE)


def prune(site: Path) -> None:
    """Remove what nothing here runs from a site-packages folder."""
    for pattern in UNUSED:
        for path in list(site.glob(pattern)):
            remove(path)
    described = site / "botocore" / "data"
    if described.is_dir():
        for service in described.iterdir():
            if service.is_dir() and service.name not in AWS_MODELS:
                remove(service)
    for stub in site.glob("pytriton/tritonserver/python_backend_stubs/*"):
        if stub.name not in SITE:
            remove(stub)


def application(image: str, locks: Sequence[str]) -> None:
    """Write what the locks add, our packages that are here and the bill of materials of the whole below ``/out``."""
    root = OUT / ENVIRONMENT.relative_to("/")
    site = root / SITE
    shared = set((ENVIRONMENT / SITE).iterdir())
    if locks:
        add(locks)
    environment = {**os.environ, "PYTHONPATH": str(TOOLS)}
    run(sys.executable, "-m", "hatchling", "build", "--target=wheel", "--directory=/dist", environment=environment)
    wheel = next(Path("/dist").glob("*.whl"))
    uv("pip", "install", "--quiet", f"--python={ENVIRONMENT}", f"--prefix={root}", "--no-deps", str(wheel))
    for passing in ("RECORD", "direct_url.json", "uv_cache.json"):  # where and when it was built
        remove(next(site.glob("*.dist-info")) / passing)
    if not (site / "operators").exists():  # the scripts are its command line
        remove(root / "bin")
    compile_all(site)
    (ours,) = inventory.python(site)
    found = [ours, *inventory.python(ENVIRONMENT / SITE), *inventory.debian(Path("/var/lib/dpkg"))]
    for added in set((ENVIRONMENT / SITE).iterdir()) - shared:
        shutil.move(added, site)
    bill = OUT / "usr/share/sbom" / f"{image}.cdx.json"
    bill.parent.mkdir(parents=True)
    bill.write_text(json.dumps(inventory.cyclonedx(image, ours.version, found), indent=1) + "\n")


def compile_all(folder: Path) -> None:
    """Compile for a root that is read-only: such code is never compared to its source, so its dates do not matter."""
    run(
        sys.executable, "-m", "compileall", "-q", "-j0", "--invalidation-mode=unchecked-hash",
        "-x", LAZY, "-s", str(folder), "-p", str(ENVIRONMENT / SITE), str(folder),
    )  # fmt: skip


def remove(path: Path) -> None:
    """Remove a file or a folder, whether it is there or not."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def uv(*arguments: str) -> None:
    """Run uv; without any network where there are wheels."""
    offline = {"UV_OFFLINE": "1", "UV_NO_INDEX": "1", "UV_FIND_LINKS": str(WHEELS)} if any(WHEELS.glob("*.whl")) else {}
    settings = {"UV_NO_CACHE": "1", "UV_LINK_MODE": "copy", "UV_PYTHON_DOWNLOADS": "never"}
    run(str(TOOLS / "bin" / "uv"), *arguments, environment={**os.environ, **settings, **offline})


def run(*command: str, environment: dict[str, str] | None = None) -> None:
    """Run a command; where it fails the build ends with its exit code."""
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode != 0:
        sys.exit(f"`{' '.join(command)}` ended with {done.returncode}")


def main(arguments: Sequence[str]) -> None:
    """Do one step."""
    step, *rest = arguments
    if step == "tools":
        tools(rest[0])
    elif step == "dependencies":
        dependencies(rest)
    elif step == "application":
        application(rest[0], rest[1:])
    else:
        sys.exit(f"no step is named {step}; there are tools, dependencies and application")


if __name__ == "__main__":
    main(sys.argv[1:])
