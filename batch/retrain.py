"""`spark-submit batch/retrain.py ARGS`: runs `streamguard retrain ARGS` on the master given to `spark-submit`.

`spark-submit` needs the Kafka connector (`--packages` or `--jars`). It forwards all output of the program to its
standard output.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python searches this file's directory first. Its modules share names with modules of the standard library.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from streamguard.cli.main import main

    main(["retrain", *sys.argv[1:]], prog_name="spark-submit batch/retrain.py")
