"""Archive finished runs: copy their records, but no weights, to <out>/measured.

    python scripts/archive.py [outputs] [into]

`into`: the folder in whose measured/ they are archived; by default that of the runs.
"""

import sys
from pathlib import Path

from lwbench.runs.records import archive, chosen, records


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs")
    into = Path(sys.argv[2]) if len(sys.argv) > 2 else out
    for record in chosen(records(out, archived=False)):
        print(archive(record, into))


if __name__ == "__main__":
    main()
