"""Shared fixtures: one real Kafka for each session, unique topics, and no skipped tests in CI."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

from streamguard.testing.broker import LocalKafka

settings.register_profile(
    "suite",
    derandomize=True,  # the same examples in every run, so only a change can make a build fail
    database=None,
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """Bootstrap servers of the Kafka that tests share. A test that kills a broker starts its own `LocalKafka`."""
    with LocalKafka() as broker:
        yield broker.bootstrap_servers


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Local Spark session that tests share, opened as in a run."""
    from streamguard.batch.engines.session import opened
    from streamguard.settings.schema import Spark

    with opened(Spark(), tmp_path_factory.mktemp("spark")) as session:
        yield session


@pytest.fixture
def topics(kafka: str) -> Callable[..., str]:
    """A function that creates a topic and returns its unique name: `topics("events", partitions=4)`."""
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": kafka})

    def create(name: str = "topic", partitions: int = 1, **settings: object) -> str:
        unique = f"{name}-{uuid.uuid4().hex[:8]}"
        config = {key.replace("_", "."): str(value) for key, value in settings.items()}
        for created in admin.create_topics([NewTopic(unique, partitions, 1, config=config)]).values():
            created.result(timeout=30)
        return unique

    return create


Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _not_skipped_in_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _not_skipped_in_ci((yield))


def _not_skipped_in_ci(report: Report) -> Report:
    """In CI, a skipped test counts as failed, because it verifies nothing."""
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not accept: {report.longrepr}"
    return report
