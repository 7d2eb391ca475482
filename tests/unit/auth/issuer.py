"""An issuer of tokens: real keys of every kind, made once, and tokens signed with them."""

import base64
import datetime
import json
import time
from functools import cache
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

SECRET = "a-secret-that-is-long-enough-for-HS256"
OTHER_SECRET = "another-one-that-is-long-enough-for-it"


@cache
def key(kind: str) -> Any:  # noqa: ANN401 - a private key of any kind
    """The private key of this kind; a number behind a dash makes another one."""
    match kind.split("-", maxsplit=1)[0]:
        case "RS256":
            return rsa.generate_private_key(65_537, 2048)
        case "RSA1024":
            return rsa.generate_private_key(65_537, 1024)
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "P384":
            return ec.generate_private_key(ec.SECP384R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
        case "Ed448":
            return ed448.Ed448PrivateKey.generate()
        case "DSA":
            return dsa.generate_private_key(2048)
    raise AssertionError(kind)


def public_pem(kind: str) -> str:
    pem: bytes = key(kind).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def private_pem(kind: str) -> str:
    pem: bytes = key(kind).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem.decode()


def certificate_pem(kind: str) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    begin = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key(kind).public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=1))
        .sign(key(kind), None if kind.startswith("EdDSA") else hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()


def jwk(kind: str, **fields: object) -> dict[str, Any]:
    """The public key as a member of a JWKS."""
    algorithms: dict[str, Any] = {"RS256": jwt.algorithms.RSAAlgorithm, "RSA1024": jwt.algorithms.RSAAlgorithm}
    algorithms |= {"ES256": jwt.algorithms.ECAlgorithm, "P384": jwt.algorithms.ECAlgorithm}
    algorithms |= {"EdDSA": jwt.algorithms.OKPAlgorithm, "Ed448": jwt.algorithms.OKPAlgorithm}
    made: dict[str, Any] = algorithms[kind.split("-", maxsplit=1)[0]].to_jwk(key(kind).public_key(), as_dict=True)
    return made | fields


def token(kind: str = "HS256", *, secret: str = SECRET, headers: dict[str, Any] | None = None, **claims: object) -> str:
    """A token of alice, for an hour, with these claims besides; a claim that is None is left out."""
    now = int(time.time())
    said = {"sub": "alice", "iat": now, "exp": now + 3600} | claims
    said = {name: value for name, value in said.items() if value is not None}
    signer = secret if kind == "HS256" else key(kind)
    return jwt.encode(said, signer, kind.split("-", maxsplit=1)[0], headers)


def spelt(header: dict[str, Any], payload: bytes, signature: bytes = b"") -> str:
    """A token written by hand."""
    parts = (json.dumps(header).encode(), payload, signature)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
