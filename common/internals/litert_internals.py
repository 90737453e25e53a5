"""What this library needs of LiteRT and LiteRT has no public API for."""


def graph_operations(interpreter):
    """Return a dictionary with "index", "op_name", "inputs" and "outputs" for each operation, delegates included.

    Stands in for a public view of an interpreter's graph. LiteRT 1.0 to the latest; required for `operations` and
    `placement` of `.tflite` files, not for running them.
    """
    return interpreter._get_ops_details()
