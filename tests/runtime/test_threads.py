"""One loaded file can be called from several threads at once, and every thread gets the outputs for its images."""

import os
import threading
import time

import numpy as np
import pytest

import mobilenet_runtime
from mobilenet_runtime.classifier import ExportedClassifier
from mobilenet_runtime.runtimes.pool import Pool, parallel_calls
from tests.runtime import tiny

pytestmark = pytest.mark.across

ROUNDS = 60


def in_threads(count, work):
    """Call `work(i)` in `count` threads at once; return the results, or raise the first error."""
    start, results, errors = threading.Barrier(count), [None] * count, []

    def run(i):
        start.wait()
        try:
            results[i] = work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def images(thread, count=1):
    return np.random.default_rng(thread).normal(size=(count, tiny.SIZE, tiny.SIZE, tiny.CHANNELS)).astype("float32")


def largest_deviations(model, count, sizes=(1,), rounds=ROUNDS):
    """Return each thread's largest deviation from NumPy, as a fraction of the output's largest value."""

    def work(i):
        batch = images(i, sizes[i % len(sizes)])
        expected, worst = tiny.expected(batch), 0
        for _ in range(rounds):
            outputs = model(batch)
            outputs = outputs if isinstance(outputs, dict) else {model.output_names[0]: outputs}
            for name, values in outputs.items():
                assert values.shape == expected[name].shape
                worst = max(worst, np.abs(values - expected[name]).max() / np.abs(expected[name]).max())
        return worst

    return in_threads(count, work)


@pytest.mark.parametrize("threads", [2, 8])
@pytest.mark.parametrize("kind", tiny.FORMATS)
class TestEveryFormat:
    def test_each_thread_gets_the_outputs_for_its_images(self, kind, threads, tiny_file):
        model = mobilenet_runtime.load(tiny_file(kind))
        assert max(largest_deviations(model, threads)) <= 2e-4

    def test_batch_sizes_can_differ_between_threads(self, kind, threads, tiny_file):
        model = mobilenet_runtime.load(tiny_file(kind))
        assert max(largest_deviations(model, threads, sizes=(1, 3, 2))) <= 2e-4

    def test_fixed_batch_size_and_single_threaded_runtime(self, kind, threads, tiny_file, monkeypatch):
        if kind == "saved_model":  # TensorFlow can't change the number of threads after its first computation
            pytest.skip("needs a new process")
        model = mobilenet_runtime.load(tiny_file(kind, batch=2), threads=1)
        assert max(largest_deviations(model, threads, sizes=(1, 2, 5), rounds=20)) <= 2e-4


