"""Run configurations of IDEs: their modules, commands and targets exist, and both IDEs have the same."""

from __future__ import annotations

import json
import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.unit.test_docs import parse

ROOT = Path(__file__).parents[2]


def jetbrains() -> dict[str, tuple[str, list[str]]]:
    """Module and arguments of each JetBrains configuration, by name."""
    found = {}
    for path in (ROOT / ".run").glob("*.run.xml"):
        (configuration,) = ElementTree.parse(path).getroot()
        options = {option.attrib["name"]: option.attrib["value"] for option in configuration.iter("option")}
        assert options["MODULE_MODE"] == "true", path
        found[configuration.attrib["name"]] = options["SCRIPT_NAME"], shlex.split(options["PARAMETERS"])
    return found


def vscode() -> dict[str, tuple[str, list[str]]]:
    """Module and arguments of each VS Code configuration, by name."""
    launch = json.loads((ROOT / ".vscode" / "launch.json").read_text())
    return {each["name"]: (each["module"], each["args"]) for each in launch["configurations"]}


def test_both_ides_have_the_same_configurations() -> None:
    assert jetbrains() == vscode()
    assert vscode().keys() == {"demo", "worker", "retrain", "tests", "fast tests"}


@pytest.mark.parametrize(("module", "arguments"), vscode().values(), ids=vscode().keys())
def test_modules_and_arguments_exist(module: str, arguments: list[str]) -> None:
    assert find_spec(module) is not None
    if module == "streamguard.cli":
        parse(arguments)
    else:
        assert all((ROOT / argument).exists() for argument in arguments if "/" in argument)


def test_tasks_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    tasks = json.loads((ROOT / ".vscode" / "tasks.json").read_text())["tasks"]
    assert {task["command"] for task in tasks} <= {f"make {target}" for target in targets}
