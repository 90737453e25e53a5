"""One process of a benchmark. A process has a single backend, and its memory is independent of other contenders.

`python -m benchmarks.worker` reads orders from standard input, one line of JSON per order, and writes one line of JSON
per response to standard output. The output of the frameworks goes to standard error. The orders are:

- `{"prepare": [contender, model, mode, measure, batch], "precision": policy}` builds, compiles and runs a program once.
  The response is `{"memory": MiB or null}`.
- `{"turn": seconds}` runs the program for about that time. The response is `{"seconds": seconds of one call}`.
- `{"grow": job}` measures the growth; see `grow`. The response is `{"rows": rows}`.
- `{"rate": null}` measures a matrix product. The response is `{"rate": multiply-accumulates per second}`.
"""

import json
import os
import sys

import keras

import mobilenet_zoo
from benchmarks import contenders, programs, timing


class Worker:
    """Executor of orders, with one public method per kind of order."""

    def __init__(self):
        self.program = None

    def prepare(self, contender_args, precision):
        contender, model, mode, measure, batch = contender_args
        keras.config.set_dtype_policy(precision)
        self.program = None
        keras.utils.clear_session()
        self.program = programs.program(contender, contenders.find(model), mode, measure, batch)
        self.program()  # The first call compiles the program.
        return {"memory": timing.peak_memory(self.program)}

    def turn(self, seconds):
        return {"seconds": timing.turn(self.program, seconds)}

    def rate(self, _):
        return {"rate": timing.matrix_product_rate()}

    def grow(self, job):
        """Time our model over batch sizes, image sizes or widths.

        Args:
            job: Dictionary with the keys `model`, `mode`, `precision`, `axis`, `values` and `turns`. The axis is
                `"batch"`, `"image size"` or `"width"`.
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
            result = {
                "memory": timing.peak_memory(program),
                "seconds": [timing.turn(program) for _ in range(job["turns"])],
            }
            rows.append(result | {"value": value, "batch": batch, "macs": mobilenet_zoo.profile(ours).macs * batch})
            keras.utils.clear_session()
        return {"rows": rows}


def main():
    """Execute orders until the input ends."""
    responses = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        order = json.loads(line)
        (name, argument), *options = order.items()
        print(json.dumps(getattr(worker, name)(argument, **dict(options))), file=responses, flush=True)


if __name__ == "__main__":
    main()
