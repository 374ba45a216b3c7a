"""Whether the files for TLS can be used, and why a server cannot be asked over it, in words.

gRPC's library says of either no more than that it could not connect; so Python's own TLS is asked first.
"""

import logging
import socket
import ssl
from pathlib import Path

from harness.errors import ConfigError, ServerError
from harness.triton.address import Address, Tls

logger = logging.getLogger(__name__)

_TIMEOUT_S = 5.0
_SOME_BYTES = 1 << 12


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
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if tls.ca:
            context.load_verify_locations(tls.ca)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"--tls-ca: {tls.ca} has no certificate in PEM") from error
    try:
        if tls.cert:
            # Without a password here, a key that has one would ask the terminal for it.
            context.load_cert_chain(tls.cert, tls.key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"--tls-cert {tls.cert} and --tls-key {tls.key} are no certificate and its key, both in PEM and "
            "the key without a password"
        ) from error


def check_trust(server: Address) -> None:
    """Shake hands with a server over TLS, if there is one.

    Raises:
        ServerError: client and server do not trust each other, or it does not speak TLS.
    """
    wants_certificate = (
        f"it does not take the client's certificate, --tls-cert {server.tls.cert}"
        if server.tls.cert
        else "it wants a certificate of the client: see --tls-cert and --tls-key"
    )
    try:
        trouble = "" if _first_bytes(server) else wants_certificate
    except ssl.SSLCertVerificationError as error:
        reason = error.verify_message.rstrip(".")
        trouble = f"its certificate is not to be trusted ({reason}): see --url and --tls-ca"
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        is_refusal = "alert" in reason
        trouble = f"{wants_certificate if is_refusal else 'it does not speak TLS: see --url'} ({reason})"
    except OSError as error:
        # Nothing there, or no answer in time: gRPC's library will say so.
        trouble = ""
        logger.debug("%s: %s", server.url, error)
    if trouble:
        raise ServerError(f"the server at {server.url} cannot be asked over TLS: {trouble}")


def _first_bytes(server: Address) -> bytes:
    """What a server says first; nothing if it ends the connection.

    HTTP/2 begins with settings. With TLS 1.3 a client's certificate is refused only after the handshake, and
    maybe without a word.
    """
    host, port = server.host_and_port
    host = host.strip("[]")
    context = ssl.create_default_context(cafile=server.tls.authorities or None)
    context.set_alpn_protocols(["h2"])
    if server.tls.cert:
        context.load_cert_chain(server.tls.cert, server.tls.key)
    with (
        socket.create_connection((host, int(port)), _TIMEOUT_S) as connected,
        context.wrap_socket(connected, server_hostname=server.name or host) as secure,
    ):
        try:
            return secure.recv(_SOME_BYTES)
        except ConnectionResetError:
            return b""
