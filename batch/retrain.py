"""`spark-submit batch/retrain.py ARGS`: does what `streamguard retrain ARGS` does, on the master of `spark-submit`.

`spark-submit` needs the Kafka connector (`--packages` or `--jars`). It forwards all output of the program to standard
output.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python looks into this file's directory first, whose modules share names with the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from streamguard.cli.main import main

    main(["retrain", *sys.argv[1:]], prog_name="spark-submit batch/retrain.py")
