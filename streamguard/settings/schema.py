"""Defines all settings with their types and defaults."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from streamguard.errors import ConfigurationError
from streamguard.risk import bits
from streamguard.settings import addresses, sign_in

Count = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0.0, le=86_400.0)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Memory = Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]*[mg]$")]
"""Size in the notation of the JVM: 512m, 4g."""


class SettingsError(ConfigurationError):
    """A setting is unknown or has a value of the wrong kind; the message names it and its source."""


_SERVER = re.compile(r"(?:\[[0-9a-fA-F:.%]+\]|[^\s:/\[\],]+):([0-9]{1,5})")
_NAME = re.compile(r"[a-zA-Z0-9._-]{1,200}")


def _check_name(setting: str, name: str) -> None:
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise ValueError(
            f"{setting}: {name[:100]!r} is not a valid name of a topic: use letters, digits, dots, underscores "
            "and dashes"
        )


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Kafka(_Section, frozen=True):
    """Brokers and topics: the source of events and the destination of incidents."""

    bootstrap_servers: str = "127.0.0.1:9092"
    """`host:port[,host:port]`: some of the brokers; the client learns the addresses of the others from them."""
    events_topic: str = "security-events"
    """Topic from which events are read."""
    sources_topic: str = "security-sources"
    """Topic to which workers forward failures and logins, keyed by source address, for `streamguard sources`. Empty, or
    with one partition: nothing is forwarded."""
    alerts_topic: str = "security-alerts"
    """Topic to which incidents are published."""
    campaigns_topic: str = "security-campaigns"
    """Topic to which campaigns are published: incidents of one attack as one record."""
    decisions_topic: str = "streamguard-decisions"
    """Topic of what people do with incidents without changing detection: acknowledge, assign, comment, snooze, mute,
    close, reopen, undo."""
    audit_topic: str = "streamguard-audit"
    """Topic of the audit log of `streamguard serve`: to whom names of which incident or user were shown, and by whom
    they were granted."""
    dead_letter_topic: str = "security-events-dead-letter"
    """Topic for records that cannot be scored."""
    models_topic: str = "streamguard-models"
    """Topic on which promoted models are announced, so that workers load them before the next poll of the registry."""
    partitions: Count = 4
    """Number of partitions of the events topic and of the changelog. It cannot be changed later, and limits the number
    of workers that have work."""
    replication_factor: Count = 1
    """Replication factor of the topics that `streamguard topics create` creates."""
    events_retention_days: float = 7.0
    """Days for which Kafka keeps events: the maximum outage of a worker, and the history that a back-test can read."""
    alerts_retention_days: Annotated[float, msgspec.Meta(gt=0.0, le=36_500.0)] = 90.0
    """Days for which Kafka keeps incidents: a server that rebuilds its store finds those of so many days."""

    def __post_init__(self) -> None:
        for server in self.bootstrap_servers.split(","):
            found = _SERVER.fullmatch(server.strip())
            if found is None or not 0 < int(found[1]) < 1 << 16:
                raise ValueError(
                    f"kafka.bootstrap_servers: {server[:100]!r} is not host:port, such as 127.0.0.1:9092; separate "
                    "several with commas"
                )
        for role in ("events", "alerts", "campaigns", "decisions", "audit", "dead_letter", "models"):
            _check_name(f"kafka.{role}_topic", getattr(self, f"{role}_topic"))
        if self.sources_topic:
            _check_name("kafka.sources_topic", self.sources_topic)

    @property
    def folds_sources(self) -> bool:
        """Whether the events are those of the sources topic: these are the settings of `streamguard sources`."""
        return self.events_topic == self.sources_topic

    @property
    def forwards(self) -> bool:
        """Whether workers forward events to the sources topic. With one partition, the first fold sees everything."""
        return bool(self.sources_topic) and self.partitions > 1 and not self.folds_sources


class Security(_Section, frozen=True):
    """Authentication between brokers and this client. Settings contain no secrets: they name the files with secrets."""

    tls: bool = False
    """Whether to use TLS with the system's certificate authorities; `ca_file` and `certificate_file` imply TLS."""
    ca_file: str = ""
    """PEM certificates of the authorities that sign the brokers' certificates."""
    certificate_file: str = ""
    """PEM certificate chain of this client, for brokers that require it (mTLS)."""
    key_file: str = ""
    """Private key of the certificate in PEM (PKCS#8, no passphrase). Empty: the key is in `certificate_file`."""
    mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = "SCRAM-SHA-512"
    """SASL mechanism for the password."""
    username: str = ""
    """SASL user name. Empty: no SASL authentication."""
    password_file: str = ""
    """File that contains only the password; a line end after the password is ignored."""


