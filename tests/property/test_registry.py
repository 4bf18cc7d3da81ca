"""Any order of registry calls, damages, forgeries and crashes: the pointer is exact, or refused, and never lost.

Two writers share one directory and one key, as a retrain and a person with `streamguard models` do. The model is a
current version, a stack of earlier ones and the set of those that were rolled back.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streamguard.errors import CannotWriteError
from streamguard.models import pointer
from streamguard.models.artifact import ArtifactError
from streamguard.models.registry import Registry
from streamguard.models.train import train

NAMES = ["a", "b", "c"]
ROWS = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
FORESTS = [train(ROWS, seed=seed, trees=2) for seed in range(4)]
VERSIONS = [forest.version for forest in FORESTS]
WRITERS = st.integers(0, 1)
WHICH = st.sampled_from(VERSIONS)


class RegistryMachine(RuleBasedStateMachine):
    """The registry beside its model; `trusted` is False while the pointer on the disk is not the writers' last one."""

    @initialize(key=st.sampled_from([None, b"k" * 32]))
    def open(self, key: bytes | None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="streamguard-registry-"))
        self.quick = mock.patch(
            "os.fsync"
        )  # thousands of writes, and no crash of the machine among the rules
        self.quick.start()
        self.key = key
        self.writers = [Registry(self.directory, feature_names=NAMES, key=key) for _ in range(2)]
        self.published = {self.writers[0].publish(forest) for forest in FORESTS}
        self.damaged: set[str] = set()
        self.current: str | None = None
        self.before: list[str] = []
        self.withdrawn: set[str] = set()
        self.trusted = True
        self.latest = b""
        self.copies: list[bytes] = []

    def teardown(self) -> None:
        if hasattr(self, "directory"):
            self.quick.stop()
            shutil.rmtree(self.directory)

    @property
    def file(self) -> Path:
        return self.directory / "current"

    def usable(self, version: str) -> bool:
        return version in self.published - self.damaged

    def promoted(self, version: str) -> None:
        self.latest = self.file.read_bytes()
        if not self.trusted:  # nothing in a pointer of another hand is believed
            self.current, self.before, self.withdrawn = None, [], set()
        if self.current not in (None, version):
            self.before.insert(0, str(self.current))
        self.current, self.trusted = version, True
        self.withdrawn.discard(version)

    @rule(writer=WRITERS, number=st.integers(0, 3))
    def publish(self, writer: int, number: int) -> None:
        version = VERSIONS[number]
        if version in self.damaged:
            with pytest.raises(ArtifactError, match="remove"):
                self.writers[writer].publish(FORESTS[number])
        else:
            assert self.writers[writer].publish(FORESTS[number]) == version
            self.published.add(version)

    @precondition(lambda self: self.published)
    @rule(writer=WRITERS, version=WHICH)
    def promote(self, writer: int, version: str) -> None:
        if self.usable(version):
            self.writers[writer].promote(version)
            self.promoted(version)
        else:
            with pytest.raises(ArtifactError):
                self.writers[writer].promote(version)

    @precondition(lambda self: self.published)
    @rule(writer=WRITERS, version=WHICH, decided=st.sampled_from(["now", None, *VERSIONS]))
    def promote_after(self, writer: int, version: str, decided: str | None) -> None:
        previous = self.current if decided == "now" else decided
        if not self.usable(version):
            with pytest.raises(ArtifactError):
                self.writers[writer].promote_after(version, previous)
            return
        refused = self.writers[writer].promote_after(version, previous)
        allowed = self.trusted and self.current == previous and version not in self.withdrawn
        assert (refused is None) == allowed
        if allowed:
            self.promoted(version)

    @precondition(lambda self: self.published)
    @rule(writer=WRITERS)
    def rollback(self, writer: int) -> None:
        if not self.trusted or not self.before or not self.usable(self.before[0]):
            with pytest.raises(ArtifactError):
                self.writers[writer].rollback()
            return
        left = self.current
        assert self.writers[writer].rollback() == (left, self.before[0])
        self.latest = self.file.read_bytes()
        self.current = self.before.pop(0)
        self.withdrawn.discard(self.current)
        if left not in (None, self.current):
            self.withdrawn.add(str(left))

    @precondition(lambda self: self.published)
    @rule(writer=WRITERS, keep=st.integers(1, 4))
    def prune(self, writer: int, keep: int) -> None:
        if not self.trusted:
            with pytest.raises(ArtifactError):
                self.writers[writer].prune(keep)
            return
        removed = set(self.writers[writer].prune(keep))
        assert not removed & {self.current, *self.before}
        assert len(self.published - removed) >= min(keep, len(self.published))
        self.published -= removed
        self.damaged -= removed

    @precondition(lambda self: self.damaged)
    @rule(writer=WRITERS)
    def repair(self, writer: int) -> None:
        """A person follows the remedy: removes the damaged version, and publishes it again."""
        (version,) = self.damaged
        shutil.rmtree(self.directory / "versions" / version)
        self.damaged.clear()
        assert self.writers[writer].publish(FORESTS[VERSIONS.index(version)]) == version

    @precondition(lambda self: self.published and not self.damaged)
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        """A byte of a version's arrays changes on the disk."""
        version = data.draw(st.sampled_from(sorted(self.published - self.damaged)))
        arrays = next((self.directory / "versions" / version).glob("*.safetensors"))
        content = bytearray(arrays.read_bytes())
        content[len(content) // 2] ^= 0xFF
        arrays.chmod(0o644)
        arrays.write_bytes(content)
        self.damaged.add(version)

    @precondition(lambda self: self.published - self.damaged)
    @rule(writer=WRITERS, data=st.data(), step=st.sampled_from(["fsync", "replace"]))
    def full_disk(self, writer: int, data: st.DataObject, step: str) -> None:
        """A promotion that cannot write leaves the pointer as it was."""
        version = data.draw(st.sampled_from(sorted(self.published - self.damaged)))
        before = self.file.read_bytes() if self.file.exists() else None
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        owner: object = os if step == "fsync" else Path
        with mock.patch.object(owner, step, side_effect=full), pytest.raises(CannotWriteError):
            self.writers[writer].promote(version)
        assert (self.file.read_bytes() if self.file.exists() else None) == before

    @precondition(lambda self: self.trusted and self.key is not None and self.current is not None)
    @rule()
    def copy_pointer(self) -> None:
        self.copies.append(self.file.read_bytes())

    @precondition(lambda self: self.copies)
    @rule(data=st.data())
    def put_back_an_older_pointer(self, data: st.DataObject) -> None:
        content = data.draw(st.sampled_from(self.copies))
        self.file.write_bytes(content)
        self.trusted = content == self.latest

    @precondition(lambda self: self.key is not None and self.current is not None)
    @rule(version=WHICH)
    def forge(self, version: str) -> None:
        """Another hand names a version, without the key."""
        self.file.write_text(f"{version}\ncounter 99\n")
        self.trusted = False

    @invariant()
    def reading_is_exact_or_refused(self) -> None:
        if not hasattr(self, "directory"):
            return
        for registry in self.writers:
            assert registry.versions() == sorted(self.published)
            if self.trusted:
                assert registry.current() == self.current
                assert registry.before() == self.before[: pointer.REMEMBERED]
                assert set(registry.withdrawn()) == self.withdrawn
            else:
                with pytest.raises(ArtifactError):
                    registry.current()
        left = [path.name for path in self.directory.iterdir() if path.name.startswith(".")]
        assert set(left) <= {".lock"}


TestRegistry = RegistryMachine.TestCase
TestRegistry.settings = settings(max_examples=25, stateful_step_count=25)
