"""The formulas of the papers in NumPy float64, and the grids on which they are compared."""

import numpy as np

RTOL, ATOL = 2e-5, 2e-6
LARGEST = float(np.finfo(np.float32).max)

# Zeros of both signs, the ends of every window and their neighbours, large and largest values.
EDGES = np.float32([0.0, -0.0, 1.0, -1.0, 1 + 2e-7, -1 - 2e-7, 0.5, -0.5, 2, -2, 1e-6, -1e-6, 1e-30, -1e-30, 100, -100])
HUGE = np.float32([1e10, -1e10, 1e30, -1e30, LARGEST, -LARGEST])
ZERO_OF_SIGN_SWISH = 2.399357280


def activations(beta: float = 5.0) -> np.ndarray:
    """The edge grid, the zero of SignSwish's derivative, a dense ramp and huge values."""
    swish = np.float32([ZERO_OF_SIGN_SWISH / beta, -ZERO_OF_SIGN_SWISH / beta])
    return np.concatenate([EDGES, swish, np.linspace(-3, 3, 301, dtype=np.float32), HUGE])


def kernels() -> dict[str, np.ndarray]:
    """Kernels (3, 3, 4, 5) of every kind: plain, one-signed, off-centre, with equal filters, dead, huge, tiny."""
    rng = np.random.default_rng(0)
    plain = rng.normal(0, 0.6, (3, 3, 4, 5)).astype(np.float32)
    equal = plain.copy()
    equal[..., 0], equal[..., 1], equal[..., 2] = 0.25, 0.0, -1.0
    edges = np.resize(EDGES, plain.shape)
    return {
        "plain": plain,
        "positive": np.abs(plain) + np.float32(0.1),
        "negative": -np.abs(plain) - np.float32(0.1),
        "off centre": plain + np.float32(3),
        "equal filters": equal,
        "edges": edges,
        "huge": plain * np.float32(1e30),
        "tiny": plain * np.float32(1e-20),
    }


def sign(x):
    return np.where(np.asarray(x) >= 0, 1.0, -1.0)


def sech_squared(x):
    return 1 / np.cosh(np.clip(x, -300, 300)) ** 2


def ste(x):
    return (np.abs(x) <= 1).astype(float)


def leaky_ste(x, slope=0.01):
    return np.where(np.abs(x) < 1, 1.0, slope)


def approx_sign(x):
    return np.where(np.abs(x) <= 1, 2 - 2 * np.abs(x), 0.0)


def tanh(x):
    return sech_squared(x)


def ede(x, t=1e-3, k=1e3):
    return k * t * sech_squared(t * x)


def sign_swish(x, beta=5.0):
    z = np.clip(beta * x, -300, 300)
    return beta * (2 - z * np.tanh(z / 2)) / (1 + np.cosh(z))


def sign_swish_beta(x, dy, beta):
    """Σ dy·dSS_β(x)/dβ, by the chain rule on SS_β(x) = f(βx)."""
    inside = np.abs(beta * x) < 300
    return np.sum(np.where(inside, dy * x * sign_swish(x, beta) / beta, 0.0))


def per_filter(w):
    return tuple(range(w.ndim - 1))


def size(w):
    return int(np.prod(w.shape[:-1]))


def mean_magnitude(w):
    return np.mean(np.abs(w), per_filter(w))


def standardized(w, lost_degrees=0, epsilon=0.0):
    """Ŵ and its deviation; without an epsilon, a filter of equal weights gives zeros and the deviation 1."""
    centred = w - np.mean(w, per_filter(w))
    variance = np.sum(centred**2, per_filter(w)) / (size(w) - lost_degrees) + epsilon
    equal = (np.ptp(w.reshape(-1, w.shape[-1]), axis=0) == 0) & (epsilon == 0)
    deviation = np.where(equal, 1.0, np.sqrt(variance))
    return np.where(equal, 0.0, centred / deviation), deviation, equal


def standardization_gradient(w, d_standardized, lost_degrees=0, epsilon=0.0):
    """dL/dW from dL/dŴ, through mean and deviation; the identity for a filter of equal weights."""
    y, deviation, equal = standardized(w, lost_degrees, epsilon)
    axes, n = per_filter(w), size(w)
    through = d_standardized - np.mean(d_standardized, axes) - y * np.sum(d_standardized * y, axes) / (n - lost_degrees)
    return np.where(equal, d_standardized, through / deviation)


def mark_largest(magnitude, count):
    """Marks the `count` largest of each filter (one count, or one per filter); of equal values, the first ones."""
    columns = magnitude.reshape(-1, magnitude.shape[-1])
    order = np.argsort(-columns, axis=0, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(len(order))[:, None], 0)
    return (ranks < count).reshape(magnitude.shape)


def best_count(magnitude):
    """k* = argmax_k Σ_{i<=k} of the sorted magnitudes / √k, per filter."""
    columns = -np.sort(-magnitude.reshape(-1, magnitude.shape[-1]), axis=0)
    k = np.arange(1, len(columns) + 1)[:, None]
    return np.argmax(np.cumsum(columns, 0) / np.sqrt(k), 0) + 1


def batch_median(a, gamma, beta, dy=None):
    """Output, ω, s₊, s₋ and, given dy, the gradients of A, γ and β (ω is a constant, s± are not)."""
    median = np.median(a)
    m = a - median + beta
    scales = {side: np.sqrt(np.mean(m[chosen] ** 2)) if (chosen := side * m > 0).any() else 1.0 for side in (1, -1)}
    s = np.where(m < 0, scales[-1], scales[1])
    normalized = m / s
    output = gamma * normalized
    if dy is None:
        return output, median, scales[1], scales[-1]
    channels = tuple(range(a.ndim - 1))
    through = np.zeros_like(m)
    for side in (1, -1):
        chosen = side * m > 0
        if chosen.any():
            share = np.sum((gamma * dy * normalized)[chosen]) / chosen.sum()
            through = np.where(chosen, normalized * share, through)
    dm = (gamma * dy - through) / s
    return output, dm, np.sum(dy * normalized, channels), np.sum(dm, channels)