@pytest.mark.parametrize("kind", tiny.FORMATS)
def test_operations_and_placement_while_other_threads_predict(kind, tiny_file):
    model = mobilenet_runtime.load(tiny_file(kind))
    operations, placement = model.operations(), model.placement()

    def work(i):
        if i % 2:
            return largest_deviations(model, 1, sizes=(1 + i // 2,))[0] <= 2e-4
        return all(model.operations() == operations and model.placement() == placement for _ in range(ROUNDS // 2))

    assert in_threads(4, work) == [True] * 4


@pytest.mark.parametrize("kind", tiny.FORMATS)
def test_classifier_in_threads(kind, tiny_file):
    classifier = ExportedClassifier(tiny_file(kind, outputs=("logits",)))

    def work(i):
        batch = images(i, 2)
        expected = tiny.expected(batch)["probabilities"]
        outputs = [classifier.probabilities(classifier.predict(batch)) for _ in range(ROUNDS)]
        return max(np.abs(values - expected).max() for values in outputs)

    assert max(in_threads(4, work)) <= 1e-4


@pytest.mark.parametrize("threads", [2, 8])
def test_int8_outputs_are_the_same_in_threads(threads, tiny_file):
    model = mobilenet_runtime.load(tiny_file("tflite", integers="int8", outputs=("logits",)))
    sequential = [model(images(i, 1 + i % 3)) for i in range(threads)]
    assert len({values.tobytes() for values in sequential}) == threads, "the outputs must differ between threads"
    parallel = in_threads(threads, lambda i: [model(images(i, 1 + i % 3)) for _ in range(ROUNDS)])
    for expected, outputs in zip(sequential, parallel, strict=True):
        for values in outputs:
            np.testing.assert_array_equal(values, expected)


def test_outputs_are_not_overwritten_by_next_call(tiny_file):
    for kind in tiny.FORMATS:
        model = mobilenet_runtime.load(tiny_file(kind))
        first = model(images(0))["map"]
        copy = first.copy()
        model(images(1))
        np.testing.assert_array_equal(first, copy)


def test_interpreters_are_reused_by_new_threads(tiny_file):
    model = mobilenet_runtime.load(tiny_file("tflite"))
    for i in range(100):
        in_threads(2, lambda thread, i=i: model(images(i + thread)))
    assert len(model._pool._free) <= min(2, parallel_calls(None))


def test_loaded_model_does_not_depend_on_its_file(tiny_file, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(tiny_file("tflite").read_bytes())
    model = mobilenet_runtime.load(path)
    path.write_bytes(b"another file, half written")
    assert max(largest_deviations(model, 4, rounds=5)) <= 2e-4


def test_failure_while_running_names_the_batch(tiny_file, monkeypatch):
    for kind in tiny.FORMATS:
        model = mobilenet_runtime.load(tiny_file(kind))

        def fail(batch):
            raise RuntimeError("Infer Request is busy")

        monkeypatch.setattr(model, "run", fail)
        with pytest.raises(mobilenet_runtime.RuntimeFailure) as error:
            model(images(0))
        message = str(error.value)
        assert message.startswith(f"{model.runtime} can't run {model.path} on a batch of shape (1, ")
        assert message.endswith(": Infer Request is busy.")


@pytest.mark.parametrize("error", [MemoryError("bad allocation"), PermissionError(13, "Permission denied")])
def test_system_error_does_not_suggest_another_export(error):
    from mobilenet_runtime.runtimes.base import opening_errors

    with pytest.raises(mobilenet_runtime.RuntimeFailure) as caught, opening_errors("a.xml", "OpenVINO 1"):
        raise error
    assert str(caught.value).startswith("OpenVINO 1 can't open a.xml: ")
    assert "export it again" not in str(caught.value)


def test_pt2_files_load_with_weights_only_in_all_threads(tiny_file, monkeypatch):
    torch = pytest.importorskip("torch")
    from mobilenet_runtime.runtimes.torch_export import load_program

    path, setting = tiny_file("pt2"), "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    monkeypatch.delenv(setting, raising=False)
    settings, second_started = [], threading.Event()

    def load(path, extra_files):
        settings.append(os.environ.get(setting))
        if len(settings) == 1:  # without a lock, the first call would end during the second
            second_started.wait(0.3)
        else:
            second_started.set()
            time.sleep(0.2)
        settings.append(os.environ.get(setting))

    monkeypatch.setattr(torch.export, "load", load)
    in_threads(2, lambda i: load_program(path, {}))
    assert settings == ["1"] * 4
    assert setting not in os.environ, "the setting must not affect the rest of the program"


class TestPool:
    def test_pool_creates_no_more_instances_than_its_limit(self):
        created, in_use, counts = [], [], []
        pool = Pool(lambda: created.append(1) or len(created), 3)

        def work(i):
            for _ in range(20):
                with pool.borrow() as instance:
                    in_use.append(instance)
                    counts.append(len(set(in_use)))
                    assert in_use.count(instance) == 1, "an instance serves one thread at a time"
                    time.sleep(0.0005)
                    in_use.remove(instance)

        in_threads(8, work)
        assert max(counts) <= len(created) <= 3

    def test_preferred_instance_is_borrowed_first(self):
        numbers = iter(range(10))
        pool = Pool(lambda: next(numbers), 3)
        with pool.borrow(), pool.borrow(), pool.borrow():
            pass
        for preferred in (0, 1, 2, 0):
            with pool.borrow(lambda number, preferred=preferred: number == preferred) as borrowed:
                assert borrowed == preferred
        with pool.borrow(lambda number: False) as borrowed:
            assert borrowed in (0, 1, 2)

    def test_failed_instance_is_not_used_again(self):
        numbers = iter(range(10))
        pool = Pool(lambda: next(numbers), 1)
        with pytest.raises(RuntimeError), pool.borrow():
            raise RuntimeError
        for _ in range(2):
            with pool.borrow() as borrowed:
                assert borrowed == 1

    @pytest.mark.parametrize("threads", [1, 2, 10**6])
    def test_parallel_calls_use_all_cores(self, threads):
        cores = parallel_calls(None)
        assert parallel_calls(threads) == max(1, cores // threads)
