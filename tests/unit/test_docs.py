"""The documentation builds strictly, and its commands, settings and numbers are correct."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from streamguard.cli.main import main
from streamguard.events.event import parse as parse_events
from streamguard.fold.patterns import PATTERNS
from streamguard.kafka.acls import acls_of
from streamguard.settings.schema import Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
CURRENT = [page for page in PAGES if page.parent.name != "decisions"]
"""Pages without the decision records, which keep the names of their time."""
FENCED = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
TOPIC = Settings().kafka.events_topic
INLINE = re.compile(r"`(streamguard [^`]+)`")


def test_documentation_does_not_install_from_the_package_index() -> None:
    """The name belongs to another project there, whose code would run as the service."""
    texts = [*PAGES, ROOT / "README.md", ROOT / "Makefile", ROOT / "Dockerfile"]
    texts += [
        path
        for package in ("streamguard", "agents", "batch", "serving")
        for path in (ROOT / package).rglob("*.py")
    ]
    for path in texts:
        assert not re.search(
            r"pip install[^\n]*[ '\"]streamguard(\[|[ ,'\"`]|$)", path.read_text(), re.MULTILINE
        ), path


def test_architecture_page_lists_every_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    listed = set(
        re.findall(r"[a-z_]+", text[text.index("## The house") : text.index("Where a new part goes")])
    )
    modules = [
        path for top in ("streamguard", "agents", "batch", "serving") for path in (ROOT / top).rglob("*.py")
    ]
    missing = [
        path
        for path in modules
        if path.stem not in listed | {"__init__", "__main__"}
        and not {"cli", "simulate", "testing"} & set(path.parts)
    ]
    assert missing == []


def commands(page: Path) -> Iterator[list[str]]:
    """Arguments of every `streamguard ...` command on a page, in code blocks and in the text."""
    text = page.read_text()
    blocks = [found["text"] for found in FENCED.finditer(text) if found["language"] in ("", "sh")]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines += [found.replace("\n", " ") for found in INLINE.findall(FENCED.sub("", text))]
    for line in lines:
        if re.search(r"(^|\s)streamguard\s", line) is None:
            continue
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        statement: list[str] = []
        for word in [*words, ";"]:
            if word and set(word) <= set("|&;<>()"):
                if "streamguard" in statement[:-1]:
                    yield statement[statement.index("streamguard") + 1 :]
                statement = []
            else:
                statement.append(word)


def parse(arguments: list[str]) -> None:
    """Resolve subcommands and options like the command line, without checking values."""
    command: click.Command = main
    context = click.Context(command, info_name="streamguard")
    while True:
        _, rest, _ = command.make_parser(context).parse_args(args=list(arguments))
        if not isinstance(command, click.Group) or not rest:
            return
        name, found, arguments = command.resolve_command(context, rest)
        assert found is not None
        command, context = found, click.Context(found, info_name=name, parent=context)


def build(site: Path, config: Path = ROOT / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    """Build the site like `make docs`."""
    arguments = ["build", "--strict", "--config-file", config, "--site-dir", site]
    return subprocess.run([sys.executable, "-m", "mkdocs", *arguments], capture_output=True, text=True)


def test_documentation_builds_strictly(tmp_path: Path) -> None:
    done = build(tmp_path)
    assert done.returncode == 0, done.stderr
    assert {page.stem for page in PAGES} <= {path.stem for path in tmp_path.rglob("*.html")}


def test_broken_link_fails_the_build(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "index.md"
    page.parent.mkdir()
    config = tmp_path / "mkdocs.yml"
    config.write_text(f"INHERIT: {ROOT / 'mkdocs.yml'}\ndocs_dir: {page.parent}\nnav: [index.md]\n")
    for link, code in (("#here", 0), ("#nowhere", 1), ("nowhere.md", 1)):
        page.write_text(f"# Here\n\n[there]({link})\n")
        assert build(tmp_path / "site", config).returncode == code, link


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_documented_commands_exist(page: Path) -> None:
    for arguments in commands(page):
        try:
            parse(arguments)
        except click.BadOptionUsage:
            pass  # an option mentioned in a sentence without its value
        except click.UsageError as error:
            pytest.fail(f"{page.name}: streamguard {shlex.join(arguments)}: {error.format_message()}")


def test_unknown_command_is_detected() -> None:
    for arguments in (["reply", "FILE"], ["replay", "FILE", "--best", "5"], ["models", "forget"]):
        with pytest.raises(click.UsageError):
            parse(arguments)


def test_every_pattern_is_described() -> None:
    rows = (ROOT / "docs" / "detection.md").read_text().splitlines()
    for pattern in PATTERNS:
        assert f"| `{pattern.name}` | {pattern.technique} | {pattern.bits:.0f} |" in rows


def blocks(page: str, language: str) -> list[str]:
    """Fenced blocks of one language."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    return [found["text"] for found in FENCED.finditer(text) if found["language"] == language]


