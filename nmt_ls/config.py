"""Every setting and its default, as frozen dataclasses: the only place where either is written.

A YAML file holds any subset of the fields; what it leaves out has the default below. The text
under each field is its help (`nmt-ls settings` and docs/configuration.md print it).
Unknown keys, wrong types and values out of range are refused by name (`nmt_ls.config_files`).
"""

import dataclasses
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

FORMAT_VERSION: Literal[1] = 1

_STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True)

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Probability = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Above0 = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Scalar = str | int | float | bool | None


@dataclass(frozen=True, config=_STRICT)
class CorpusConfig:
    """One set of sentence pairs: where it lies and which columns hold the two sides."""

    kind: Literal["text", "tsv", "jsonl", "datasets", "phrasebook", "sacrebleu", "none"] = "text"
    """text: two aligned files; tsv, jsonl: one file; datasets: whatever Hugging Face `datasets`
    loads (hub name, parquet/arrow/csv/json files, `save_to_disk` folders); phrasebook: built in;
    sacrebleu: a test set that sacreBLEU knows and fetches; none: the training text of an
    imported run, which has none."""
    path: str = ""
    """tsv, jsonl: the file. datasets: hub name, file, glob or folder."""
    source: str = ""
    """text: the source file. tsv: column number (from 1) or header name. jsonl, datasets: key,
    with dots for nested ones (`translation.en`)."""
    target: str | tuple[str, ...] = ""
    """As `source`, for the target side. Several (a list) are several references of each source;
    only validation and test sets may have them."""
    name: str = ""
    """datasets: the configuration name on the hub (`de-en` of `wmt14`). sacrebleu: the test set,
    such as `wmt14/full`."""
    split: str = ""
    """datasets: which split (`train`, `train[:1%]`). phrasebook: train, validation or test."""
    size: Count = 0
    """Use only the first `size` pairs; 0 means all. phrasebook: how many pairs are drawn."""
    grammar: Literal["full", "small"] = "full"
    """phrasebook: the whole grammar, or the sub-grammar of the quickstart."""


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """The parallel text, and what training leaves out of it."""

    root: str = "."
    """Relative paths of the corpora below start here. `${NAME:-default}` reads the environment."""
    source_language: str = "en"
    """Language code of the source side: in reports, and a usual name of its column."""
    target_language: str = "de"
    """Language code of the target side: in reports, a usual name of its column, and how BLEU splits
    words (`evaluation.bleu_tokenize`)."""
    train: CorpusConfig = CorpusConfig()
    """Training pairs."""
    validation: CorpusConfig | None = None
    """Validation pairs; every line is kept."""
    tests: dict[str, CorpusConfig] = dataclasses.field(default_factory=dict)
    """Test sets by name; every line is kept, and results.json uses these names."""
    max_length: Positive = 128
    """Training pairs with a longer side (subword tokens, end-of-sentence included) are left out."""
    max_length_ratio: Above0 = 4.0
    """Training pairs whose longer side has more than this many times the tokens of the shorter
    one are left out. Pairs with both sides of at most 10 tokens always stay."""
    deduplicate: bool = False
    """Keep only the first of identical training pairs."""
    noise: Rate = 0.0
    """phrasebook: share of target words replaced by random ones, in the training split only."""
    pretokenized: bool = False
    """The text is already segmented: the vocabulary is its whitespace tokens."""
    joiner: str = "@@ "
    """pretokenized: what is deleted from outputs and references to undo the segmentation."""
    num_proc: Positive = 1
    """Threads that tokenise."""
    cache_dir: str = ""
    """Where tokenised tables, and the copies that `datasets` makes of local files, are cached;
    empty: `$NMT_LS_CACHE`, else `~/.cache/nmt_ls`."""


