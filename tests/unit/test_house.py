"""Structure of the package: no import cycles, one import name, a contract for every subpackage."""

from __future__ import annotations

import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Every import of the package, including those for annotations."""
    return grimp.build_graph("streamguard", cache_dir=None)


def test_modules_have_no_import_cycle(graph: grimp.ImportGraph) -> None:
    waiting = {name: set(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    while free := [name for name, imported in waiting.items() if not imported & waiting.keys()]:
        for name in free:
            del waiting[name]
    assert sorted(waiting) == []


def test_import_cycle_is_detected(graph: grimp.ImportGraph) -> None:
    import copy

    with_cycle = copy.deepcopy(graph)
    with_cycle.add_import(importer="streamguard.errors", imported="streamguard.cli.main")
    with pytest.raises(AssertionError):
        test_modules_have_no_import_cycle(with_cycle)


def test_both_layers_are_part_of_the_package(graph: grimp.ImportGraph) -> None:
    for layer in ("agents", "batch"):
        link = ROOT / "streamguard" / layer
        assert link.is_symlink() and link.resolve() == ROOT / layer
        modules = set((ROOT / layer).rglob("*.py"))
        assert len(graph.find_descendants(f"streamguard.{layer}")) == len(modules) - 1


def test_every_package_has_a_layer_contract_without_exceptions() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert not any("ignore_imports" in contract for contract in contracts)
    layered = {
        name.strip()
        for contract in contracts
        if contract["type"] == "layers"
        for layer in contract["layers"]
        for name in layer.split("|")
    }
    for base, parent in (("streamguard", ROOT / "streamguard"), ("streamguard.agents", ROOT / "agents"),
                         ("streamguard.batch", ROOT / "batch")):  # fmt: skip
        for path in parent.iterdir():
            is_module = path.suffix == ".py" or (path / "__init__.py").is_file()
            if is_module and path.stem not in ("__init__", "__main__"):
                assert f"{base}.{path.stem}" in layered, path
