"""Real target tokens per second of training, beside others and beside its own matrix products."""

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np
from tabulate import tabulate

from nmt_ls.bench.machine import about, alternate, describe_machine, timed
from nmt_ls.bench.sides import asked_for, equal_precision
from nmt_ls.bench.training.peers import (
    EAGER,
    JOEYNMT,
    JOEYNMT_OWN,
    LABEL_SMOOTHING,
    PEERS,
    PeerWorker,
    Setting,
    installed,
    write_task,
)
from nmt_ls.bench.training.products import Products, fastest_rate, products_of
from nmt_ls.bench.training.task import SIZES, Task, make_task
from nmt_ls.parallel import to_host
from nmt_ls.training.objective import LossData
from nmt_ls.training.optimizer import Hyperparameters
from nmt_ls.training.programs import compiled_step, decisive
from nmt_ls.training.step import initial_state
from nmt_ls.training.trainer import rates_of

OURS = "nmt-ls"
PRODUCTS = "its matrix products alone"

WANTED = {EAGER: 1.8, JOEYNMT: 5.0, JOEYNMT_OWN: 5.0}
"""Our tokens per second over a peer's: at least so many."""

EFFICIENCY_WANTED = 0.6
"""Time of the step's matrix products over its own: at least."""


def bench_train(
    *,
    size: str = "cpu",
    steps: int = 4,
    batch_tokens: int = 0,
    compute: str = "float32",
    repeats: int = 5,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    peers: Sequence[str] | None = None,
    joeynmt: Path | None = None,
) -> dict[str, Any]:
    """Times updates on the same batches: label smoothing and dropout 0.1, clipping, AdamW.

    A round is one update on each batch. The sides take rounds in turn, each in a process of its
    own; torch's are on a GPU where torch has one.

    Args:
      size: of the model and its batches (`SIZES`).
      steps: batches of a round; their shapes stand for those of an epoch.
      batch_tokens: target positions of a batch; 0: the size's.
      compute: type of activations and products; the others' by autocast.
      repeats: rounds, after one that does not count.
      config: the text that is trained on; None: the built-in corpus.
      overrides: `KEY=VALUE`: see `make_task`.
      peers: names of `PEERS`; None: all that are installed.
      joeynmt: the interpreter of an environment that has JoeyNMT.

    Returns:
      machine, versions, settings; `corpus`; `tokens`: real target tokens of a round; `positions`:
      its target positions; `real_share`: of the whole corpus' source and target positions;
      `sides`: name, tokens_per_second (the median), repeats (seconds), and parameters, tokens,
      loss (of the first batch, nats a token) as each side counts them, and its device; `ratios`:
      beside, ratio, wanted (or None, as where devices differ); `products`: seconds (the median),
      repeats, operations (of a round), efficiency (their time over ours), utilisation (operations
      a second over the fastest rate), fastest_rate (operations a second of one large product,
      measured too).

    Raises:
      ValueError: numbers under 1; a peer that ended.
      UserError: the configuration or its text are at fault.
    """
    settings = {
        "size": size, "steps": steps, "batch_tokens": batch_tokens or SIZES[size].batch_tokens,
        "compute": compute, "repeats": repeats, "config": str(config or ""),
        "overrides": list(overrides),
    }  # fmt: skip
    for name in ("steps", "batch_tokens", "repeats"):
        if int(settings[name]) < 1:  # type: ignore[call-overload]
            raise ValueError(f"{name}={settings[name]}: at least 1")
    here = installed(joeynmt)
    for peer in peers or ():
        if peer not in here:
            raise ValueError(
                f"{peer} is not installed; here there are: {', '.join(here) or 'none'}"
            )
    names = [PEERS[peer] for peer in (here if peers is None else peers)]
    task = make_task(
        size, steps=steps, batch_tokens=batch_tokens, compute=compute, config=config,
        overrides=overrides,
    )  # fmt: skip
    setting = setting_of(task)
    # What overrides made of the size.
    settings |= {"batch_tokens": setting.batch_tokens, "compute": setting.compute}
    settings |= {"model": {n: getattr(setting, n) for n in ("layers", "width", "feed_forward")}}
    settings["vocab_size"] = setting.vocab_size
    result = about(settings, ("jax", "jaxlib", "flax", "optax"))
    ours = Ours(task)
    result["machine"]["device"] = jax.devices()[0].device_kind
    result["machine"]["devices"] = ours.parallel.count
    products = Products(ours.parallel)
    # What cuDNN's attention multiplies within its kernel XLA's would multiply in other types and
    # pass through memory: that is no part of a floor, but its operations are done.
    shown = [products_of(task, batch) for batch in task.batches]
    counted = [products_of(task, batch, xla_attention=True) for batch in task.batches]
    with contextlib.ExitStack() as stack:
        settings["precision"] = stack.enter_context(equal_precision(setting.compute))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nmt_ls_bench_")))
        write_task(folder, setting, task.batches)
        workers = {
            name: stack.enter_context(
                PeerWorker(name, folder, joeynmt if name in (JOEYNMT, JOEYNMT_OWN) else None)
            )
            for name in names
        }
        said = {OURS: ours.about()} | {name: worker.about() for name, worker in workers.items()}
        candidates: dict[str, Callable[[], float]] = {OURS: ours.run}
        candidates |= {name: worker.run for name, worker in workers.items()}
        candidates[PRODUCTS] = lambda: sum(map(products.run, shown))
        seconds = alternate(candidates, repeats)
        fastest = fastest_rate(setting.compute, ours.parallel)
    for name, worker in said.items():
        # JoeyNMT's environment has a torch of its own.
        of = " of JoeyNMT" if name in (JOEYNMT, JOEYNMT_OWN) else ""
        result["versions"] |= {k + of: number for k, number in worker.pop("versions").items()}
    alone = seconds.pop(PRODUCTS)
    middle = {name: median(times) for name, times in seconds.items()}
    operations = sum(p.operations * times for batch in counted for p, times in batch.items())
    operations *= len(ours.parallel.local)
    result |= {
        "corpus": task.corpus,
        "tokens": task.tokens,
        "positions": task.positions,
        "real_share": task.real_share,
        "sides": [
            {"name": name, "tokens_per_second": task.tokens / middle[name], "repeats": times}
            | said[name]
            for name, times in seconds.items()
        ],
        "ratios": [
            {
                "beside": name,
                "ratio": middle[name] / middle[OURS],
                "wanted": asked_for(WANTED.get(name), ours.parallel.count, said[name]["device"]),
            }
            for name in names
        ],
        "products": {
            "seconds": median(alone),
            "repeats": alone,
            "operations": operations,
            "efficiency": median(alone) / middle[OURS],
            "fastest_rate": fastest,
            "utilisation": operations / middle[OURS] / fastest,
        },
    }
    return result


