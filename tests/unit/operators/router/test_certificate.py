from __future__ import annotations

import re
from pathlib import Path

import pytest

from operators.api.errors import InvalidObject
from operators.router import certificate
from tests.rig import certificates


def test_chain_and_key_are_one_text(tmp_path: Path) -> None:
    certificates.Authority().issue(tmp_path)
    chain, key = (tmp_path / "tls.crt").read_text(), (tmp_path / "tls.key").read_text()
    assert certificate.read(tmp_path) == chain + key


NEXT = "put a PEM chain into tls.crt and its key, without a password, into tls.key"


@pytest.mark.parametrize(
    ("chain", "key", "problem"),
    [
        (None, None, "No such file or directory"),
        (b"", b"", r"\[SSL\].*|.*PEM.*"),
        (b"no certificate", None, r"\[SSL\].*|.*PEM.*"),
        (b"another", None, r".*key values mismatch.*"),
    ],
    ids=["missing", "empty", "no PEM", "of another key"],
)
def test_what_is_no_pair_is_refused(tmp_path: Path, chain: bytes | None, key: bytes | None, problem: str) -> None:
    folder = tmp_path / "tls"
    if chain is not None:
        authority = certificates.Authority()
        authority.issue(folder)
        own = (folder / "tls.crt").read_bytes(), (folder / "tls.key").read_bytes()
        if chain == b"another":
            authority.issue(folder)
            chain = own[0]
        certificates.swap(folder, chain, (folder / "tls.key").read_bytes() if key is None else key)
    with pytest.raises(InvalidObject) as found:
        certificate.read(folder)
    assert re.fullmatch(rf"certificate in {folder}: ({problem}); {NEXT}", str(found.value))
