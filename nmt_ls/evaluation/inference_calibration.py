"""Calibration of what a model writes itself, not of references that are read to it.

Teacher forcing shows a model only correct prefixes. Here the tokens are those of its own
translation, and a token is right if TER aligns it with an equal one of the reference.

Reference: Wang, Tu, Shi and Liu, "On the Inference Calibration of Neural Machine Translation"
(ACL 2020, arXiv 2005.00963). Two differences from the code that they released: a match stays right
where the reference has a word before it that the translation lacks (theirs calls it wrong), and
since a shifted word keeps its place here, none is left out because it could not be found again.
"""

import re
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike
from sacrebleu.metrics import lib_ter

from nmt_ls.evaluation.calibration import calibration

BINS = 20
"""As in the paper."""

CONTROL_PIECES = ("<pad>", "<s>", "</s>", "<extra>")
"""Pieces that are no text: SentencePiece's names, and `Subwords.piece`'s for ids beyond them."""

_UNKNOWN = "<unk>"
_BYTE = re.compile("<0x([0-9A-F]{2})>")


class NoWords(ValueError):
    """A piece holds parts of two words with one probability."""


class _Word(str):
    """A word that TER may move about, and that still knows where it stood."""

    place: int


def inference_labels(
    hypothesis_tokens: Sequence[str], reference_tokens: Sequence[str]
) -> list[bool | None]:
    """Whether each token of a translation is right, by TER's alignment (Snover et al. 2006).

    The alignment is the one of sacreBLEU's TER score: words are first shifted while that saves
    edits, then edited. A shift costs TER an edit but leaves the word right.

    Args:
      hypothesis_tokens: T words (or pieces) of the translation.
      reference_tokens: those of the reference, cut in the same way. They are compared as they
        are: case and punctuation count.

    Returns:
      T labels: True for a match, False for a substitution or an insertion, None where it cannot
      be told: the reference has no words, or the token itself is none (empty or white space).

    Raises:
      ValueError: a string instead of a list of them.
    """
    for tokens in (hypothesis_tokens, reference_tokens):
        if isinstance(tokens, str):
            raise ValueError(f"expected a list of tokens, got the string {tokens!r}")
    labels: list[bool | None] = [None] * len(hypothesis_tokens)
    words = []
    for place, token in enumerate(hypothesis_tokens):
        if token.strip():
            words.append(_Word(token))
            words[-1].place = place
    reference = [token for token in reference_tokens if token.strip()]
    if not words or not reference:
        return labels
    shifted, trace, _ = _align(words, reference)
    # The trace rewrites the hypothesis into the reference: "d" deletes a word that is too many,
    # "i" inserts a missing one, for which the hypothesis has no word.
    for word, edit in zip(shifted, trace.replace(lib_ter._OP_INS, ""), strict=True):
        labels[word.place] = edit == lib_ter._OP_NOP
    return labels


def _align(words: list[_Word], reference: list[str]) -> tuple[list[_Word], str, int]:
    """(the words in the order that TER's shifts leave them in, its edits of them, the shifts).

    The loop of `lib_ter.translation_edit_rate`, which returns only the number of edits.
    """
    distance = lib_ter.BeamEditDistance(reference)
    shifts = checked = 0
    while True:
        # No public name. It slices lists of words, so that each stays the object that it is.
        gain, shifted, checked = lib_ter._shift(words, reference, distance, checked)
        if checked >= lib_ter._MAX_SHIFT_CANDIDATES or gain <= 0:
            return words, distance(words)[1], shifts
        words, shifts = shifted, shifts + 1


