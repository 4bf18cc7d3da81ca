"""`spark-submit batch/retrain.py ARGS`: runs `streamguard retrain ARGS` on the master given to `spark-submit`.

`spark-submit` needs the Kafka connector (`--packages` or `--jars`). It forwards all output of the program to its
standard output.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if __name__ == "__main__":
    # Python searches this file's directory first, where modules have names of other packages' modules.
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != here]
    if importlib.util.find_spec("streamguard") is None:
        sys.path.insert(0, str(here.parent))  # the root of the repository
    from streamguard.cli.main import main

    main(["retrain", *sys.argv[1:]], prog_name="spark-submit batch/retrain.py")