def setting_of(task: Task) -> Setting:
    """The task as peers are told it."""
    m, t = task.config.model, task.config.training
    return Setting(
        **task.special, vocab_size=task.vocab_size, layers=m.encoder_layers, width=m.width,
        heads=m.heads, feed_forward=m.feed_forward, dropout=m.dropout,
        learning_rate=t.learning_rate, beta1=t.beta1, beta2=t.beta2, epsilon=t.epsilon,
        weight_decay=t.weight_decay, clip_norm=t.clip_norm, compute=m.compute,
        batch_tokens=t.batch_tokens,
    )  # fmt: skip


class Ours:
    """Updates as `fit` makes them, a batch after the other."""

    def __init__(self, task: Task):
        config = self.config = task.config
        sizes = (task.vocab_size, task.vocab_size)
        self.task = task
        self.parallel, step = compiled_step(
            *decisive(config), sizes, task.special["bos"], task.special["pad"]
        )
        # Its warm-up ends with this benchmark's; the rate itself costs nothing.
        state = initial_state(config.model, config.training, sizes, config.seed)
        self.parameters = sum(x.size for x in jax.tree.leaves(state.params))
        self.state = self.parallel.replicate(state)
        self.step = partial(self._step, step, rates_of(config), Hyperparameters.of(config.training))

    def _step(self, step, rates, numbers, batch):
        rows = self.parallel.split_rows(batch, self.config.training.accumulation)
        self.state, sums = step(
            self.state, rows, np.uint32(self.config.seed), np.float32(LABEL_SMOOTHING), rates,
            LossData(), numbers,
        )  # fmt: skip
        return sums

    def about(self) -> dict[str, Any]:
        """As `PeerWorker.about`."""
        sums = to_host(self.step(self.task.batches[0]))
        others = [to_host(self.step(batch)) for batch in self.task.batches[1:]]
        return {
            "tokens": int(sum(s.tokens for s in (sums, *others))),
            "parameters": self.parameters,
            "loss": float(sums.loss / sums.tokens),
            "device": jax.default_backend(),
            "versions": {},
        }

    def run(self) -> float:
        """Seconds of one update on each batch."""

        def updates() -> None:
            waiting = [self.step(batch) for batch in self.task.batches]
            to_host(waiting[-1])
            jax.block_until_ready(self.state)

        return timed(updates)


