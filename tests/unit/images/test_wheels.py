"""Which lines of a lock an image installs, and which files fit it."""

from images import wheels

LOCK = """\
# made by something
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via penstock (pyproject.toml)
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:cc
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:dd
uvicorn[standard]==0.54.0 \\
    --hash=sha256:ee
"""


def test_a_lock_gives_what_holds_for_the_images_python_whatever_python_builds() -> None:
    assert list(wheels.wanted(LOCK, wheels.target("x86_64"))) == [
        "numpy==2.4.6 --hash=sha256:aa --hash=sha256:bb",
        "uvicorn==0.54.0 --hash=sha256:ee",
    ]


def test_a_wheel_for_a_newer_glibc_than_debians_is_never_asked_for() -> None:
    platforms = wheels.platforms("aarch64")
    assert platforms[0] == "manylinux_2_36_aarch64"
    assert "manylinux_2_17_aarch64" in platforms
    assert "manylinux2014_aarch64" in platforms
    assert platforms[-1] == "linux_aarch64"
