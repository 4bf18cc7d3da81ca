"""`spark-submit batch/retrain.py ARGS`: what `streamguard retrain ARGS` does, on the master of `spark-submit`.

`spark-submit` has to be given the Kafka connector (`--packages` or `--jars`), and hands on all of the program's
output as standard output.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python looks into this file's directory first, whose modules share names with the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from streamguard.cli.retrain import command

    command(prog_name="retrain.py")