@dataclass(frozen=True, config=_STRICT)
class SubwordsConfig:
    """SentencePiece: how sentences become subword ids."""

    model_file: str = ""
    """A SentencePiece model to use instead of training one."""
    source_model_file: str = ""
    """The source side's model, where the two sides have one each."""
    joint: bool = True
    """One model for both sides; false trains one for each."""
    algorithm: Literal["unigram", "bpe"] = "unigram"
    """Segmentation algorithm."""
    vocab_size: Annotated[int, Field(ge=100, le=256_000)] = 8000
    """Number of pieces, the four special ones (pad, unk, bos, eos) included."""
    character_coverage: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the text's characters that get a piece."""
    byte_fallback: bool = False
    """Spell unknown characters as bytes instead of `<unk>`."""
    normalization: Literal["nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity"] = "nmt_nfkc"
    """SentencePiece normalisation rule (`_cf` lower-cases)."""
    user_symbols: tuple[str, ...] = ()
    """Symbols that are always one piece, such as language tags `<2de>`."""
    training_sentences: Positive = 5_000_000
    """At most this many sentences, drawn at random, train the model (and at most 40 million
    characters: SentencePiece needs some 23 bytes of memory for each)."""
    sampling_candidates: Positive = 1
    """Subword regularisation (Kudo 2018): each training sentence is drawn anew among this many
    best segmentations; 1 turns it off."""
    sampling_alpha: NonNegative = 0.1
    """Subword regularisation: probability ∝ P(segmentation)^alpha; 0 draws uniformly."""


@dataclass(frozen=True, config=_STRICT)
class ModelConfig:
    """A Transformer encoder–decoder (Vaswani et al. 2017)."""

    encoder_layers: Positive = 3
    """Encoder layers."""
    decoder_layers: Positive = 3
    """Decoder layers."""
    width: Annotated[int, Field(ge=2, multiple_of=2)] = 256
    """Width of hidden states and embeddings (d_model)."""
    heads: Positive = 4
    """Attention heads; must divide `width`."""
    feed_forward: Positive = 1024
    """Inner width of the feed-forward blocks."""
    norm: Literal["pre", "post"] = "pre"
    """Layer norm before each block (with one more at the end of each stack) or after it."""
    positions: Literal["sinusoidal", "sinusoidal_paper", "learned"] = "sinusoidal"
    """Position encoding. sinusoidal: wavelengths up to 10000·2π at the last pair of dimensions
    (tensor2tensor, fairseq); sinusoidal_paper: 2π·10000^(2i/width), which ends just below
    (Vaswani et al. 2017, §3.5; Hugging Face's Marian)."""
    max_positions: Positive = 512
    """learned positions: the longest sequence."""
    activation: Literal["relu", "gelu", "gelu_exact", "swish", "swiglu"] = "relu"
    """Feed-forward activation. gelu: its tanh approximation; gelu_exact: with erf; swish:
    x·sigmoid(x)."""
    tied_embeddings: Literal["none", "decoder", "all"] = "all"
    """decoder: target embedding = output matrix; all: source embedding too (joint subwords)."""
    scale_embeddings: bool = True
    """Multiply token embeddings by √width (Vaswani et al. 2017, §3.4)."""
    output_bias: bool = False
    """tied embeddings: add a learned bias to the logits, as Marian does (`none` always has one)."""
    norm_epsilon: Above0 = 1e-6
    """Added to the variance in layer norms; PyTorch's models have 1e-5."""
    dropout: Rate = 0.1
    """Dropout on embeddings and on what each block adds to the residual stream."""
    attention_dropout: Rate = 0.0
    """Dropout on attention weights (takes the explicit attention path)."""
    activation_dropout: Rate = 0.0
    """Dropout inside the feed-forward blocks."""
    logit_softcap: NonNegative = 0.0
    """c: logits are c·tanh(logits/c), in training and decoding (Gemma 2); 0 is off."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """Type of activations and matrix products; parameters, softmax and loss stay float32. jax
    multiplies float32 as TF32 on NVIDIA GPUs that have it; JAX_DEFAULT_MATMUL_PRECISION=highest in
    the environment makes it full float32."""
    attention: Literal["auto", "xla", "cudnn", "explicit"] = "auto"
    """auto: cuDNN's flash kernel where it applies (GPU, bfloat16), else XLA's; cudnn: that kernel,
    no training without a GPU; explicit: our own, which can drop out and return the weights."""


@dataclass(frozen=True, config=_STRICT)
class LossConfig:
    """What a step minimises: label-smoothed cross-entropy, or a relative of it."""

    kind: Literal[
        "label_smoothing", "confidence_penalty", "generalized_entropy", "distillation"
    ] = "label_smoothing"
    """confidence_penalty: nll + beta·KL(p‖prior), for the uniform prior nll − beta·H(p) (Pereyra
    et al. 2017). generalized_entropy: nll + beta·D_alpha(prior‖p) (Meister et al. 2020).
    distillation: (1−beta)·nll + beta·T²·KL(p of `teacher_run`‖p) (Hinton et al. 2015)."""
    label_smoothing: Probability = 0.1
    """ε: the share of each target's probability mass that is spread over the vocabulary."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How ε goes from `label_smoothing` to `final_label_smoothing` over `training.max_steps`."""
    final_label_smoothing: Probability = 0.0
    """linear, cosine: ε at the last step."""
    convention: Literal[
        "pytorch", "optax", "huggingface", "marian", "fairseq", "t5x", "flax_wmt", "joeynmt"
    ] = "pytorch"
    """Whose definition of the smoothed target is used: ε/V on every class (pytorch, optax,
    huggingface, marian), ε/(V−1) on the others (fairseq, t5x, flax_wmt), ε/(V−2) without the
    padding (joeynmt)."""
    z_loss: NonNegative = 0.0
    """Adds z_loss · logsumexp(logits)² to each token's loss."""
    prior: Literal["uniform", "unigram", "masked"] = "uniform"
    """Who receives ε. unigram: target tokens by their share of the training text; masked: every
    token that occurs on the target side, none of the source-only ones (Chen et al. 2022)."""
    prior_temperature: Above0 = 1.0
    """unigram: counts to the power of 1/temperature; towards uniform as it rises."""
    graduated: Literal["none", "self", "run"] = "none"
    """ε by the confidence in each token (Wang et al. 2020): that of the model itself as it trains,
    or of the trained run `graduated_run`. `label_smoothing` is the ε of middling ones."""
    graduated_run: str = ""
    """graduated=run: a run directory with the same subwords."""
    graduated_below: Probability = 0.3
    """graduated: under this probability of the label, ε is 0."""
    graduated_above: Probability = 0.7
    """graduated: over this probability of the label, ε is `graduated_smoothing`."""
    graduated_smoothing: Probability = 0.3
    """graduated: ε of confident tokens."""
    class_weight_power: NonNegative = 0.0
    """Weighs each token's loss by the rarity of its class, as PyTorch's class weights do:
    ∝ (count + 1)^−power, 1 on average over the training text; 0 is off."""
    beta: NonNegative = 0.1
    """confidence_penalty, generalized_entropy: strength; distillation: the teacher's share."""
    teacher_run: str = ""
    """distillation: the run that is learnt from, a run directory with the same subwords."""
    teacher_temperature: Above0 = 1.0
    """distillation: T, both distributions are taken to the power of 1/T."""
    alpha: Probability = 0.5
    """generalized_entropy: 0 is the confidence penalty, 1 label smoothing."""


