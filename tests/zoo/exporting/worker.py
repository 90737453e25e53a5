"""Export a model under one backend, for the tests of `export`: `python -m tests.zoo.exporting.worker MODEL FOLDER`.

The program exports the saved model to every format and writes the reports to FOLDER/reports.json. The environment
variable KERAS_BACKEND sets the backend.
"""

import json
import sys
from pathlib import Path

import keras

from mobilenet_zoo.exporting import export_all
from tests.zoo.exporting.shared import FILE_NAMES


def main(model_file, folder):
    """Export the model in `model_file` to every format, into `folder`."""
    model = keras.saving.load_model(model_file, compile=False)
    folder = Path(folder)
    reports = [report.as_dict() for report in export_all(model, {folder / name: None for name in FILE_NAMES.values()})]
    (folder / "reports.json").write_text(json.dumps(reports), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
