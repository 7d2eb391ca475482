"""The certificate that nodes show, and what is wrong with its files."""

import ssl
from pathlib import Path

from service.config.settings import PREFIX, Settings


class TlsError(ValueError):
    """The files cannot be used; the text names the setting, and says why in a sentence."""


def wrong(settings: Settings) -> list[str]:
    """What is wrong with the settings of TLS, a line each."""
    try:
        server_context(settings)
    except TlsError as error:
        return [str(error)]
    return []


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """What nodes speak TLS with, None for those that do not. Raises `TlsError`.

    TLS 1.2 or newer, with what the library thinks safe; clients show no certificates.
    """
    if not settings.ssl_certfile:
        if settings.ssl_keyfile or settings.ssl_keyfile_password:
            raise TlsError(f"{PREFIX}SSL_CERTFILE: Expected the certificate that {PREFIX}SSL_KEYFILE belongs to")
        return None
    _check_readable(settings.ssl_certfile, "SSL_CERTFILE")
    if settings.ssl_keyfile:
        _check_readable(settings.ssl_keyfile, "SSL_KEYFILE")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        # A function, for without one OpenSSL asks on the terminal.
        context.load_cert_chain(
            settings.ssl_certfile, settings.ssl_keyfile or None, lambda: settings.ssl_keyfile_password
        )
    except ssl.SSLError as error:
        raise TlsError(_reason(settings, error)) from error
    except ValueError as error:  # a password that is longer than OpenSSL takes
        raise TlsError(f"{PREFIX}SSL_KEYFILE_PASSWORD: Expected a password of at most 1024 bytes") from error
    return context


def _check_readable(path: str, name: str) -> None:
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise TlsError(f"{PREFIX}{name}: cannot read {path}: {reason}") from error


def _reason(settings: Settings, error: ssl.SSLError) -> str:
    """Which file it is, as far as OpenSSL tells: a key that does not fit, a password, or no PEM at all."""
    key = settings.ssl_keyfile or settings.ssl_certfile
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"{PREFIX}SSL_KEYFILE: Expected the key of the certificate: {key} is another's"
    if "ENCRYPTED" in _text(key):
        return f"{PREFIX}SSL_KEYFILE_PASSWORD: Expected the password of {key}"
    if "PRIVATE KEY-----" not in _text(key):
        return f"{PREFIX}SSL_KEYFILE: Expected a PEM file with a private key: {key} has none"
    if "BEGIN CERTIFICATE-----" not in _text(settings.ssl_certfile):
        return f"{PREFIX}SSL_CERTFILE: Expected a PEM file with a certificate: {settings.ssl_certfile} has none"
    return (
        f"{PREFIX}SSL_CERTFILE: Expected a certificate and its key in PEM: {settings.ssl_certfile} and {key} "
        f"cannot be read ({error.reason or 'no PEM'})"
    )


def _text(path: str) -> str:
    return Path(path).read_text(encoding="ascii", errors="replace")
