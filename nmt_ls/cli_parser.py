"""The verbs and options of the command line, with their help."""

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from nmt_ls.errors import UserError

_ABOUT = "Train Transformers for translation, and measure what label smoothing does."


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """A wrong call, in two lines."""
        raise UserError(f"{self.prog}: {message}\n`{self.prog} --help` lists the options")


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind every option that has one, and epilogs as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = action.required or "default:" in (action.help or "")
        if told or action.default is False or action.default in (None, "", []):
            return action.help
        return super()._get_help_string(action)


_PENALTIES = """length penalties (score = log p / penalty; n tokens, end-of-sentence counted):
  none      1
  average   n^alpha
  gnmt      ((5+n)/6)^alpha"""


def make_parser(verbs: Mapping[str, Callable[[argparse.Namespace], None]]) -> _Parser:
    """The parser of `nmt-ls`; what a verb does, by its name, ends up as `run` of its arguments."""
    parser = _Parser(prog="nmt-ls", description=_ABOUT, formatter_class=_Help)
    kinds = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)

    def verb(name: str, about: str, epilog: str = "") -> _Parser:
        sub = kinds.add_parser(
            name, help=about, description=about, formatter_class=_Help, epilog=epilog
        )
        sub.set_defaults(run=verbs[name])
        return sub

    settings = "settings: see docs/configuration.md, or `nmt-ls settings`"
    train = verb("train", "train one model, or continue it exactly where it was", settings)
    _add_config(train)
    train.add_argument("--run-dir", type=Path, required=True, help="where the run lives")
    hosts = train.add_argument_group(
        "several hosts (with --distributed SLURM and cloud TPUs are detected)"
    )
    hosts.add_argument("--coordinator", help="host:port of the first host")
    hosts.add_argument("--processes", type=int, help="how many hosts")
    hosts.add_argument("--process", type=int, help="which of them this is, from 0")
    hosts.add_argument("--distributed", action="store_true", help="join hosts that jax detects")

    sweep = verb("sweep", "train, evaluate and compare several ε", settings)
    _add_config(sweep)
    sweep.add_argument("--run-dir", type=Path, required=True, help="where the sweep lives")
    sweep.add_argument(
        "--smoothing",
        type=float,
        nargs="+",
        help="values of ε, or of loss.beta where loss.kind has no ε, beside those that are planned"
        " already; default: sweep.smoothing",
    )
    sweep.add_argument("--seeds", type=int, help="runs per ε; default: sweep.seeds")
    sweep.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="KEY=VALUE,VALUE",
        help="also vary a setting, as in model.dropout=0,0.3; repeatable; default: sweep.grid",
    )
    sweep.add_argument(
        "--shard", default="", metavar="K/N", help="this share of the runs alone, and no report"
    )
    sweep.add_argument("--only", default="", metavar="RUN", help="this run alone, and no report")
    sweep.add_argument(
        "--jobs", type=int, default=1, help="runs at a time on a CPU, each on its share of cores"
    )

    evaluate = verb("evaluate", "measure a run on test sets", _PENALTIES)
    evaluate.add_argument("runs", type=Path, metavar="RUN", help="a run directory")
    evaluate.add_argument(
        "--split", action="append", help="a test set of the run's; repeatable; default: all"
    )
    evaluate.add_argument("--source", type=Path, help="a source file of your own")
    evaluate.add_argument(
        "--reference", type=Path, action="append", help="its reference translations; repeatable"
    )
    evaluate.add_argument(
        "--frequencies", type=Path, help="count words here, and not in the run's training targets"
    )
    evaluate.add_argument("--output", type=Path, help="also write the results as JSON")
    _add_decoding(evaluate)

    translate = verb("translate", "translate lines of text, in order", _PENALTIES)
    translate.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="several: an ensemble")
    translate.add_argument("--input", type=Path, help="default: standard input")
    translate.add_argument("--output", type=Path, help="default: standard output")
    translate.add_argument(
        "--format",
        choices=("text", "jsonl"),
        default="text",
        help="translations alone, or a line of JSON for each with its scores",
    )
    translate.add_argument("--n-best", type=int, default=1, help="translations per line")
    translate.add_argument("--prefix", default="", help="words every translation begins with")
    _add_decoding(translate)

    score = verb("score", "log-probability of given translations")
    score.add_argument("runs", type=Path, metavar="RUN", help="a run directory")
    score.add_argument("--source", type=Path, required=True, help="source sentences")
    score.add_argument("--target", type=Path, required=True, help="their translations")
    score.add_argument("--output", type=Path, help="default: standard output")
    score.add_argument(
        "--alignment", action="store_true", help="also pieces, and the source of each by attention"
    )
    _add_checkpoint(score)

    report = verb("report", "rebuild a sweep's report from stored results")
    report.add_argument("sweep", type=Path, metavar="SWEEP", help="a sweep's directory")

    compare = verb("compare", "two systems on the same sentences: scores and significance")
    compare.add_argument(
        "systems", type=Path, nargs=2, metavar="SYSTEM",
        help="A and B: evaluated runs, or with --reference files of translations",
    )  # fmt: skip
    compare.add_argument("--split", help="a test set of both runs; default: each that both have")
    compare.add_argument("--reference", type=Path, action="append", help="a file; repeatable")
    compare.add_argument("--source", type=Path, help="their source: BLEU by its length as well")
    compare.add_argument(
        "--tokenize",
        metavar="NAME",
        help="with --reference: how BLEU splits words, as evaluation.bleu_tokenize; default: 13a",
    )
    compare.add_argument("--output", type=Path, help="also write the results as JSON")

    average = verb("average", "average the last regular checkpoints of a run")
    average.add_argument("runs", type=Path, metavar="RUN", help="a run directory")
    average.add_argument(
        "--last", type=int, default=5,
        help="how many of those every training.checkpoint_every steps and at training.max_steps",
    )  # fmt: skip

    importing = verb("import", "make a run of a Hugging Face Marian model (OPUS-MT)")
    importing.add_argument("folder", type=Path, metavar="DIR", help="config.json, safetensors, spm")
    importing.add_argument("--run-dir", type=Path, required=True, help="the run that is made")

    export = verb("export", "write a run for another toolkit; see docs/interchange.md")
    export.add_argument("run_directory", type=Path, metavar="RUN", help="a run directory")
    targets = ("huggingface", "ctranslate2", "safetensors", "stablehlo")
    export.add_argument("--to", choices=targets, required=True, help="whose format")
    export.add_argument("--output", type=Path, required=True, help="the folder that is made")
    types = ("int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16")
    export.add_argument(
        "--quantization", choices=(*types, "float16", "bfloat16"), help="ctranslate2: of weights"
    )
    _add_checkpoint(export)

    _add_benches(verb("bench", "measure this machine"))

    verb("settings", "list every setting of a configuration with its default")
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
    population = kind("population", "a training step of several runs together, and each alone")
    population.add_argument("--members", type=int, default=6, help="runs")
    population.add_argument("--width", type=int, default=128, help="of the model")
    population.add_argument("--layers", type=int, default=2, help="of encoder and of decoder")
    population.add_argument("--vocab-size", type=int, default=2000, help="subwords")
    population.add_argument("--batch-tokens", type=int, default=1024, help="target positions")
    population.add_argument("--repeats", type=int, default=7, help="rounds")
    train = kind("train", "training: speed beside others, and beside its own matrix products")
    train.add_argument(
        "--size", choices=("tiny", "cpu", "base", "big"), default="cpu", help="model and batches"
    )
    train.add_argument("--steps", type=int, default=4, help="batches of a round")
    train.add_argument(
        "--batch-tokens", type=int, default=0, help="target positions; 0: the size's"
    )
    train.add_argument(
        "--compute", choices=("float32", "bfloat16"), default="float32", help="of activations"
    )
    train.add_argument("--repeats", type=int, default=5, help="rounds")
    train.add_argument("--config", type=Path, help="train on the text of this configuration")
    train.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="override a setting of data, subwords, or the model and updates of all sides",
    )  # fmt: skip
    train.add_argument(
        "--peers", nargs="*", metavar="PEER", help="beside torch, torch_as_ours, compiled, marian,"
        " joeynmt, joeynmt_own; default: all that are installed",
    )  # fmt: skip
    train.add_argument(
        "--joeynmt", type=Path, metavar="PYTHON", help="interpreter of an environment with JoeyNMT"
    )
    scaling = kind("scaling", "the training step on virtual devices: agreement, communication")
    scaling.add_argument(
        "--devices", type=int, nargs="+", default=[1, 8, 64], help="numbers of devices of a CPU"
    )
    scaling.add_argument("--layers", type=int, default=2, help="of encoder and of decoder")
    scaling.add_argument("--width", type=int, default=128, help="of the model")
    scaling.add_argument("--vocab-size", type=int, default=2000, help="subwords")
    scaling.add_argument("--rows", type=int, default=64, help="pairs of a batch, over all devices")
    scaling.add_argument("--steps", type=int, default=3, help="training steps")
    decode = kind("decode", "translation: speed beside others, where time goes, memory")
    decode.add_argument("--sentences", type=int, default=512, help="sentences of 16 tokens")
    decode.add_argument("--beam", type=int, default=5, help="hypotheses of a sentence")
    decode.add_argument("--batch-sentences", type=int, default=64, help="searched at a time")
    decode.add_argument("--repeats", type=int, default=5, help="rounds")
    decode.add_argument(
        "--lines", type=int, default=0, help="instead: memory over so many lines, tiny model"
    )
    decode.add_argument(
        "--run", type=Path, dest="run_directory", metavar="RUN",
        help="instead: this run's weights on all sides, real sentences, equal outputs counted",
    )  # fmt: skip
    decode.add_argument(
        "--input", type=Path, dest="source", help="with --run: lines; its first test set"
    )
    decode.add_argument(
        "--compute", choices=("float32", "bfloat16"), default="float32", help="with --run: type"
    )


