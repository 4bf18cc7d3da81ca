"""All settings, typed and with their defaults."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from streamguard.errors import ConfigurationError

Count = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0.0, le=86_400.0)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Memory = Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]*[mg]$")]
"""As the JVM writes it: 512m, 4g."""

RISK_PER_BIT = 7.525749891599529
"""25 * log10(2): risk = 25 * -log10(tail)."""


class SettingsError(ConfigurationError):
    """A setting is unknown or has a value of the wrong kind; the message names it and its source."""


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Kafka(_Section, frozen=True):
    """Where events come from and incidents go to."""

    bootstrap_servers: str = "127.0.0.1:9092"
    """`host:port[,host:port]`: some of the brokers; they name the others."""
    events_topic: str = "security-events"
    """What is read."""
    alerts_topic: str = "security-alerts"
    """Where incidents are published."""
    dead_letter_topic: str = "security-events-dead-letter"
    """Where records go that cannot be scored."""
    models_topic: str = "streamguard-models"
    """Where a promoted model is announced, so that workers need not wait for their next look at the registry."""
    partitions: Count = 4
    """Of the events topic and of the state's changelog; chosen once, it is the ceiling of workers."""
    replication_factor: Count = 1
    """Of the topics that `streamguard topics create` makes."""
    events_retention_days: float = 7.0
    """How long Kafka keeps events: the longest that a worker may be down, and what a back-test can reach."""


class Security(_Section, frozen=True):
    """How brokers and this client prove to each other who they are. No secret stands here, but in the files named."""

    tls: bool = False
    """Encrypt, with the system's certificate authorities; the two files below imply it."""
    ca_file: str = ""
    """PEM certificates of the authorities that sign brokers."""
    certificate_file: str = ""
    """PEM certificate chain of this client, for brokers that ask for it (mTLS)."""
    key_file: str = ""
    """Its key in PEM (PKCS#8, no passphrase). Empty: it is in `certificate_file`."""
    mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = "SCRAM-SHA-512"
    """How the password is proven (SASL)."""
    username: str = ""
    """Empty: no password is proven."""
    password_file: str = ""
    """File with the password alone; a line end behind it does not belong to it."""


class Worker(_Section, frozen=True):
    """One worker process of the speed layer."""

    app_id: str = "streamguard"
    """Name of the group and of its state: workers of one name share the work."""
    instance_id: str = ""
    """Static group membership: a restart within the session time-out moves no partition. Empty: dynamic."""
    data_dir: str = "streamguard-data"
    """Where this worker keeps its copy of the state; each worker needs its own."""
    chunk_events: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1000
    """Events folded at a time at the most; results do not depend on it."""
    checkpoint_seconds: Seconds = 1.0
    """How often the state is saved."""
    checkpoint_events: Count = 20_000
    """Or after so many events of a partition, if they come first."""
    resident_profiles: Count = 65_536
    """Profiles held in memory by this worker, shared among its partitions (3.6 KB each)."""
    block_cache_mb: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 32
    """Memory for stored profiles read from disk, shared among partitions; unflushed writes take half as much again."""
    session_timeout_seconds: Seconds = 10.0
    """How long the group waits for a silent worker before it gives its partitions to others."""
    metrics_host: str = "127.0.0.1"
    """Address of /metrics, /healthz and /readyz; they ask nobody for a password."""
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 9464
    """Their port; 0: any that is free."""


class Detection(_Section, frozen=True):
    """What is alerted. Everything else about the score is learned."""

    alert_risk: Annotated[float, msgspec.Meta(ge=0.0, le=100_000.0)] = 75.0
    """Risk from which an event is alerted: 75 is about one in a thousand, 100 one in ten thousand, 150 in a million."""
    incident_gap_seconds: Annotated[float, msgspec.Meta(gt=0.0, le=2_592_000.0)] = 3600.0
    """An entity's alert this long after its last one opens a new incident."""

    @property
    def alert_bits(self) -> float:
        """Evidence, in bits, that comes to `alert_risk`."""
        return self.alert_risk / RISK_PER_BIT


class Models(_Section, frozen=True):
    """Where forests are published, and how they are followed."""

    registry: str = ""
    """Directory of the model registry. Empty: the statistical score stands alone."""
    key_file: str = ""
    """File whose bytes sign publications; with it, what is not signed with it is refused. Empty: no signatures."""
    poll_seconds: Seconds = 5.0
    """How often workers look at the registry's pointer; an announced promotion makes them look at once."""
    shadow: bool = False
    """Whether workers also score the newest version that is not current, and export what it would alert."""
    keep_versions: Count = 100
    """Older versions are removed after a retrain; those that a rollback can reach never are."""


