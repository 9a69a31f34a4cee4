"""The command line: `nmt-ls VERB`. Each verb is a few lines that call the rooms below.

Progress goes to stderr, results to stdout. Exit status: 0 done; 2 a mistake of the caller's, said
in one or two plain lines; 130 and 143 after Ctrl-C and SIGTERM; 1 anything else.
"""

import argparse
import contextlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nmt_ls.cli_parser import check_hosts, make_parser
from nmt_ls.cli_runs import loaded_runs
from nmt_ls.errors import UserError
from nmt_ls.messages import Handler, tell
from nmt_ls.outputs import begin_streams, destination, end_stdout
from nmt_ls.training.interruption import Interrupted, Terminated, raising_terminated

log = logging.getLogger("nmt_ls")


def _train(arguments: argparse.Namespace) -> None:
    from nmt_ls.config_files import load_config
    from nmt_ls.config_unused import check_unused

    check_hosts(arguments)
    config = load_config(arguments.config, arguments.set)
    for line in check_unused([config]):
        log.warning("%s", line)
    if arguments.distributed or arguments.coordinator:
        from nmt_ls.parallel import initialise_hosts

        initialise_hosts(arguments.coordinator, arguments.processes, arguments.process)
    from nmt_ls.study.runs import train_run

    train_run(config, arguments.run_dir)


def _sweep(arguments: argparse.Namespace) -> None:
    from nmt_ls.cli_sweep import sweep

    sweep(arguments)


def _evaluate(arguments: argparse.Namespace) -> None:
    from nmt_ls.config_languages import bleu_tokenizer
    from nmt_ls.decoding.files import read_lines
    from nmt_ls.evaluation.breakdown import word_counts
    from nmt_ls.evaluation.evaluate import (
        evaluate,
        files_as_set,
        fitted_on_validation,
        test_sets,
    )
    from nmt_ls.evaluation.results import finite, results_table, store_results
    from nmt_ls.evaluation.training_sample import training_sample
    from nmt_ls.evaluation.training_words import training_word_counts

    if bool(arguments.source) != bool(arguments.reference):
        raise UserError("--source and --reference go together")
    if arguments.source and arguments.split:
        raise UserError("--split is a test set of the run; leave it out with --source")
    (run,) = loaded_runs(arguments, [arguments.runs])
    if arguments.source:
        sets = [files_as_set(run, arguments.source, arguments.reference)]
    else:
        sets = test_sets(run, arguments.split)
    found = {}
    fitted, training = fitted_on_validation(run), training_sample(run)
    frequencies = training_word_counts(run)
    if arguments.frequencies:
        frequencies = word_counts(read_lines(arguments.frequencies), bleu_tokenizer(run.config))
    for data in sets:
        evaluation = evaluate(
            run, data, fitted=fitted, frequencies=frequencies, training=training, progress=True
        )
        store_results(arguments.runs, data, evaluation, run.subwords)
        found[data.name] = evaluation.results
    print(results_table(found))
    print(f"checkpoint: {run.checkpoint}")
    _write_json(arguments.output, finite(found))


