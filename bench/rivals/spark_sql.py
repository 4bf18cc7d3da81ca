"""The 28 features in plain Spark SQL, by window functions over a DataFrame that is parsed once and persisted.

`bench.batch` runs it in a separate process: spark_sql.py BOOTSTRAP TOPIC DIRECTORY. It starts Spark as a retrain does,
and writes a tenth of the events and each user's last event with their features, as a retrain keeps them. It does less
than the fold: no decay, no score, no patterns, and no state to continue from. It prints rows, users and seconds as
JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from pyspark.sql import Column, DataFrame, Window, WindowSpec
from pyspark.sql import functions as F  # noqa: N812 (the usual name in Spark code)

from streamguard.batch.engines.session import opened
from streamguard.batch.engines.spark import reader_options
from streamguard.batch.source.offset_range import OffsetRange
from streamguard.batch.source.sources import KafkaSource
from streamguard.fold.features import NAMES
from streamguard.kafka.connection import Brokers
from streamguard.settings.schema import Spark

FIELDS = """
    timestamp bigint, event_type string, source_ip string, user string, threat_score double, status string,
    metadata struct<hostname: string, geo_location: string, user_agent: string>,
    network_details struct<bytes_sent: bigint, bytes_received: bigint, destination_hostname: string>,
    file_details struct<file_path: string, file_size_bytes: bigint>,
    process_details struct<process_name: string>, dns_details struct<query_name: string>
"""
HOUR = 3_600_000
DAY = 24 * HOUR
VALUES = ("host", "agent", "resource", "hour", "source_ip", "network", "location", "step")


def parsed(records: DataFrame) -> DataFrame:
    """Parse records into the values that features need; the events of a user are in one partition."""
    e = records.select("partition", F.from_json(F.col("value").cast("string"), FIELDS).alias("e"))
    volume = F.coalesce(
        F.col("e.network_details.bytes_sent") + F.col("e.network_details.bytes_received"),
        F.col("e.file_details.file_size_bytes"),
    )
    time_of = F.timestamp_millis("e.timestamp")
    events = e.select(
        "partition",
        F.coalesce("e.user", F.lit("")).alias("user"),
        F.col("e.timestamp").alias("ts"),
        F.col("e.event_type").alias("type"),
        F.col("e.source_ip").alias("source_ip"),
        F.substring_index("e.source_ip", ".", 3).alias("network"),
        F.coalesce("e.threat_score", F.lit(0.0)).alias("threat"),
        (F.col("e.status") == "failed").cast("int").alias("failed"),
        F.col("e.metadata.hostname").alias("host"),
        F.col("e.metadata.geo_location").alias("location"),
        F.col("e.metadata.user_agent").alias("agent"),
        F.coalesce(
            "e.network_details.destination_hostname", "e.file_details.file_path",
            "e.process_details.process_name", "e.dns_details.query_name",
        ).alias("resource"),
        F.log2(volume + 1.0).alias("volume"),
        (F.dayofweek(time_of) * 24 + F.hour(time_of)).alias("hour"),
        F.to_date(time_of).alias("day"),
    )  # fmt: skip
    return events.where("ts is not null").repartition("user")


def of_user() -> WindowSpec:
    """Window of the user's events, in order."""
    return Window.partitionBy("user").orderBy("ts")


def within(milliseconds: int) -> WindowSpec:
    """Window of the user's events of the last `milliseconds`, with the current event."""
    return of_user().rangeBetween(-milliseconds, 0)


def deviation(value: str) -> Column:
    """Standard score of a value compared with the user's earlier events."""
    before = of_user().rowsBetween(Window.unboundedPreceding, -1)
    mean, spread = F.avg(value).over(before), F.stddev_samp(value).over(before)
    return F.coalesce((F.col(value) - mean) / (spread + 1.0), F.lit(0.0))


