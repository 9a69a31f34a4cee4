"""Were runs that are to be compared treated alike? What they differ in must be ε and the seed."""

from collections.abc import Sequence
from typing import Any

from nmt_ls.config import Config
from nmt_ls.data.subwords import Subwords
from nmt_ls.errors import UserError
from nmt_ls.evaluation.completeness import decisive_decoding
from nmt_ls.study.comparison import Run, settings_text


def refuse_unlike(runs: Sequence[Run], configs: Sequence[Config]) -> None:
    """Nothing, unless runs of the same settings had other steps, averages or decoding.

    Raises:
      UserError: it names two that did, and in what.
    """
    firsts: dict[str, tuple[str, Config]] = {}
    for run, config in zip(runs, configs, strict=True):
        name, first = firsts.setdefault(settings_text(run["settings"]), (run["run"], config))
        theirs, ours = _treatment(first), _treatment(config)
        if config.training.patience and first.training.patience:
            del theirs["training.max_steps"]
        differing = [key for key in theirs if key in ours and theirs[key] != ours[key]]
        if differing:
            told = "; ".join(f"{key}: {theirs[key]} and {ours[key]}" for key in differing)
            raise UserError(
                f"{name} and {run['run']} differ in {told}, so that they cannot be compared\n"
                "`nmt-ls sweep` with one configuration brings them together"
            )


def refuse_other_tests(
    runs: Sequence[Run], configs: Sequence[Config], subwords: Sequence[Subwords]
) -> None:
    """Nothing, unless runs of the same settings were measured on other text or other checkpoints.

    Which step was best, or where patience ran out, is each run's own: those are not compared. Nor
    is what results of older versions do not say.

    Raises:
      UserError: it names two that were, and in what.
    """
    texts: dict[tuple[str, ...], tuple[str, Any]] = {}
    steps: dict[tuple[str, ...], tuple[str, Any]] = {}
    for run, config, pieces in zip(runs, configs, subwords, strict=True):
        group = settings_text(run["settings"])
        for test in config.data.tests:
            measured = run["results"].get(test, {})
            text, checkpoint = measured.get("fingerprint"), measured.get("checkpoint")
            key = (group, test, pieces.fingerprint)
            name, first = texts.setdefault(key, (run["run"], text)) if text else ("", text)
            if first != text:
                raise UserError(
                    f"{name} and {run['run']} were evaluated on different text of {test}\n"
                    "`nmt-ls sweep` evaluates both on what it is now"
                )
            if config.training.patience or not (config.training.average_last and checkpoint):
                continue
            name, first = steps.setdefault((group, test), (run["run"], checkpoint))
            if first != checkpoint:
                raise UserError(
                    f"{name} was measured as {first}, {run['run']} as {checkpoint}, so that they"
                    " cannot be compared\ntrain all runs with one training.checkpoint_every, in"
                    " another --run-dir if checkpoints are gone"
                )


def _treatment(config: Config) -> dict[str, Any]:
    training = {name: getattr(config.training, name) for name in ("max_steps", "average_last")}
    return {f"training.{name}": value for name, value in training.items()} | {
        f"decoding.{name}": value for name, value in decisive_decoding(config).items()
    }