class Batch(_Section, frozen=True):
    """A retrain: what it runs on and what it leaves behind."""

    engine: Literal["spark", "local"] = "spark"
    """`local` needs no JVM; both make the same model to the bit."""
    output: Annotated[str, msgspec.Meta(min_length=1)] = "streamguard-runs"
    """Directory of runs, one below it each."""
    keep_runs: Count = 24
    """Older runs are removed; `latest` and what it continues never are."""
    every_seconds: Annotated[float, msgspec.Meta(ge=0.0, le=2_592_000.0)] = 0.0
    """From start to start of a series of runs; `--every` says so on the command line. 0: one run."""
    expected_seconds: Annotated[float, msgspec.Meta(ge=0.0, le=2_592_000.0)] = 0.0
    """How often something else starts single runs, such as a CronJob: an alert tells of three that are missing. 0: not
    known, a day is taken."""
    jitter_seconds: Annotated[float, msgspec.Meta(ge=0.0, le=86_400.0)] = 30.0
    """In a series each run starts up to this much later, so that several do not start at once."""
    metrics_host: str = "127.0.0.1"
    """Address on which a series of runs serves its metrics."""
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    """Where a series of runs serves its metrics; 0: nowhere."""
    metrics_file: str = ""
    """File for Prometheus's textfile collector, replaced at the start and the end of each run. Empty: none."""


class Spark(_Section, frozen=True):
    """The Spark session of a retrain or archive."""

    master: str = "local[*]"
    """Ignored under `spark-submit`, which has its own."""
    driver_memory: Memory = "1g"
    """Heap of the driver, in which `local[*]` does all the work."""
    executor_memory: Memory = "1g"
    """Heap of each executor of a cluster."""
    batch_rows: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 4096
    """Records that a task folds at a time; results do not depend on it."""


class Sampling(_Section, frozen=True):
    """What of a history is kept as rows."""

    rows: Annotated[int, msgspec.Meta(ge=256, le=10_000_000)] = 100_000
    """Events kept with their features, chosen by a hash of partition and offset."""
    rows_per_user: Count = 500
    """Of them, those of one user that train the forest at the most."""
    alerts: Count = 10_000
    """Alerted events of a run and partition kept with their features, the worst."""


class Training(_Section, frozen=True):
    """How the Isolation Forest is grown."""

    trees: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 300
    """How many; more cost time and agree better with each other."""
    samples: Annotated[int, msgspec.Meta(ge=2, le=256)] = 256
    """Rows that each tree sees."""
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] = 0
    """The same seed, history and settings give the same forest to the bit."""
    background: Share = 0.2
    """Random rows among the training rows, as a share of them: they give the trees splits where no row is."""


class Clusters(_Section, frozen=True):
    """How users are put into peer groups."""

    groups: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    """0: the number with the best silhouette, from 2 to `max_groups`."""
    max_groups: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 8
    """See `groups`."""


class Gate(_Section, frozen=True):
    """What a challenger must not do to become champion."""

    max_trimmed: Share = 0.5
    """Share of events that patterns or bits call an attack, above which a history teaches nothing."""
    min_rows: Annotated[int, msgspec.Meta(ge=2)] = 256
    """Training rows; of fewer than two no forest grows."""
    max_alert_ratio: Annotated[float, msgspec.Meta(ge=1.0)] = 3.0
    """Alert rate against the champion's on the same events."""
    min_overlap: Share = 0.2
    """Share of the champion's top 1 % that is in the challenger's too."""
    max_drift: Annotated[float, msgspec.Meta(gt=0.0)] = 2.0
    """Population stability index of a feature against the champion's training rows."""
    min_injected_auc: Share = 0.85
    """How well quiet rows with an injected attack are told from quiet rows."""


class Settings(_Section, frozen=True):
    """Every section of the settings file."""

    kafka: Kafka = Kafka()
    security: Security = Security()
    worker: Worker = Worker()
    detection: Detection = Detection()
    models: Models = Models()
    batch: Batch = Batch()
    spark: Spark = Spark()
    sampling: Sampling = Sampling()
    training: Training = Training()
    clusters: Clusters = Clusters()
    gate: Gate = Gate()
