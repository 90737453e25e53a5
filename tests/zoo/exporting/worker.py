"""One backend's part of the tests of `export`: `python -m tests.zoo.exporting.worker MODEL FOLDER`.

Exports the saved model to every format and writes what the reports say to FOLDER/reports.json. The backend is that of
KERAS_BACKEND.
"""

import json
import sys
from pathlib import Path

import keras

from mobilenet_zoo.exporting import export_all
from tests.zoo.exporting.shared import PLACES


def main(model_file, folder):
    """Exports the model of a file."""
    model = keras.saving.load_model(model_file, compile=False)
    folder = Path(folder)
    reports = [report.as_dict() for report in export_all(model, {folder / name: None for name in PLACES.values()})]
    (folder / "reports.json").write_text(json.dumps(reports), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
