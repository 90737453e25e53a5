"""Search for layers to leave in float32, for models that lose too much accuracy in 8-bit integers."""

import dataclasses

from mobilenet_common.writing import replace_all
from mobilenet_zoo.exporting.destination import size_on_disk
from mobilenet_zoo.exporting.prepared import blocks

# Numbers of float32 layers to try, in two rounds. One process writes all files of a round.
_COUNTS = ((1, 2, 3), (4, 5, 6))
_TRIALS = sum(map(len, _COUNTS))
# If a file violates one of these limits, layers fall back to float32.
_MAX_ACCURACY_LOSS = 0.01
_MAX_DISAGREEMENT = 0.03  # fraction of changed predictions, without labels
_MAX_LABELED_DISAGREEMENT = 0.1  # fraction of changed predictions, with labels, even if accuracy is kept
_MIN_COSINE_SIMILARITY = 0.98  # for features
_START_SECONDS = 15  # time that a process takes to load its framework
_IMPROVEMENT_PASSES = 6  # `improve` takes as long as this many passes over the ranking images


def search(session, part, format, result, comparison, report):
    """Find the layers that lose the most accuracy in int8, and leave as few of them as possible in float32.

    First, a simulation ranks all layers without writing a file. Then files are written with the highest-ranked layer in
    float32, the two highest-ranked layers, and so on, until the loss is small enough. All files share the activation
    ranges of one calibration if the format's quantizer supports this.

    Args:
        session: `Session` that wrote the int8 file.
        part: Temporary path of this file. The best file of the search replaces it.
        format: `Format` of the file.
        result: `Result` of the job that wrote the file.
        comparison: `Comparison` of this file, which has no layer in float32, with the model.
        report: `ExportReport` of the same file.

    Returns:
        `(comparison, report)` of the best file.
    """
    names = [layer.name for layer in blocks(session.plan.model) if layer.count_params()]
    seconds = _estimated_seconds(result, len(names))
    session.progress.extend(1 + _TRIALS, seconds)
    session.progress.step(report.path, "rank layers to leave in float32", _announcement(comparison, seconds))
    float_file = str(part.with_name(f"float_{part.name}"))
    (ranking,) = session.run([session.plan.job(part, format, session.calibration, plain=float_file, rank=tuple(names))])
    best, tried = (part, comparison, report), 0
    for counts in _COUNTS:
        choices = [ranking.ranked[:count] for count in counts if count <= len(names)]
        for trial in _trials(session, part, format, report, choices, float_file) if choices else ():
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


def _trials(session, part, format, report, choices, float_file):
    """Write a file for each choice of float32 layers, and yield `(path, comparison, report)` for each file."""
    paths = [part.with_name(f"trial_{len(names)}_{part.name}") for names in choices]
    jobs = [
        session.plan.job(path, format, session.calibration, float_blocks=names, plain=float_file)
        for path, names in zip(paths, choices, strict=True)
    ]
    session.run(jobs)
    for path, names in zip(paths, choices, strict=True):
        session.progress.step(report.path, f"try {len(names)} of the layers in float32")
        changed = dataclasses.replace(report, float_blocks=names, bytes=size_on_disk(format.files(path)))
        yield (path, *session.compare_file(path, changed))


def _estimated_seconds(result, layers):
    """Estimate the duration of a search over `layers` layers from the `Result` of the first file."""
    ranking = layers * result.improving_seconds / _IMPROVEMENT_PASSES
    return ranking + _TRIALS * result.seconds + (1 + len(_COUNTS)) * _START_SECONDS


def _announcement(comparison, seconds):
    return (
        f"int8 {_loss(comparison)}: searching for layers to leave in float32. At most {_TRIALS} trials, about "
        f"{seconds:.0f} s; to skip the search, pass float_blocks=() (--no-search)."
    )


def _loss(comparison):
    if comparison.agreement is None:
        return f"lowers the cosine similarity with the model's features to {comparison.cosine_similarity:.3f}"
    if comparison.accuracy is not None and comparison.accuracy < comparison.expected_accuracy:
        return f"loses {100 * (comparison.expected_accuracy - comparison.accuracy):.1f} points of accuracy"
    return f"changes {1 - comparison.agreement:.1%} of the predictions"


def loses(comparison):
    """Return whether the loss is so large that layers should fall back to float32."""
    if comparison.agreement is None:
        return comparison.cosine_similarity < _MIN_COSINE_SIMILARITY
    tolerance = 1.5 / comparison.images  # A difference in a single image is not significant.
    if comparison.accuracy is None:
        return comparison.agreement < 1 - max(_MAX_DISAGREEMENT, tolerance)
    if comparison.accuracy < comparison.expected_accuracy - max(_MAX_ACCURACY_LOSS, tolerance):
        return True
    return comparison.agreement < 1 - max(_MAX_LABELED_DISAGREEMENT, tolerance)


def score(comparison):
    """Return the key by which the search ranks files; larger is better."""
    return (comparison.accuracy or 0.0, comparison.agreement or 0.0, comparison.cosine_similarity)
