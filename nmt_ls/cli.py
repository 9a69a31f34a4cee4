"""The command line: `nmt-ls VERB`. Each verb is a few lines that call the rooms below.

Progress goes to stderr, results to stdout. Exit status: 0 done; 2 a mistake of the caller's, said
in one or two plain lines; 130 and 143 after Ctrl-C and SIGTERM; 1 anything else.
"""

import argparse
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from nmt_ls.errors import UserError

log = logging.getLogger("nmt_ls")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """A wrong call, in two lines."""
        raise UserError(f"{self.prog}: {message}\n`{self.prog} --help` lists the options")


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind every option, and epilogs as they are written."""


_PENALTIES = """length penalties (score = log p / penalty; n tokens, end-of-sentence counted):
  none      1
  average   n^alpha
  gnmt      ((5+n)/6)^alpha"""


def _parser() -> _Parser:
    parser = _Parser(prog="nmt-ls", description=__doc__.split("\n")[0], formatter_class=_Help)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)

    def verb(name: str, about: str, run: Any, epilog: str = "") -> _Parser:
        sub = verbs.add_parser(
            name, help=about, description=about, formatter_class=_Help, epilog=epilog
        )
        sub.set_defaults(run=run)
        return sub

    settings = "settings: see docs/configuration.md, or `nmt-ls settings`"
    train = verb("train", "train one model, or continue it exactly where it was", _train, settings)
    _add_config(train)
    train.add_argument("--run-dir", type=Path, required=True, help="where the run lives")
    hosts = train.add_argument_group("several hosts (SLURM and cloud TPUs are detected)")
    hosts.add_argument("--coordinator", help="host:port of the first host")
    hosts.add_argument("--processes", type=int, help="how many hosts")
    hosts.add_argument("--process", type=int, help="which of them this is, from 0")
    hosts.add_argument("--distributed", action="store_true", help="join hosts that jax detects")

    sweep = verb("sweep", "train, evaluate and compare several ε", _sweep, settings)
    _add_config(sweep)
    sweep.add_argument("--run-dir", type=Path, required=True, help="where the sweep lives")
    sweep.add_argument("--smoothing", type=float, nargs="+", help="values of ε; sweep.smoothing")
    sweep.add_argument("--seeds", type=int, help="runs per ε; default: sweep.seeds")
    sweep.add_argument("--only", default="", metavar="RUN", help="this run alone, and no report")
    sweep.add_argument(
        "--jobs", type=int, default=1, help="runs at a time on a CPU, each on its share of cores"
    )

    evaluate = verb("evaluate", "measure a run on test sets", _evaluate, _PENALTIES)
    evaluate.add_argument("runs", type=Path, metavar="RUN", help="a run directory")
    evaluate.add_argument("--split", action="append", help="a test set of the run's; repeatable")
    evaluate.add_argument("--source", type=Path, help="a source file of your own")
    evaluate.add_argument("--reference", type=Path, action="append", help="repeatable")
    evaluate.add_argument(
        "--frequencies", type=Path, help="training targets: quality by word frequency as well"
    )
    evaluate.add_argument("--output", type=Path, help="also write the results as JSON")
    _add_decoding(evaluate)

    translate = verb("translate", "translate lines of text, in order", _translate, _PENALTIES)
    translate.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="several: an ensemble")
    translate.add_argument("--input", type=Path, help="default: standard input")
    translate.add_argument("--output", type=Path, help="default: standard output")
    translate.add_argument("--format", choices=("text", "jsonl"), default="text", help="of output")
    translate.add_argument("--n-best", type=int, default=1, help="translations per line")
    translate.add_argument("--prefix", default="", help="words every translation begins with")
    _add_decoding(translate)

    score = verb("score", "log-probability of given translations", _score)
    score.add_argument("runs", type=Path, metavar="RUN", help="a run directory")
    score.add_argument("--source", type=Path, required=True, help="source sentences")
    score.add_argument("--target", type=Path, required=True, help="their translations")
    score.add_argument("--output", type=Path, help="default: standard output")
    _add_checkpoint(score)

    report = verb("report", "rebuild a sweep's report from stored results", _report)
    report.add_argument("sweep", type=Path, metavar="SWEEP", help="a sweep's directory")

    average = verb("average", "average the last checkpoints of a run", _average)
    average.add_argument("runs", type=Path, metavar="RUN", help="a run directory")
    average.add_argument("--last", type=int, default=5, help="how many")

    _add_benches(verb("bench", "measure this machine", _bench))

    verb("settings", "list every setting of a configuration with its default", _settings)
    return parser


def _add_benches(bench: argparse.ArgumentParser) -> None:
    kinds = bench.add_subparsers(dest="what", required=True, metavar="WHAT")

    def kind(name: str, text: str) -> argparse.ArgumentParser:
        sub = kinds.add_parser(
            name,
            help=text,
            description=text,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        sub.add_argument("--output", type=Path, help="also write the results as JSON")
        return sub

    data = kind("data", "from the tokenised table to host batches")
    data.add_argument("--pairs", type=int, default=200_000, help="sentence pairs")
    loss = kind("loss", "the loss and its gradients, beside other ways to compute it")
    loss.add_argument("--rows", type=int, default=2048, help="tokens, N")
    loss.add_argument("--width", type=int, default=512, help="width of hidden states, D")
    loss.add_argument("--vocab-size", type=int, default=32_000, help="classes, V")
    loss.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="type")
    loss.add_argument("--repeats", type=int, default=7, help="rounds")
    loss.add_argument("--long", action="store_true", help="also 65,536 rows with V = 256,000")


def _add_config(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file of configs/")
    sub.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting"
    )


def _add_checkpoint(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--checkpoint", default="", help="best, last, average or a step; average if there is one"
    )


def _add_decoding(sub: argparse.ArgumentParser) -> None:
    _add_checkpoint(sub)
    sub.add_argument("--beam", type=int, help="1 is greedy search; default: the run's")
    sub.add_argument("--length-penalty", choices=("none", "average", "gnmt"), help="the run's")
    sub.add_argument("--length-alpha", type=float, help="its exponent; default: the run's")
    sub.add_argument(
        "--length-excludes-eos", action="store_true", default=None, help="n without the end"
    )
    sub.add_argument("--strategy", choices=("beam", "sample", "mbr"), help="default: the run's")
    sub.add_argument("--temperature", type=float, help="p^(1/temperature); default: the run's")
    sub.add_argument(
        "--unmix", help="none, exact, or the share δ of the smoothing prior to take off"
    )
    sub.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other decoding or evaluation setting; repeatable",
    )


def _load_config(arguments: argparse.Namespace) -> Any:
    from nmt_ls.config_files import load_config

    return load_config(arguments.config, arguments.set)


def _loaded(arguments: argparse.Namespace, runs: Sequence[Path]) -> list[Any]:
    """The runs, with what the command line says of decoding."""
    from nmt_ls.config_files import with_settings
    from nmt_ls.training.runs import load_run

    names = ["beam", "length_penalty", "length_alpha", "length_excludes_eos"]
    names += ["strategy", "temperature"]
    given = {f"decoding.{n}": getattr(arguments, n, None) for n in names}
    given = {key: value for key, value in given.items() if value is not None}
    given |= _unmixing(getattr(arguments, "unmix", None))
    overrides = getattr(arguments, "set", [])
    for override in overrides:
        if not override.startswith(("decoding.", "evaluation.")):
            raise UserError(
                f"--set {override}: of a trained run only decoding and evaluation can be set"
            )
    loaded = [load_run(path, arguments.checkpoint) for path in runs]
    return [
        dataclasses.replace(r, config=with_settings(r.config, given, overrides)) for r in loaded
    ]


def _unmixing(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    if text in ("none", "exact"):
        return {"decoding.unmix": text, "decoding.unmix_mass": 0.0}
    try:
        return {"decoding.unmix": "given", "decoding.unmix_mass": float(text)}
    except ValueError:
        raise UserError(f"--unmix {text}: none, exact, or a share such as 0.1") from None


def _train(arguments: argparse.Namespace) -> None:
    config = _load_config(arguments)
    if arguments.distributed or arguments.coordinator:
        from nmt_ls.parallel import initialise_hosts

        initialise_hosts(arguments.coordinator, arguments.processes, arguments.process)
    from nmt_ls.study.runs import train_run

    train_run(config, arguments.run_dir)


def _sweep(arguments: argparse.Namespace) -> None:
    from nmt_ls.study.runs import prepare_run
    from nmt_ls.study.sweep import plan, sweep

    config = _load_config(arguments)
    for value in arguments.smoothing or ():
        if not 0 <= value <= 1:
            raise UserError(f"--smoothing {value} is outside [0, 1]")
    if arguments.seeds is not None and arguments.seeds < 1:
        raise UserError(f"--seeds {arguments.seeds}: at least 1")
    if arguments.jobs < 1:
        raise UserError(f"--jobs {arguments.jobs}: at least 1")
    given = (config, arguments.run_dir, arguments.smoothing, arguments.seeds)
    if arguments.jobs > 1 and not arguments.only:
        runs = [run["run"] for run in plan(*given)]
        prepare_run(config)  # once, and not by each at the same time
        _sweep_in_jobs(arguments, runs)
    table = sweep(*given, arguments.only)
    if table:
        print(table)


def _sweep_in_jobs(arguments: argparse.Namespace, names: Sequence[str]) -> None:
    """Train and evaluate a sweep's runs in processes of their own."""
    from nmt_ls.study.jobs import run_jobs

    command = [sys.executable, "-m", "nmt_ls.cli", "sweep", str(arguments.config)]
    command += ["--run-dir", str(arguments.run_dir)]
    for override in arguments.set:
        command += ["--set", override]
    if arguments.smoothing:
        command += ["--smoothing", *map(str, arguments.smoothing)]
    if arguments.seeds is not None:
        command += ["--seeds", str(arguments.seeds)]
    run_jobs(names, lambda name: [*command, "--only", name], arguments.jobs)


