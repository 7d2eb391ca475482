"""Public keys that sign tokens: which are taken, and the one algorithm that goes with each.

The algorithm follows from the kind of key, so a token has no say in how its signature is looked at.
"""

import re
from pathlib import Path
from typing import Literal, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

Algorithm = Literal["RS256", "ES256", "EdDSA"]

RSA_BITS_MIN = 2048  # shorter ones have been broken, or may soon be
FILE_BYTES_MAX = 1_048_576  # a file that is larger is not one of keys
KEYS_MAX = 100  # each one that fits is tried for a token: an issuer has two or three

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_PUBLIC = (b"PUBLIC KEY", b"RSA PUBLIC KEY")


class PublicKey(NamedTuple):
    """A key, and the algorithm of the signatures that it verifies."""

    algorithm: Algorithm
    key: RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


def suited(key: object) -> PublicKey:
    """The key with its algorithm. Raises `ValueError` with what is wrong with it."""
    match key:
        case RSAPublicKey():
            if key.key_size < RSA_BITS_MIN:
                raise ValueError(f"an RSA key of {key.key_size} bits; expected at least {RSA_BITS_MIN}")
            return PublicKey("RS256", key)
        case EllipticCurvePublicKey():
            if not isinstance(key.curve, SECP256R1):
                raise ValueError(f"a key on the curve {key.curve.name}; expected P-256")  # noqa: TRY004 - it comes from a file
            return PublicKey("ES256", key)
        case Ed25519PublicKey():
            return PublicKey("EdDSA", key)
    raise ValueError("a key of a kind that is not taken; expected RSA, P-256 or Ed25519")


def read(path: str) -> list[PublicKey]:
    """The keys in a PEM file. Raises `ValueError` with a sentence that names the file."""
    try:
        with Path(path).open("rb") as file:
            pem = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    if len(pem) > FILE_BYTES_MAX:
        raise ValueError(f"{path}: larger than {FILE_BYTES_MAX} bytes")
    try:
        return from_pem(pem)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def from_pem(pem: bytes) -> list[PublicKey]:
    """Public keys, and those of certificates, in the order of the text. Raises `ValueError` for anything else in it."""
    keys = []
    for nth, block in enumerate(_BLOCK.finditer(pem), 1):
        label = block[1]
        if label.endswith(b"PRIVATE KEY"):
            raise ValueError(f"block {nth} is a private key; give public ones only, and make that one anew")
        if label not in (*_PUBLIC, b"CERTIFICATE"):
            raise ValueError(f"block {nth} is neither a public key nor a certificate")
        try:
            certified = x509.load_pem_x509_certificate(block[0]).public_key() if label == b"CERTIFICATE" else None
            key = certified or load_pem_public_key(block[0])
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ValueError(f"block {nth} cannot be read") from error
        try:
            keys.append(suited(key))
        except ValueError as error:
            raise ValueError(f"block {nth} is {error}") from error
    if not keys:
        raise ValueError("no public key in PEM (-----BEGIN PUBLIC KEY-----)")
    if len(keys) > KEYS_MAX:
        raise ValueError(f"more than {KEYS_MAX} keys")
    return keys