def describe(result: dict[str, Any]) -> str:
    """The result of `bench_train` as text."""
    s = result["settings"]
    ratios = {r["beside"]: r for r in result["ratios"]}
    rows = []
    for side in result["sides"]:
        ratio = ratios.get(side["name"], {})
        wanted = ratio.get("wanted")
        rows.append(
            [
                side["name"],
                side["device"],
                f"{side['tokens_per_second']:,.0f}",
                f"{median(side['repeats']) / s['steps']:.3f}",
                f"{ratio['ratio']:.2f}" if ratio else "",
                f"≥ {wanted:g}" if wanted else "",
                f"{side['parameters']:,}",
                f"{side['loss']:.3f}",
            ]
        )
    headers = [
        "", "on", "real target tokens/s", "s a step", "ours / theirs", "asked for", "parameters",
        "first loss",
    ]  # fmt: skip
    table = tabulate(
        rows, headers, disable_numparse=True, colalign=("left", "left", *["right"] * 6)
    )
    p, model = result["products"], s["model"]
    ours = result["sides"][0]
    rate = p["operations"] / median(ours["repeats"])
    overridden = f", {' '.join(s['overrides'])}" if s["overrides"] else ""
    return (
        f"Training, size {s['size']}: {model['layers']} + {model['layers']} "
        f"layers, width {model['width']}, feed-forward {model['feed_forward']:,}, "
        f"V = {s['vocab_size']:,}, {s['compute']}{overridden};\nbatches of "
        f"{s['batch_tokens']:,} target positions of {result['corpus']}, {s['steps']} a round, "
        f"median of {s['repeats']} rounds in turn,\non {result['machine']['device']}, ours as "
        f"{result['machine']['devices']} device(s)\n\n{table}\n\n"
        f"The step's matrix products alone, back to back: {p['seconds'] / s['steps']:.3f} s a step,"
        f" {p['efficiency']:.0%} of our time (asked for: ≥ {EFFICIENCY_WANTED:.0%})\n"
        f"Model FLOPs utilisation: {rate / 1e9:,.0f} of {p['fastest_rate'] / 1e9:,.0f} GFLOP/s "
        f"(one large product here), {p['utilisation']:.0%}\n"
        f"Real target tokens over positions: {result['tokens'] / result['positions']:.1%} of these "
        f"batches; source and target of the whole corpus: {result['real_share']:.1%}\n\n"
        f"{describe_machine(result)}"
    )