def _evaluate(arguments: argparse.Namespace) -> None:
    from nmt_ls.decoding.files import read_lines
    from nmt_ls.evaluation.breakdown import word_counts
    from nmt_ls.evaluation.evaluate import (
        evaluate,
        files_as_set,
        finite,
        fitted_on_validation,
        results_table,
        store_results,
        test_sets,
    )

    if bool(arguments.source) != bool(arguments.reference):
        raise UserError("--source and --reference go together")
    (run,) = _loaded(arguments, [arguments.runs])
    if arguments.source:
        sets = [files_as_set(run, arguments.source, arguments.reference)]
    else:
        sets = test_sets(run, arguments.split)
    found = {}
    frequencies = None
    if arguments.frequencies:
        frequencies = word_counts(read_lines(arguments.frequencies))
    fitted = fitted_on_validation(run)
    for data in sets:
        results, translations = evaluate(
            run, data, fitted=fitted, frequencies=frequencies, progress=True
        )
        store_results(arguments.runs, results, data, translations)
        found[data.name] = results
    print(results_table(found))
    print(f"checkpoint: {run.checkpoint}")
    _write_json(arguments.output, finite(found))


def _write_json(path: Path | None, content: Any) -> None:
    from nmt_ls.training.runs import write_beside

    if path is not None:
        write_beside(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _translate(arguments: argparse.Namespace) -> None:
    from nmt_ls.decoding.files import translate_lines
    from nmt_ls.decoding.translator import Translator

    if arguments.n_best < 1:
        raise UserError(f"--n-best {arguments.n_best}: at least 1")
    translator = Translator.of(_loaded(arguments, arguments.runs))
    translate_lines(
        translator,
        arguments.input,
        arguments.output,
        n_best=arguments.n_best,
        prefix=arguments.prefix,
        jsonl=arguments.format == "jsonl",
    )


def _score(arguments: argparse.Namespace) -> None:
    from nmt_ls.decoding.files import score_files

    (run,) = _loaded(arguments, [arguments.runs])
    score_files(run, arguments.source, arguments.target, arguments.output)


def _report(arguments: argparse.Namespace) -> None:
    from nmt_ls.study.sweep import report

    print(report(arguments.sweep))


def _average(arguments: argparse.Namespace) -> None:
    from nmt_ls.training.runs import average_run

    if arguments.last < 1:
        raise UserError(f"--last {arguments.last}: at least 1")
    steps = average_run(arguments.runs, arguments.last)
    print(f"averaged {', '.join(map(str, steps))}")


def _bench(arguments: argparse.Namespace) -> None:
    try:
        if arguments.what == "data":
            from nmt_ls.bench.data import bench_data, describe

            result = bench_data(pairs=arguments.pairs)
        else:
            from nmt_ls.bench.loss import bench_loss, describe

            result = bench_loss(
                rows=arguments.rows,
                width=arguments.width,
                vocab_size=arguments.vocab_size,
                dtype=arguments.dtype,
                repeats=arguments.repeats,
                long=arguments.long,
            )
    except ValueError as error:
        raise UserError(str(error)) from error
    print(describe(result))
    _write_json(arguments.output, result)


def _settings(_: argparse.Namespace) -> None:
    from nmt_ls.config_files import describe_settings

    for key, kind, default, text in describe_settings():
        print(f"{key} ({kind}; default {default})\n    {text}")


def _quiet() -> None:
    """Our own lines on stderr, and nobody else's chatter."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False
    # What orbax has to say of an error comes with the error itself.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    # XLA warns of every program that the cache made on a machine of another make.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    _quiet()
    try:
        arguments = _parser().parse_args(argv)
        if arguments.verb not in ("settings", "report", "bench"):
            from nmt_ls.compilation import enable_compilation_cache

            enable_compilation_cache()
        arguments.run(arguments)
    except UserError as error:
        print(f"nmt-ls: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing is left to flush into.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _failed(error)
    return 0


def _failed(error: Exception) -> int:
    from nmt_ls.study.jobs import JobFailed
    from nmt_ls.training.interruption import Interrupted
    from nmt_ls.training.trainer import Diverged

    if isinstance(error, JobFailed):  # it has said why
        return error.status if error.status > 0 else 128 - error.status
    if isinstance(error, Interrupted):
        print(f"nmt-ls: {error}", file=sys.stderr)
        return 128 + error.signal_number
    if "No space left" in str(error):
        print("nmt-ls: no space left on the disk; the last checkpoint is whole", file=sys.stderr)
    elif isinstance(error, OSError | Diverged):
        print(f"nmt-ls: {' '.join(str(error).split())[:400]}", file=sys.stderr)
    else:
        log.exception("nmt-ls failed")
    return 1


if __name__ == "__main__":
    sys.exit(main())
