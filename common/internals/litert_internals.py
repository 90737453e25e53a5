"""Parts of LiteRT that this library needs and that have no public API."""


def graph_operations(interpreter):
    """Return a dict with `"index"`, `"op_name"`, `"inputs"` and `"outputs"` for each operation, including delegates.

    Missing public API: the graph of an interpreter. LiteRT 1.0 to the latest; required for `operations` and `placement`
    of `.tflite` files, but not for running them.
    """
    return interpreter._get_ops_details()