def labelled_tokens(
    token_log_probs: Sequence[ArrayLike], labels: Sequence[Sequence[bool | None]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tokens that have a label, as `calibration` and `calibration_intervals` take them.

    Args:
      token_log_probs: for each of S translations [T] log-probabilities of its tokens, nats.
      labels: for each of them T labels of `inference_labels`.

    Returns:
      confidence [N] = exp of the log-probability, correct [N] (bool), sentence [N] in [0, S).

    Raises:
      ValueError: unequal numbers of translations or of tokens.
    """
    if len(token_log_probs) != len(labels):
        raise ValueError(f"{len(token_log_probs)} translations but {len(labels)} lists of labels")
    log_probs, correct, sentence = [], [], []
    for index, (values, row) in enumerate(zip(token_log_probs, labels, strict=True)):
        values = np.asarray(values, np.float64)
        if values.shape != (len(row),):
            raise ValueError(
                f"translation {index}: log-probabilities {values.shape}, {len(row)} labels"
            )
        for value, label in zip(values.tolist(), row, strict=True):
            if label is not None:
                log_probs.append(value)
                correct.append(bool(label))
                sentence.append(index)
    return (
        np.exp(np.array(log_probs, np.float64)),
        np.array(correct, bool),
        np.array(sentence, np.int64),
    )


def inference_calibration(
    token_log_probs: Sequence[ArrayLike], labels: Sequence[Sequence[bool | None]]
) -> dict:
    """Calibration of decoded tokens: is a word that was written with 80 % right 80 % of the time?

    Args:
      token_log_probs: for each of S translations [T] log-probabilities (nats) that the model gave
        its words as it wrote them, such as `words_of_pieces` returns. The end of the sentence is
        not among them: TER has no word for it.
      labels: for each of them T labels of `inference_labels`; a token with None is left out.

    Returns:
      What `calibration` measures, in 20 bins; `tokens`: how many had a label; `labelled_share`:
      of all tokens, None where there are none.

    Raises:
      ValueError: unequal numbers of translations or of tokens, log-probabilities above 0 or NaN.
    """
    confidence, correct, _ = labelled_tokens(token_log_probs, labels)
    tokens, known = sum(map(len, labels)), len(confidence)
    return {
        **calibration(confidence, correct, bins=BINS),
        "tokens": known,
        "labelled_share": known / tokens if tokens else None,
    }


def marked_pieces(pieces: Sequence[str], joiner: str) -> list[str]:
    """Pieces of pre-segmented text ("Haus@@", "tür") as SentencePiece writes them ("▁Haus", "tür").

    Args:
      pieces: T pieces; one that ends with `joiner` is joined to the next.
      joiner: "@@" of subword-nmt, without its space.
    """
    marked, joined = [], False
    for piece in pieces:
        if piece in CONTROL_PIECES or piece == _UNKNOWN:
            marked.append(piece)
            joined = False
            continue
        marked.append(("" if joined else "▁") + piece.removesuffix(joiner))
        joined = piece.endswith(joiner)
    return marked


def words_of_pieces(
    pieces: Sequence[str], log_probs: ArrayLike, control: Collection[str] = CONTROL_PIECES
) -> tuple[list[str], np.ndarray]:
    """Words of a translation and the probability of each, from SentencePiece pieces.

    The words are those of the decoded text, split at white space. A piece that starts with "▁"
    begins a word; so does the first. A "▁" alone belongs to the word that follows it, and to none
    at the end. `<unk>` is the word "⁇", as SentencePiece decodes it. Byte pieces are decoded.

    Args:
      pieces: T pieces, as `Subwords.piece` names them.
      log_probs: [T] their log-probabilities, nats.
      control: pieces that are left out with their probability, the end of the sentence among them.

    Returns:
      W words, and [W] float64: the log-probability of each, the sum of its pieces'.

    Raises:
      ValueError: unequal lengths.
      NoWords: a piece with "▁" after its start, which holds (parts of) two words with one
        probability.
    """
    values = np.asarray(log_probs, np.float64)
    if values.shape != (len(pieces),):
        raise ValueError(f"{len(pieces)} pieces but log-probabilities {values.shape}")
    words: list[bytes] = []
    sums: list[float] = []
    closed = True
    for piece, value in zip(pieces, values.tolist(), strict=True):
        if piece in control:
            continue
        text = piece.lstrip("▁")
        if "▁" in text:
            raise NoWords(f"the piece {piece!r} is no part of a single word")
        unknown = piece == _UNKNOWN
        begins = unknown or piece.startswith("▁")
        if closed or (begins and words[-1]):
            words.append(b"")
            sums.append(0.0)
        byte = _BYTE.fullmatch(text)
        words[-1] += bytes([int(byte[1], 16)]) if byte else ("⁇" if unknown else text).encode()
        sums[-1] += value
        closed = unknown
    if words and not words[-1]:
        words.pop()
        sums.pop()
    return [word.decode(errors="replace") for word in words], np.array(sums, np.float64)
