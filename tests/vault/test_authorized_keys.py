"""One key out, one key in, every other byte as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.vault.authorized_keys import KeyNotListedError, replace_key

OLD = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOLDOLDOLDOLDOLDOLDOLDOLDOLDOLDOLDOLDOLDOLDO"
NEW = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINEWNEWNEWNEWNEWNEWNEWNEWNEWNEWNEWNEWNEWNEWN"
THIRD = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQTHIRDTHIRD"


def _replace(content: bytes) -> bytes:
    return replace_key(content, old_line=OLD, new_line=NEW)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{OLD}", "{NEW}"),
        ("{OLD}\n", "{NEW}\n"),
        ("{OLD} initial key\r\n", "{NEW} initial key\r\n"),
        ("  {OLD}\tx\n", "  {NEW}\tx\n"),
        ('from="10.0.0.0/8",no-pty {OLD} x\n', 'from="10.0.0.0/8",no-pty {NEW} x\n'),
        ('command="a \\"b\\" {OLD} c" {OLD}\n', 'command="a \\"b\\" {OLD} c" {NEW}\n'),
        ("# {OLD}\n\n{THIRD} x\n{OLD}\n", "# {OLD}\n\n{THIRD} x\n{NEW}\n"),
        ("{OLD}\nno-pty {OLD} twice\n", "{NEW}\nno-pty {NEW} twice\n"),
        ("{NEW}\n{OLD}\n{THIRD}\n", "{NEW}\n{THIRD}\n"),
        ("{THIRD} {OLD}\n{OLD}\n", "{THIRD} {OLD}\n{NEW}\n"),
        ("\xff\xfe\n{OLD}\n", "\xff\xfe\n{NEW}\n"),
    ],
)
def test_exactly_the_old_key_is_replaced(before, after):
    names = {"OLD": OLD, "NEW": NEW, "THIRD": THIRD}
    content = before.format(**names).encode("latin-1")
    assert _replace(content) == after.format(**names).encode("latin-1")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "# {OLD}",
        "{THIRD}\n",
        "{OLD}X\n",
        "{THIRD} {OLD}\n",
        'command="{OLD}" {THIRD}\n',
        "cert-authority\n",
        'command="never closed {OLD}',
    ],
)
def test_a_key_that_is_not_listed_is_an_error(content):
    with pytest.raises(KeyNotListedError):
        _replace(content.format(OLD=OLD, THIRD=THIRD).encode())


_LINES = st.lists(
    st.one_of(
        st.sampled_from([THIRD, "", "# comment", f"no-pty {THIRD} a b"]),
        st.text(
            st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=60
        ),
    ).map(str.encode)
)


@given(_LINES, _LINES, st.sampled_from([b"\n", b"\r\n"]))
def test_all_other_lines_stay_byte_for_byte(before, after, end):
    lines = [*before, OLD.encode(), *after]
    result = _replace(end.join(lines))
    assert result == end.join([*before, NEW.encode(), *after])


@given(st.binary(max_size=300))
def test_any_bytes_are_read_without_a_fault(content):
    try:
        assert _replace(content + b"\n" + OLD.encode()) == (
            content + b"\n" + NEW.encode()
        )
    except KeyNotListedError:
        pytest.fail("the last line is the old key")
