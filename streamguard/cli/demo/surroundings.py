"""Settings of the demo: its Kafka, its directories, and the key with which its people teach detection."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from streamguard.settings.schema import Batch, Kafka, Models, Settings, Worker

KEY_BYTES = 32


def settings_of(bootstrap_servers: str, directory: Path) -> Settings:
    """The settings of all processes of the demo; makes the key that signs models and decisions."""
    key = directory / "models.key"
    with os.fdopen(os.open(key, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
    return Settings(
        kafka=Kafka(bootstrap_servers=bootstrap_servers),
        worker=Worker(data_dir=str(directory / "data")),
        models=Models(registry=str(directory / "registry"), key_file=str(key)),
        batch=Batch(output=str(directory / "runs")),
    )


def variables(settings: Settings) -> dict[str, str]:
    """The same settings as variables of the environment."""
    return {
        "STREAMGUARD_KAFKA_BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "STREAMGUARD_WORKER_DATA_DIR": settings.worker.data_dir,
        "STREAMGUARD_MODELS_REGISTRY": settings.models.registry,
        "STREAMGUARD_MODELS_KEY_FILE": settings.models.key_file,
        "STREAMGUARD_BATCH_OUTPUT": settings.batch.output,
    }


def environment(settings: Settings) -> dict[str, str]:
    """The environment of a process of the demo."""
    return {**os.environ, **variables(settings)}
