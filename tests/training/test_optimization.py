"""Optimizers, schedules and weight averages of recipes compared with optax, torch.optim and NumPy."""

import itertools

import keras
import numpy as np
import pytest

from mobilenet_v3 import create_mobilenetv3
from mobilenet_v4 import create_mobilenetv4
from mobilenet_zoo.training.averaging import EvaluateAverages, averaged_weights
from mobilenet_zoo.training.compiling import compile_model, rematerialize
from mobilenet_zoo.training.optimization import decays, make_optimizer
from mobilenet_zoo.training.recipes import load_recipe
from mobilenet_zoo.training.schedules import Schedule, make_schedule
from tests.training.small import images, tiny, values

STEPS = 5


def gradients(variables, steps, seed=1):
    random = np.random.default_rng(seed)
    return [[random.normal(size=tuple(v.shape)).astype("float32") for v in variables] for _ in range(steps)]


def apply_all(recipe, all_gradients, steps_per_epoch=3, model=None):
    """Apply gradients with a recipe's optimizer; return `(weights after each step, averages)`."""
    model = model or tiny()
    optimizer = make_optimizer(recipe, model, steps_per_epoch)
    variables = model.trainable_variables
    optimizer.build(variables)
    history = []
    for step_gradients in all_gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in step_gradients])
        history.append(values(variables))
    averages = values(optimizer._model_variables_moving_average) if recipe.ema else None
    return history, averages


def assert_close(actual, expected, tolerance=1e-6):
    for actual_value, expected_value in zip(actual, expected, strict=True):
        np.testing.assert_allclose(actual_value, expected_value, rtol=0, atol=tolerance)


def optax_adamw(weights, masks, all_gradients, rate, settings):
    import jax
    import optax

    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, 3, 12)
    rule = optax.chain(
        optax.clip_by_global_norm(settings.clip_norm),
        optax.adamw(schedule, 0.9, 0.999, settings.epsilon, weight_decay=settings.weight_decay, mask=masks),
    )
    state, history = rule.init(weights), []
    for gradient in all_gradients:
        updates, state = rule.update(gradient, state, weights)
        weights = optax.apply_updates(weights, updates)
        history.append([np.asarray(weight) for weight in jax.device_get(weights)])
    return history


def torch_adamw(weights, masks, all_gradients, rate, settings):
    import torch

    parameters = [torch.nn.Parameter(torch.tensor(weight)) for weight in weights]
    groups = [
        {"params": [p for p, mask in zip(parameters, masks, strict=True) if mask == has_decay], "weight_decay": decay}
        for has_decay, decay in ((True, settings.weight_decay), (False, 0.0))
    ]
    rule, history = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.999), eps=settings.epsilon), []
    schedule = torch.optim.lr_scheduler.SequentialLR(
        rule,
        [
            torch.optim.lr_scheduler.LambdaLR(rule, lambda step: step / 3),
            torch.optim.lr_scheduler.CosineAnnealingLR(rule, 9),
        ],
        [3],
    )
    for step_gradients in all_gradients:
        for parameter, gradient in zip(parameters, step_gradients, strict=True):
            parameter.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        rule.step()
        schedule.step()
        history.append([parameter.detach().numpy().copy() for parameter in parameters])
    return history


def numpy_adamw(weights, masks, all_gradients, rate, settings):
    """AdamW in float64 (Loshchilov and Hutter, 2019, algorithm 2)."""
    weights = [weight.astype("float64") for weight in weights]
    means = [0.0] * len(weights)
    squares, history = [0.0] * len(weights), []
    rates = [0.0, rate / 3, rate * 2 / 3] + [rate * (1 + np.cos(np.pi * k / 9)) / 2 for k in range(9)]
    for step, step_gradients in enumerate(all_gradients):
        norm = np.sqrt(sum((gradient.astype("float64") ** 2).sum() for gradient in step_gradients))
        for i, gradient in enumerate(step_gradients):
            gradient = gradient * min(1, settings.clip_norm / norm)
            means[i] = 0.9 * means[i] + 0.1 * gradient
            squares[i] = 0.999 * squares[i] + 0.001 * gradient**2
            mean, square = means[i] / (1 - 0.9 ** (step + 1)), squares[i] / (1 - 0.999 ** (step + 1))
            decay = settings.weight_decay * weights[i] * masks[i]
            weights[i] = weights[i] - rates[step] * (mean / (np.sqrt(square) + settings.epsilon) + decay)
        history.append([weight.copy() for weight in weights])
    return history


