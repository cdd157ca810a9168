"""Properties on the wire, read by paho's own reader."""

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edged.transports.properties import PublishProperties

ALL = PublishProperties(b"\x00\xff", (("edged-id", "7"), ("edged-id", "ünï"), ("", "")), 60)


@pytest.mark.parametrize(
    "given",
    [
        PublishProperties(),
        PublishProperties(correlation=b""),
        PublishProperties(expiry_s=0xFFFF_FFFF),
        PublishProperties(user_properties=(("a" * 100, "b" * 100),)),
        PublishProperties(correlation=b"c" * 20_000),
        ALL,
    ],
    ids=["none", "empty", "expiry", "two bytes of length", "three bytes of length", "all"],
)
def test_what_is_packed_is_read_as_it_was(given: PublishProperties) -> None:
    packed = given.pack()
    read, length = Properties(PacketTypes.PUBLISH).unpack(packed)

    assert length == len(packed)
    assert getattr(read, "CorrelationData", None) == given.correlation
    assert tuple(getattr(read, "UserProperty", ())) == given.user_properties
    assert getattr(read, "MessageExpiryInterval", None) == given.expiry_s


def test_what_does_not_fit_is_no_message() -> None:
    with pytest.raises(ValueError, match="65,535"):
        PublishProperties(correlation=bytes(65_536)).pack()
