"""One-time codes against the vectors of RFC 6238, and how they are handed out."""

import pytest

from jumpserver.demo.one_time_codes import CodeBook, code_at, enrolment_code, step_now

# RFC 6238 appendix B, SHA-1; the last six of its eight digits.
SECRET = b"12345678901234567890"
VECTORS = [
    (59, "287082"),
    (1111111109, "081804"),
    (1111111111, "050471"),
    (1234567890, "005924"),
    (2000000000, "279037"),
    (20000000000, "353130"),
]


@pytest.mark.parametrize(("seconds", "code"), VECTORS)
def test_codes_are_those_of_rfc_6238(seconds, code):
    assert code_at(SECRET, seconds // 30) == code


def test_enrolment_uses_the_code_before_this_one():
    assert enrolment_code(SECRET, 1111111111.0) == code_at(SECRET, 1111111111 // 30 - 1)


def test_enrolment_near_the_end_of_a_half_minute_uses_its_own():
    # 29 s into step 2 the server may look in step 3: step 1 would be too old there.
    assert enrolment_code(SECRET, 89.0) == code_at(SECRET, 2)


def test_a_book_hands_out_each_code_once_and_in_rising_order():
    waited: list[float] = []
    first = step_now()
    book = CodeBook(secret=SECRET, last_step=first - 1, waiting=waited.append)
    codes = [book.next_code(), book.next_code()]
    assert codes == [code_at(SECRET, first), code_at(SECRET, first + 1)]
    assert waited == []


def test_a_book_waits_when_all_codes_at_hand_are_used(time_machine):
    waited: list[float] = []
    time_machine.move_to(999_999_989.9, tick=True)
    book = CodeBook(
        secret=SECRET, last_step=999_999_989 // 30 + 1, waiting=waited.append
    )
    assert book.next_code() == code_at(SECRET, 999_999_990 // 30 + 1)
    assert len(waited) == 1
    assert 0 < waited[0] < 0.2
