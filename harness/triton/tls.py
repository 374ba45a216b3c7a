"""Whether the files for TLS can be used, and why a server cannot be asked over it, in words.

gRPC's library says of either no more than that it could not connect; so Python's own TLS is asked.
"""

import socket
import ssl
from pathlib import Path

from harness.errors import ConfigError
from harness.triton.address import Address, Tls

_TIMEOUT_S = 5.0
_MOST_BYTES = 1 << 12


def check_files(tls: Tls) -> None:
    """See that the files are there, and what they should be.

    Raises:
        ConfigError: one is not; names the option.
    """
    for option, file in (("--tls-ca", tls.ca), ("--tls-cert", tls.cert), ("--tls-key", tls.key)):
        try:
            if file:
                Path(file).read_bytes()
        except OSError as error:
            raise ConfigError(f"{option}: cannot read {file}: {error.strerror}") from error
    try:
        if tls.ca:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(tls.ca)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"--tls-ca: {tls.ca} has no certificate in PEM") from error
    try:
        if tls.cert:
            # Without a password here, a key that has one would ask the terminal for it.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(tls.cert, tls.key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"--tls-cert {tls.cert} and --tls-key {tls.key} are no certificate and its key, both in PEM and "
            "the key without a password"
        ) from error


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca or None)
    # gRPC is HTTP/2.
    context.set_alpn_protocols(["h2"])
    if tls.cert:
        context.load_cert_chain(tls.cert, tls.key)
    return context


def trouble(server: Address) -> str:
    """Why no TLS connection to a server comes about, and which option helps; empty if one does."""
    host, port = server.host_and_port
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT_S) as connected,
            _context(server.tls).wrap_socket(connected, server_hostname=host.strip("[]")) as secure,
        ):
            # With TLS 1.3 a server refuses the client's certificate only after the handshake; one that does
            # not sends its settings.
            secure.recv(_MOST_BYTES)
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not to be trusted: {error.verify_message.rstrip('.')}; see --tls-ca"
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        if "certificate" in reason or "alert" in reason:
            return f"it wants another client certificate ({reason}); see --tls-cert and --tls-key"
        return f"it does not speak TLS ({reason}); see --url"
    except OSError as error:
        return error.strerror or str(error)
    return ""
