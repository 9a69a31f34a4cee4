"""Configuration files: what is accepted, what is refused, and in which words."""

import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt_ls import config_files
from nmt_ls.config import Config
from nmt_ls.config_unused import check_unused
from nmt_ls.errors import UserError

SMALL = """
data:
  train: {source: train.en, target: train.de}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        config_files.load_config(path, overrides)
    message = str(error.value)
    assert len(message.split("\n")) <= 2
    return message


def test_what_a_file_leaves_out_has_its_default(small: Path) -> None:
    config = config_files.load_config(small)
    assert config.data.train.source == "train.en"
    assert config.training == Config().training


def test_overrides(small: Path) -> None:
    config = config_files.load_config(
        small,
        [
            "training.max_steps=100",
            "training.learning_rate=1e-3",
            "training.epsilon=1E-8",
            "data.tests.news.source=n.en",
            "data.tests.news.target=[a.de, b.de]",
            "data.joiner=@@ ",
            "sweep.smoothing=[0, 0.1]",
            "data.cache_dir=",
            "training.max_steps=200",
        ],
    )
    assert config.training.max_steps == 200
    assert config.training.learning_rate == 1e-3
    assert config.training.epsilon == 1e-8
    assert config.data.tests["news"].target == ("a.de", "b.de")
    assert config.data.joiner == "@@ "
    assert config.sweep.smoothing == (0.0, 0.1)


def test_scalars_mean_what_they_look_like(small: Path) -> None:
    config = config_files.load_config(
        small,
        [
            "data.source_language=no",
            "name=2024",
            "data.train.kind=tsv",
            "data.train.path=p.tsv",
            "data.train.source=1",
            "data.train.target=2",
        ],
    )
    assert config.data.source_language == "no"  # Norwegian, not false
    assert config.name == "2024"
    assert (config.data.train.source, config.data.train.target) == ("1", "2")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.max_step=3",
            (
                "unknown key training.max_step: training has no setting 'max_step'; "
                "did you mean training.max_steps?"
            ),
        ),
        (
            "max_steps=3",
            (
                "unknown key max_steps: there is no setting 'max_steps'; "
                "did you mean training.max_steps?"
            ),
        ),
        (
            "data.tests.a.sorce=x",
            (
                "unknown key data.tests.a.sorce: data.tests.a has no setting 'sorce'; "
                "did you mean data.tests.a.source?"
            ),
        ),
        ("training.max_steps=abc", "training.max_steps=abc: must be a whole number"),
        ("training.max_steps='5'", "training.max_steps=5: must be a whole number"),
        ("training.max_steps=1e4", "training.max_steps=10000.0: must be a whole number"),
        ("training.max_steps=0", "training.max_steps=0: must be at least 1"),
        ("seed=true", "seed=true: must be a whole number"),
        ("seed=4294967296", "seed=4294967296: must be less than 4294967296"),
        ("decoding.seed=4294967296", "decoding.seed=4294967296: must be less than 4294967296"),
        ("data.deduplicate=yes", "data.deduplicate=yes: must be true or false"),
        ("loss.label_smoothing=1.5", "loss.label_smoothing=1.5: must be at most 1"),
        ("loss.label_smoothing=.nan", "loss.label_smoothing=NaN: must be at most 1"),
        ("training.learning_rate=.inf", "training.learning_rate=Infinity: must be a finite number"),
        ("model.dropout=1", "model.dropout=1: must be less than 1"),
        ("model.width=255", "model.width=255: must be a multiple of 2"),
        (
            "subwords.algorithm=unigrm",
            "subwords.algorithm=unigrm: must be one of unigram, bpe; did you mean unigram?",
        ),
        ("format_version=2", "format_version=2: must be 1"),
        ("data.train=3", "data.train=3: must be a section of settings"),
        ("data.train.target={a: b}", 'data.train.target={"a": "b"}: must be text or a list, each '),
        ("sweep.smoothing=[0, 2]", "sweep.smoothing=[0, 2]: must be at most 1"),
        ("foo", "--set foo: write key=value, as in training.max_steps=100"),
        ("seed.x=1", "unknown"),
    ],
)
def test_bad_settings_are_named_with_a_way_out(small: Path, override: str, message: str) -> None:
    if message == "unknown":
        assert refused(small, override) == 'seed={"x": 1}: must be a whole number'
    else:
        assert refused(small, override).startswith(message)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["training.batch_tokens=100"],
            (
                "training.batch_tokens=100 cannot hold one sentence of 128 tokens; "
                "raise it or lower data.max_length"
            ),
        ),
        (
            ["model.attention=cudnn"],
            (
                "model.attention=cudnn has no kernel for model.compute=float32; set "
                "model.attention=auto or model.compute=bfloat16"
            ),
        ),
        (
            ["loss.kind=confidence_penalty", "loss.prior=unigram"],
            (
                "loss.prior=unigram gives the padding probability 0, which makes "
                "loss.kind=confidence_penalty infinite; set loss.prior=uniform, or "
                "loss.kind=generalized_entropy with loss.alpha above 0"
            ),
        ),
        (
            ["loss.kind=generalized_entropy", "loss.alpha=0", "loss.prior=masked"],
            (
                "loss.prior=masked gives the padding probability 0, which makes "
                "loss.kind=generalized_entropy infinite; set loss.prior=uniform, or "
                "loss.kind=generalized_entropy with loss.alpha above 0"
            ),
        ),
        (
            ["model.heads=3"],
            "model.heads=3 does not divide model.width=256; use 2 heads",
        ),
        (
            ["subwords.joint=false"],
            (
                "model.tied_embeddings=all needs one vocabulary for both sides; set "
                "subwords.joint=true or model.tied_embeddings=decoder"
            ),
        ),
        (
            ["data.noise=0.1"],
            "data.noise=0.1 needs data.train.kind=phrasebook; set it to 0",
        ),
        (
            ["data.train.target=[a, b]"],
            "data.train.target names 2 references; only validation and test sets may have several",
        ),
        (
            ["data.tests.a.source=x"],
            "data.tests.a.target names no file; kind=text needs two aligned files",
        ),
        (
            ["data.tests.a b.source=x", "data.tests.a b.target=y"],
            "data.tests.a b: a test set's name has letters, digits, _ and - only",
        ),
        (
            [f"data.tests.{'ä' * 51}.source=x", f"data.tests.{'ä' * 51}.target=y"],
            (
                f"data.tests.{'ä' * 51}: a test set's name has at most 100 bytes, as it is part of "
                "files' names; shorten it"
            ),
        ),
        (
            ["training.schedule=cosine", "training.max_steps=1000"],
            (
                "training.warmup_steps=1000 leaves no step of training.max_steps=1000 for the "
                "cosine schedule; lower it"
            ),
        ),
        (
            ["subwords.algorithm=bpe", "subwords.sampling_candidates=8"],
            "subwords.sampling_candidates=8 needs subwords.algorithm=unigram; set it to 1 for bpe",
        ),
        (
            ["data.train.kind=phrasebook"],
            "data.train.size=0: say how many pairs the phrasebook shall draw",
        ),
        (
            ["training.average_last=9"],
            (
                "training.average_last=9 needs as many checkpoints; raise training.keep_last=5 or "
                "lower it"
            ),
        ),
        (
            ["model.positions=learned", "model.max_positions=64"],
            (
                "model.max_positions=64 cannot hold a sentence of 128 tokens; raise it or lower "
                "data.max_length"
            ),
        ),
    ],
)
def test_settings_that_do_not_go_together(small: Path, overrides: list[str], message: str) -> None:
    assert refused(small, *overrides) == message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.pretokenized=true", "subwords.training_sentences=500"],
            "subwords.training_sentences=500 has no effect with data.pretokenized=true",
        ),
        (
            ["subwords.model_file=m", "subwords.user_symbols=[<2de>]"],
            'subwords.user_symbols=["<2de>"] has no effect beside subwords.model_file',
        ),
        (
            ["training.init_from=run", "subwords.model_file=m"],
            "subwords.model_file=m has no effect beside training.init_from",
        ),
        (
            ["loss.kind=distillation", "loss.teacher_run=run", "subwords.byte_fallback=true"],
            "subwords.byte_fallback=true has no effect beside loss.teacher_run",
        ),
        (
            ["loss.graduated=run", "loss.graduated_run=run", "subwords.vocab_size=500"],
            "subwords.vocab_size=500 has no effect beside loss.graduated_run",
        ),
        (
            ["training.schedule=constant", "training.final_learning_rate=1e-5"],
            "training.final_learning_rate=1e-05 has no effect with training.schedule=constant",
        ),
        (
            ["data.validation={source: a, target: b, split: valid}"],
            "data.validation.split=valid has no effect with data.validation.kind=text",
        ),
        (
            ["loss.final_label_smoothing=0.05"],
            "loss.final_label_smoothing=0.05 has no effect with loss.schedule=constant",
        ),
        (["loss.beta=0.5"], "loss.beta=0.5 has no effect with loss.kind=label_smoothing"),
        (
            ["loss.graduated_below=0.1"],
            "loss.graduated_below=0.1 has no effect with loss.graduated=none",
        ),
        (["decoding.samples=8"], "decoding.samples=8 has no effect with decoding.strategy=beam"),
        (["data.train.path=c"], "data.train.path=c has no effect with data.train.kind=text"),
    ],
)
def test_settings_that_nothing_reads(
    small: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    config = config_files.load_config(small, overrides)
    assert check_unused([config]) == [message]
    # A run that was begun with them is continued from either file.
    config_files.save_config(config, tmp_path / "config.yaml")
    assert config_files.load_config(tmp_path / "config.yaml") == config


def test_settings_that_other_strategies_read(small: Path) -> None:
    given = ["decoding.samples=8", "decoding.seed=3", "evaluation.strategies=[mbr]"]
    assert check_unused([config_files.load_config(small, given)]) == []
    given[-1] = "evaluation.strategies=[sample]"
    told = ["decoding.samples=8 has no effect with decoding.strategy=beam"]
    assert check_unused([config_files.load_config(small, given)]) == told


def test_settings_that_some_runs_of_a_sweep_read(small: Path) -> None:
    def unused(*settings: dict[str, object]) -> list[str]:
        return check_unused([config_files.with_settings(base, given) for given in settings])

    base = config_files.load_config(small, ["training.final_learning_rate=1e-5"])
    told = "training.final_learning_rate=1e-05 has no effect with training.schedule=inverse_sqrt"
    assert unused({}, {"training.schedule": "constant"}) == [told]
    assert unused({}, {"training.schedule": "linear"}) == []
    # Of no use though it is what a grid varies, and its first value the default.
    base = config_files.load_config(small)
    assert unused({}, {"training.final_learning_rate": 1e-5}) == [told]


def test_a_short_trial_of_a_long_configuration_is_allowed(small: Path) -> None:
    assert config_files.load_config(small, ["training.max_steps=2"]).training.warmup_steps == 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "c.yaml, line 2: the key 'a' stands twice"),
        ("- 1\n", "c.yaml: not a configuration (keys and values), but [1]"),
        ("data: {train: [}\n", "c.yaml, line 1: expected the node content, but found '}'"),
        ("x: &a [*a]\n", "the configuration refers to itself"),
        ("? [a]\n: 2\n", "c.yaml, line 1: a key is not a plain name"),
        ("model: !!python/object:os.x {}\n", "c.yaml, line 1: could not determine a constructor"),
        ("a: 1\nb: 2\nc: 3\n", "(and 1 more)"),
        ("data: 2020-01-01\n", 'data="2020-01-01": must be a section of settings'),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert message in refused(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: Gr\xfc\xdfe\n")
    assert refused(tmp_path / "latin.yaml").endswith("latin.yaml: not UTF-8 (byte 9)")


def test_environment_variables(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NMT_LS_NOWHERE", raising=False)
    monkeypatch.setenv("NMT_LS_SOMEWHERE", "/corpora")
    config = config_files.load_config(
        small, ["data.root=${NMT_LS_SOMEWHERE}/x", "data.cache_dir=${NMT_LS_NOWHERE:-../c}"]
    )
    assert (config.data.root, config.data.cache_dir) == ("/corpora/x", "../c")
    assert refused(small, "data.root=${NMT_LS_NOWHERE}").startswith(
        "data.root=${NMT_LS_NOWHERE}: the environment variable NMT_LS_NOWHERE is not set"
    )
    # What is typed is expanded also where what is stored is left as it is.
    given = ["loss.kind=distillation", "loss.teacher_run=${NMT_LS_SOMEWHERE}/run"]
    again = config_files.with_settings(config, {}, given)
    assert again.loss.teacher_run == "/corpora/run"
    # Only in paths: a joiner may hold what it likes.
    assert config_files.load_config(small, ["data.joiner=${X}"]).data.joiner == "${X}"


def test_merges(tmp_path: Path) -> None:
    """Also of a section that stands deeper, and merges another one itself."""
    path = tmp_path / "c.yaml"
    path.write_text(
        "data:\n"
        "  train: &a {kind: datasets, path: p, split: train}\n"
        "  tests: {one: &b {<<: *a, split: s1}, two: {<<: [*b, *a]}}\n"
        "  validation: {<<: *b, size: 010}\n"
    )
    data = config_files.load_config(path).data
    assert [c.split for c in (data.train, data.validation, *data.tests.values())] == [
        "train", "s1", "s1", "s1",
    ]  # fmt: skip
    assert (data.validation.path, data.validation.size) == ("p", 10)
    path.write_text("a: &a {x: 1}\nb: &b {<<: *a, y: 1, y: 2}\nc: {<<: *b}\n")
    assert refused(path).endswith("c.yaml, line 2: the key 'y' stands twice")


@pytest.mark.parametrize("name", ["010", "089", "1:30", "1e3", "0x1F", "0o17", "no", "1_000"])
def test_text_that_looks_like_a_number_comes_back(small: Path, tmp_path: Path, name: str) -> None:
    config = config_files.load_config(small, [f"name='{name}'"])
    config_files.save_config(config, tmp_path / "config.yaml")
    assert config_files.load_resolved(tmp_path / "config.yaml").name == name
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["name"] == name


def test_integers_are_decimal(small: Path) -> None:
    def seed(text: str) -> int:
        return config_files.load_config(small, [f"seed={text}"]).seed

    assert [seed(text) for text in ("010", "0x1F", "1_000")] == [10, 31, 1000]
    assert refused(small, "seed=1:30") == "seed=1:30: must be a whole number"


def test_saved_configurations_come_back(small: Path, tmp_path: Path) -> None:
    config = config_files.load_config(
        small,
        ["data.tests.a={source: x, target: [y, z]}", "name=Größe ε", "training.epsilon=1e-9"],
    )
    path = tmp_path / "config.yaml"
    config_files.save_config(config, path)
    assert config_files.load_resolved(path) == config
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert written["training"]["max_steps"] == 10_000
    assert written["format_version"] == 1
    assert [p.name for p in tmp_path.iterdir()].count("config.yaml") == 1
    path.write_text("format_version: 9\n")
    with pytest.raises(UserError, match="format_version=9, but this nmt_ls reads 1"):
        config_files.load_resolved(path)


@settings(deadline=None, max_examples=50)
@given(
    st.floats(min_value=0, max_value=1),
    st.floats(min_value=1e-300, max_value=1e300),
    st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs"])),
)
def test_every_number_and_text_survives_saving(
    tmp_path_factory: pytest.TempPathFactory, smoothing: float, rate: float, name: str
) -> None:
    config = config_files.load_config(
        _written(tmp_path_factory), ["training.max_steps=7", "training.schedule=constant"]
    )
    config = dataclasses.replace(
        config,
        name=name,
        loss=dataclasses.replace(config.loss, label_smoothing=smoothing),
        training=dataclasses.replace(config.training, learning_rate=rate),
    )
    path = tmp_path_factory.getbasetemp() / "survives.yaml"
    config_files.save_config(config, path)
    assert config_files.load_resolved(path) == config


def _written(factory: pytest.TempPathFactory) -> Path:
    path = factory.getbasetemp() / "given.yaml"
    path.write_text(SMALL)
    return path


def test_differences(small: Path) -> None:
    a = config_files.load_config(small)
    b = config_files.load_config(small, ["seed=3", "data.tests.x={source: b, target: c}"])
    found = config_files.differences(a, b)
    assert [row[0] for row in found] == ["seed", "data.tests.x"]
    assert found[0] == ("seed", 1, 3)
    assert config_files.differences(a, a) == []


def test_every_setting_is_described() -> None:
    rows = {key: rest for key, *rest in config_files.describe_settings()}
    assert rows["loss.label_smoothing"][:2] == ["a number ≥ 0, ≤ 1", "0.1"]
    assert rows["subwords.algorithm"][:2] == ["unigram | bpe", "unigram"]
    assert rows["sweep.smoothing"][1] == "[0.0, 0.1, 0.2]"
    assert all(help_text for _, _, help_text in rows.values())
    described = {key for key in rows if not key.startswith(("data.validation", "data.tests"))}
    resolved = config_files.resolved_dict(Config())
    assert described == set(_leaves(resolved, "")) - {"data.validation", "data.tests"}


def _leaves(tree: dict, prefix: str) -> list[str]:
    keys: list[str] = []
    for name, value in tree.items():
        inside = isinstance(value, dict) and name not in ("tests", "grid")
        keys += _leaves(value, f"{prefix}{name}.") if inside else [prefix + name]
    return keys
