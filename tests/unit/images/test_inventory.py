"""What a bill of materials says of what is installed."""

from pathlib import Path

from images import inventory
from images.inventory import Component

NEW = "Metadata-Version: 2.4\nName: Aio_HTTP\nVersion: 3.14.5\nLicense-Expression: Apache-2.0 AND MIT\n"
OLD = """\
Metadata-Version: 2.1
Name: six
Version: 1.17.0
License: MIT
Classifier: Programming Language :: Python
Classifier: License :: OSI Approved :: MIT License
"""
STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u14

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""
LIBC = Component("pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64&distro=bookworm", "libc6", "2.36-9+deb12u14")


def test_python_packages_are_named_as_their_index_names_them_with_their_licence(tmp_path: Path) -> None:
    for folder, text in (("aio_http-3.14.5.dist-info", NEW), ("six-1.17.0.dist-info", OLD)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "METADATA").write_text(text)
    assert sorted(inventory.python(tmp_path)) == [
        Component("pkg:pypi/aio-http@3.14.5", "aio-http", "3.14.5", "Apache-2.0 AND MIT", spdx=True),
        Component("pkg:pypi/six@1.17.0", "six", "1.17.0", "MIT License"),
    ]


def test_debian_packages_are_those_that_are_installed(tmp_path: Path) -> None:
    (tmp_path / "status").write_text(STATUS)
    assert list(inventory.debian(tmp_path)) == [LIBC]


def test_a_base_without_dpkg_keeps_one_record_a_package(tmp_path: Path) -> None:
    (tmp_path / "status.d").mkdir()
    (tmp_path / "status.d" / "libc6").write_text("Package: libc6\nArchitecture: amd64\nVersion: 2.36-9+deb12u14\n")
    assert list(inventory.debian(tmp_path)) == [LIBC]


def test_a_bill_is_sorted_and_the_same_whatever_the_order_of_what_was_found() -> None:
    six = Component("pkg:pypi/six@1.17.0", "six", "1.17.0", "MIT License")
    bill = inventory.cyclonedx("penstock-serve", "0.1.0", [six, LIBC, six])
    assert bill == inventory.cyclonedx("penstock-serve", "0.1.0", [LIBC, six])
    assert bill["components"] == [
        {
            "type": "library",
            "bom-ref": LIBC.purl,
            "name": "libc6",
            "version": "2.36-9+deb12u14",
            "purl": LIBC.purl,
        },
        {
            "type": "library",
            "bom-ref": six.purl,
            "name": "six",
            "version": "1.17.0",
            "purl": six.purl,
            "licenses": [{"license": {"name": "MIT License"}}],
        },
    ]