class Worker(_Section, frozen=True):
    """One worker process of the speed layer."""

    app_id: str = "streamguard"
    """Name of the consumer group and of its state; workers with the same name share the partitions."""
    instance_id: str = ""
    """Id for static group membership: a restart within the session time-out moves no partition. Empty: dynamic
    membership."""
    data_dir: str = "streamguard-data"
    """Directory of this worker's copy of the state; each worker needs its own directory."""
    chunk_events: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1000
    """Maximum number of events that are folded at a time; results do not depend on it. It is smaller if a partition has
    fewer than four profiles in memory for each of them."""
    checkpoint_seconds: Seconds = 1.0
    """Time between two checkpoints."""
    checkpoint_events: Count = 20_000
    """A checkpoint is also saved after this number of events of a partition."""
    resident_profiles: Count = 65_536
    """Maximum number of profiles that this worker keeps in memory, shared by its partitions (4.8 KB each)."""
    block_cache_mb: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 32
    """Memory for stored profiles read from disk, shared by all partitions. Unflushed writes need half as much in
    addition."""
    session_timeout_seconds: Seconds = 10.0
    """Time for which the group waits for a silent worker before it assigns its partitions to others."""
    metrics_host: str = "127.0.0.1"
    """Address of /metrics, /healthz and /readyz, which require no authentication."""
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 9464
    """Port of /metrics, /healthz and /readyz; 0: any free port."""
    metrics_allowed_hosts: str = ""
    """`name[,name]`: names with a dot, such as `worker-1.example.com`, under which the metrics port may be requested.
    IP addresses, names without a dot and the machine's own name are always allowed."""


class Detection(_Section, frozen=True):
    """Alert threshold, incident window, and what is raised to a person. The score's other parameters are learned."""

    alert_risk: Annotated[float, msgspec.Meta(ge=0.0, lt=100.0)] = 75.0
    """Minimum risk of an alert: 75 is about one event in a thousand, 80 one in ten thousand, 85.7 one in a
    million."""
    incident_gap_seconds: Annotated[float, msgspec.Meta(gt=0.0, le=2_592_000.0)] = 3600.0
    """An alert opens a new incident if the entity's previous alert is older than this."""
    floor_bits: Annotated[float, msgspec.Meta(ge=0.0, le=1000.0)] = 18.0
    """Score in bits from which a row of the ranked list, a campaign or a lone incident, is raised to a person. One bit
    more raises about a quarter fewer benign rows. It does not follow the traffic, as planted events could move it."""
    incidents_per_day: Annotated[float, msgspec.Meta(gt=0.0, le=100_000.0)] = 5.0
    """Rows of the ranked list that are expected to be raised in one day of the whole installation. More are not hidden:
    `replay` and `evaluate` warn of the days, and a higher `floor_bits` is the remedy."""

    forget_after_days: Annotated[float, msgspec.Meta(ge=1.0, le=36_500.0)] = 400.0
    """Days after which the profile of a user without events is deleted; a later event begins a new one. They are days
    of the partition's active time, so a gap in the collection of the whole log counts as at most one day."""

    @property
    def of_the_fold(self) -> tuple[float, float, float]:
        """The settings that change the folded state; the others only select what is raised."""
        return self.alert_risk, self.incident_gap_seconds, self.forget_after_days

    @property
    def forget_ms(self) -> int:
        """`forget_after_days` in milliseconds."""
        return round(self.forget_after_days * 86_400_000)

    @property
    def alert_bits(self) -> float:
        """Evidence in bits that corresponds to `alert_risk`."""
        return bits(self.alert_risk)


