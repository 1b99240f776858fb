"""A key and certificate that only the processes of one engine know."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from imagedex.core.times import utc_now

_VALID = timedelta(days=10 * 365)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A self-signed certificate and its key, both PEM; who holds the key is trusted."""

    certificate: str
    key: str = field(repr=False)


def new_certificate() -> Certificate:
    """Return a new certificate for mutual TLS, good for ten years.

    In place of ``distributed.Security.temporary``, whose certificate ends after 365 days: a
    server that ran longer could replace no worker. An elliptic key (P-256) also takes a
    millisecond to make where RSA takes up to half a second.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "imagedex-engine")])
    now = utc_now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks are set back now and then; a minute must not lock the workers out.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Certificate(
        certificate=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
    )
