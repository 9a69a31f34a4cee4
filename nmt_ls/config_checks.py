"""Settings that are each in range but do not go together."""

import re
from collections.abc import Iterator

from nmt_ls.config import Config, CorpusConfig, DecodingConfig, LossConfig

LONGEST_NAME = 100
"""Bytes of a test set's name; file systems end at 255, and more is put around it."""

_EPSILON_ON_ALL = ("pytorch", "optax", "huggingface", "marian")


def check_together(config: Config) -> list[str]:
    """One line for each contradiction: the setting, its value, the way out."""
    checks = (_data, _subwords, _model, _loss, _training, _decoding, _sweep)
    return [line for check in checks for line in check(config)]


def corpora(config: Config) -> dict[str, CorpusConfig]:
    """All that a configuration names, by their keys."""
    data = config.data
    corpora = {"data.train": data.train}
    if data.validation is not None:
        corpora["data.validation"] = data.validation
    return corpora | {f"data.tests.{name}": test for name, test in data.tests.items()}


def _data(config: Config) -> Iterator[str]:
    data = config.data
    for name in data.tests:
        if not re.fullmatch(r"[\w-]+", name):
            yield f"data.tests.{name}: a test set's name has letters, digits, _ and - only"
        elif len(name.encode()) > LONGEST_NAME:
            yield (
                f"data.tests.{name}: a test set's name has at most {LONGEST_NAME} bytes, as it is "
                "part of files' names; shorten it"
            )
    for key, corpus in corpora(config).items():
        yield from _corpus(key, corpus)
    if isinstance(data.train.target, tuple) and len(data.train.target) > 1:
        yield (
            f"data.train.target names {len(data.train.target)} references; "
            "only validation and test sets may have several"
        )
    if data.noise and data.train.kind != "phrasebook":
        yield f"data.noise={data.noise:g} needs data.train.kind=phrasebook; set it to 0"
    if data.max_length_ratio < 1:
        yield f"data.max_length_ratio={data.max_length_ratio:g}: must be at least 1"


def _corpus(key: str, corpus: CorpusConfig) -> Iterator[str]:
    if corpus.kind == "text":
        for side in ("source", "target"):
            named = getattr(corpus, side)
            if not named or (isinstance(named, tuple) and not all(named)):
                yield f"{key}.{side} names no file; kind=text needs two aligned files"
    elif corpus.kind == "sacrebleu":
        if not corpus.name:
            yield f"{key}.name is empty; kind=sacrebleu needs a test set such as wmt14/full"
        if key == "data.train":
            yield f"{key}.kind=sacrebleu is a test set; train on something else"
    elif corpus.kind == "none":
        if key != "data.train":
            yield f"{key}.kind=none: only an imported run's data.train is that; leave {key} out"
    elif corpus.kind != "phrasebook" and not corpus.path:
        yield f"{key}.path is empty; kind={corpus.kind} needs it"
    if corpus.kind == "phrasebook":
        if corpus.split not in ("", "train", "validation", "test"):
            yield f"{key}.split={corpus.split}: must be one of train, validation, test"
        if not corpus.size:
            yield f"{key}.size=0: say how many pairs the phrasebook shall draw"


def _subwords(config: Config) -> Iterator[str]:
    subwords = config.subwords
    if subwords.source_model_file and not subwords.model_file:
        yield "subwords.source_model_file needs subwords.model_file (the target side's) too"
    if subwords.source_model_file and subwords.joint:
        yield "subwords.source_model_file is set; set subwords.joint=false as well"
    if subwords.model_file and not subwords.source_model_file and not subwords.joint:
        yield "subwords.joint=false with a model_file needs subwords.source_model_file too"
    if subwords.sampling_candidates > 1:
        if config.data.pretokenized:
            yield (
                f"subwords.sampling_candidates={subwords.sampling_candidates}: pretokenized text "
                "has one segmentation; set it to 1"
            )
        elif subwords.algorithm == "bpe" and not subwords.model_file:
            yield (
                f"subwords.sampling_candidates={subwords.sampling_candidates} needs "
                "subwords.algorithm=unigram; set it to 1 for bpe"
            )
    symbols = subwords.user_symbols
    for symbol in symbols:
        if not symbol or re.search(r"[\s▁]", symbol):
            yield f"subwords.user_symbols: {symbol!r} is empty or has a space in it"
        if symbol in ("<pad>", "<unk>", "<s>", "</s>"):
            yield f"subwords.user_symbols: {symbol} is there already"
    if len(set(symbols)) < len(symbols):
        yield "subwords.user_symbols: a symbol stands twice"


def _model(config: Config) -> Iterator[str]:
    model, longest = config.model, config.data.max_length
    if model.width % model.heads:
        divisors = [n for n in range(1, model.width + 1) if model.width % n == 0]
        nearest = min(divisors, key=lambda n: abs(n - model.heads))
        yield (
            f"model.heads={model.heads} does not divide model.width={model.width}; "
            f"use {nearest} heads"
        )
    if model.tied_embeddings == "all" and not config.subwords.joint:
        yield (
            "model.tied_embeddings=all needs one vocabulary for both sides; set "
            "subwords.joint=true or model.tied_embeddings=decoder"
        )
    if model.attention == "cudnn" and model.compute == "float32":
        yield (
            "model.attention=cudnn has no kernel for model.compute=float32; set "
            "model.attention=auto or model.compute=bfloat16"
        )
    if model.positions == "learned" and model.max_positions < longest:
        yield (
            f"model.max_positions={model.max_positions} cannot hold a sentence of {longest} "
            "tokens; raise it or lower data.max_length"
        )