@dataclass(frozen=True, config=_STRICT)
class TrainingConfig:
    """The training loop, its optimizer and its checkpoints."""

    max_steps: Positive = 10_000
    """Updates."""
    batch_tokens: Positive = 4096
    """Target positions of one update's batch, padding included, over all devices and hosts."""
    shapes: Annotated[int, Field(ge=1, le=8)] = 8
    """Distinct (source length, target length) shapes that batches may have."""
    accumulation: Positive = 1
    """Each batch is worked through in this many parts, to save memory; the update is the same."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """adamw decouples weight decay; adam has none."""
    learning_rate: Above0 = 1e-3
    """Peak learning rate."""
    schedule: Literal["inverse_sqrt", "cosine", "linear", "constant"] = "inverse_sqrt"
    """After the linear warm-up: ∝ 1/√step; or down to `final_learning_rate` at `max_steps`."""
    warmup_steps: Count = 1000
    """Linear warm-up from 0."""
    final_learning_rate: NonNegative = 0.0
    """cosine, linear: the learning rate at the last step."""
    beta1: Rate = 0.9
    """Adam β₁."""
    beta2: Rate = 0.98
    """Adam β₂."""
    epsilon: Above0 = 1e-9
    """Adam ε (not label smoothing)."""
    weight_decay: NonNegative = 0.0
    """adamw: decay of matrices; biases and norms have none."""
    clip_norm: NonNegative = 1.0
    """Largest global gradient norm (per-token mean gradient); 0 turns clipping off."""
    ema_decay: Rate = 0.0
    """Decay of the exponential moving average of the parameters; 0 keeps none. Where kept, it is
    what is validated, evaluated and averaged."""
    devices: Count = 0
    """Use the first so many local devices; 0 means all."""
    log_every: Positive = 50
    """Steps between records in metrics.jsonl."""
    validate_every: Count = 1000
    """Steps between validations; 0 never validates."""
    validate_bleu: bool = True
    """Also translate the validation set (greedily, not un-mixed) and measure BLEU."""
    checkpoint_every: Positive = 1000
    """Steps between checkpoints; the last step always has one."""
    keep_last: Positive = 5
    """How many of the latest checkpoints are kept."""
    keep_best: Count = 1
    """How many of the best validated checkpoints are kept besides."""
    best_metric: Literal["perplexity", "bleu"] = "perplexity"
    """What "best" and early stopping go by. A run that is continued with another one, or with other
    `data.validation`, forgets its earlier validations."""
    patience: Count = 0
    """Stop after so many validations without a new best; 0 never stops early. Raised, it continues
    a run that it has stopped."""
    average_last: Count = 5
    """At the end, write the average of the last so many regular checkpoints (every
    `checkpoint_every` steps, and at `max_steps`). One that early stopping leaves at another step
    does not count, unless there is no other. 0 writes none."""
    max_skipped: Positive = 5
    """Stop after so many steps in a row with gradients that are not finite."""
    init_from: str = ""
    """A run directory whose parameters (and subwords) a fine-tuning starts from."""
    tensorboard: bool = False
    """Also write TensorBoard event files (`pip install tensorboardX`)."""


@dataclass(frozen=True, config=_STRICT)
class DecodingConfig:
    """How translations are found: search or sampling, and in which distribution."""

    strategy: Literal["beam", "sample", "mbr"] = "beam"
    """beam search; sample: one draw; mbr: of `samples` draws the one with the greatest expected
    `utility` against all of them (minimum Bayes risk)."""
    beam: Annotated[int, Field(ge=1, le=200)] = 5
    """Hypotheses kept at each step; 1 is greedy search."""
    stopping: Literal["bound", "first_k"] = "bound"
    """beam: bound stops when nothing better can come; first_k when `beam` hypotheses have
    finished (CTranslate2)."""
    length_penalty: Literal["none", "average", "gnmt"] = "average"
    """A hypothesis' score is log p / penalty(n): 1; n^alpha; ((5+n)/6)^alpha. n counts
    end-of-sentence unless `length_excludes_eos`."""
    length_alpha: NonNegative = 1.0
    """The exponent of the length penalty."""
    length_excludes_eos: bool = False
    """Do not count end-of-sentence in n."""
    groups: Positive = 1
    """beam: search in so many groups of hypotheses that avoid each other's tokens (Vijayakumar et
    al. 2018); divides `beam`."""
    diversity: NonNegative = 0.5
    """groups > 1: nats that a token costs for each hypothesis of earlier groups that has just taken
    it; scores do not contain it."""
    no_repeat_ngram: Count = 0
    """beam: n, no n-gram of subwords comes twice in a translation; 0 allows all."""
    min_length_ratio: NonNegative = 0.0
    """beam: shortest output: min_length_ratio · source tokens + min_length, without the end."""
    min_length: Count = 0
    """See `min_length_ratio`."""
    max_source_length: Annotated[int, Field(ge=2)] = 512
    """Longer sentences (subword tokens, end-of-sentence included) are translated up to here, with a
    warning that counts them."""
    max_length_ratio: NonNegative = 2.0
    """Longest output: max_length_ratio · source tokens + max_length_extra."""
    max_length_extra: Positive = 20
    """See `max_length_ratio`."""
    unmix: Literal["none", "exact", "given"] = "none"
    """Take the smoothing prior's share off the model's distribution first. exact: what the run's
    loss put in; given: `unmix_mass` of it, spread as the run's prior."""
    unmix_mass: Rate = 0.0
    """unmix=given: δ, the share of the mixture that is the prior's."""
    temperature: Above0 = 1.0
    """p^(1/temperature), renormalised, after un-mixing; scores are in it too."""
    samples: Annotated[int, Field(ge=1, le=1024)] = 64
    """mbr: draws of each sentence."""
    top_k: Count = 0
    """sample, mbr: draw among so many most probable tokens; 0 is all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """sample, mbr: draw among the fewest tokens whose probabilities reach this (nucleus)."""
    epsilon_cut: Rate = 0.0
    """sample, mbr: draw among tokens of at least this probability (ε-sampling)."""
    utility: Literal["chrf", "bleu"] = "chrf"
    """mbr: sentence-level chrF2, or BLEU with its smoothing, of 13a words: not for Chinese and
    other text without spaces."""
    seed: Seed = 1
    """sample, mbr: of the draws."""
    batch_sentences: Positive = 64
    """Sentences searched at a time."""


BleuTokenizer = Literal[
    "auto", "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "flores200", "none"
]


@dataclass(frozen=True, config=_STRICT)
class EvaluationConfig:
    """What `evaluate` measures besides quality, likelihood and calibration."""

    fit: bool = True
    """Also the likelihood and calibration after temperature, un-mixing of the smoothing prior and
    both, fitted on data.validation: four passes over it."""
    empty: bool = True
    """Also how often the empty translation is more probable than what search found."""
    word_frequency: bool = True
    """Also how well words are translated that training saw never, seldom or often, where the
    training text is at hand; its words are counted once and cached."""
    bleu_tokenize: BleuTokenizer = "auto"
    """How sacreBLEU splits words for BLEU. auto: zh, ja-mecab or ko-mecab for the `target_language`
    zh, ja or ko, as sacreBLEU does with its own test sets, and 13a for all others. ja-mecab and
    ko-mecab need `pip install sacrebleu[ja]` or `[ko]`; flores200 fetches a model; char is for any
    script; none is for text that is tokenised."""
    beams: tuple[Annotated[int, Field(ge=1, le=200)], ...] = ()
    """Also BLEU and length ratio of these beam sizes without a length penalty, such as 1, 5, 100:
    they show the bias of search towards short outputs."""
    strategies: tuple[Literal["sample", "mbr"], ...] = ()
    """Also BLEU and chrF of these ways to decode, with the run's own `decoding` otherwise."""
    projection: bool = False
    """Also how tightly hidden states cluster by the word they predict, on the plane of three words
    (Müller et al. 2019): the picture of the report."""
    training_pairs: Count = 0
    """Also the likelihood of so many training pairs, and by it the gap between new text and known
    text."""
    lowercase_tokenized: bool = False
    """Also lower-cased BLEU over white-space words, as older papers report it; for test sets that
    are tokenised text."""
    comet: str = ""
    """Also COMET, by this checkpoint on disk (`….ckpt`)."""
    comet_command: str = "comet-score"
    """The command of unbabel-comet, which needs an environment of its own: its versions of numpy
    and protobuf are older than ours."""