class Campaigns(_Section, frozen=True):
    """The process that puts the incidents of one attack into one campaign."""

    round_seconds: Seconds = 1.0
    """Least time between the end of a round and the start of the next one. It is longer after a long round, so that
    rounds take at most a quarter of one core."""
    metrics_host: str = "127.0.0.1"
    """Address of /metrics, /healthz and /readyz, which require no authentication."""
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 9466
    """Port of /metrics, /healthz and /readyz; 0: any free port."""
    metrics_allowed_hosts: str = ""
    """`name[,name]`: names with a dot, such as `campaigns.example.com`, under which the metrics port may be requested.
    IP addresses, names without a dot and the machine's own name are always allowed."""


class Analyst(_Section, frozen=True):
    """A language model that words analyses of incidents. Without one, rules word them; the verdict is always theirs."""

    base_url: Annotated[str, msgspec.Meta(max_length=500)] = ""
    """Address of a server with the interface of OpenAI, such as `http://127.0.0.1:8000/v1`. Empty: no model is
    asked."""
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = "default"
    """Name of the model at this server."""
    key_file: str = ""
    """File that contains only the key of the server. Empty: the environment variable `STREAMGUARD_ANALYST_KEY`; if it
    is not set, no key is sent."""
    structured: Literal["schema", "object", "words"] = "schema"
    """How the server is bound to the form of the answer: by a JSON Schema, to any JSON object, or by the words of the
    prompt alone. The answer is checked in any case."""
    min_severity: Literal["low", "medium", "high", "critical"] = "high"
    """Severity of an incident from which the model is asked."""
    calls_per_hour: Count = 60
    """Analyses an hour for which the model is asked; the rules word further ones."""
    tokens_per_day: Count = 1_000_000
    """Tokens of the last 24 hours, of prompts and answers, from which on the rules alone word analyses."""
    timeout_seconds: Seconds = 30.0
    """Time for one attempt; there are at most two."""
    raw_command_lines: bool = False
    """Whether the prompt contains command lines of events. An attacker may have written them."""
    allow_http: bool = False
    """Whether `base_url` may be http on another machine, where only the network encrypts."""

    def __post_init__(self) -> None:
        addresses.check_model_server(self.base_url, allow_http=self.allow_http)


class Sources(_Section, frozen=True):
    """The second fold: `streamguard sources` judges each source address over all partitions."""

    metrics_host: str = "127.0.0.1"
    """Address of /metrics, /healthz and /readyz, which require no authentication."""
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 9467
    """Port of /metrics, /healthz and /readyz; 0: any free port."""
    metrics_allowed_hosts: str = ""
    """`name[,name]`: names with a dot, such as `sources.example.com`, under which the metrics port may be requested.
    IP addresses, names without a dot and the machine's own name are always allowed."""


