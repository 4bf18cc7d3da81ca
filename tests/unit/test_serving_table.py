"""A list as CSV: texts of attackers are texts, whatever reads the file, and it has the rows of the list."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.alerts.explain import Reason
from streamguard.alerts.incident import Entity
from streamguard.serving.api.table import COLUMNS, cell
from streamguard.serving.query import incidents as module
from tests.serving_stores import ALERTS, at
from tests.unit.test_campaigns import NOON, lone
from tests.unit.test_serving_api import Site

HOSTILE = (
    "=cmd|'/c calc'!A1", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\u00a0=1", "\uff1d1",
    'a","=1', "a\r\n=1", "a;=1", "\u202egnp.exe", "\x1b[31m=x", "\x00=1", '"', "'=1", "",
)  # fmt: skip


def is_formula(text: str) -> bool:
    """Whether a naive spreadsheet would compute a cell: it removes what cannot be seen, and looks at the first sign."""
    return (
        re.match(r"[\s\x00-\x1f\u200b-\u200f\u202a-\u202e\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]", text)
        is not None
    )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.store.close()


@given(st.text() | st.sampled_from(HOSTILE) | st.from_regex(r"[\s\x00-\x20\u200b\u202e]*[=+@-].*"))
def test_no_text_is_a_formula(text: str) -> None:
    assert not is_formula(cell(text)), ascii(text)


def test_table_has_the_rows_of_the_list_and_no_formula(site: Site) -> None:
    for k, text in enumerate(HOSTILE):
        one = msgspec.structs.replace(
            lone(f"u{k}", NOON + k),
            id=f"0-h{k}-1",
            entity=Entity("user", text),
            reasons=(Reason("resource", text, text, 9.0, 1.0),),
        )
        site.store.add_updates(ALERTS, [at(500 + k, one)], {0: (501 + k, 1)})
    client = site.client(site.key)
    answer = client.get("/v1/incidents.csv?kind=user")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="incidents.csv"'
    names, *rows = csv.reader(io.StringIO(answer.content.decode(), newline=""))
    listed = client.get("/v1/incidents?kind=user&limit=200").json()["incidents"]
    assert tuple(names) == COLUMNS
    assert [row[0] for row in rows] == [one["id"] for one in listed]
    assert all(len(row) == len(COLUMNS) for row in rows), "no text ends a cell or a line"
    for row, one in zip(rows, listed, strict=True):
        assert not any(map(is_formula, row)), row
        assert not any(re.search(r"[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]", value) for value in row), row
        assert (float(row[4]), int(row[6])) == (one["evidence_bits"], one["alerts"])
    # A reader that knows no quotes and splits at a semicolon, as some spreadsheets do, sees a quote first.
    assert all(line.startswith('"') for line in answer.text.split("\r\n") if line)


def test_long_table_continues_where_the_link_says(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    client, found, path = site.client(site.key), list[str](), "/v1/incidents.csv?kind=user&sort=time"
    listed = client.get("/v1/incidents?kind=user&sort=time").json()["incidents"]
    monkeypatch.setattr(module, "MAX_EXPORT", 3)
    while path:
        answer = client.get(path)
        found += [row[0] for row in list(csv.reader(io.StringIO(answer.text)))[1:]]
        link = re.fullmatch(r'<(/v1/incidents\.csv\?\S+)>; rel="next"', answer.headers.get("Link", ""))
        path = link[1] if link else ""
    assert found == [one["id"] for one in listed] and len(found) > 3


@pytest.mark.parametrize(
    "query", ["", "?view=open", "?view=all&pattern=exfiltration", "?view=all&limit=1&text=ann"]
)
def test_page_links_to_the_table_of_its_list(site: Site, query: str) -> None:
    client = site.client()
    client.post("/sign-in", data={"key": site.key})
    page = client.get(f"/{query}").text
    (link,) = re.findall(r'id="export" href="([^"]+)"', page)
    rows = list(csv.reader(io.StringIO(client.get(link.replace("&amp;", "&")).text)))[1:]
    (total,) = re.findall(r'id="total">(\d+)<', page)
    assert len(rows) == int(total)