def test_forwarder_configurations_are_valid_and_send_keyed_events() -> None:
    filebeat, fluent_bit = map(yaml.safe_load, blocks("integration", "yaml"))
    (vector,) = map(tomllib.loads, blocks("integration", "toml"))
    kafka = vector["sinks"]["kafka"]
    (sent,) = fluent_bit["pipeline"]["outputs"]
    assert (filebeat["output.kafka"]["topic"], filebeat["output.kafka"]["key"]) == (TOPIC, "%{[user]}")
    assert (kafka["topic"], kafka["key_field"]) == (TOPIC, "user")
    assert (sent["topics"], sent["message_key_field"]) == (TOPIC, "user")
    assert kafka["librdkafka_options"]["partitioner"] == sent["rdkafka.partitioner"] == "murmur2_random"


def test_example_events_can_be_scored() -> None:
    examples = [text.encode() for text in blocks("integration", "json") + blocks("detection", "json")]
    events, _, refused, repaired = parse_events(examples)
    assert len(events) == len(examples) == 3
    assert not refused
    assert not repaired


@pytest.mark.parametrize("page", [*CURRENT, ROOT / "README.md"], ids=lambda page: page.stem)
def test_documented_settings_exist(page: Path) -> None:
    settings = Settings()
    text = FENCED.sub("", page.read_text())
    named = re.findall(rf"`(?:({'|'.join(settings.__struct_fields__)})\.(\w+))(?: = [^`]*)?`", text)
    unknown = {
        f"{section}.{name}" for section, name in named if not hasattr(getattr(settings, section), name)
    }
    assert {name for name in unknown if not (ROOT / f"{name.replace('.', '/')}.py").exists()} == set()


def test_worked_example_is_reproducible(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    simulate, score = (list(commands(ROOT / "docs" / "detection.md"))[k] for k in range(2))
    simulate = [*simulate[: simulate.index("--output")], "--events", "56736", "--output", str(events)]
    score = [str(events) if word == "-" else word for word in score]
    runner = CliRunner()
    assert runner.invoke(main, simulate).exit_code == 0
    lines = runner.invoke(main, score).output.splitlines()
    (incident,) = [json.loads(line) for line in lines if "evt-f7e4a2523c-00000dd9f" in line]
    text = (ROOT / "docs" / "detection.md").read_text()
    assert f"evidence {incident['evidence_bits']:.2f} bits, {incident['severity']}" in text
    for reason in incident["reasons"]:
        assert re.search(rf"^\| {reason['feature']} \| [\d.]+ \| {reason['bits']:.2f} \|", text, re.MULTILINE)


def test_security_guide_lists_the_printed_rights() -> None:
    expected = [
        f"| {part} | {right.kind} `{right.name}{'*' if right.prefixed else ''}` | {', '.join(right.operations)} |"
        for part, needed in acls_of(Settings()).items()
        for right in needed
    ]
    lines = (ROOT / "docs" / "security.md").read_text().splitlines()
    start = lines.index("| part | resource | operations |") + 2
    assert lines[start : start + len(expected)] == expected
    assert not lines[start + len(expected)].startswith("|")