@dataclass(frozen=True, config=_STRICT)
class SweepConfig:
    """Which runs a comparison consists of."""

    smoothing: tuple[NonNegative, ...] = (0.0, 0.1, 0.2)
    """The values of ε that are compared (at most 1); of `loss.beta` where `loss.kind` has no ε,
    0 being plain cross-entropy there too."""
    seeds: Positive = 3
    """Runs per ε: seeds `seed`, `seed`+1, …; the same ones for every ε."""
    grid: dict[str, tuple[Scalar, ...]] = dataclasses.field(default_factory=dict)
    """Other settings that are varied, each with its values, such as `{model.dropout: [0, 0.3]}`:
    every combination of them is run with every ε and seed."""
    together: Count = 0
    """The largest number of runs that form one group, to be trained as one program: runs that
    differ only in ε, seed, dropout rates, learning rate and weight decay (a dropout rate or decay
    of 0 goes with none above 0). 0: as many as fit; 1: each alone. Decided when a run first enters
    plan.json."""


@dataclass(frozen=True, config=_STRICT)
class Config:
    """One training run, with all that decides it."""

    format_version: Literal[1] = FORMAT_VERSION
    """Version of this format."""
    name: str = ""
    """What reports call this experiment."""
    seed: Seed = 1
    """Decides initialisation, data order, dropout and sampling."""
    data: DataConfig = DataConfig()
    subwords: SubwordsConfig = SubwordsConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()
    decoding: DecodingConfig = DecodingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    sweep: SweepConfig = SweepConfig()
