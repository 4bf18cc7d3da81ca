"""The jars with which Spark reads Kafka."""

from __future__ import annotations

from streamguard.jvm.jars import Jars


def spark_connector(version: str) -> Jars:
    """Return the Kafka connector for a version of Spark, without the jars that Spark itself contains.

    Parameters
    ----------
    version
        Version of PySpark; the connector has the same version.
    """
    return Jars(
        f"spark-kafka-{version}",
        f"Spark's Kafka connector {version}",
        (("org.apache.spark", "spark-sql-kafka-0-10_2.13", version),),
        provided=(
            *("org.apache.hadoop", "org.scala-lang", "org.scala-lang.modules", "org.slf4j"),
            *("at.yawk.lz4", "org.lz4", "org.xerial.snappy", "com.google.code.findbugs"),
        ),
    )
