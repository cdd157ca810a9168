"""The broker's configuration as `edged broker acl` writes it, with TLS, and with certificates.

Certificates that the daemon itself gets or shows are in test_tls.py.
"""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority, Certificate
from guarded import DENIED, ENDED, GuardedBroker, Guest

MUTUAL = ("#cafile", "#require_certificate", "#use_identity_as_username")
ACCOUNTS = ("--nodes", "attic", "--clients", "hub,kitchen", "--pools", "fleet")


class TlsBroker(GuardedBroker):
    """With a certificate where the configuration wants it."""

    def adapted(self, configuration: str) -> str:
        """As it is."""
        server = Authority(self.folder).issue("server", "IP:127.0.0.1")
        for file, name in ((server.cert_file, "server.crt"), (server.key_file, "server.key")):
            (self.folder / "certs").mkdir(exist_ok=True)
            file.rename(self.folder / "certs" / name)
        return configuration

    def context(self, own: Certificate | None = None) -> ssl.SSLContext:
        """For a client that trusts this broker, with a certificate of its own or without."""
        context = ssl.create_default_context(cafile=self.folder / "authority.pem")
        if own is not None:
            context.load_cert_chain(own.cert_file, own.key_file)
        return context


class MutualBroker(TlsBroker):
    """With the lines for mutual TLS in force."""

    def adapted(self, configuration: str) -> str:
        """Without the comment signs, and with an authority of the clients' own."""
        (self.folder / "clients").mkdir()
        self.authority = Authority(self.folder / "clients", "clients")
        (self.folder / "ca_certificates").mkdir()
        self.authority.ca_file.rename(self.folder / "ca_certificates" / "edged-ca.crt")
        self.authority.ca_file = self.folder / "ca_certificates" / "edged-ca.crt"
        lines = super().adapted(configuration).splitlines()
        return "\n".join(
            line.removeprefix("#") if line.startswith(MUTUAL) else line for line in lines
        )

    def of(self, name: str, **account: str) -> Guest:
        """A guest with a certificate of that name."""
        own = self.context(self.authority.issue(name))
        return Guest(self.port, account.get("user"), account.get("password"), tls=own)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsBroker]:
    broker = TlsBroker(tmp_path_factory.mktemp("tls"), *ACCOUNTS)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MutualBroker]:
    broker = MutualBroker(tmp_path_factory.mktemp("mutual"), *ACCOUNTS)
    broker.start()
    yield broker
    broker.stop()


def may_ask_as(guest: Guest, client: str) -> bool:
    return guest.publish(f"edged/v1/attic/prompt/{client}", "hi") != DENIED


def test_the_configuration_serves_who_has_an_account(broker: TlsBroker) -> None:
    with broker.guest("kitchen", tls=broker.context()) as kitchen:
        assert kitchen.welcome == "Success"
        assert may_ask_as(kitchen, "kitchen")


def test_it_lets_nobody_in_without_tls(broker: TlsBroker) -> None:
    with broker.guest("kitchen") as kitchen:
        assert kitchen.welcome == ENDED


def test_it_lets_nobody_in_without_an_account(broker: TlsBroker) -> None:
    with Guest(broker.port, None, None, tls=broker.context()) as intruder:
        assert intruder.welcome == DENIED


def test_a_certificate_is_its_owners_account(mutual: MutualBroker) -> None:
    with mutual.of("kitchen") as kitchen:
        assert kitchen.welcome == "Success"
        assert may_ask_as(kitchen, "kitchen")


def test_a_certificate_opens_no_other_account(mutual: MutualBroker) -> None:
    with mutual.of("kitchen", user="hub", password=mutual.password("hub")) as kitchen:
        assert kitchen.subscribe("edged/v1/+/completion/hub/#") == DENIED
        assert not may_ask_as(kitchen, "hub")


def test_a_certificate_of_somebody_unknown_opens_nothing(mutual: MutualBroker) -> None:
    with mutual.of("stranger") as stranger:
        assert stranger.subscribe("edged/v1/+/status") == DENIED
        assert not may_ask_as(stranger, "stranger")


def test_a_password_does_not_stand_for_a_certificate(mutual: MutualBroker) -> None:
    with mutual.guest("hub", tls=mutual.context()) as intruder:
        assert intruder.welcome == ENDED


def test_a_certificate_of_another_authority_opens_nothing(
    mutual: MutualBroker, tmp_path: Path
) -> None:
    forged = Authority(tmp_path, "clients").issue("hub")
    with Guest(mutual.port, None, None, tls=mutual.context(forged)) as intruder:
        assert intruder.welcome == ENDED
