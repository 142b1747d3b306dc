"""Loads every version that appears in a serving directory and sends it an image, until a file says stop.

Usage: python -m tests.reliability.poller SERVING_DIR PICTURE STOP_FILE. Prints a line for each version that answered,
and ends with an error at the first that does not.
"""

import sys
import time
from pathlib import Path

from components.publishing.directory import published
from models.export.segmenter import Segmenter


def poll(serving_dir: str, image: Path, stop: Path) -> None:
    seen: set[int] = set()
    while True:
        last = stop.exists()
        for version in published(serving_dir):
            if version.version not in seen:
                seen.add(version.version)
                mask, _ = Segmenter(version.path).predict([image.read_bytes()])[0]
                sys.stdout.write(f"version {version.version} answers with a mask of {mask.shape}\n")
                sys.stdout.flush()
        if last:
            return
        time.sleep(0.02)


if __name__ == "__main__":
    poll(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
