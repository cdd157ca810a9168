"""An address on its way through the spool."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.transports.address import Address

ADDRESS = Address("7", "edged/v1/attic/completion/kitchen/7", True, b"\xff\x00", "x", False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.builds(
        Address,
        id=TEXTS,
        topic=TEXTS,
        asked=st.booleans(),
        correlation=st.none() | st.binary(),
        correlation_text=st.none() | TEXTS,
        plain=st.booleans(),
    )
)
def test_what_was_written_down_is_read_back(address: Address) -> None:
    assert Address.load(address.dump()) == address


def test_what_is_unset_is_not_written_down() -> None:
    assert Address("7", "a/b", False, None, None, False).dump() == '{"id":"7","topic":"a/b"}'


def test_a_field_of_another_version_is_passed_over() -> None:
    newer = json.dumps(json.loads(ADDRESS.dump()) | {"colour": "blue"})

    assert Address.load(newer) == ADDRESS


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"id": 7}', '{"id": "7"}', '{"topic": "a"}'])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Address.load(text)
