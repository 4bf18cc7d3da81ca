"""The pages about serving: routes, parameters and bodies on them are those of the API, and pictures are small."""

from __future__ import annotations

import re
import shlex
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qs, urlsplit

import click
import msgspec
import numpy as np
import pytest

from docs.palette import MAX_COLOURS, decoded, reduced
from streamguard.serving.api import problems
from streamguard.serving.api.app import application
from streamguard.serving.api.keys import ROLES, Keyring
from streamguard.serving.decisions.record import Classification, Reopen, Target
from streamguard.serving.decisions.writer import key_of
from streamguard.serving.projection.store import Store
from streamguard.serving.query.cases import MAX_BULK
from streamguard.serving.query.detection import DetectionRequest
from streamguard.serving.query.requests import ActionRequest, Kind
from streamguard.serving.query.service import QueryService
from streamguard.settings.schema import Serve

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("api", "triage", "consistency")
MAX_PICTURE_BYTES = 150_000
METHODS = {"get", "post", "put", "patch", "delete"}


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text()


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The paths of the OpenAPI document."""
    store = Store(tmp_path_factory.mktemp("store"), 18.0)
    app: Any = application(QueryService(store), Keyring(None), Serve())
    try:
        while not hasattr(app, "openapi_schema"):
            app = app._app
        found: dict[str, dict[str, Any]] = app.openapi_schema.to_schema()["paths"]
    finally:
        store.close()
    return found


def rows(text: str, heading: str) -> list[list[str]]:
    """Cells of the first table below a heading."""
    section = text[text.index(heading) :]
    lines = re.search(r"^\|[^\n]*\n\|[-|]+\n((?:\|[^\n]*\n)+)", section, re.MULTILINE)
    assert lines is not None, heading
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1].splitlines()]


def test_table_has_every_route_of_the_openapi_document(paths: dict[str, dict[str, Any]]) -> None:
    listed = [cells[0].strip("| `") for cells in rows(page("api"), "## All routes")]
    routes = {f"{method.upper()} {path}" for path, item in paths.items() for method in item.keys() & METHODS}
    assert sorted(listed) == sorted(routes)


def shown() -> Iterator[tuple[str, str, set[str]]]:
    """(page, path, names of the query) of every address of the API on the pages."""
    for name in PAGES:
        for address in re.findall(r"/v1/[^\s`\"',;)]*", page(name)):
            parts = urlsplit(address)
            yield name, parts.path, set(parse_qs(parts.query, keep_blank_values=True))


def test_addresses_on_the_pages_are_routes_with_such_parameters(paths: dict[str, dict[str, Any]]) -> None:
    checked = 0
    for name, path, given in shown():
        if path.startswith(("/v1/docs", "/v1/openapi")):
            continue
        literal = path if path in paths else None
        template = literal or next(
            (one for one in paths if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", one), path)), None
        )
        assert template is not None, f"{name}.md: there is no route {path}"
        known = {
            one["name"]
            for method in paths[template].keys() & METHODS
            for one in paths[template][method].get("parameters", [])
            if one["in"] == "query"
        }
        assert given <= known, f"{name}.md: {path} has no parameter {given - known}"
        checked += 1
    assert checked > 60


def test_filters_on_the_page_are_those_of_the_list(paths: dict[str, dict[str, Any]]) -> None:
    listed = {
        name for cells in rows(page("api"), "A repeated filter") for name in re.findall(r"`(\w+)`", cells[0])
    }
    known = {one["name"] for one in paths["/v1/incidents"]["get"]["parameters"] if one["in"] == "query"}
    assert listed == known - {"max_staleness", "at_least"}


def test_bodies_on_the_page_are_requests() -> None:
    bodies = [
        words[words.index("-d") + 1]
        for block in re.findall(r"```sh\n(.*?)```", page("api"), re.DOTALL)
        for command in block.replace("\\\n", " ").split("curl ")[1:]
        for words in [shlex.split(command)]
        if "-d" in words
    ]
    assert len(bodies) == 3
    for body in bodies:
        msgspec.json.decode(body, type=DetectionRequest if '"decision"' in body else ActionRequest)


def test_actions_classifications_and_bounds_on_the_pages_are_those_of_the_records() -> None:
    table = rows(page("api"), "| `kind` | further fields |")
    assert sorted(cells[0].strip("| `") for cells in table) == sorted(get_args(Kind))
    (closing,) = (cells[1] for cells in table if "`close`" in cells[0])
    assert set(Classification.__args__) <= set(re.findall(r"`(\w+)`", closing))
    assert f"{MAX_BULK:,} at most" in page("api")
    for role in ROLES:
        assert re.search(rf"\b{role}\b", page("api")), role


def test_problems_on_the_page_are_those_of_the_api() -> None:
    table = rows(page("api"), "| status | type | what to do |")
    listed = {
        (int(cells[0].strip("| ")), kind)
        for cells in table
        for kind in re.findall(r"`/problems/([\w-]+)`", cells[1])
    }
    assert listed == {(status, kind) for _, status, kind in problems._KINDS if status != 500}


def test_record_key_of_the_decision_record_is_the_one_that_is_written() -> None:
    target = Target(id="3-17-18bcfe5687b", seen=1)
    action = Reopen(version=1, id="a1", incidents=(target,), by="ann", at="2026-11-30T06:00:00.000Z")
    assert key_of(action).startswith(b"a1/")
    assert key_of(action) != key_of(action)
    assert "`id/random`" in (DOCS / "decisions" / "0010-a-serving-layer-without-htmx.md").read_text()


def test_every_picture_is_small_and_shown() -> None:
    pictures = sorted((DOCS / "pictures").glob("*.png"))
    assert len(pictures) >= 5
    texts = "".join(path.read_text() for path in DOCS.rglob("*.md"))
    for picture in pictures:
        assert picture.stat().st_size < MAX_PICTURE_BYTES, picture.name
        assert f"pictures/{picture.name})" in texts, f"no page shows {picture.name}"


def png(pixels: np.ndarray[Any, Any], method: int) -> bytes:
    """A PNG whose rows all have one filter, as the standard defines it."""
    height, width, channels = pixels.shape
    padded = np.zeros((height + 1, width + 1, channels), np.int32)
    padded[1:, 1:] = pixels
    left, above, corner = padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    guess = left + above - corner
    near = [abs(guess - left), abs(guess - above), abs(guess - corner)]
    paeth = np.where(
        (near[0] <= near[1]) & (near[0] <= near[2]), left, np.where(near[1] <= near[2], above, corner)
    )
    filtered = (pixels - (np.zeros_like(left), left, above, (left + above) // 2, paeth)[method]) & 255
    raw = b"".join(bytes([method]) + row.astype(np.uint8).tobytes() for row in filtered)
    head = (
        width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2 if channels == 3 else 6, 0, 0, 0])
    )
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        for kind, body in parts
    )


@pytest.mark.parametrize("method", range(5))
@pytest.mark.parametrize("channels", [3, 4])
def test_screenshots_are_decoded_whatever_filter_they_have(method: int, channels: int) -> None:
    pixels = np.random.default_rng(method).integers(0, 256, (7, 11, channels), np.int32)
    assert (decoded(png(pixels, method)) == pixels[:, :, :3]).all()


def test_reduced_picture_keeps_frequent_colours() -> None:
    pixels = np.full((40, 50, 3), 255, np.int32)
    pixels[10:20] = (20, 40, 160)
    pixels[30, :, 0] = np.arange(50)  # rare colours, more than the palette has together with those below
    pixels[31, :, 1] = np.arange(50)
    small = reduced(png(pixels, 4))
    palette = small[small.index(b"PLTE") - 4 :]
    assert int.from_bytes(palette[:4], "big") == 3 * MAX_COLOURS
    indices = zlib.decompress(small[small.index(b"IDAT") + 4 : small.index(b"IEND") - 8])
    colours = palette[8:]
    assert colours[3 * indices[1] : 3 * indices[1] + 3] == b"\xff\xff\xff"
    at = 12 * 51 + 1
    assert colours[3 * indices[at] : 3 * indices[at] + 3] == bytes((20, 40, 160))


def test_commands_on_the_page_parse() -> None:
    """Every command about incidents and users that the page of the triage shows exists with these options."""
    from streamguard.cli.main import main

    shown = [
        *re.findall(r"`(streamguard (?:incidents|users|decide) [^`]+)`", page("triage")),
        *re.findall(r"^(streamguard (?:incidents|users) .+)$", page("triage"), re.MULTILINE),
    ]
    checked = 0
    for text in shown:
        _, group, verb, *words = shlex.split(text)
        found = main.get_command(click.Context(main), group)
        assert isinstance(found, click.Group), text
        assert verb in found.commands, text
        command = found.commands[verb]
        command.make_context(verb, list(words), resilient_parsing=False)
        checked += 1
    assert checked >= 14