class Serve(_Section, frozen=True):
    """Serving: the API and the page over incidents, profiles and batch results."""

    host: str = "127.0.0.1"
    """Address of the API and the page."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8080
    """Port of the API and the page; 0: any free port."""
    allowed_hosts: str = ""
    """`name[,name]`: names under which browsers may request the page, such as `guard.example.com` behind a proxy. IP
    addresses of this machine, `localhost` and its own name are always allowed."""
    data_dir: Annotated[str, msgspec.Meta(min_length=1)] = "streamguard-serve"
    """Directory of the projection. It is disposable: without it, the topics are read from their beginning."""
    partitions: str = ""
    """Partitions whose profiles this server holds, such as `0-31,40`; it asks `serve.peers` for the others. Incidents
    are complete on every server. Empty: all."""
    peers: str = ""
    """`URL[,URL]`: the other servers of this installation, such as `https://serve-1.example.com:8080`; the server's own
    address may be among them. Empty: no server is asked."""
    peer_key_file: str = ""
    """File whose bytes, at least 16, are the same on all servers and sign what they ask each other. Empty: no server
    is asked or answered."""
    peer_ca_file: str = ""
    """Authorities in PEM format that sign the certificates of peers. Empty: those of the system."""
    peer_http: bool = False
    """Whether peers may be asked over http on other machines, where only the network encrypts."""
    archive_dir: str = ""
    """Directory that `streamguard archive` writes, from which events are shown that Kafka has deleted. Empty: none."""
    keys_file: str = ""
    """File of the access keys, which `streamguard keys` writes; it holds their hashes only. Empty: one key, which
    is made at the start and printed with the address of the page."""
    pseudonym_key_file: str = ""
    """File whose bytes are the key of the pseudonyms that stand for names of people; several servers need the same one.
    Empty: a random key, which is made at the first start and kept in `serve.data_dir`."""
    certificate_file: str = ""
    """Certificate chain in PEM format for TLS. Empty: plain HTTP, for a proxy on the same machine."""
    private_key_file: str = ""
    """Private key of the certificate. Empty: the key is in `certificate_file`."""
    trusted_proxies: str = ""
    """`address[,address]`: addresses or networks of proxies, such as `10.0.0.7,10.1.0.0/24`, from which the headers
    `X-Forwarded-Proto` and `X-Forwarded-For` are believed. Empty: none."""
    session_key_file: str = ""
    """File of at least 32 random bytes that signs the sessions of browsers; servers with the same file accept each
    other's sessions. Empty: a random key, so that a session is valid for one server and until its restart."""
    oidc_issuer: str = ""
    """Address of the provider with which people sign in (OpenID Connect), exactly as its tokens name it, such as
    `https://id.example.com/realms/main`. Empty: people sign in with keys only."""
    oidc_client_id: Annotated[str, msgspec.Meta(max_length=255)] = ""
    """Id of this server at the provider."""
    oidc_client_secret_file: str = ""
    """File that contains only the secret of this server at the provider; a line end after it is ignored. Empty: a
    public client, which PKCE alone protects."""
    oidc_scopes: Annotated[str, msgspec.Meta(max_length=500, pattern=r"^[!-~]+( [!-~]+)*$")] = (
        "openid profile email"
    )
    """Scopes that are asked for, separated by spaces; some providers name groups only with the scope `groups`."""
    oidc_role_claim: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = "groups"
    """Claim of the ID token that decides about the role: a text or a list of texts. A name with dots may be a path,
    such as `realm_access.roles`."""
    oidc_roles: str = ""
    """`value=role[;value=role]`: which value of the claim gives which role, such as `soc-leads=admin;soc=analyst`. The
    first pair that applies decides. Who has none of the values may not sign in."""
    oidc_name_claim: Literal["preferred_username", "email", "sub"] = "preferred_username"
    """Claim under whose value a person acts. It must have the form of a key's name, and an email must be verified;
    otherwise the name is made of `sub`."""
    oidc_ca_file: str = ""
    """PEM certificates of the authorities that sign the provider's certificate. Empty: those of the system."""
    requests_per_minute: Count = 600
    """Requests of one key a minute; further ones are refused with 429 and Retry-After."""
    metrics_host: str = "127.0.0.1"
    """Address of the metrics and probes."""
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 9468
    """Port of /metrics, /healthz and /readyz; 0: any free port."""
    metrics_allowed_hosts: str = ""
    """`name[,name]`: names with a dot, such as `serve.example.com`, under which the metrics port may be requested.
    IP addresses, names without a dot and the machine's own name are always allowed."""

    def __post_init__(self) -> None:
        sign_in.check(self)


class Models(_Section, frozen=True):
    """Model registry: where models are published, and how workers load them."""

    registry: str = ""
    """Directory of the model registry. Empty: workers score by statistics and patterns alone."""
    key_file: str = ""
    """File whose bytes are the signing key; models without a valid signature are refused. Empty: no signatures."""
    poll_seconds: Seconds = 5.0
    """Interval at which workers poll the registry's pointer; they also poll when a promotion is announced."""
    shadow: bool = False
    """Whether workers also score events with the newest version that is not current, and export what it says."""
    keep_versions: Count = 100
    """Number of versions that a retrain keeps; versions that a rollback can restore are never removed."""


