"""Encrypted connections: both sides show a certificate of the authority in the settings.

Python's defaults follow BCP 195 (RFC 9325): TLS 1.2 or later, with forward secrecy, without
compression and renegotiation.
"""

from __future__ import annotations

import ssl

from rbs.errors import RbsError
from rbs.node.settings import Tls


def server_context(tls: Tls) -> ssl.SSLContext:
    """Context of the listening side, which takes no peer without a certificate.

    Raises:
        RbsError: A file cannot be used.
    """
    return _context(tls, ssl.Purpose.CLIENT_AUTH)


def client_context(tls: Tls, *, check_hostname: bool = True) -> ssl.SSLContext:
    """Context of the calling side.

    Args:
        tls: The certificates.
        check_hostname: Whether the certificate of the other side must name the host that is called.

    Raises:
        RbsError: A file cannot be used.
    """
    context = _context(tls, ssl.Purpose.SERVER_AUTH)
    context.check_hostname = check_hostname
    return context


def _context(tls: Tls, purpose: ssl.Purpose) -> ssl.SSLContext:
    file = tls.authority
    try:
        context = ssl.create_default_context(purpose, cafile=str(file))
        file = tls.certificate
        file.read_bytes()  # `load_cert_chain` does not tell which file it lacks
        tls.key.read_bytes()
        context.load_cert_chain(file, tls.key, password="")
    except OSError as error:  # an SSLError is one
        file = tls.key if error.filename == str(tls.key) else file
        fault = error.strerror if not isinstance(error, ssl.SSLError) and error.strerror else _SHORT
        remedy = "name the PEM files of the certificate, its unencrypted key and the authority"
        raise RbsError(f"it cannot be used for TLS ({fault})", file=file, remedy=remedy) from error
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


_SHORT = "it holds no certificate in PEM, or certificate and key do not belong together"