def _loss(config: Config) -> Iterator[str]:
    loss = config.loss
    if (loss.graduated == "run") != bool(loss.graduated_run):
        yield (
            f"loss.graduated={loss.graduated} with loss.graduated_run={loss.graduated_run!r}: "
            "graduated=run names a run there, the others none"
        )
    if (loss.kind == "distillation") != bool(loss.teacher_run):
        yield (
            f"loss.kind={loss.kind} with loss.teacher_run={loss.teacher_run!r}: "
            "distillation names a run there, the others none"
        )
    if loss.kind == "distillation" and loss.beta > 1:
        yield f"loss.beta={loss.beta:g} is the teacher's share of the loss; at most 1"
    if loss.graduated_below > loss.graduated_above:
        yield (
            f"loss.graduated_below={loss.graduated_below:g} is above "
            f"loss.graduated_above={loss.graduated_above:g}; lower it"
        )
    if loss.class_weight_power and (
        loss.prior != "uniform" or loss.convention not in _EPSILON_ON_ALL
    ):
        yield (
            f"loss.class_weight_power={loss.class_weight_power:g} is PyTorch's weighted loss: it "
            "needs loss.convention=pytorch and loss.prior=uniform"
        )
    penalty = loss.kind == "confidence_penalty"
    penalty |= loss.kind == "generalized_entropy" and loss.alpha == 0
    if penalty and loss.prior != "uniform":
        yield (
            f"loss.prior={loss.prior} gives the padding probability 0, which makes "
            f"loss.kind={loss.kind} infinite; set loss.prior=uniform, or "
            "loss.kind=generalized_entropy with loss.alpha above 0"
        )
    if loss.kind != "label_smoothing":
        theirs = ["convention", "graduated", "class_weight_power", "z_loss", "schedule"]
        theirs += ["prior"] if loss.kind == "distillation" else []
        for name in theirs:
            value = getattr(loss, name)
            if value != getattr(LossConfig(), name):
                yield (
                    f"loss.{name}={value} belongs to loss.kind=label_smoothing, not to {loss.kind};"
                    " leave it out"
                )


def _training(config: Config) -> Iterator[str]:
    training = config.training
    if training.batch_tokens < config.data.max_length:
        yield (
            f"training.batch_tokens={training.batch_tokens} cannot hold one sentence of "
            f"{config.data.max_length} tokens; raise it or lower data.max_length"
        )
    if training.schedule in ("cosine", "linear") and training.warmup_steps >= training.max_steps:
        yield (
            f"training.warmup_steps={training.warmup_steps} leaves no step of "
            f"training.max_steps={training.max_steps} for the {training.schedule} schedule; "
            "lower it"
        )
    if training.optimizer == "adam" and training.weight_decay:
        yield (
            f"training.weight_decay={training.weight_decay:g} has no effect with "
            "training.optimizer=adam; use adamw or set it to 0"
        )
    if training.average_last > training.keep_last:
        yield (
            f"training.average_last={training.average_last} needs as many checkpoints; raise "
            f"training.keep_last={training.keep_last} or lower it"
        )
    if training.best_metric == "bleu" and not training.validate_bleu:
        yield "training.best_metric=bleu needs training.validate_bleu=true"
    if training.patience and not (training.validate_every and config.data.validation):
        yield (
            f"training.patience={training.patience} needs data.validation and "
            "training.validate_every; set it to 0"
        )


def _decoding(config: Config) -> Iterator[str]:
    d, default = config.decoding, DecodingConfig()
    if (d.unmix == "given") != bool(d.unmix_mass):
        yield (
            f"decoding.unmix={d.unmix} with decoding.unmix_mass={d.unmix_mass:g}: unmix=given "
            "needs a mass above 0, the others none"
        )
    if d.beam % d.groups:
        yield f"decoding.groups={d.groups} does not divide decoding.beam={d.beam}"
    of_search = ("stopping", "min_length", "min_length_ratio", "groups", "no_repeat_ngram")
    theirs = {
        "beam": ("top_k", "top_p", "epsilon_cut", "utility"),
        "sample": (*of_search, "utility"),
        "mbr": of_search,
    }
    for name in (*theirs[d.strategy], *(("diversity",) if d.groups == 1 else ())):
        value = getattr(d, name)
        if value != getattr(default, name):
            yield (
                f"decoding.{name}={value} has no effect with decoding.strategy={d.strategy}"
                f"{' and one group' if name == 'diversity' else ''}; leave it out"
            )


def _sweep(config: Config) -> Iterator[str]:
    values = config.sweep.smoothing
    if config.loss.kind == "label_smoothing" and any(value > 1 for value in values):
        listed = ", ".join(f"{value:g}" for value in values)
        yield f"sweep.smoothing=[{listed}]: must be at most 1"
