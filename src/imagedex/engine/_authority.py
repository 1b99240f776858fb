"""The authority of an engine: it alone makes the certificates by which its processes trust another.

Whoever shows one of its leaves may do everything: Dask knows no roles. So a key never lies on the
disk of a worker's host, and a leaf that leaves this machine is good for a month.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from imagedex.core.errors import SettingsError, StorageError
from imagedex.core.times import utc_now
from imagedex.engine._credentials import Credentials

_AUTHORITY_DAYS = 10 * 365
_RENEWED_BEFORE = timedelta(days=365)
_FILE = "authority.pem"
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)  # What may be over later.
# Clocks are set back now and then, and differ between hosts.
_EARLIER = timedelta(hours=1)


class Authority:
    """Makes leaves: certificates of the processes of one engine. Safe to call from any thread."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def new(cls) -> Authority:
        """Make one that only this process knows, good for ten years.

        An elliptic key (P-256) takes a millisecond to make, where RSA takes up to half a second.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"Imagedex engine {secrets.token_hex(4)}")
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            _builder(name, name, key.public_key(), _AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def open_or_make(cls, directory: Path) -> Authority:
        """Return the authority that lies in a directory; makes one where there is none.

        One that ends within a year is replaced: whoever trusts it is told of the new one when it
        is started. Raises SettingsError when the file cannot be used or written, StorageError when
        the disk is full or fails.
        """
        path = directory / _FILE
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else None
            authority = None if content is None else cls._read(content)
            if authority is None or authority.ends_at < utc_now() + _RENEWED_BEFORE:
                authority = cls.new()
                authority.write(path)
        except OSError as error:
            if error.errno in _PASSING:
                raise StorageError(
                    f"Could not write {str(path)!r}: {error.strerror}; free some space there and "
                    "try again."
                ) from error
            raise SettingsError(
                f"The engine's authority {str(path)!r} cannot be used: {error.strerror}; the "
                "server's user must be able to read and write there."
            ) from error
        except (ValueError, TypeError) as error:
            raise SettingsError(
                f"{str(path)!r} does not hold a certificate and its key: {error}. Remove the file "
                "and start again: a new one is made, and the hosts are told."
            ) from error
        return authority

    @property
    def ends_at(self) -> datetime:
        """When its leaves are good no more."""
        return self._certificate.not_valid_after_utc

    @property
    def installation(self) -> str:
        """A name that no other authority has, fit for the name of a file."""
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        return hashlib.sha256(der).hexdigest()[:16]

    def leaf(self, name: str, *, days: float | None = None) -> Credentials:
        """Make the certificate of one process; it lasts as long as the authority without ``days``.

        It is good for both ends of a connection, since every process of Dask listens and connects.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        both = x509.ExtendedKeyUsage(
            [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        )
        left = (self.ends_at - utc_now()) / timedelta(days=1)
        certificate = (
            _builder(
                _name(name),
                self._certificate.subject,
                key.public_key(),
                left if days is None else min(days, left),
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(both, critical=False)
            .add_extension(issuer, critical=False)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return Credentials(_pem(certificate), _key_pem(key), _pem(self._certificate))

    @classmethod
    def _read(cls, content: bytes) -> Authority:
        key = serialization.load_pem_private_key(content, password=None)
        certificate = x509.load_pem_x509_certificate(content)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("its key is of another kind")
        if key.public_key() != certificate.public_key():
            raise ValueError("its key is not that of the certificate")
        return cls(certificate, key)

    def write(self, path: Path) -> None:
        """Write certificate and key to a file of the owner alone. Raises OSError."""
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(_key_pem(self._key) + _pem(self._certificate))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: float
) -> x509.CertificateBuilder:
    now = utc_now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
