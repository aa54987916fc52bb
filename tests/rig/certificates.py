"""An authority for a test, and the certificates for one address that it signs."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM


class Authority:
    """Whom clients trust; ``pem`` is its own certificate."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self._address = address
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.pem = self._signed("authority", self._key, x509.BasicConstraints(ca=True, path_length=0))

    def issue(self, folder: Path) -> None:
        """Put a new pair into ``folder``."""
        key = ec.generate_private_key(ec.SECP256R1())
        plain = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(self._address))])
        swap(folder, self._signed(self._address, key, address), plain)

    def _signed(self, name: str, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(_named("authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(extension, critical=True)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(PEM)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def swap(folder: Path, chain: bytes, key: bytes) -> None:
    """Replace ``tls.crt`` and ``tls.key`` by turning one link, as a kubelet does."""
    folder.mkdir(exist_ok=True)
    version = folder / f"..{len(list(folder.glob('..[0-9]*')))}"
    version.mkdir()
    (version / "tls.crt").write_bytes(chain)
    (version / "tls.key").write_bytes(key)
    (folder / "..new").symlink_to(version.name)
    (folder / "..new").replace(folder / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
