"""Reading the forms and links of a portal page, as a browser without scripts does."""

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass(slots=True)
class HtmlForm:
    """A form: where it goes, what it would send as it stands, and its choices.

    `choices` maps the name of each select to {label: value}; values of `fields` are
    lists, as a name may be sent several times.
    """

    action: str
    method: str
    fields: dict[str, list[str]] = field(default_factory=dict)
    choices: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(slots=True)
class HtmlPage:
    """What a page holds for somebody who reads and fills it in."""

    text: str
    forms: list[HtmlForm]
    links: list[str]

    def form_to(self, action: str) -> HtmlForm:
        """Return the POST form that goes to `action`; "" is the page itself.

        Raises: LookupError when there is none.
        """
        for form in self.forms:
            if form.method == "post" and form.action == action:
                return form
        raise LookupError(f"the page has no form to {action or 'itself'}")

    def links_to(self, *, start: str, end: str = "") -> list[str]:
        """Return the paths linked to that begin and end like this, in page order."""
        return [
            link for link in self.links if link.startswith(start) and link.endswith(end)
        ]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.words: list[str] = []
        self.forms: list[HtmlForm] = []
        self.links: list[str] = []
        self._form: HtmlForm | None = None
        self._select = ""
        self._textarea = ""
        self._option: tuple[str, bool] | None = None
        self._option_label = ""
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in ("script", "style"):
            self._silent += 1
        elif tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "form":
            self._form = HtmlForm(
                action=given.get("action", ""),
                method=given.get("method", "get").lower(),
            )
            self.forms.append(self._form)
        elif self._form is not None:
            self._field(tag, given, self._form)

    def _field(self, tag: str, given: dict[str, str], form: HtmlForm) -> None:
        name = given.get("name", "")
        if tag == "input" and name:
            is_choice = given.get("type") in ("checkbox", "radio")
            if not is_choice or "checked" in given:
                form.fields.setdefault(name, []).append(given.get("value", ""))
        elif tag == "textarea":
            self._textarea = name
            form.fields[name] = [""]
        elif tag == "select":
            self._select = name
            form.choices[name] = {}
        elif tag == "option" and self._select:
            self._option = given.get("value", ""), "selected" in given
            self._option_label = ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._silent -= 1
        elif tag == "form":
            self._form = None
        elif tag == "textarea":
            self._textarea = ""
        elif tag == "select":
            self._select = ""
        elif tag == "option" and self._option is not None and self._form is not None:
            value, is_selected = self._option
            self._form.choices[self._select][self._option_label.strip()] = value
            if is_selected:
                self._form.fields[self._select] = [value]
            self._option = None

    def handle_data(self, data: str) -> None:
        if self._textarea and self._form is not None:
            self._form.fields[self._textarea] = [
                self._form.fields[self._textarea][0] + data.removeprefix("\n")
            ]
        elif self._option is not None:
            self._option_label += data
        elif not self._silent:
            self.words.append(data)


def read_page(html: str) -> HtmlPage:
    """Return the text (blanks joined), the forms and the links of a page."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return HtmlPage(" ".join("".join(reader.words).split()), reader.forms, reader.links)