@pytest.mark.neutral
def test_v4_recipe_matches_optax_and_torch(backend):
    """Five steps cover warm-up, the start of the cosine, clipping, masked weight decay and weight averaging."""
    overrides = {"optimizer.clip_norm": 0.5, "epochs": 4, "schedule.warmup_epochs": 1, "ema.momentum": 0.9}
    # Keras adds epsilon before the bias correction, optax and PyTorch after it: a tiny epsilon hides the difference.
    recipe = load_recipe("mobilenetv4", overrides | {"ema.warmup": False, "optimizer.epsilon": 1e-16})
    model = tiny()
    weights = values(model.trainable_variables)
    masks = [not v.path.endswith(("gamma", "beta", "bias")) for v in model.trainable_variables]
    all_gradients = gradients(model.trainable_variables, STEPS)
    actual, averages = apply_all(recipe, all_gradients, model=model)
    reference = {"jax": optax_adamw, "torch": torch_adamw, "tensorflow": numpy_adamw}[backend]
    expected = reference(weights, masks, all_gradients, recipe.optimizer.learning_rate, recipe.optimizer)
    for step in range(STEPS):
        assert_close(actual[step], expected[step])
    change = max(np.abs(a - b).max() for a, b in zip(actual[-1], weights, strict=True))
    assert change > 5e-3
    average = expected[0]
    for step in range(1, STEPS):
        average = [0.9 * a + 0.1 * w for a, w in zip(average, expected[step], strict=True)]
    assert_close(averages, average)


@pytest.mark.parametrize("epsilon", [1.0, 0.002, 1e-20])
def test_rmsprop_matches_tensorflow(epsilon, backend):
    """TensorFlow adds epsilon within the square root and applies the rate within the momentum, unlike torch.optim.

    With a tiny epsilon and a constant rate, all implementations agree. The L2 penalty is a term of the loss.
    """
    overrides = {"optimizer.epsilon": epsilon, "optimizer.l2": 0.01, "schedule.name": "constant"}
    recipe = load_recipe("mobilenetv2", overrides | {"optimizer.learning_rate": 0.01})
    model = tiny()
    weights = values(model.trainable_variables)
    all_gradients = gradients(model.trainable_variables, STEPS)
    masks = [0.01 * (not v.path.endswith(("gamma", "beta", "bias"))) for v in model.trainable_variables]
    actual, _ = apply_all(recipe, all_gradients, model=model)
    expected = [weight.astype("float64") for weight in weights]
    squares, momenta = [0.0] * len(weights), [0.0] * len(weights)
    for step_gradients, i in itertools.product(all_gradients, range(len(weights))):
        gradient = step_gradients[i] + masks[i] * expected[i]
        squares[i] = 0.9 * squares[i] + 0.1 * gradient**2
        momenta[i] = 0.9 * momenta[i] + 0.01 * gradient / np.sqrt(squares[i] + epsilon)
        expected[i] = expected[i] - momenta[i]
    assert_close(actual[-1], expected, 2e-6)
    if epsilon < 1e-6 and backend == "torch":
        import torch

        parameters = [torch.nn.Parameter(torch.tensor(weight)) for weight in weights]
        groups = [{"params": [p], "weight_decay": l2} for p, l2 in zip(parameters, masks, strict=True)]
        rule = torch.optim.RMSprop(groups, lr=0.01, alpha=0.9, eps=epsilon, momentum=0.9)
        for step_gradients in all_gradients:
            for parameter, gradient in zip(parameters, step_gradients, strict=True):
                parameter.grad = torch.tensor(gradient)
            rule.step()
        assert_close(actual[-1], [parameter.detach().numpy() for parameter in parameters], 2e-6)


@pytest.mark.parametrize(
    "name", ["adamw", *(pytest.param(optimizer, marks=pytest.mark.slow) for optimizer in ("sgd", "lion"))]
)
def test_accumulated_gradients_match_one_large_batch(name):
    """Weights, averages, decay, L2, clipping and the schedule depend on optimizer steps, not on batches."""
    settings = {"optimizer.name": name, "optimizer.weight_decay": 0.1, "optimizer.l2": 0.01, "optimizer.clip_norm": 0.5}
    settings |= {"optimizer.learning_rate": 0.1, "schedule.warmup_epochs": 1, "epochs": 4, "ema.momentum": 0.9}
    parts = gradients(tiny().trainable_variables, 8)
    averaged = [[(a + b) / 2 for a, b in zip(*pair, strict=True)] for pair in zip(parts[::2], parts[1::2], strict=True)]
    expected, expected_average = apply_all(load_recipe({}, settings), averaged, 2)
    actual, average = apply_all(load_recipe({}, settings | {"optimizer.accumulation_steps": 2}), parts, 4)
    assert_close(actual[-1], expected[-1], 2e-6)
    assert_close(average, expected_average, 2e-6)
    assert_close(actual[4], actual[3], 0)  # weights change only at optimizer steps


