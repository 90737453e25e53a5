"""One process of a benchmark: one backend and mode, one model, all contenders in turns.

A backend is chosen for the life of a process, and a fresh one keeps a model's memory apart from the next one's. Called
by `python -m benchmarks`; the job comes as JSON on the command line, the result goes to a file.
"""

import json
import sys
from pathlib import Path

import keras

import mobilenet_zoo
from benchmarks import contenders, programs, timing


def compare(job):
    """Times a model's contenders against each other.

    Args:
        job: `{"model", "mode", "precision", "batches", "training_batch", "seconds"}`; see `contenders.MODES`.

    Returns:
        A list with a row for each measure: `{"model", "backend", "mode", "precision", "measure", "batch",
        "contenders"}`.
    """
    model = contenders.find(job["model"])
    rows = []
    for size in job["batches"]:
        images, _ = programs.batch(size)
        candidates = inference_programs(model, job["mode"], images)
        rows.append(_measured(job, "inference", size, candidates))
    if job["training_batch"] and job["mode"] != "compiled":  # Keras's fit is not compiled as a whole by PyTorch
        images, labels = programs.batch(job["training_batch"])
        candidates = training_programs(model, job["mode"], images, labels)
        rows.append(_measured(job, "training", job["training_batch"], candidates))
    return rows


def grow(job):
    """Times our model over batch, image size and width.

    Args:
        job: `{"model", "mode", "precision", "axis", "values", "seconds"}`; `axis` is "batch", "image size" or "width".
    """
    model = contenders.find(job["model"])
    rows = []
    for value in job["values"]:
        size = value if job["axis"] == "image size" else contenders.IMAGE_SIZE
        batch = value if job["axis"] == "batch" else 1
        width = value if job["axis"] == "width" else 1.0
        ours = contenders.create(model, input_shape=(size, size, 3), width_multiplier=width)
        program = programs.inference(ours, job["mode"], programs.batch(batch, size)[0])
        row = _measured(job, "inference", batch, {"ours": program})
        row |= {"axis": job["axis"], "value": value, "macs": mobilenet_zoo.profile(ours).macs * batch}
        rows.append(row)
        keras.utils.clear_session()
    return rows


def _measured(job, measure, batch, candidates):
    memory = {}
    for name, program in candidates.items():
        program()  # compiles
        memory[name] = timing.peak_memory(program)
    # timm computes what our model with its padding computes, so that is what its time is held against.
    rows = timing.summary(timing.interleaved(candidates, job["seconds"]), "ours", {"timm": "ours, padded as timm"})
    for name, mebibytes in memory.items():
        rows[name]["memory"] = mebibytes
    return {
        "model": job["model"],
        "backend": keras.backend.backend(),
        "mode": job["mode"],
        "precision": job["precision"],
        "measure": measure,
        "batch": batch,
        "contenders": rows,
    }


def inference_programs(model, mode, images):
    """`{contender: function}` of all that can predict for `images` in this backend and mode."""
    ours = contenders.create(model)
    found = {"ours": ours, "ours, fused": mobilenet_zoo.fuse(ours)}
    if mode != "compiled":  # the peers in Keras don't compile as one graph
        found |= {name: create(model) for name, create in _keras_peers(model).items()}
    found = {name: programs.inference(each, mode, images) for name, each in found.items()}
    if _timm_is_peer():
        # timm pads as PyTorch does. Ours by the same name computes the very same thing.
        alike = mobilenet_zoo.create_model(model.name)
        found["ours, padded as timm"] = programs.inference(alike, mode, images)
        found["timm"] = programs.timm_inference(contenders.create_timm(model), mode, images)
    return found


def training_programs(model, mode, images, labels):
    """The same for a training step."""
    makers = {"ours": lambda: contenders.create(model)}
    makers |= {name: (lambda create=create: create(model)) for name, create in _keras_peers(model).items()}
    if _timm_is_peer():
        makers["ours, padded as timm"] = lambda: mobilenet_zoo.create_model(model.name)
    found = {name: programs.training(make(), mode, images, labels) for name, make in makers.items()}
    if _timm_is_peer():
        found["timm"] = programs.timm_training(contenders.create_timm(model), mode, images, labels)
    return found


def _keras_peers(model):
    peers = {}
    if model.keras_application:
        peers["keras.applications"] = contenders.create_keras_application
    if model.zeromodels and contenders.is_installed("zeromodels"):
        peers["zeromodels"] = contenders.create_zeromodels
    return peers


def _timm_is_peer():
    return keras.backend.backend() == "torch" and contenders.is_installed("timm")


def main(kind, job, path):
    """Runs one job and writes `{"rows", "matrix_product_rate"}` to `path`."""
    job = json.loads(job)
    keras.config.set_dtype_policy(job["precision"])
    rows = {"compare": compare, "grow": grow}[kind](job)
    result = {"rows": rows, "matrix_product_rate": timing.matrix_product_rate()}
    Path(path).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
