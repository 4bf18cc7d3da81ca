"""`python -m deploy.sbom DIRECTORY` writes the bill of materials of each image as CycloneDX 1.6.

It lists what StreamGuard installs and fetches: the Python packages of the lock and, for the retrain image, the jars,
each with its digests. The packages of the base image are listed by the image's own tools.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from streamguard import __version__
from streamguard.jvm.jars import CHECKSUMS

_LOCKS = Path(__file__).with_name("locks")
_ENTRY = re.compile(r"^([\w.-]+)==([^\s;]+)(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
_DIGEST = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_JAR = re.compile(r"(.+)-(\d[\w.]*)\.jar")


def images() -> list[str]:
    """Names of the images, which are those of the locks."""
    return sorted(path.stem for path in _LOCKS.glob("*.txt"))


def bill_of_materials(image: str) -> str:
    """The bill of materials of an image, as JSON.

    Parameters
    ----------
    image
        One of `images`.
    """
    bom = Bom()
    name = f"streamguard-{image}"
    root = Component(name=name, version=__version__, type=ComponentType.CONTAINER, bom_ref=name)
    bom.metadata.component = root
    contents = [*_packages(image), *(_jars() if image == "retrain" else ())]
    bom.components.update(contents)
    bom.register_dependency(root, contents)
    return str(JsonV1Dot6(bom).output_as_string(indent=1))


def _packages(image: str) -> Iterator[Component]:
    for name, version, rest in _ENTRY.findall((_LOCKS / f"{image}.txt").read_text()):
        yield _component(PackageURL("pypi", name=name, version=version), _DIGEST.findall(rest))


def _jars() -> Iterator[Component]:
    sets = tomllib.loads(CHECKSUMS.read_text())
    for file, digest in sets[next(name for name in sets if name.startswith("spark-"))].items():
        name, version = _JAR.fullmatch(file).groups()  # type: ignore[union-attr]
        yield _component(PackageURL("maven", name=name, version=version), [digest])


def _component(url: PackageURL, digests: list[str]) -> Component:
    return Component(
        name=url.name,
        version=url.version,
        type=ComponentType.LIBRARY,
        purl=url,
        bom_ref=url.to_string(),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in digests],
    )


def main(directory: Path) -> None:
    """Write one file for each image."""
    directory.mkdir(parents=True, exist_ok=True)
    for image in images():
        (directory / f"streamguard-{image}-{__version__}.cdx.json").write_text(
            bill_of_materials(image) + "\n"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
