"""What a network predicts, and how each prediction follows from the others: all are linear in each other, given x_t.

With x_t = a x0 + b noise, a network predicts the noise (`epsilon`), x0 (`sample`), a noise - b x0 (`v_prediction`) or
noise - x0 (`flow`). Nothing here assumes a^2 + b^2 = 1 or a + b = 1, so that all of them work on every schedule.
a and b are numbers per row [B], from `Schedule.coefficients`; latents are [B, ...].
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from mmalign import suggest

Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]


def to_epsilon(output: Tensor, x_t: Tensor, a: Tensor, b: Tensor, prediction: Prediction) -> Tensor:
    """Computes the noise that a network's output implies.

    Args:
        output: [B, ...], what the network predicts.
        x_t: [B, ...], the noisy latents it has seen.
        a: [B], coefficient of the clean latents.
        b: [B], coefficient of the noise.
        prediction: what `output` is.

    Returns:
        [B, ...], float64 where the latents are, else float32.

    Raises:
        ValueError: shapes that do not fit, an unknown prediction, or one from which the noise does not follow.
    """
    output, x_t, a, b = _prepare(output, x_t, a, b, prediction)
    if prediction == "epsilon":
        return output
    if prediction == "sample":
        return (x_t - a * output) / _check_positive(b, "the noise does not follow from x0 where there is none (b = 0)")
    return (b * x_t + a * output) / (a**2 + b**2) if prediction == "v_prediction" else (x_t + a * output) / (a + b)


def to_sample(output: Tensor, x_t: Tensor, a: Tensor, b: Tensor, prediction: Prediction) -> Tensor:
    """Computes the clean latents that a network's output implies; arguments, result and errors as `to_epsilon`."""
    output, x_t, a, b = _prepare(output, x_t, a, b, prediction)
    if prediction == "sample":
        return output
    if prediction == "epsilon":
        return (x_t - b * output) / _check_positive(a, "x0 does not follow from the noise where all is noise (a = 0)")
    return (a * x_t - b * output) / (a**2 + b**2) if prediction == "v_prediction" else (x_t - b * output) / (a + b)


def to_velocity(output: Tensor, x_t: Tensor, a: Tensor, b: Tensor, prediction: Prediction) -> Tensor:
    """Computes a noise - b x0 from a network's output; arguments, result and errors as `to_epsilon`."""
    return _convert(output, x_t, a, b, prediction, "v_prediction")


def to_flow(output: Tensor, x_t: Tensor, a: Tensor, b: Tensor, prediction: Prediction) -> Tensor:
    """Computes noise - x0 from a network's output; arguments, result and errors as `to_epsilon`."""
    return _convert(output, x_t, a, b, prediction, "flow")


def target(prediction: Prediction, x0: Tensor, noise: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Computes what a network should predict for x_t = a x0 + b noise.

    Args:
        prediction: what the network predicts.
        x0: [B, ...], clean latents.
        noise: [B, ...].
        a: [B].
        b: [B].

    Returns:
        [B, ...], float64 where the latents are, else float32.
    """
    x0, noise, a, b = _prepare(x0, noise, a, b, prediction)
    if prediction == "v_prediction":
        return a * noise - b * x0
    return {"epsilon": noise, "sample": x0, "flow": noise - x0}[prediction]


def squared_error_factor(prediction: Prediction, a: Tensor, b: Tensor) -> Tensor:
    """How many times the squared error of x0 the squared error of a prediction is, at the same x_t.

    Args:
        prediction: what the network predicts.
        a: [B].
        b: [B], above 0.

    Returns:
        [B]: 1 for `sample`, SNR for `epsilon`; that of one prediction in terms of another is the quotient of two.
    """
    _check_prediction(prediction)
    if prediction == "sample":
        return torch.ones_like(a)
    length = {"epsilon": a, "v_prediction": a**2 + b**2, "flow": a + b}[prediction]
    return (length / b) ** 2


def align(values: Tensor, x: Tensor) -> Tensor:
    """Gives numbers per row, [B] or one [], the rank, device and dtype of latents [B, ...], to broadcast over them.

    Raises:
        ValueError: the rows are not those of `x`.
    """
    if values.shape != x.shape[: values.dim()]:
        raise ValueError(f"expected one number for each of the {x.shape[0]} rows, got shape {tuple(values.shape)}")
    return values.to(x.device, x.dtype).reshape(values.shape + (1,) * (x.dim() - values.dim()))


def widen(x: Tensor) -> Tensor:
    """Gives latents in float32, or float64 if they are, whatever the dtype of the network."""
    return x if x.dtype == torch.float64 else x.float()


def _prepare(
    first: Tensor, second: Tensor, a: Tensor, b: Tensor, prediction: Prediction
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _check_prediction(prediction)
    if first.shape != second.shape:
        raise ValueError(f"expected two tensors of one shape, got {tuple(first.shape)} and {tuple(second.shape)}")
    second = widen(second)
    first = first.to(second.dtype)
    return first, second, align(a, second), align(b, second)


def _convert(output: Tensor, x_t: Tensor, a: Tensor, b: Tensor, prediction: Prediction, wanted: Prediction) -> Tensor:
    if prediction == wanted:
        return _prepare(output, x_t, a, b, prediction)[0]
    x0, noise = to_sample(output, x_t, a, b, prediction), to_epsilon(output, x_t, a, b, prediction)
    return target(wanted, x0, noise, a, b)


def _check_prediction(prediction: str) -> None:
    if prediction not in get_args(Prediction):
        raise ValueError(f"prediction: unknown {prediction!r}{suggest(prediction, get_args(Prediction))}")


def _check_positive(values: Tensor, problem: str) -> Tensor:
    if not bool((values > 0).all()):
        raise ValueError(problem)
    return values
