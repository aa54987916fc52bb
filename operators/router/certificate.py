"""The certificate of https as a kubernetes.io/tls Secret is mounted: ``tls.crt`` with its chain, and ``tls.key``."""

from __future__ import annotations

import ssl
from pathlib import Path

from operators.api.errors import InvalidObject


def read(folder: Path) -> str:
    """Chain and key as one PEM text.

    Raises ``InvalidObject`` where one of them is missing or is none, or the key is of another certificate.
    """
    chain, key = folder / "tls.crt", folder / "tls.key"
    try:
        # An empty password: a key that needs one is an error here and not a question on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key, password="")
        return chain.read_text().rstrip("\n") + "\n" + key.read_text().rstrip("\n") + "\n"
    except (OSError, ValueError) as error:
        problem = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise InvalidObject(
            f"certificate in {folder}: {problem}; put a PEM chain into tls.crt and its key, without a password, "
            "into tls.key"
        ) from error
