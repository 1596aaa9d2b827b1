"""Write the numbers a first run should reproduce to results/<profile>/expected.json; the README quotes them.

Run it after `make book` when data, methods or settings have changed; tests hold the README to the file.
"""

from __future__ import annotations

import argparse
import json
import sys

from lib.errors import run_command_line
from lib.experiment import experiment_records, results_root
from lib.profiles import load_profile
from lib.runtime import atomic_path
from lib.tables import records_frame

METRICS = ("I-AUROC", "P-AUROC", "AUPRO@30%", "AUPRO@1%")


def main() -> None:
    """Command line: --profile NAME."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="demo")
    profile = load_profile(parser.parse_args().profile)
    frame = records_frame(experiment_records(profile, "cfm", ("product",), progress=True))
    means = frame[frame["defect"] == "all"][list(METRICS)].mean()
    content = {"method": "CFM product, mean over categories and seeds", **means.round(3).to_dict()}
    path = results_root(profile) / "expected.json"
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(path, content)


if __name__ == "__main__":
    sys.exit(run_command_line(main))
