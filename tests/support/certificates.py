"""Certificates for tests, made by the openssl program."""

from __future__ import annotations

import subprocess
from pathlib import Path


def openssl(*args: str | Path) -> None:
    """Run the openssl program."""
    subprocess.run(["openssl", *args], check=True, capture_output=True)


def authority(folder: Path, name: str) -> Path:
    """Make a certificate authority; return its certificate, beside which NAME.key lies."""
    key, made = folder / f"{name}.key", folder / f"{name}.pem"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", key, "-out", made, "-subj", f"/CN={name}")
    return made


def signed(folder: Path, name: str, ca: Path) -> tuple[Path, Path]:
    """Make a certificate for localhost that *ca* signed; return it and its key."""
    key, request, made = (folder / f"{name}.{end}" for end in ("key", "csr", "pem"))
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    names = ("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    openssl("req", *curve, "-keyout", key, "-out", request, "-subj", f"/CN={name}", *names)
    by = (
        "-CA",
        ca,
        "-CAkey",
        ca.with_suffix(".key"),
        "-CAcreateserial",
        "-copy_extensions",
        "copy",
    )
    openssl("x509", "-req", "-in", request, *by, "-out", made)
    return made, key