def test_average_warms_up():
    recipe = load_recipe({}, {"ema.momentum": 0.3, "optimizer.learning_rate": 0.1})
    weights, average = apply_all(recipe, gradients(tiny().trainable_variables, 6))
    expected = weights[0]
    for step in range(2, 7):
        momentum = min(0.3, (1 + step) / (10 + step))
        assert (momentum < 0.3) == (step < 3)  # both cases of the minimum occur
        expected = [momentum * a + (1 - momentum) * w for a, w in zip(expected, weights[step - 1], strict=True)]
    assert_close(average, expected)


def test_layer_rates_scale_the_step_but_not_the_decay():
    overrides = {"optimizer.name": "sgd", "optimizer.layer_decay": 0.5, "optimizer.learning_rate": 0.1}
    model = tiny()
    before = values(model.trainable_variables)
    all_gradients = gradients(model.trainable_variables, 1)
    recipe = load_recipe({}, overrides | {"schedule.name": "constant", "optimizer.weight_decay": 0.1})
    (after,), _ = apply_all(recipe, all_gradients, model=model)
    scales = {"stem": 0.5**3, "stage1_block1": 0.25, "stage1_block2": 0.25, "stage2_block1": 0.5}
    for variable, old, new, gradient in zip(model.trainable_variables, before, after, all_gradients[0], strict=True):
        scale = scales.get(variable.path.partition("/")[0], 1.0)
        decay = 0.0 if variable.path.endswith(("gamma", "beta", "bias")) else 0.01
        np.testing.assert_allclose(new, old * (1 - decay) - 0.1 * scale * gradient, atol=1e-6, err_msg=variable.path)


@pytest.mark.across
def test_only_kernels_decay():
    hybrid = create_mobilenetv4("hybrid_medium", 5, (32, 32, 3), width_multiplier=0.1)
    squeezing = create_mobilenetv3("small", 5, (32, 32, 3), width_multiplier=0.1)
    for variable in [*hybrid.trainable_variables, *squeezing.trainable_variables]:
        assert decays(variable) == variable.path.endswith("kernel"), variable.path
    depthwise = [v.path for v in tiny().trainable_variables if decays(v) and not decays(v, depthwise=False)]
    blocks = ("stage1_block1", "stage1_block2", "stage2_block1")
    assert depthwise == [f"{block}/depthwise/kernel" for block in blocks]


@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize("name", ["constant", "cosine", "exponential", "step"])
def test_schedule_matches_optax(name, warmup):
    import optax

    schedule = Schedule(name, 0.4, 40, warmup, 0.01 if warmup else 0.0, 0.02, 0.8, 4)
    if name == "constant":
        reference = optax.constant_schedule(0.4)
    elif name == "cosine":
        reference = optax.cosine_decay_schedule(0.4, 40 - warmup, 0.05)
    else:
        reference = optax.exponential_decay(0.4, 4, 0.8, staircase=name == "step", end_value=0.02)
    if warmup:
        reference = optax.join_schedules([optax.linear_schedule(0.01, 0.4, warmup), reference], [warmup])
    expected = [float(reference(step)) for step in range(50)]
    assert [float(schedule(step)) for step in range(50)] == pytest.approx(expected, rel=1e-5)
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert restored.get_config() == schedule.get_config()


@pytest.mark.across
def test_learning_rate_scales_with_the_images_per_step():
    overrides = {"batch_size": 64, "optimizer.accumulation_steps": 4, "optimizer.learning_rate_per": 128}
    recipe = load_recipe("scratch_small", overrides | {"optimizer.learning_rate": 0.01, "schedule.warmup_epochs": 0})
    schedule = make_schedule(recipe, 10, epochs=2)
    assert (schedule.learning_rate, schedule.total_steps, schedule.accumulation_steps) == (pytest.approx(0.02), 5, 4)
    assert make_schedule(recipe, 10, learning_rate=0.1).learning_rate == pytest.approx(0.2)


