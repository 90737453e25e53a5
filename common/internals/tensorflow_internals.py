"""Parts of TensorFlow that this library needs and that have no public API."""

import importlib
from typing import Any

import tensorflow as tf


def is_traced_for_xla() -> bool:
    """Return whether the code is being traced for a function with `jit_compile=True`.

    Missing public API: the compiler that a trace is for. TensorFlow 2.3 to the latest. Returns False in versions that
    lack it, which selects the formulations for TensorFlow's own kernels.
    """
    if tf.executing_eagerly():
        return False
    try:
        from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext
    except ImportError:
        return False
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def freeze_variables(function):
    """Return a copy of the concrete `function` with its variables as constants.

    Missing public API: this conversion, which TensorFlow 2 offers only for sessions. TensorFlow 2.0 to the latest;
    required.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(function)


def set_heartbeat(hosts, seconds):
    """Set the time after which the coordination service reports a lost host.

    Missing public API: a timeout option of MultiWorkerMirroredStrategy. TensorFlow 2.10 to the latest; required for
    training on several hosts.

    Args:
        hosts: Number of hosts.
        seconds: Timeout in seconds.
    """
    configuration: Any = importlib.import_module("tensorflow.compiler.xla.tsl.protobuf.coordination_config_pb2")
    context: Any = importlib.import_module("tensorflow.python.eager.context")
    job = configuration.CoordinatedJob(name="worker", num_tasks=hosts)
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader="/job:worker/replica:0/task:0",
        coordinated_jobs=[job],
        heartbeat_timeout_in_ms=1000 * seconds,
        shutdown_barrier_timeout_in_ms=1000 * seconds,
    )
