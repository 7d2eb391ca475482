"""Certificates of the tests' own making: an authority, and what it signs for servers and clients of 127.0.0.1."""

import atexit
import datetime
import functools
import ipaddress
import shutil
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

KEY_PASSWORD = "open-sesame-of-the-tls-key"
_DAY = datetime.timedelta(days=1)


class Certificates:
    """PEM files in a folder of this process, made when they are asked for."""

    @functools.cached_property
    def folder(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="wp-tls-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder

    @functools.cached_property
    def _authority(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        return _sign("the authority of the tests", key, None, key), key

    @functools.cached_property
    def ca(self) -> str:
        return self._write("ca.pem", _pem(self._authority[0]))

    @functools.cached_property
    def _server(self) -> tuple[str, str, str]:
        return self._make("server")

    @property
    def server(self) -> str:
        return self._server[0]

    @property
    def server_key(self) -> str:
        return self._server[1]

    @property
    def server_key_encrypted(self) -> str:
        return self._server[2]

    @functools.cached_property
    def client(self) -> tuple[str, str]:
        return self._make("client")[:2]

    @functools.cached_property
    def other(self) -> tuple[str, str]:
        """Of another name, and so another key."""
        return self._make("other")[:2]

    def _make(self, name: str) -> tuple[str, str, str]:
        """Certificate, key, and the key encrypted."""
        issuer, signer = self._authority
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _sign(name, key, issuer, signer)
        secret = serialization.BestAvailableEncryption(KEY_PASSWORD.encode())
        plain = serialization.NoEncryption()
        form = serialization.PrivateFormat.PKCS8
        return (
            self._write(f"{name}.pem", _pem(certificate)),
            self._write(f"{name}.key", key.private_bytes(serialization.Encoding.PEM, form, plain)),
            self._write(f"{name}.key.encrypted", key.private_bytes(serialization.Encoding.PEM, form, secret)),
        )

    def _write(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        path.chmod(0o600)
        return str(path)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _sign(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    signer: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    is_authority = issuer is None
    building = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if not is_authority:
        building = building.add_extension(x509.SubjectAlternativeName(names), critical=False)
    else:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        building = building.add_extension(usage, critical=True)
    return building.sign(signer, hashes.SHA256())


CERTIFICATES = Certificates()
