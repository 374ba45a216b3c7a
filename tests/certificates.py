"""Certificates for tests, made by OpenSSL's command."""

import subprocess
from pathlib import Path


def make_authority(folder: Path, name: str) -> None:
    """Make NAME.pem, which trusts itself, and NAME.key."""
    _openssl(folder, "req", "-x509", *_new_key(name), "-out", f"{name}.pem", "-days", "2")


def make_certificate(
    folder: Path, name: str, authority: str, *, days: int = 2, host: str = "localhost"
) -> None:
    """Make NAME.pem for the host, and NAME.key; expired if `days` is negative."""
    _openssl(folder, "req", *_new_key(name), "-out", f"{name}.csr")
    (folder / "names").write_text(f"subjectAltName=DNS:{host}")
    by = ("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial", "-days", str(days))
    _openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", "names", *by)


def _new_key(name: str) -> tuple[str, ...]:
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    return (*curve, "-nodes", "-keyout", f"{name}.key", "-subj", f"/CN={name}")


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
