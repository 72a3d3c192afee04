"""Reading pages as a browser without scripts does."""

import pytest

from jumpserver.demo.html_forms import read_page

PAGE = """<html><head><style>p { color: red }</style></head><body>
<a href="/one/">One</a> <a href="/two/edit/">Two</a>
<form action="/search/" method="get"><input name="q" value="x"></form>
<form method="post"><input type="hidden" name="token" value="t&amp;1" />
 <input type="checkbox" name="s" value="shell" checked>
 <input type="checkbox" name="s" value="exec">
 <input type="text" name="minutes" value="30">
 <select name="target"><option value="">Choose</option>
 <optgroup label="North"><option value="7" selected>hmi / operator</option>
 <option value="8">scada / historian</option></optgroup></select>
 <textarea name="reason">
because &lt;so&gt;</textarea><button name="verdict" value="approve">Go</button></form>
<script>let hidden = "<p>not text</p>";</script><p>Waiting
 for: <strong>Bram</strong></p></body></html>"""


def test_a_form_would_send_what_it_holds():
    form = read_page(PAGE).form_to("")
    assert form.fields == {
        "token": ["t&1"],
        "s": ["shell"],
        "minutes": ["30"],
        "target": ["7"],
        "reason": ["because <so>"],
    }
    assert form.choices["target"]["scada / historian"] == "8"


def test_text_is_what_people_read():
    text = read_page(PAGE).text
    assert "Waiting for: Bram" in text
    assert "not text" not in text
    assert "color" not in text


def test_links_can_be_looked_for():
    assert read_page(PAGE).links_to(start="/two/", end="/edit/") == ["/two/edit/"]


def test_a_form_that_is_not_there_is_said():
    with pytest.raises(LookupError, match="/search/"):
        # Only a GET form goes there.
        read_page(PAGE).form_to("/search/")
