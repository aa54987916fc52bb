"""The node's certificates and tokens: one authority, and one identity for each program."""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.rig.control_plane import write_kubeconfig, write_service_account_key
from tests.rig.node.layout import API_PORT, API_SERVICE, Node

_LIFETIME = datetime.timedelta(days=365)


def write(node: Node) -> Path:
    """Write all of it, and the administrator's kubeconfig; the folder that holds it.

    That has NAME.crt and NAME.key of ``ca``, ``apiserver``, ``kubelet`` and ``client`` (the API server towards the
    kubelet), IDENTITY.token and IDENTITY.kubeconfig of each program, ``tokens.csv`` and ``service-account.key``.
    """
    folder = node.folder / "credentials"
    folder.mkdir()
    authority = _Authority(folder)
    api_names = ["localhost", *("kubernetes" + rest for rest in ("", ".default", ".default.svc"))]
    api_names.append("kubernetes.default.svc.cluster.local")
    authority.issue("apiserver", "kube-apiserver", names=api_names, addresses=("127.0.0.1", API_SERVICE, node.address))
    authority.issue("kubelet", node.name, names=[node.name], addresses=("127.0.0.1", node.address))
    authority.issue("client", "kube-apiserver-kubelet-client", group="system:masters")
    write_service_account_key(folder / "service-account.key")
    users = {
        "admin": ("admin", "system:masters"),
        "kubelet": (f"system:node:{node.name}", "system:nodes"),
        "controller-manager": ("system:kube-controller-manager", ""),
        "scheduler": ("system:kube-scheduler", ""),
        "proxy": ("system:kube-proxy", ""),
        "policies": ("policies", "system:masters"),
    }
    lines = []
    for identity, (user, group) in users.items():
        token = secrets.token_hex(16)
        lines.append(f"{token},{user},{identity}" + (f",{group}" if group else ""))
        (folder / f"{identity}.token").write_text(token)
        local = f"https://127.0.0.1:{API_PORT}"
        write_kubeconfig(folder / f"{identity}.kubeconfig", local, token, folder / "ca.crt")
        if identity == "admin":
            write_kubeconfig(node.kubeconfig, node.url, token, folder / "ca.crt")
    (folder / "tokens.csv").write_text("\n".join(lines) + "\n")
    return folder


class _Authority:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = _name("penstock-rig")
        self._key = ec.generate_private_key(ec.SECP256R1())
        constraint = x509.BasicConstraints(ca=True, path_length=None)
        made = self._builder(self._name, self._key.public_key()).add_extension(constraint, critical=True)
        self._write("ca", made.sign(self._key, hashes.SHA256()), self._key)

    def issue(
        self, file: str, user: str, group: str = "", names: list[str] | None = None, addresses: tuple[str, ...] = ()
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._builder(_name(user, group), key.public_key())
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names or []]
        alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        if alternatives:
            made = made.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        self._write(file, made.sign(self._key, hashes.SHA256()), key)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + _LIFETIME)
        )

    def _write(self, file: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self._folder / f"{file}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (self._folder / f"{file}.key").write_bytes(key.private_bytes(*form))


def _name(user: str, group: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, user)])
