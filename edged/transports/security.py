"""Who we are to a broker, and how we know that it is the right one: user, password, TLS."""

import re
import ssl
from pathlib import Path

import paho.mqtt.client as paho

from edged.errors import BrokerError
from edged.settings import BrokerAddress, MqttSettings

# OpenSSL's codes for why a certificate is not accepted (X509_V_ERR_… in its x509_vfy.h).
_NOT_YET_VALID, _EXPIRED = 9, 10
_WRONG_NAME, _WRONG_ADDRESS = 62, 64
# Alerts by which a broker says that ours is missing or wrong, as OpenSSL spells them.
_ALERT = re.compile(
    r"alert (certificate required|bad certificate|unsupported certificate|certificate revoked"
    r"|certificate expired|certificate unknown|unknown ca|access denied|decrypt error"
    r"|handshake failure)"
)


class ConnectFailure(BrokerError):
    """Why there is no connection to one of the brokers, and what could help."""

    def __init__(self, fact: str, remedy: str) -> None:
        super().__init__(f"{fact}; {remedy}")
        self.fact = fact
        self.remedy = remedy


def configure(client: paho.Client, settings: MqttSettings) -> None:
    """Tell a new client who we are, and whom to trust.

    The files are read again before each connection, so that a renewed certificate is used from
    the next one on; what is wrong with them is a ``ConnectFailure`` then.
    """
    if settings.username is not None:
        password = settings.password
        client.username_pw_set(settings.username, password.get_secret_value() if password else None)
    if not settings.tls:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies the certificate and its name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _Socket
    if not settings.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif settings.ca_file is None:
        context.load_default_certs()
    client.tls_set_context(context)
    client.on_pre_connect = lambda _client, _userdata: _load_files(context, settings)


class _Socket(ssl.SSLSocket):
    """One that is not left open by a handshake that fails, as paho would."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def _load_files(context: ssl.SSLContext, settings: MqttSettings) -> None:
    if settings.tls_verify and settings.ca_file is not None:
        _check_readable("mqtt.ca_file", settings.ca_file)
        try:
            context.load_verify_locations(settings.ca_file)
        except ssl.SSLError as error:
            raise ConnectFailure(
                f"mqtt.ca_file {settings.ca_file} holds no certificate ({_words(error)})",
                "it must be PEM: -----BEGIN CERTIFICATE-----",
            ) from None
    if settings.cert_file is not None:
        _load_own(context, settings.cert_file, settings.key_file)


def _load_own(context: ssl.SSLContext, cert_file: Path, key_file: Path | None) -> None:
    _check_readable("mqtt.cert_file", cert_file)
    name, key = ("mqtt.key_file", key_file) if key_file else ("mqtt.cert_file", cert_file)
    _check_readable(name, key)

    def ask() -> str:  # instead of OpenSSL's question on the terminal
        raise ConnectFailure(
            f"the key in {name} {key} is encrypted",
            f"store it without a passphrase: openssl pkey -in {key}",
        )

    try:
        context.load_cert_chain(cert_file, key, password=ask)
    except ssl.SSLError as error:
        raise ConnectFailure(
            f"mqtt.cert_file {cert_file} and the key in {key} cannot be used ({_words(error)})",
            "they must be PEM, and the key must be the certificate's",
        ) from None


def _check_readable(name: str, path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConnectFailure(
            f"{name} {path} cannot be read ({error.strerror})",
            f"set {name}, and let this user read it",
        ) from None


def explain(
    error: Exception, address: BrokerAddress, settings: MqttSettings, remedy: str
) -> ConnectFailure:
    """Why a socket could not be opened; ``remedy`` is for where nothing listens."""
    match error:
        case ConnectFailure():
            return error
        case ssl.SSLCertVerificationError():
            return _distrust(error, address, settings)
        case ssl.SSLError() | ConnectionResetError() if settings.tls:
            return explain_alert(str(error), address) or ConnectFailure(
                f"{address} does not answer in TLS ({_words(error)})",
                "set mqtt.port to its TLS port, or mqtt.tls = false if it has none",
            )
    reason = getattr(error, "strerror", None) or error
    return ConnectFailure(f"no broker at {address} ({reason})", remedy)


def _distrust(
    error: ssl.SSLCertVerificationError, address: BrokerAddress, settings: MqttSettings
) -> ConnectFailure:
    match error.verify_code:
        case code if code in (_WRONG_NAME, _WRONG_ADDRESS):
            remedy = "set mqtt.host to a name that the certificate carries"
        case code if code in (_NOT_YET_VALID, _EXPIRED):
            remedy = "renew it on the broker; or does the clock of this machine go wrong?"
        case _ if settings.ca_file is None:
            remedy = "set mqtt.ca_file to the certificate of the authority that signed it"
        case _:
            remedy = f"is mqtt.ca_file {settings.ca_file} the authority that signed it?"
    reason = error.verify_message.removesuffix(".")
    return ConnectFailure(f"the certificate of {address} is not accepted ({reason})", remedy)


def explain_alert(text: str, address: BrokerAddress) -> ConnectFailure | None:
    """What a broker's TLS alert says of our certificate; ``None`` if it is none of that.

    In TLS 1.3 it comes only after the handshake, in the place of the broker's answer.
    """
    alert = _ALERT.search(text)
    if alert is None:
        return None
    return ConnectFailure(
        f"{address} does not accept our certificate, or that there is none ({alert[1]})",
        "set mqtt.cert_file and mqtt.key_file to one that its authority signed",
    )


def explain_silence(settings: MqttSettings) -> str:
    """What to look at where a broker hangs up or does not answer."""
    if settings.tls:
        return "does it want a certificate of ours (mqtt.cert_file)?"
    return "is that the MQTT port, and one without TLS (else set mqtt.tls)?"


class LastError:
    """paho's ``on_log`` for the time of a greeting: what it tells nowhere else."""

    def __init__(self) -> None:
        self.text = ""

    def __call__(self, _client: paho.Client, _userdata: object, level: int, text: str) -> None:
        if level == paho.MQTT_LOG_ERR:
            self.text = text


def _words(error: Exception) -> str:
    """``[SSL: KEY_VALUES_MISMATCH] key values mismatch (_ssl.c:4)`` → ``key values mismatch``."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)
