"""Creates links to Spark, its Java, the Kafka connector and the retrain, for `spark-submit` and executors."""

from __future__ import annotations

import sys
from pathlib import Path

from streamguard import batch
from streamguard.batch.engines.jvm import Jvm
from streamguard.jvm.spark_connector import spark_connector


def main(directory: Path) -> None:
    """Create the links `spark`, `java`, `connector` and `retrain.py`."""
    jvm = Jvm()
    (directory / "spark").symlink_to(jvm.spark)
    (directory / "java").symlink_to(jvm.environment["JAVA_HOME"])
    (directory / "connector").symlink_to(spark_connector(jvm.version).fetched(jvm.java))
    (directory / "retrain.py").symlink_to(Path(batch.__file__).with_name("retrain.py"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
