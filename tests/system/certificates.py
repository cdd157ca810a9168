"""An authority of the tests' own, and certificates that it signs, by the openssl command."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")


@dataclass(frozen=True)
class Certificate:
    cert_file: Path
    key_file: Path


def openssl(*arguments: object) -> None:
    subprocess.run(
        ["openssl", *map(str, arguments)], check=True, capture_output=True, stdin=subprocess.DEVNULL
    )


class Authority:
    """Signs what it is asked to."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self.ca_file = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        openssl(
            *("req", "-x509", *NEW_KEY, "-subj", f"/CN={name}", "-days", 30),
            *("-keyout", self._key, "-out", self.ca_file),
        )

    def issue(self, name: str, names: str = "", days: int = 30) -> Certificate:
        """A certificate for a client, or for a server of these names (``IP:127.0.0.1,DNS:x``).

        With fewer than 0 days, it has expired.
        """
        own = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request = self._folder / f"{name}.csr"
        openssl(
            *("req", "-new", *NEW_KEY, "-subj", f"/CN={name}"),
            *("-keyout", own.key_file, "-out", request),
        )
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={names}\n" if names else "")
        openssl(
            *("x509", "-req", "-in", request, "-CA", self.ca_file, "-CAkey", self._key),
            *("-CAcreateserial", "-days", days, "-extfile", extensions, "-out", own.cert_file),
        )
        own.key_file.chmod(0o600)
        return own


def listener(certificate: Certificate) -> str:
    """Mosquitto's settings for a listener with TLS; root may read what is pytest's."""
    return f"certfile {certificate.cert_file}\nkeyfile {certificate.key_file}\nuser root\n"
