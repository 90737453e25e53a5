"""One process of a benchmark: a backend is chosen for the life of a process, and its memory is its own.

`python -m benchmarks.worker` reads orders as lines of JSON from its input and answers each with a line of JSON. What
the frameworks print goes to the error output. An order is one of

- `{"prepare": [contender, model, mode, measure, batch], "precision": policy}`: build, compile and run once; answers
  `{"memory": MiB or null}`
- `{"turn": seconds}`: run for about so long; answers `{"seconds": of one call}`
- `{"grow": job}`: see `grow`; answers `{"rows"}`
- `{"rate": null}`: answers `{"rate": multiply-accumulates a second of a matrix product}`
"""

import json
import os
import sys

import keras

import mobilenet_zoo
from benchmarks import contenders, programs, timing


class Worker:
    """Carries out orders."""

    def __init__(self):
        self.program = None

    def prepare(self, what, precision):
        contender, model, mode, measure, batch = what
        keras.config.set_dtype_policy(precision)
        self.program = None
        keras.utils.clear_session()
        self.program = programs.program(contender, contenders.find(model), mode, measure, batch)
        self.program()  # compiles
        return {"memory": timing.peak_memory(self.program)}

    def turn(self, seconds):
        return {"seconds": timing.turn(self.program, seconds)}

    def rate(self, _):
        return {"rate": timing.matrix_product_rate()}

    def grow(self, job):
        """Time our model over batch, image size and width.

        `job` is `{"model", "mode", "precision", "axis", "values", "turns"}`; `axis` is "batch", "image size" or
        "width".
        """
        keras.config.set_dtype_policy(job["precision"])
        model = contenders.find(job["model"])
        rows = []
        for value in job["values"]:
            size = value if job["axis"] == "image size" else contenders.IMAGE_SIZE
            batch = value if job["axis"] == "batch" else 1
            width = value if job["axis"] == "width" else 1.0
            ours = contenders.create(model, input_shape=(size, size, 3), width_multiplier=width)
            program = programs.inference(ours, job["mode"], programs.batch(batch, size)[0])
            program()
            found = {
                "memory": timing.peak_memory(program),
                "seconds": [timing.turn(program) for _ in range(job["turns"])],
            }
            rows.append(found | {"value": value, "batch": batch, "macs": mobilenet_zoo.profile(ours).macs * batch})
            keras.utils.clear_session()
        return {"rows": rows}


def main():
    """Answer orders until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        order = json.loads(line)
        (name, what), *options = order.items()
        print(json.dumps(getattr(worker, name)(what, **dict(options))), file=answers, flush=True)


if __name__ == "__main__":
    main()
