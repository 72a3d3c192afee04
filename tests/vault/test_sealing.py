"""Envelope encryption: what opens, and everything that must not."""

import dataclasses
import os
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.vault.sealing import (
    KeyEncryptionKey,
    SealBrokenError,
    WrongKekError,
    rewrap,
    seal,
    unseal,
)

KEK = KeyEncryptionKey(os.urandom(32))
OTHER_KEK = KeyEncryptionKey(os.urandom(32))
ROW = uuid.uuid4()


@given(
    st.binary(max_size=5000),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
)
def test_it_opens_for_the_same_row_and_purpose(plaintext, purpose):
    sealed = seal(plaintext, kek=KEK, purpose=purpose, row_id=ROW)
    assert unseal(sealed, kek=KEK, purpose=purpose, row_id=ROW) == plaintext
    assert len(sealed.ciphertext) == 12 + len(plaintext) + 16
    assert len(sealed.wrapped_key) == 12 + 32 + 16


def test_the_same_text_is_sealed_differently_each_time():
    one = seal(b"same", kek=KEK, purpose="p", row_id=ROW)
    other = seal(b"same", kek=KEK, purpose="p", row_id=ROW)
    assert one.ciphertext != other.ciphertext
    assert one.wrapped_key != other.wrapped_key


@pytest.mark.parametrize("purpose", ["q", "", "pp"])
def test_another_purpose_does_not_open_it(purpose):
    sealed = seal(b"text", kek=KEK, purpose="p", row_id=ROW)
    with pytest.raises(SealBrokenError):
        unseal(sealed, kek=KEK, purpose=purpose, row_id=ROW)


def test_moved_to_another_row_it_does_not_open():
    sealed = seal(b"text", kek=KEK, purpose="p", row_id=ROW)
    with pytest.raises(SealBrokenError):
        unseal(sealed, kek=KEK, purpose="p", row_id=uuid.uuid4())


def test_the_parts_of_two_secrets_do_not_mix():
    one = seal(b"one", kek=KEK, purpose="p", row_id=ROW)
    other = seal(b"two", kek=KEK, purpose="p", row_id=ROW)
    mixed = dataclasses.replace(one, wrapped_key=other.wrapped_key)
    with pytest.raises(SealBrokenError):
        unseal(mixed, kek=KEK, purpose="p", row_id=ROW)


@given(st.data())
def test_one_flipped_bit_or_a_cut_is_found(data):
    sealed = seal(b"some text", kek=KEK, purpose="p", row_id=ROW)
    part = data.draw(st.sampled_from(["ciphertext", "wrapped_key"]))
    content = bytearray(getattr(sealed, part))
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(content) * 8 - 1))
        content[place // 8] ^= 1 << (place % 8)
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    with pytest.raises(SealBrokenError):
        unseal(
            dataclasses.replace(sealed, **{part: bytes(content)}),  # type: ignore[arg-type]
            kek=KEK,
            purpose="p",
            row_id=ROW,
        )


def test_another_vault_key_is_named_not_tried():
    sealed = seal(b"text", kek=KEK, purpose="p", row_id=ROW)
    with pytest.raises(WrongKekError, match=KEK.id):
        unseal(sealed, kek=OTHER_KEK, purpose="p", row_id=ROW)
    forged = dataclasses.replace(sealed, kek_id=OTHER_KEK.id)
    with pytest.raises(SealBrokenError):
        unseal(forged, kek=OTHER_KEK, purpose="p", row_id=ROW)


def test_rewrapping_changes_the_vault_key_and_not_the_ciphertext():
    sealed = seal(b"text", kek=KEK, purpose="p", row_id=ROW)
    moved = rewrap(sealed, old=KEK, new=OTHER_KEK, purpose="p", row_id=ROW)
    assert moved.ciphertext == sealed.ciphertext
    assert unseal(moved, kek=OTHER_KEK, purpose="p", row_id=ROW) == b"text"
    with pytest.raises(WrongKekError):
        unseal(moved, kek=KEK, purpose="p", row_id=ROW)
    with pytest.raises(SealBrokenError):
        rewrap(sealed, old=KEK, new=OTHER_KEK, purpose="q", row_id=ROW)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_vault_key_is_32_bytes(length):
    with pytest.raises(ValueError, match="32 random bytes"):
        KeyEncryptionKey(bytes(length))


def test_the_vault_key_does_not_show_itself():
    assert KEK.key.hex() not in repr(KEK)
    assert repr(KEK.key) not in repr(KEK)


def test_a_purpose_with_nul_is_refused():
    with pytest.raises(ValueError, match="printable"):
        seal(b"", kek=KEK, purpose="a\0b", row_id=ROW)