def features(events: DataFrame) -> DataFrame:
    """The 28 features of each event, as columns."""
    one, by_user = F.lit(1), of_user()
    so_far = by_user.rowsBetween(Window.unboundedPreceding, 0)
    busy = events.groupBy("hour").count()
    busier = busy.select(
        "hour", (1.0 - F.percent_rank().over(Window.orderBy("count"))).alias("off_hours_share")
    )
    e = events.withColumns(
        {
            "gap": (F.col("ts") - F.lag("ts").over(by_user)) / 1000.0,
            "step": F.concat_ws(">", F.lag("type").over(by_user), "type"),
            "n": F.count(one).over(by_user) - 1,
            "c5": F.count(one).over(within(HOUR // 12)),
            "c60": F.count(one).over(within(HOUR)),
            "cd": F.count(one).over(within(DAY)),
            "f60": F.sum("failed").over(within(HOUR)),
            "fd": F.sum("failed").over(within(DAY)),
            "new_day": F.coalesce((F.col("day") != F.lag("day").over(by_user)).cast("int"), F.lit(1)),
            "run": F.sum(1 - F.col("failed")).over(so_far),
            "last": F.lead("ts").over(by_user).isNull(),
        }
    )
    seen = {}
    for value in VALUES:
        same = Window.partitionBy("user", value).orderBy("ts")
        seen[f"n_{value}"] = F.row_number().over(same) - 1
        if value == "source_ip":
            seen["since_source"] = F.col("ts") - F.lag("ts").over(same)
    e = e.withColumns(seen)
    e = e.withColumn("streak", F.sum("failed").over(Window.partitionBy("user", "run").orderBy("ts")))
    crowd = Window.partitionBy("partition").orderBy("ts").rangeBetween(-HOUR // 12, 0)
    e = e.withColumn("interval", F.log2(F.coalesce("gap", F.lit(0.0)) + 0.001))

    def bits(value: str) -> Column:
        return -F.log2((F.col(f"n_{value}") + 0.5) / (F.col("n") + 1.0))

    streak_before = F.coalesce(F.lag("streak").over(by_user), F.lit(0))
    made = {
        "event_rate_5m": F.log2(1 + 12 * F.col("c5")),
        "event_rate_1h": F.log2(1 + F.col("c60")),
        "event_rate_1d": F.log2(1 + F.col("cd") / 24),
        "event_rate_30d": F.log2(1 + F.col("n") / 720),  # the history has 30 days
        "host_bits": bits("host"),
        "agent_bits": bits("agent"),
        "resource_bits": bits("resource"),
        "volume_z": deviation("volume"),
        "hour_bits": bits("hour"),
        "dormancy": F.log2(1 + F.coalesce("gap", F.lit(0.0)) / 86_400),
        "active_days": F.log2(1 + F.sum("new_day").over(so_far)),
        "interval_z": deviation("interval"),
        "burst": F.log2((12 * F.col("c5") + 1) / (F.col("cd") / 24 + 1)),
        "source_bits": bits("source_ip"),
        "network_bits": bits("network"),
        "location_bits": bits("location"),
        "source_diversity": F.log2(
            (F.col("n") + 1) * (F.col("n") + 1) / F.sum(2 * F.col("n_source_ip") + 1).over(so_far)
        ),
        "crowd_new_sources": F.log2(1.0 + F.sum((F.col("n_source_ip") == 0).cast("int")).over(crowd)),
        "transition_bits": bits("step"),
        "repeat_interval": F.log2(1 + F.coalesce("since_source", F.lit(0)) / HOUR),
        "failure_streak": F.log2(1 + F.col("streak")),
        "success_after_failures": (1 - F.col("failed")) * F.log2(1 + streak_before),
        "threat_score": F.col("threat"),
        "threat_z": deviation("threat"),
        "threat_mean": F.avg("threat").over(so_far),
        "failure_rate_1h": (F.col("f60") + 0.05) / (F.col("c60") + 1),
        "failure_rate_1d": (F.col("fd") + 0.05) / (F.col("cd") + 1),
    }  # fmt: skip
    e = e.withColumns(made).join(F.broadcast(busier), "hour")
    return e.select("user", "ts", "last", *(F.col(name).cast("float") for name in NAMES))


def main(bootstrap: str, topic: str, directory: str) -> None:
    """Compute the features of a topic, and write the rows that a retrain would keep."""
    begun = time.perf_counter()
    source = KafkaSource(Brokers(bootstrap), topic)
    planned = {p: OffsetRange(p, start, end) for p, (start, end) in source.bounds().items()}
    with (
        tempfile.TemporaryDirectory() as scratch,
        opened(Spark(driver_memory="4g"), Path(scratch), java_flags=()) as spark,
    ):
        spark.conf.set("spark.sql.shuffle.partitions", "8")
        topic_records = spark.read.format("kafka").options(**reader_options(source, planned)).load()
        events = parsed(topic_records.select("partition", "value")).persist()
        kept = features(events).where(F.col("last") | (F.xxhash64("user", "ts") % 10 == 0))
        kept.write.parquet(directory)
        written = spark.read.parquet(directory)
        rows, users = written.count(), written.where("last").count()
    seconds = time.perf_counter() - begun
    print(json.dumps({"rows": rows, "users": users, "features": len(NAMES), "seconds": round(seconds, 2)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
