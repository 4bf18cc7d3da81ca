"""What is installed from the wheel works away from the checkout, bare and with each extra."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import streamguard

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PACKAGES = ("streamguard", "agents", "batch")

IMPORT_ALL = """
import importlib, pkgutil, sys
for name in sys.argv[1].split(","):
    package = importlib.import_module(name)
    modules = pkgutil.walk_packages(getattr(package, "__path__", ()), f"{name}.")
    for module in (name for _, name, _ in modules if not name.endswith("__main__")):
        importlib.import_module(module)
for name, module in sys.modules.items():
    if name.split(".")[0] in ("streamguard", "agents", "batch"):
        print(module.__file__)
"""
"""Imports packages with all their modules, and prints our files."""


def run(*command: str | Path, cwd: Path) -> str:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", target, ROOT, cwd=target)
    (built,) = target.glob("*.whl")
    return built


def install(wheel: Path, extra: str, where: Path) -> Path:
    """A clean environment with the wheel and one extra; returns its directory of programs."""
    run(sys.executable, "-m", "venv", "--without-pip", where / "venv", cwd=where)
    run(
        *(sys.executable, "-m", "pip", "--python", where / "venv" / "bin" / "python", "install", "--quiet"),
        *("--no-compile", "--constraint", ROOT / "constraints.txt", f"{wheel}{extra}"),
        cwd=where,
    )
    return where / "venv" / "bin"


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    there = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == there


@pytest.mark.parametrize(
    ("extra", "packages"), [("", "streamguard,agents"), ("[batch]", "batch")], ids=["base", "batch"]
)
def test_it_works_from_a_clean_environment(wheel: Path, extra: str, packages: str, tmp_path: Path) -> None:
    programs = install(wheel, extra, tmp_path)
    assert run(programs / "streamguard", "--version", cwd=tmp_path).split()[-1] == streamguard.__version__
    assert "Commands:" in run(programs / "streamguard", "--help", cwd=tmp_path)
    places = run(programs / "python", "-c", IMPORT_ALL, packages, cwd=tmp_path).splitlines()
    assert places
    assert all(Path(place).is_relative_to(tmp_path) for place in places)


def test_help_loads_nothing_heavy() -> None:
    heavy = [
        "numba",
        "numpy",
        "sklearn",
        "pandas",
        "pyarrow",
        "pyspark",
        "confluent_kafka",
        "faust",
        "rocksdict",
    ]
    program = f"""
import sys
from streamguard.cli.main import main
main(["--help"], standalone_mode=False)
print("loaded:", *(name for name in {heavy} if name in sys.modules))
"""
    assert run(sys.executable, "-c", program, cwd=ROOT).splitlines()[-1].strip() == "loaded:"
