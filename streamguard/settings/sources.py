"""Derives the settings of the second fold: the worker's own settings, with the sources topic as its events."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from streamguard.settings.schema import Models, Settings


def app_id(settings: Settings) -> str:
    """Name of the second fold's consumer group and state.

    Examples
    --------
    >>> app_id(Settings())
    'streamguard-sources'
    """
    return f"{settings.worker.app_id}-sources"


def of_sources(settings: Settings) -> Settings:
    """The settings with which a worker folds the sources topic.

    It has a group, a changelog and a directory of its own, so a worker and this fold may share `worker.data_dir`. It
    has no forest, because models are trained on the events of users.

    Examples
    --------
    >>> derived = of_sources(Settings())
    >>> derived.kafka.events_topic, derived.worker.data_dir, derived.worker.metrics_port
    ('security-sources', 'streamguard-data/sources', 9467)
    >>> derived.kafka.folds_sources, derived.kafka.forwards
    (True, False)
    """
    own = settings.sources
    return replace(
        settings,
        kafka=replace(settings.kafka, events_topic=settings.kafka.sources_topic),
        worker=replace(
            settings.worker,
            app_id=app_id(settings),
            data_dir=str(Path(settings.worker.data_dir) / "sources"),
            metrics_host=own.metrics_host,
            metrics_port=own.metrics_port,
            metrics_allowed_hosts=own.metrics_allowed_hosts,
        ),
        models=Models(),
    )
