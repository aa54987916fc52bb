"""A base image from Debian packages, for machines that reach no registry: glibc, Python, authorities, no shell.

mmdebstrap resolves, downloads and verifies; here is unpacked what a Python server needs of that. No package is set
up, so that neither a shell nor dpkg has to be there: what their scripts would do is the little in ``make``. The
packages are recorded in ``/var/lib/dpkg/status.d``, one file each, where scanners look.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from images import install

SUITE = "bookworm"

PACKAGES = (
    "ca-certificates",
    "gcc-12-base",  # the licence of the two libraries of GCC
    "libbz2-1.0",
    "libc6",
    "libcrypt1",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "liblzma5",
    "libpython3.11",  # what embeds Python, as Triton's backend does
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libsqlite3-0",
    "libssl3",
    "libstdc++6",
    "libuuid1",
    "media-types",
    "python3-minimal",
    "python3.11-minimal",
    "zlib1g",
)
"""What is unpacked. What these depend on beyond each other sets packages up, or is for terminals, NIS and dbm."""

UNUSED = (
    "etc/alternatives",
    "etc/binfmt.d",
    "etc/ca-certificates",
    "etc/python3*",
    "usr/bin/c_rehash",
    "usr/bin/py3*",
    "usr/lib/*/gconv",
    "usr/lib/binfmt.d",
    "usr/lib/python3*/lib2to3",
    "usr/lib/python3*/lib-dynload/_curses*",
    "usr/lib/python3*/lib-dynload/_dbm*",
    "usr/lib/python3*/lib-dynload/nis*",
    "usr/lib/python3*/lib-dynload/readline*",
    "usr/lib/python3*/pydoc_data",
    "usr/lib/valgrind",
    "usr/sbin",
    "usr/share/applications",
    "usr/share/binfmts",
    "usr/share/bug",
    "usr/share/doc/*/[!c]*",  # each one's `copyright` stays
    "usr/share/doc/*/changelog*",
    "usr/share/gcc",
    "usr/share/gdb",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/pixmaps",
    "usr/share/python3",
)
"""What a server does not read, as patterns below the root."""

FILES = {
    "etc/passwd": "root:x:0:0:root:/:/usr/sbin/nologin\npenstock:x:65532:65532:penstock:/tmp:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\npenstock:x:65532:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/os-release": (
        'ID=debian\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n'
        'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'
    ),
}


def reference() -> str:
    """The base's name in storage. It follows from this file; Debian's updates come with a build anew only."""
    return f"localhost/penstock-base:{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]}"


def make(scratch: Path) -> Path:
    """Make the root of the base below an empty folder; about 10 s.

    Raises:
        subprocess.CalledProcessError: mmdebstrap or another command failed; its output is in ``output``.
    """
    fetched, root = scratch / "fetched", scratch / "root"
    output(
        "mmdebstrap", "--variant=extract", "--mode=root", "--format=directory", "--skip=cleanup/apt",
        f"--include={','.join(PACKAGES)}", SUITE, str(fetched),
    )  # fmt: skip
    for folder in ("tmp", "proc", "sys", "dev", "run", "etc", "usr/bin", "var/lib/dpkg/status.d"):
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    for archive in sorted((fetched / "var/cache/apt/archives").glob("*.deb")):
        name = archive.name.partition("_")[0]
        if name in PACKAGES:
            output("dpkg-deb", "--extract", str(archive), str(root))
            record = output("dpkg-deb", "--field", str(archive))
            (root / "var/lib/dpkg/status.d" / name).write_text(record)
    for pattern in UNUSED:
        for path in list(root.glob(pattern)):
            install.remove(path)
    for name, content in FILES.items():
        (root / name).write_text(content)
    authorities = sorted((root / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    (root / "etc/ssl/certs/ca-certificates.crt").write_text("".join(file.read_text() for file in authorities))
    (root / "usr/lib/ssl").mkdir()
    (root / "usr/lib/ssl/cert.pem").symlink_to("/etc/ssl/certs/ca-certificates.crt")  # where OpenSSL looks
    output(
        "chroot", str(root), "/usr/bin/python3", "-m", "compileall", "-q", "--invalidation-mode=unchecked-hash",
        "/usr/lib/python3.11",
    )  # fmt: skip
    shutil.rmtree(fetched)
    return root


def output(*command: str) -> str:
    """What a command prints."""
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
