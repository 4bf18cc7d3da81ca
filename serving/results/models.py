"""The versions of the model registry: which one is the champion, which one the challenger, and what the gate says."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from streamguard.models.gate import Judgement
from streamguard.models.listing import ListedVersion, listed, moment
from streamguard.models.manifest import ArtifactError
from streamguard.models.registry import Registry, registry_settings
from streamguard.serving.results.answers import Unavailable
from streamguard.settings.schema import Settings

MAX_VERSIONS = 500
"""Versions of one answer, the latest ones; `models.keep_versions` is 100 by default."""

Role = Literal["champion", "challenger", "previous", "other"]


class ModelVersion(msgspec.Struct, frozen=True):
    """A version of the registry."""

    version: str
    role: Annotated[
        Role,
        msgspec.Meta(
            description="`champion`: workers use it; `challenger`: the latest other version, which `models.shadow` "
            "scores beside it; `previous`: a rollback can return to it"
        ),
    ]
    withdrawn: Annotated[
        bool, msgspec.Meta(description="Whether it was rolled back; a retrain does not promote it again")
    ]
    published: Annotated[str | None, msgspec.Meta(description="When it was published, RFC 3339")]
    events_until: Annotated[
        str | None, msgspec.Meta(description="Time of the last event of the history it was trained on")
    ]
    rows: Annotated[int | None, msgspec.Meta(description="Training rows")]
    trees: int | None
    weight: Annotated[
        float | None, msgspec.Meta(description="The say of the forest in a verdict, from 0 to 1")
    ]
    signed: bool
    judgement: Annotated[
        Judgement | None, msgspec.Meta(description="Last judgement of the gate; null without one")
    ]
    damaged: Annotated[str | None, msgspec.Meta(description="What is wrong with its files")]


class ModelList(msgspec.Struct, frozen=True):
    """The versions of the registry, the latest first."""

    champion: str | None
    challenger: str | None
    versions: tuple[ModelVersion, ...]
    problem: Annotated[
        str | None,
        msgspec.Meta(description="Why the champion is unknown: the registry's pointer cannot be trusted"),
    ] = None


class Models:
    """Reads the registry again for each answer: it is a few small files for each version.

    Parameters
    ----------
    settings
        `models.registry`, or the registry inside of `batch.output`, as in a retrain.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = registry_settings(settings)

    def has_champion(self) -> bool:
        """Whether workers that follow the registry have a model; false if the registry cannot be read."""
        try:
            return Registry.of(self._settings).current() is not None
        except ArtifactError:
            return False

    def versions(self) -> ModelList | Unavailable:
        """All versions with roles and judgements."""
        try:
            registry = Registry.of(self._settings)
            found = listed(registry)
        except ArtifactError as error:
            return Unavailable("unreadable", str(error))
        if not found:
            return Unavailable("none", f"no model in {registry.directory}: run `streamguard retrain`")
        problem, champion, before, withdrawn = None, None, set[str](), set[str]()
        try:
            champion = registry.current()
            before, withdrawn = set(registry.before()), set(registry.withdrawn())
        except ArtifactError as error:
            problem = str(error)
        others = (one for one in found if one.manifest is not None and one.version != champion)
        newest = next(others, None)
        challenger = None if newest is None else newest.version

        def role(version: str) -> Role:
            if version == champion:
                return "champion"
            if version == challenger:
                return "challenger"
            return "previous" if version in before else "other"

        shown = tuple(
            _version(one, role(one.version), one.version in withdrawn) for one in found[:MAX_VERSIONS]
        )
        return ModelList(champion, challenger, shown, problem)


def _version(one: ListedVersion, role: Role, withdrawn: bool) -> ModelVersion:
    about = one.manifest
    return ModelVersion(
        version=one.version,
        role=role,
        withdrawn=withdrawn,
        published=None if one.published is None else moment(one.published),
        events_until=one.events_until,
        rows=one.rows,
        trees=one.trees,
        weight=None if about is None else 1.0 if about.weight is msgspec.UNSET else about.weight,
        signed=about is not None and about.hmac is not None,
        judgement=one.judgement,
        damaged=one.damaged,
    )