def _write_json(path: Path | None, content: Any) -> None:
    from nmt_ls.outputs import write_beside

    if path is not None:
        write_beside(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _translate(arguments: argparse.Namespace) -> None:
    from nmt_ls.compilation import CompilationCounter
    from nmt_ls.decoding.files import translate_lines
    from nmt_ls.decoding.translator import Translator

    if arguments.n_best < 1:
        raise UserError(f"--n-best {arguments.n_best}: at least 1")
    compiled = CompilationCounter()
    translator = Translator.of(loaded_runs(arguments, arguments.runs))
    translate_lines(
        translator,
        arguments.input,
        arguments.output,
        n_best=arguments.n_best,
        prefix=arguments.prefix,
        jsonl=arguments.format == "jsonl",
    )
    log.info("%d programs compiled that were not in the cache", compiled.misses)


def _score(arguments: argparse.Namespace) -> None:
    from nmt_ls.decoding.files import score_files

    (run,) = loaded_runs(arguments, [arguments.runs])
    files = (arguments.source, arguments.target, arguments.output)
    score_files(run, *files, alignment=arguments.alignment)


def _report(arguments: argparse.Namespace) -> None:
    from nmt_ls.study.sweep import report

    print(report(arguments.sweep))


def _compare(arguments: argparse.Namespace) -> None:
    from nmt_ls.evaluation.pair import (
        compare_pair,
        outputs_of_files,
        outputs_of_runs,
        pair_table,
    )
    from nmt_ls.evaluation.tokenizers import DEFAULT

    a, b = arguments.systems
    if arguments.reference and arguments.split:
        raise UserError("--split is a test set of two runs; with --reference A and B are files")
    if arguments.source and not arguments.reference:
        raise UserError("--source goes with --reference; runs have their sources stored")
    if arguments.tokenize and not arguments.reference:
        raise UserError("--tokenize goes with --reference; runs were evaluated with their own")
    if arguments.reference:
        outputs = outputs_of_files(
            a, b, arguments.reference, arguments.source, arguments.tokenize or DEFAULT
        )
        sets = {arguments.reference[0].name: outputs}
    else:
        sets = outputs_of_runs(a, b, arguments.split)
    found = {name: compare_pair(outputs) for name, outputs in sets.items()}
    print("\n\n".join(pair_table(r, name, str(a), str(b)) for name, r in found.items()))
    _write_json(arguments.output, {"a": str(a), "b": str(b), "tests": found})


def _average(arguments: argparse.Namespace) -> None:
    from nmt_ls.training.runs import average_run

    if arguments.last < 1:
        raise UserError(f"--last {arguments.last}: at least 1")
    steps = average_run(arguments.runs, arguments.last)
    print(f"averaged {', '.join(map(str, steps))}")


def _bench(arguments: argparse.Namespace) -> None:
    import importlib

    if arguments.what in ("loss", "train", "decode"):
        # JAX takes most of a GPU's memory at its start; peers want some too.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    module = importlib.import_module(f"nmt_ls.bench.{arguments.what}")
    given = {k: v for k, v in vars(arguments).items() if k not in ("verb", "run", "what", "output")}
    try:
        result = getattr(module, f"bench_{arguments.what}")(**given)
    except ValueError as error:
        raise UserError(str(error)) from error
    print(module.describe(result))
    _write_json(arguments.output, result)


def _import(arguments: argparse.Namespace) -> None:
    from nmt_ls.interchange.marian import import_marian

    import_marian(arguments.folder, arguments.run_dir)


def _export(arguments: argparse.Namespace) -> None:
    from nmt_ls.interchange.export import export
    from nmt_ls.training.runs import load_run

    run = load_run(arguments.run_directory, arguments.checkpoint)
    export(run, arguments.to, arguments.output, arguments.quantization)


def _settings(_: argparse.Namespace) -> None:
    from nmt_ls.config_files import describe_settings

    for key, kind, default, text in describe_settings():
        print(f"{key} ({kind}; default {default})\n    {text}")


_VERBS = {
    "train": _train,
    "sweep": _sweep,
    "evaluate": _evaluate,
    "translate": _translate,
    "score": _score,
    "report": _report,
    "compare": _compare,
    "average": _average,
    "import": _import,
    "export": _export,
    "bench": _bench,
    "settings": _settings,
}


_TRAINING = ("train", "sweep")
_READING = ("translate", "score", "evaluate")
"""Verbs that put a trained run to use."""


def _quiet() -> None:
    """Our own lines on stderr, and nobody else's chatter."""
    handler = Handler()
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
    begin_streams()
    _quiet()
    verb = ""
    try:
        arguments = make_parser(_VERBS).parse_args(argv)
        verb = arguments.verb
        if verb not in ("settings", "report", "compare", "bench"):
            from nmt_ls.compilation import enable_compilation_cache

            enable_compilation_cache()
        trains = verb in _TRAINING or getattr(arguments, "what", "") == "train"
        if trains:
            from nmt_ls.host_memory import keep_freed_memory

            keep_freed_memory()
        if trains or verb in _READING or (verb == "bench" and arguments.what == "decode"):
            from nmt_ls.parallel import cores_as_devices

            cores_as_devices()
        if verb != "export" and getattr(arguments, "output", None) is not None:
            destination(arguments.output)  # before the work, not after it
        # Training has its own way with SIGTERM.
        with raising_terminated() if verb not in _TRAINING else contextlib.nullcontext():
            arguments.run(arguments)
        sys.stdout.flush()
    except UserError as error:
        tell(f"nmt-ls: {error}")
        return 2
    except KeyboardInterrupt:
        return 130
    except Terminated:
        return 143
    except BrokenPipeError:  # whoever read our output has seen enough
        return 1
    except Exception as error:
        return _failed(error, verb)
    finally:
        end_stdout()
    return 0


def _failed(error: Exception, verb: str) -> int:
    from nmt_ls.study.jobs import JobFailed
    from nmt_ls.training.trainer import Diverged

    if isinstance(error, JobFailed):  # why has been said
        if error.status > 0:
            return error.status
        return 128 - error.status if error.interrupted else 1
    if isinstance(error, Interrupted):
        tell(f"nmt-ls: {error}")
        return 128 + error.signal_number
    if any(words in str(error) for words in ("No space left", "quota exceeded")):
        kept = "; the last checkpoint is whole" if verb in _TRAINING else ""
        tell(f"nmt-ls: no space left on the disk{kept}")
    elif isinstance(error, OSError | Diverged):
        tell(f"nmt-ls: {' '.join(str(error).split())[:400]}")
    else:
        log.exception("nmt-ls failed")
    return 1


if __name__ == "__main__":
    sys.exit(main())