def _add_config(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "config", type=Path, metavar="CONFIG", help="a YAML file, such as those in configs/"
    )
    sub.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting"
    )


def _add_checkpoint(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--checkpoint",
        default="",
        help="best, last, average or a step; default: average if there is one, else best, which"
        " without validations is the last",
    )


def _add_decoding(sub: argparse.ArgumentParser) -> None:
    _add_checkpoint(sub)
    sub.add_argument("--beam", type=int, help="1 is greedy search; default: the run's")
    sub.add_argument(
        "--length-penalty",
        choices=("none", "average", "gnmt"),
        help="what log p is divided by, see below; default: the run's",
    )
    sub.add_argument("--length-alpha", type=float, help="its exponent; default: the run's")
    sub.add_argument(
        "--length-excludes-eos",
        action="store_true",
        default=None,
        help="end-of-sentence does not count in n; default: the run's",
    )
    sub.add_argument(
        "--strategy",
        choices=("beam", "sample", "mbr"),
        help="beam search, one draw, or minimum Bayes risk; default: the run's",
    )
    sub.add_argument("--temperature", type=float, help="p^(1/temperature); default: the run's")
    sub.add_argument(
        "--unmix",
        help="none, exact, or the share δ of the smoothing prior to take off; default: the run's",
    )
    sub.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other decoding or evaluation setting; repeatable",
    )


def check_hosts(arguments: argparse.Namespace) -> None:
    """Refuse what would leave each host to train alone, all of them in one directory."""
    processes, process, coordinator = arguments.processes, arguments.process, arguments.coordinator
    if coordinator and not re.fullmatch(r".+:\d{1,5}", coordinator):
        raise UserError(f"--coordinator {coordinator}: write host:port, as in node1:12345")
    if (processes is None) != (process is None):
        raise UserError("--processes (how many hosts) and --process (which of them) go together")
    if processes is None:
        return
    if not (coordinator or arguments.distributed):
        raise UserError("--processes and --process need --coordinator, the first host's host:port")
    if not 0 <= process < processes:
        raise UserError(f"--process {process} of --processes {processes}: they count from 0")