class Batch(_Section, frozen=True):
    """Retrain: its engine, its output, its schedule and its metrics."""

    engine: Literal["spark", "local"] = "spark"
    """Engine of the retrain. `local` needs no JVM; both engines produce bit-identical models."""
    output: Annotated[str, msgspec.Meta(min_length=1)] = "streamguard-runs"
    """Directory of runs; each run has its own directory below it."""
    keep_runs: Count = 24
    """Number of runs that are kept; `latest` and the run that it continues are never removed."""
    every_seconds: Annotated[float, msgspec.Meta(ge=0.0, le=2_592_000.0)] = 0.0
    """Time between the starts of two runs in a series, as `--every` on the command line. 0: a single run."""
    expected_seconds: Annotated[float, msgspec.Meta(ge=0.0, le=2_592_000.0)] = 0.0
    """Interval at which another program, such as a CronJob, starts single runs; Prometheus alerts after three missed
    runs. 0: unknown, a day is assumed."""
    jitter_seconds: Annotated[float, msgspec.Meta(ge=0.0, le=86_400.0)] = 30.0
    """Maximum random delay of each start in a series, so that several series do not start at once."""
    metrics_host: str = "127.0.0.1"
    """Address of the metrics of a series of runs."""
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    """Port of the metrics of a series of runs; 0: metrics are not served."""
    metrics_allowed_hosts: str = ""
    """`name[,name]`: names with a dot, such as `worker-1.example.com`, under which the metrics port may be requested.
    IP addresses, names without a dot and the machine's own name are always allowed."""
    metrics_file: str = ""
    """File for the textfile collector of the node exporter, replaced at the start and the end of each run. Empty: no
    file."""


class Spark(_Section, frozen=True):
    """Spark session of a retrain or an archive."""

    master: str = "local[*]"
    """Spark master. `spark-submit` ignores it and uses its own."""
    driver_memory: Memory = "1g"
    """Heap of the driver, which does all the work with `local[*]`."""
    executor_memory: Memory = "1g"
    """Heap of each executor in a cluster."""
    batch_rows: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 4096
    """Number of records that a task folds at a time; results do not depend on it."""


class Sampling(_Section, frozen=True):
    """Sample of the history: the events that are kept with their features."""

    rows: Annotated[int, msgspec.Meta(ge=256, le=10_000_000)] = 100_000
    """Number of events in the sample, chosen by a hash of partition and offset."""
    rows_per_user: Count = 500
    """Maximum number of sampled events of one user that train the forest."""
    alerts: Count = 10_000
    """Number of alerted events that a run keeps of each partition, those with the highest evidence."""


class Training(_Section, frozen=True):
    """Training of the Isolation Forest."""

    trees: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 300
    """Number of trees; more trees take more time and give more stable scores."""
    samples: Annotated[int, msgspec.Meta(ge=2, le=256)] = 256
    """Number of rows from which each tree is grown."""
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] = 0
    """Random seed; the same seed, history and settings produce a bit-identical forest."""
    background: Share = 0.2
    """Share of random rows among the training rows; they make the trees split regions without data."""


class Clusters(_Section, frozen=True):
    """Peer groups of users."""

    groups: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    """Number of peer groups; 0: the number from 2 to `max_groups` with the best silhouette."""
    max_groups: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 8
    """Maximum number of peer groups if `groups` is 0."""


class Gate(_Section, frozen=True):
    """Limits that a challenger has to meet to become champion."""

    max_trimmed: Share = 0.5
    """Maximum share of events that patterns or bits mark as possible attacks; above it, no model is promoted."""
    min_rows: Annotated[int, msgspec.Meta(ge=2)] = 256
    """Minimum number of training rows; a forest needs at least two."""
    max_alert_ratio: Annotated[float, msgspec.Meta(ge=1.0)] = 3.0
    """Maximum ratio of the quiet events that the challenger calls as rare as an alert to those of the champion."""
    min_overlap: Share = 0.2
    """Minimum share of the champion's top 1 % of events that is also in the challenger's top 1 %."""
    max_drift: Annotated[float, msgspec.Meta(gt=0.0)] = 2.0
    """Maximum population stability index of a feature, compared with the champion's training rows."""
    min_injected_auc: Share = 0.85
    """Minimum AUC with which the forest separates quiet rows with an injected attack from quiet rows."""


class Settings(_Section, frozen=True):
    """All sections of the settings file."""

    kafka: Kafka = Kafka()
    security: Security = Security()
    worker: Worker = Worker()
    detection: Detection = Detection()
    sources: Sources = Sources()
    campaigns: Campaigns = Campaigns()
    analyst: Analyst = Analyst()
    serve: Serve = Serve()
    models: Models = Models()
    batch: Batch = Batch()
    spark: Spark = Spark()
    sampling: Sampling = Sampling()
    training: Training = Training()
    clusters: Clusters = Clusters()
    gate: Gate = Gate()
