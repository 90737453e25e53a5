"""The search for layers to leave in float32 where 8-bit integers alone lose too much."""

import dataclasses

from mobilenet_common.writing import replace_all
from mobilenet_zoo.exporting.destination import size_on_disk
from mobilenet_zoo.exporting.prepared import blocks

_COUNTS = ((1, 2, 3), (4, 5, 6))  # of layers in float32 that are tried, each round in one process
_TRIALS = sum(map(len, _COUNTS))
_POINT = 0.01  # of accuracy, which integers may cost before layers fall back to float32
_DISAGREEMENT = 0.03  # the same without labels
_LABELED_DISAGREEMENT = 0.1  # as many predictions may change where as many are right
_LIKENESS = 0.98  # the same for features
_START = 15  # seconds that a process takes to load its framework
_PASSES = 6  # over as many images as layers are ranked with, which an improvement takes


def search(session, part, format, facts, comparison, report):
    """Leave the layers in float32 that lose most in integers, as few as needed.

    One simulation ranks all layers without writing a file. Files are then written for the first layer, the first two
    and so on; all of them share the ranges of one calibration where the format's tool allows it.

    Args:
        session: The `Session` that wrote the file.
        part: The file, which is replaced by the best that is found.
        format: Its `Format`.
        facts: The `Result` of writing it.
        comparison: Of the file in integers alone.
        report: Of the same file.

    Returns:
        `(comparison, report)` of the best file.
    """
    names = [layer.name for layer in blocks(session.plan.model) if layer.count_params()]
    seconds = _seconds(facts, len(names))
    session.progress.extend(1 + _TRIALS, seconds)
    session.progress.step(report.path, "rank layers to leave in float32", _announcement(comparison, seconds))
    plain = str(part.with_name(f"float_{part.name}"))
    (ranking,) = session.run([session.plan.job(part, format, session.calibration, plain=plain, rank=tuple(names))])
    best, tried = (part, comparison, report), 0
    for counts in _COUNTS:
        choices = [ranking.ranked[:count] for count in counts if count <= len(names)]
        for trial in _trials(session, part, format, report, choices, plain) if choices else ():
            tried += 1
            if score(trial[1]) > score(best[1]):
                best = trial
            if not loses(best[1]):
                break
        if not loses(best[1]):
            break
    session.progress.drop(_TRIALS - tried)
    if best[0] != part:
        replace_all(format.files(best[0]), format.files(part))
    return best[1:]


def _trials(session, part, format, report, choices, plain):
    """Write a file for each choice of layers that stay in float32, and yield `(file, comparison, report)` of each."""
    paths = [part.with_name(f"trial_{len(names)}_{part.name}") for names in choices]
    jobs = [
        session.plan.job(path, format, session.calibration, float_blocks=names, plain=plain)
        for path, names in zip(paths, choices, strict=True)
    ]
    session.run(jobs)
    for path, names in zip(paths, choices, strict=True):
        session.progress.step(report.path, f"try {len(names)} of the layers in float32")
        changed = dataclasses.replace(report, float_blocks=names, bytes=size_on_disk(format.files(path)))
        yield (path, *session.compared(path, changed))


def _seconds(facts, layers):
    """Estimate what a search takes, from what the first file took."""
    ranking = layers * facts.improving_seconds / _PASSES
    return ranking + _TRIALS * facts.seconds + (1 + len(_COUNTS)) * _START


def _announcement(comparison, seconds):
    return (
        f"int8 alone {_loss(comparison)}: searching for layers to keep in float32. At most {_TRIALS} trials, about "
        f"{seconds:.0f} s; --no-search (float_blocks=()) skips this."
    )


def _loss(comparison):
    if comparison.agreement is None:
        return f"gives features with a cosine of {comparison.likeness:.3f} to the model's"
    if comparison.accuracy is not None and comparison.accuracy < comparison.expected_accuracy:
        return f"loses {100 * (comparison.expected_accuracy - comparison.accuracy):.1f} points of accuracy"
    return f"changes {1 - comparison.agreement:.1%} of the predictions"


def loses(comparison):
    """Return whether integers cost so much that layers should fall back to float32."""
    if comparison.agreement is None:
        return comparison.likeness < _LIKENESS
    one = 1.5 / comparison.images  # a single image proves nothing
    if comparison.accuracy is None:
        return comparison.agreement < 1 - max(_DISAGREEMENT, one)
    if comparison.accuracy < comparison.expected_accuracy - max(_POINT, one):
        return True
    return comparison.agreement < 1 - max(_LABELED_DISAGREEMENT, one)


def score(comparison):
    """Return what the search makes as large as it can."""
    return (comparison.accuracy or 0.0, comparison.agreement or 0.0, comparison.likeness)
