"""The user name as an address: what is understood, what is refused (R37)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.gateway.user_string import (
    MAX_LENGTH,
    SEPARATORS,
    USAGE,
    ParsedLogin,
    UserStringError,
    parse_user_string,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ann@hmi-pump-01", ParsedLogin("ann", None, "hmi-pump-01")),
        ("ann:hmi-pump-01", ParsedLogin("ann", None, "hmi-pump-01")),
        ("ann+hmi-pump-01", ParsedLogin("ann", None, "hmi-pump-01")),
        ("ann@operator@scada-01", ParsedLogin("ann", "operator", "scada-01")),
        ("ann:operator:scada-01", ParsedLogin("ann", "operator", "scada-01")),
        ("ann+operator+scada-01", ParsedLogin("ann", "operator", "scada-01")),
        ("Ann@Operator@SCADA-01", ParsedLogin("ann", "Operator", "scada-01")),
        ("a.b_c-d@x.y.local", ParsedLogin("a.b_c-d", None, "x.y.local")),
        ("ann@HOST$@win-01", ParsedLogin("ann", "HOST$", "win-01")),
        ("Ann", ParsedLogin("ann", None, None)),
    ],
)
def test_addresses(text, expected):
    assert parse_user_string(text) == expected


REASONS = {
    "the user name is too long",
    "the user name mixes separators",
    "the user name has too many parts",
    "the user name has an empty part",
    "the user name has forbidden characters",
}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "ann@",
        "@asset",
        "ann@@asset",
        "a@b@c@d",
        "ann@operator:asset",
        "ann@asset ",
        " ann@asset",
        "ann@as set",
        "ann@asset\n",
        "ann@asset\x00",
        "ann\x00@asset",
        "ann@\x1b[31m",
        "ann@../../etc/passwd",
        "..@asset",
        "ann@a..b",
        "ann@.asset",
        "ann@asset.",
        "ann@%u",
        "%h@asset",
        "ann@-oProxyCommand",
        "ann@asset/x",
        "ann@as\\set",
        "ann@$HOME",
        "ann@`id`",
        "ann@pump\u0430",
        "ann@\xff\xfe",
        "ann@asset\u202e",
        "ann@" + "a" * 65,
        "a" * MAX_LENGTH + "@b",
    ],
)
def test_r37_refusals_do_not_repeat_the_input(text):
    with pytest.raises(UserStringError) as refusal:
        parse_user_string(text)
    message = str(refusal.value)
    assert message.isprintable()
    assert "use me@asset" in message
    assert message.removesuffix(USAGE) in {f"{reason}; " for reason in REASONS}


NAMES = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,30}[a-z0-9_])?", fullmatch=True)


@given(NAMES, NAMES, NAMES, st.sampled_from(SEPARATORS))
def test_names_come_back_as_they_were_given(handle, account, asset, separator):
    assert parse_user_string(separator.join((handle, asset))) == ParsedLogin(
        handle, None, asset
    )
    assert parse_user_string(separator.join((handle, account, asset))) == ParsedLogin(
        handle, account, asset
    )


@given(st.text())
def test_r37_any_text_is_parsed_into_harmless_names_or_refused(text):
    try:
        parsed = parse_user_string(text)
    except UserStringError:
        return
    for part in (parsed.handle, parsed.account, parsed.asset):
        if part is None:
            continue
        assert part.isascii()
        assert part.isprintable()
        assert not set(part) & set("/\\%@:+ \"'`")
        assert ".." not in part
        assert not part.startswith(("-", "."))
