"""One loaded file serves any number of threads, each with the outputs to its own images."""

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
    """Call `work(i)` for each thread `i` at once; return what the calls returned, and raise what one raised."""
    start, found, errors = threading.Barrier(count), [None] * count, []

    def run(i):
        start.wait()
        try:
            found[i] = work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found


def images(thread, count=1):
    return np.random.default_rng(thread).normal(size=(count, tiny.SIZE, tiny.SIZE, tiny.CHANNELS)).astype("float32")


def largest_deviations(model, count, sizes=(1,), rounds=ROUNDS):
    """The largest deviation from NumPy that each thread met, as a fraction of the largest value, by output."""

    def work(i):
        own = images(i, sizes[i % len(sizes)])
        expected, worst = tiny.expected(own), 0
        for _ in range(rounds):
            answers = model(own)
            answers = answers if isinstance(answers, dict) else {model.output_names[0]: answers}
            for name, values in answers.items():
                assert values.shape == expected[name].shape
                worst = max(worst, np.abs(values - expected[name]).max() / np.abs(expected[name]).max())
        return worst

    return in_threads(count, work)


@pytest.mark.parametrize("threads", [2, 8])
@pytest.mark.parametrize("kind", tiny.FORMATS)
class TestEveryFormat:
    def test_each_thread_gets_the_answers_to_its_own_images(self, kind, threads, written):
        model = mobilenet_runtime.load(written(kind))
        assert max(largest_deviations(model, threads)) <= 2e-4

    def test_different_batch_sizes_at_once(self, kind, threads, written):
        model = mobilenet_runtime.load(written(kind))
        assert max(largest_deviations(model, threads, sizes=(1, 3, 2))) <= 2e-4

    def test_a_fixed_batch_and_one_thread_for_the_runtime(self, kind, threads, written, monkeypatch):
        if kind == "saved_model":  # TensorFlow takes the number once in a process, before it computes
            pytest.skip("needs a process of its own")
        model = mobilenet_runtime.load(written(kind, batch=2), threads=1)
        assert max(largest_deviations(model, threads, sizes=(1, 2, 5), rounds=20)) <= 2e-4


