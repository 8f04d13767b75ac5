"""Archive finished runs: copy their records, without weights, to `measured/` for the repository.

    python scripts/keep.py [outputs] [into]

`into`: the folder that contains measured/; by default the folder of the runs.
"""

import sys
from pathlib import Path

from lwbench.runs.records import chosen, keep, records


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs")
    into = Path(sys.argv[2]) if len(sys.argv) > 2 else out
    for record in chosen(records(out, kept=False)):
        print(keep(record, into))


if __name__ == "__main__":
    main()