@pytest.mark.across
def test_optimizer_is_restored_from_its_config():
    overrides = {"optimizer.layer_decay": 0.5, "ema.warmup": False, "optimizer.l2": 0.1}
    optimizer = make_optimizer(load_recipe("finetune", overrides), tiny(), 3)
    restored = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(restored) is type(optimizer) and restored.get_config() == optimizer.get_config()
    assert restored.rates["stem"] == 0.125 and restored.l2 == 0.1 and restored.ema_warmup is False


class WeightRecorder(keras.callbacks.Callback):
    def __init__(self, weights_by_epoch):
        super().__init__()
        self.weights_by_epoch = weights_by_epoch

    def on_epoch_end(self, epoch, logs=None):
        self.weights_by_epoch.append(values(self.model.trainable_variables))  # under JAX, `self.model` syncs them


@pytest.mark.neutral
def test_evaluation_uses_averages_and_restores_the_weights():
    x, y = images()
    recipe = load_recipe({}, {"ema.momentum": 0.5, "optimizer.learning_rate": 0.05, "epochs": 4})
    model = compile_model(tiny(), recipe, 2)
    weights_by_epoch = []
    recorder = WeightRecorder(weights_by_epoch)
    history = model.fit(
        x, y, batch_size=4, epochs=2, verbose=0, validation_data=(x, y), callbacks=[EvaluateAverages(), recorder]
    ).history
    assert_close(values(model.trainable_variables), weights_by_epoch[-1], 0)  # another `fit` would start from them
    with averaged_weights(model):
        assert history["val_loss"][-1] == pytest.approx(model.evaluate(x, y, verbose=0)[0], rel=1e-5)
    assert history["val_loss"][-1] != pytest.approx(model.evaluate(x, y, verbose=0)[0], rel=1e-3)
    model.train_on_batch(x, y)
    current = values(model.trainable_variables)
    with averaged_weights(model):
        averaged = values(model.trainable_variables)
        assert_close(averaged, values(model.optimizer._model_variables_moving_average), 0)
    assert_close(values(model.trainable_variables), current, 0)
    assert max(np.abs(a - b).max() for a, b in zip(averaged, current, strict=True)) > 1e-3


def fit_tiny(overrides, model_options=None, **options):
    """Return the variables of a tiny model after two epochs of training, and its history."""
    x, y = images(16)
    recipe = load_recipe({}, {"optimizer.name": "sgd", "optimizer.learning_rate": 0.05, "epochs": 2} | overrides)
    model = tiny(dtype=recipe.precision, **(model_options or {}))
    compile_model(model, recipe, 4)
    history = model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0, **options)
    return list(zip([v.path for v in model.variables], values(model.variables), strict=True)), history.history


def test_rematerialization_gives_the_same_result():
    """This includes batch norm statistics and drop path, which Keras's own `RematScope` updates and draws twice."""
    expected, expected_history = fit_tiny({}, {"drop_path_rate": 0.5})
    actual, history = fit_tiny({"rematerialization": True}, {"drop_path_rate": 0.5})
    for (path, expected_value), (_, value) in zip(expected, actual, strict=True):
        np.testing.assert_allclose(value, expected_value, rtol=1e-4, atol=1e-5, err_msg=path)
    assert history["loss"] == pytest.approx(expected_history["loss"], rel=1e-4)
    model = tiny()
    assert (rematerialize(model), rematerialize(model)) == (3, 0)


def test_steps_per_execution_give_the_same_result(backend):
    if backend == "torch":  # Keras doesn't support it there
        with pytest.raises(ValueError, match="steps_per_execution=4"):
            compile_model(tiny(), load_recipe({}, {"steps_per_execution": 4}), 4)
        return
    expected, expected_history = fit_tiny({})
    actual, history = fit_tiny({"steps_per_execution": 4})
    for (path, expected_value), (_, value) in zip(expected, actual, strict=True):
        np.testing.assert_allclose(value, expected_value, rtol=1e-4, atol=1e-5, err_msg=path)
    assert history["loss"] == pytest.approx(expected_history["loss"], rel=1e-4)


@pytest.mark.parametrize("precision", [pytest.param("mixed_bfloat16", marks=pytest.mark.slow), "mixed_float16"])
def test_mixed_precision_is_close_to_float32(precision):
    _, expected_history = fit_tiny({})
    variables, history = fit_tiny({"precision": precision})
    assert history["loss"] == pytest.approx(expected_history["loss"], rel=0.05)
    assert dict(variables)["classifier/kernel"].dtype == "float32"
    model = compile_model(tiny(dtype=precision), load_recipe({}, {"precision": precision}), 4)
    assert model.layers[2].compute_dtype == precision.removeprefix("mixed_")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (precision == "mixed_float16")
