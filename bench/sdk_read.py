"""Downloads an artifact with the official SDK's `as_local_file`: a program for the peer `sdk` in `bench.peers`.

    python -m bench.sdk_read URL URN FILE

Prints as JSON the seconds that the call took, the CPU seconds used meanwhile, the peak of its memory, and the file's
size; the interpreter's start and the imports are not counted, but for the memory.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from bench.processes import peak_memory


def main() -> None:
    """Download once."""
    url, urn, target = sys.argv[1:]
    sdk: Any = importlib.import_module("ivcap_client.ivcap")
    ivcap = sdk.IVCAP(url=url, token="benchmark")  # noqa: S106 - the platform here asks for none
    artifact = ivcap.get_artifact(urn)
    started, cpu = time.perf_counter(), time.process_time()
    path = artifact.as_local_file(Path(target))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    said = {"seconds": seconds, "cpu": cpu, "memory": peak_memory(os.getpid()), "size": path.stat().st_size}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
