"""The matrix products of a training step: how many operations they are, and their time alone."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from nmt_ls.bench.machine import timed
from nmt_ls.bench.training.task import Task
from nmt_ls.data.batches import Batch
from nmt_ls.model import DropoutRates, initial_params
from nmt_ls.parallel import DataParallel
from nmt_ls.training.objective import LossData
from nmt_ls.training.step import make_local_loss


class Product(NamedTuple):
    """B products of `[M, K]` and `[K, N]`."""

    batch: int
    rows: int
    inner: int
    columns: int
    dtype: str
    summed: str
    """Type of the result."""

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.batch * self.rows * self.inner * self.columns


def products_of(task: Task, batch: Batch, *, xla_attention: bool = False) -> Counter[Product]:
    """The products of one step's forward and backward pass on one device, and how often each.

    Args:
      task: model, loss and devices.
      batch: of the shapes.
      xla_attention: with attention's as XLA's kernel has them; cuDNN's shows none.
    """
    model = task.config.model
    if xla_attention:
        model = dataclasses.replace(model, attention="xla")
    sizes = (task.vocab_size, task.vocab_size)
    local_loss = make_local_loss(
        model, task.config.loss, sizes, task.special["bos"], task.special["pad"]
    )
    devices = DataParallel(task.config.training.devices).count * task.config.training.accumulation
    part = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((len(x) // devices, *x.shape[1:]), x.dtype), batch
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(lambda key: initial_params(model, *sizes, key), key)
    rates = DropoutRates(*(np.float32(0.1) for _ in range(3)))

    def gradient(params, part, key):
        differentiate = jax.value_and_grad(local_loss, has_aux=True)
        return differentiate(params, part, key, np.float32(0.1), rates, LossData())

    found = Counter(dict(_products(jax.make_jaxpr(gradient)(params, part, key).jaxpr, 1)))
    for product in found:
        found[product] *= task.config.training.accumulation
    return found


def _products(jaxpr: Jaxpr, times: int) -> Counter[Product]:
    found: Counter[Product] = Counter()
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found[_canonical(equation)] += times
            continue
        repeated = times * equation.params.get("length", 1)  # a scan's
        for inner in _inner(equation.params):
            found += _products(inner, repeated)
    return found


def _inner(params: dict[str, Any]) -> Iterator[Jaxpr]:
    for value in jax.tree.leaves(
        list(params.values()), is_leaf=lambda x: isinstance(x, Jaxpr | ClosedJaxpr)
    ):
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value


def _canonical(equation: Any) -> Product:
    (left_over, right_over), (left_batch, right_batch) = equation.params["dimension_numbers"]
    left, right = (x.aval for x in equation.invars)

    def free(shape, *taken) -> int:
        used = {axis for axes in taken for axis in axes}
        return math.prod(n for axis, n in enumerate(shape) if axis not in used)

    return Product(
        math.prod(left.shape[axis] for axis in left_batch),
        free(left.shape, left_over, left_batch),
        math.prod(left.shape[axis] for axis in left_over),
        free(right.shape, right_over, right_batch),
        str(left.dtype),
        str(equation.outvars[0].aval.dtype),
    )


class Products:
    """Runs the products of steps back to back, on each device its share.

    All repetitions of a product are one program, a loop: a call for each would add more than small
    products take on a GPU. So that the compiler leaves none out, a number of the left operand is
    that of before unless one of the last result is beyond 1e30, which it never is, as only we know;
    and the result is the loop's, whole, behind a barrier, so that no part is computed alone.
    """

    def __init__(self, parallel: DataParallel):
        self.parallel = parallel
        self._compiled: dict[tuple[Product, int], Callable[[], jax.Array]] = {}

    def run(self, products: Counter[Product]) -> float:
        """Seconds of all of them, one after the other."""
        programs = [self._program(product, times) for product, times in products.items()]
        # An accelerator works through what is queued; a CPU would begin several at once.
        wait = jax.block_until_ready if jax.default_backend() == "cpu" else lambda x: x

        def go() -> None:
            result = None
            for program in programs:
                result = wait(program())
            jax.block_until_ready(result)

        return timed(go)

    def _program(self, product: Product, times: int) -> Callable[[], jax.Array]:
        if (product, times) not in self._compiled:
            dtype, summed = jnp.dtype(product.dtype), jnp.dtype(product.summed)
            random = np.random.default_rng(0)
            lead = (product.batch,) if product.batch > 1 else ()

            def operand(*shape: int) -> jax.Array:
                values = random.standard_normal((*lead, *shape), np.float32)
                return self.parallel.on_local_devices(values.astype(dtype))

            def multiply(state, _, left, right):
                first = (0,) * left.ndim

                def one(_, carried):
                    left, _ = carried
                    result = jnp.matmul(left, right, preferred_element_type=summed)
                    result = jax.lax.optimization_barrier(result)
                    number = result[first].astype(dtype)
                    left = left.at[first].set(jnp.where(number > 1e30, number, left[first]))
                    return left, result

                shape = (*left.shape[:-1], right.shape[-1])
                return state, jax.lax.fori_loop(0, times, one, (left, jnp.zeros(shape, summed)))[1]

            left = operand(product.rows, product.inner)
            right = operand(product.inner, product.columns)
            nothing = np.zeros((len(self.parallel.local), 1))
            program = partial(self.parallel.step(multiply), (), nothing, left, right)
            self._compiled[product, times] = lambda: program()[1]
            jax.block_until_ready(self._compiled[product, times]())
        return self._compiled[product, times]


def fastest_rate(compute: str, parallel: DataParallel, repeats: int = 5) -> float:
    """Operations a second of one large product on all devices: what this machine can do at all."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    product = Product(1, size, size, size, compute, compute)
    products = Products(parallel)
    one = Counter({product: 1})
    seconds = min(products.run(one) for _ in range(repeats))
    return product.operations * len(parallel.local) / seconds