@pytest.mark.parametrize("kind", tiny.FORMATS)
def test_operations_and_placement_while_others_run(kind, written):
    model = mobilenet_runtime.load(written(kind))
    operations, placement = model.operations(), model.placement()

    def work(i):
        if i % 2:
            return largest_deviations(model, 1, sizes=(1 + i // 2,))[0] <= 2e-4
        return all(model.operations() == operations and model.placement() == placement for _ in range(ROUNDS // 2))

    assert in_threads(4, work) == [True] * 4


@pytest.mark.parametrize("kind", tiny.FORMATS)
def test_a_classifier_in_threads(kind, written):
    classifier = ExportedClassifier(written(kind, outputs=("logits",)))

    def work(i):
        own = images(i, 2)
        expected = tiny.expected(own)["probabilities"]
        found = [classifier.probabilities(classifier.predict(own)) for _ in range(ROUNDS)]
        return max(np.abs(values - expected).max() for values in found)

    assert max(in_threads(4, work)) <= 1e-4


@pytest.mark.parametrize("threads", [2, 8])
def test_int8_files(threads, written):
    model = mobilenet_runtime.load(written("tflite", integers="int8", outputs=("logits",)))
    alone = [model(images(i, 1 + i % 3)) for i in range(threads)]
    assert len({values.tobytes() for values in alone}) == threads, "images that give different answers"
    found = in_threads(threads, lambda i: [model(images(i, 1 + i % 3)) for _ in range(ROUNDS)])
    for expected, several in zip(alone, found, strict=True):
        for values in several:
            np.testing.assert_array_equal(values, expected)


def test_an_answer_stays_when_the_next_is_computed(written):
    for kind in tiny.FORMATS:
        model = mobilenet_runtime.load(written(kind))
        first = model(images(0))["map"]
        kept = first.copy()
        model(images(1))
        np.testing.assert_array_equal(first, kept)


def test_many_short_threads_leave_no_interpreters_behind(written):
    model = mobilenet_runtime.load(written("tflite"))
    for i in range(100):
        in_threads(2, lambda thread, i=i: model(images(i + thread)))
    assert len(model._pool._free) <= min(2, parallel_calls(None))


def test_the_model_stays_when_its_file_is_replaced(written, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(written("tflite").read_bytes())
    model = mobilenet_runtime.load(path)
    path.write_bytes(b"another file, half written")
    assert max(largest_deviations(model, 4, rounds=5)) <= 2e-4


def test_a_runtimes_failure_is_not_blamed_on_the_file(written, monkeypatch):
    for kind in tiny.FORMATS:
        model = mobilenet_runtime.load(written(kind))

        def busy(batch):
            raise RuntimeError("Infer Request is busy")

        monkeypatch.setattr(model, "run", busy)
        with pytest.raises(mobilenet_runtime.RuntimeFailure) as caught:
            model(images(0))
        said = str(caught.value)
        assert said.startswith(f"{model.runtime} can't run {model.path} on a batch of shape (1, ")
        assert said.endswith(": Infer Request is busy.")


@pytest.mark.parametrize("error", [MemoryError("bad allocation"), PermissionError(13, "Permission denied")])
def test_what_the_system_refuses_is_not_blamed_on_the_file(error):
    from mobilenet_runtime.runtimes.base import refusals

    with pytest.raises(mobilenet_runtime.RuntimeFailure) as caught, refusals("a.xml", "OpenVINO 1"):
        raise error
    assert str(caught.value).startswith("OpenVINO 1 can't open a.xml: ")
    assert "Export it again" not in str(caught.value)


def test_pt2_files_are_read_as_tensors_alone_by_all_threads(written, monkeypatch):
    torch = pytest.importorskip("torch")
    from mobilenet_runtime.runtimes.torch_export import load_program

    path, setting = written("pt2"), "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    monkeypatch.delenv(setting, raising=False)
    seen, second = [], threading.Event()

    def load(path, extra_files):
        seen.append(os.environ.get(setting))
        if len(seen) == 1:  # the first ends while the second is still at work, if they can be at work together
            second.wait(0.3)
        else:
            second.set()
            time.sleep(0.2)
        seen.append(os.environ.get(setting))

    monkeypatch.setattr(torch.export, "load", load)
    in_threads(2, lambda i: load_program(path, {}))
    assert seen == ["1"] * 4
    assert setting not in os.environ, "left behind, it would be a setting of the whole program"


class TestPool:
    def test_no_more_than_the_limit(self):
        made, in_use, most = [], [], []
        pool = Pool(lambda: made.append(1) or len(made), 3)

        def work(i):
            for _ in range(20):
                with pool.borrow() as instance:
                    in_use.append(instance)
                    most.append(len(set(in_use)))
                    assert in_use.count(instance) == 1, "an instance serves one thread at a time"
                    time.sleep(0.0005)
                    in_use.remove(instance)

        in_threads(8, work)
        assert max(most) <= len(made) <= 3

    def test_the_preferred_one_first(self):
        numbers = iter(range(10))
        pool = Pool(lambda: next(numbers), 3)
        with pool.borrow(), pool.borrow(), pool.borrow():
            pass
        for wanted in (0, 1, 2, 0):
            with pool.borrow(lambda number, wanted=wanted: number == wanted) as found:
                assert found == wanted
        with pool.borrow(lambda number: False) as found:
            assert found in (0, 1, 2)

    def test_one_that_failed_is_not_used_again(self):
        numbers = iter(range(10))
        pool = Pool(lambda: next(numbers), 1)
        with pytest.raises(RuntimeError), pool.borrow():
            raise RuntimeError
        for _ in range(2):
            with pool.borrow() as found:
                assert found == 1

    @pytest.mark.parametrize("threads", [1, 2, 10**6])
    def test_calls_that_keep_all_cores_busy(self, threads):
        cores = parallel_calls(None)
        assert parallel_calls(threads) == max(1, cores // threads)
