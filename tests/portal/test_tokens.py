"""The colours: what style 6.4 promises about them, measured."""

import re
from itertools import combinations
from pathlib import Path

import pytest
from django.conf import settings

_CSS = (Path(settings.BASE_DIR) / "static/css/tokens.css").read_text()
_BADGES = ("alarm", "warn", "live", "idle")

RGB = tuple[float, float, float]

# Machado, Oliveira, Fernandes 2009, severity 1.0, applied to linear RGB.
_VISION = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protan": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deutan": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritan": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}


def _block(selector: str) -> dict[str, str]:
    body = _CSS.split(selector, 1)[1].split("{", 1)[1].split("}", 1)[0]
    return dict(re.findall(r"--([a-z0-9-]+):\s*([^;]+);", body))


THEMES = {
    "light": _block(":root"),
    "dark": _block(':root[data-theme="dark"]'),
}


def _linear(colour: str) -> RGB:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return red, green, blue


def _luminance(colour: str) -> float:
    red, green, blue = _linear(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the WCAG contrast ratio of two `#rrggbb` colours."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _lab(linear: RGB) -> RGB:
    red, green, blue = (min(1.0, max(0.0, c)) for c in linear)
    x = (0.4124564 * red + 0.3575761 * green + 0.1804375 * blue) / 0.95047
    y = 0.2126729 * red + 0.7151522 * green + 0.0721750 * blue
    z = (0.0193339 * red + 0.1191920 * green + 0.9503041 * blue) / 1.08883

    def f(t: float) -> float:
        return t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116

    return 116 * f(y) - 16, 500 * (f(x) - f(y)), 200 * (f(y) - f(z))


def distance(one: str, other: str, vision: str) -> float:
    """Return ΔE76 of two colours as seen with that kind of colour vision."""
    seen = []
    for colour in (one, other):
        linear = _linear(colour)
        rows = _VISION[vision]
        red, green, blue = (
            sum(a * b for a, b in zip(row, linear, strict=True)) for row in rows
        )
        seen.append(_lab((red, green, blue)))
    return float(
        sum((a - b) ** 2 for a, b in zip(seen[0], seen[1], strict=True)) ** 0.5
    )


def test_both_dark_tables_are_the_same() -> None:
    by_system = _block(':root:not([data-theme="light"])')
    assert by_system == THEMES["dark"]
    assert by_system["page"] == "#1b1d20"


@pytest.mark.parametrize(
    ("theme", "expected"),
    [
        (
            "light",
            {
                "page": "#e9eaec",
                "panel": "#f5f6f7",
                "text": "#1f2328",
                "muted": "#565c64",
                "line": "#7d848c",
                "link": "#1f5f8b",
                "focus": "#1769aa",
                "alarm": "#b3261e",
                "warn": "#ffc233",
                "live": "#1769aa",
                "idle": "#6b737c",
            },
        ),
        (
            "dark",
            {
                "page": "#1b1d20",
                "panel": "#24272b",
                "text": "#e6e8eb",
                "muted": "#a6adb6",
                "line": "#777e88",
                "link": "#7cc0ee",
                "focus": "#ffd166",
                "alarm": "#d6322a",
                "warn": "#ffc233",
                "live": "#4da3dd",
                "idle": "#8a9199",
            },
        ),
    ],
)
def test_colours_are_those_that_were_chosen(
    theme: str, expected: dict[str, str]
) -> None:
    assert {name: THEMES[theme][name] for name in expected} == expected


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("ground", ["page", "panel", "raised"])
@pytest.mark.parametrize("ink", ["text", "muted", "link"])
def test_text_passes_aa_on_every_ground(theme: str, ground: str, ink: str) -> None:
    tokens = THEMES[theme]
    assert contrast(tokens[ink], tokens[ground]) >= 4.5


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", [*_BADGES, "link"])
def test_words_on_a_fill_pass_aa(theme: str, name: str) -> None:
    tokens = THEMES[theme]
    assert contrast(tokens[f"{name}-ink"], tokens[name]) >= 4.5


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("edge", ["line", "focus", "alarm-edge", "warn-edge"])
def test_edges_that_carry_meaning_are_seen(theme: str, edge: str) -> None:
    tokens = THEMES[theme]
    assert contrast(tokens[edge], tokens["page"]) >= 3.0


@pytest.mark.parametrize(
    ("theme", "vision", "least"),
    [
        ("light", "normal", 36),
        ("light", "protan", 33),
        ("light", "deutan", 39),
        ("light", "tritan", 22),
        ("dark", "normal", 33),
        ("dark", "protan", 30),
        ("dark", "deutan", 35),
        ("dark", "tritan", 33),
    ],
)
def test_badges_stay_apart_for_every_eye(theme: str, vision: str, least: int) -> None:
    tokens = THEMES[theme]
    found = {
        pair: distance(tokens[pair[0]], tokens[pair[1]], vision)
        for pair in combinations(_BADGES, 2)
    }
    assert min(found.values()) >= least - 0.5, found
    assert found["alarm", "warn"] >= 38.5


def test_no_page_brings_its_own_style_or_script() -> None:
    """The policy forbids it, and the browser would block it in silence."""
    for path in (Path(settings.BASE_DIR) / "templates").rglob("*.html"):
        text = path.read_text()
        assert not re.search(r"\sstyle=", text), path
        assert "<style" not in text, path
        assert not re.search(r"<script(?![^>]*\ssrc=)", text), path
        assert not re.search(r"\son[a-z]+=", text), path
        assert "javascript:" not in text, path
