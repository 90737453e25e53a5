"""What this library needs of TensorFlow and TensorFlow has no public API for."""

import importlib
from typing import Any

import tensorflow as tf


def is_traced_for_xla() -> bool:
    """Return whether what is traced now belongs to a function with `jit_compile=True`.

    Stands in for a public view of a trace's compiler. TensorFlow 2.3 to the latest; False where it is missing, so that
    the formulation for TensorFlow's own kernels is used.
    """
    if tf.executing_eagerly():
        return False
    try:
        from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext
    except ImportError:
        return False
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def freeze_variables(function):
    """Return a concrete function like `function` with its variables as constants.

    Stands in for the converter that TensorFlow 2 has for sessions only. TensorFlow 2.0 to the latest; required.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(function)


def set_heartbeat(hosts, seconds):
    """Let the service that connects `hosts` hosts report a lost one after `seconds`.

    Stands in for a timeout among the options of MultiWorkerMirroredStrategy. TensorFlow 2.10 to the latest; required
    for training over several hosts.
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
