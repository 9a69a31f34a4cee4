"""The files of a `MarianTokenizer` and our subwords, each from the other."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nmt_ls.data.segmenters import Pieces, read_model
from nmt_ls.data.subwords import Subwords
from nmt_ls.data.vocabularies import LANGUAGE_CODE, Vocabulary
from nmt_ls.errors import UserError
from nmt_ls.interchange.marian_config import MarianConfig
from nmt_ls.interchange.pieces import piece_list
from nmt_ls.interchange.tensors import read_json, write_json

log = logging.getLogger("nmt_ls")

SOURCE, TARGET = "source.spm", "target.spm"
VOCABULARY, TARGET_VOCABULARY = "vocab.json", "target_vocab.json"
TOKENIZER, ADDED = "tokenizer_config.json", "added_tokens.json"
_SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}


def read_subwords(folder: Path, marian: MarianConfig) -> Subwords:
    """The subwords of a folder: pieces by `source.spm` and `target.spm`, ids by `vocab.json`.

    Raises:
      UserError: a file is missing or damaged, or they do not belong together.
    """
    models = {name: read_model(folder / name, str(folder)) for name in (SOURCE, TARGET)}
    settings = read_json(folder / TOKENIZER) if (folder / TOKENIZER).is_file() else {}
    files = [VOCABULARY]
    if settings.get("separate_vocabs"):
        files = [VOCABULARY, TARGET_VOCABULARY]
    sizes = [marian.vocab_size, marian.target_size]
    added = [added_codes(folder), {}]  # beside a list of its own the target side gets none
    lists = [
        _pieces(folder / name, size, more)
        for name, size, more in zip(files, sizes[-len(files) :], added, strict=False)
    ]
    if marian.vocab_size != marian.target_size and len(lists) == 1:
        raise UserError(
            f"{folder}: vocab_size={marian.vocab_size} and decoder_vocab_size="
            f"{marian.target_size} differ, but tokenizer_config.json has no separate_vocabs=true"
        )
    ids = {}
    for token, usual in _SPECIAL.items():
        piece = _content(settings.get(token, usual), usual)
        found = {pieces.index(piece) if piece in pieces else -1 for pieces in lists}
        if -1 in found or len(found) > 1:
            what = f"no {piece}" if -1 in found else f"{piece} under different ids"
            raise UserError(f"{folder}: {' and '.join(files)} have {what} ({token})")
        ids[token] = found.pop()
    for token, field in (("pad_token", "pad_token_id"), ("eos_token", "eos_token_id")):
        if ids[token] != getattr(marian, field):
            raise UserError(
                f"{folder}: config.json has {field}={getattr(marian, field)}, {files[0]} has "
                f"{ids[token]}"
            )
    vocabulary = Vocabulary(
        target=lists[-1],
        source=lists[0] if len(lists) > 1 else None,
        pad=marian.pad_token_id,
        unk=ids["unk_token"],
        bos=marian.decoder_start_token_id,
        eos=marian.eos_token_id,
    )
    source = None if models[SOURCE] == models[TARGET] else models[SOURCE]
    for name, pieces in ((SOURCE, lists[0]), (TARGET, lists[-1])):
        _refuse_strangers(models[name], folder, name, pieces)
    source = None if models[SOURCE] == models[TARGET] else models[SOURCE]
    return Subwords(models[TARGET], source, vocabulary=vocabulary)


def _content(token: Any, usual: str = "") -> str:
    """The text of a token, which a tokenizer's settings have alone or with its properties."""
    return str(token.get("content", usual) if isinstance(token, dict) else token)


def added_codes(folder: Path) -> dict[str, int]:
    """Ids of the language codes that a tokenizer has beside `vocab.json`, as fine-tuning adds them.

    Raises:
      UserError: it has other tokens there, which it finds anywhere in a text, as ours cannot.
    """
    settings = read_json(folder / TOKENIZER) if (folder / TOKENIZER).is_file() else {}
    added = dict(read_json(folder / ADDED)) if (folder / ADDED).is_file() else {}
    decoder = settings.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise UserError(f"{folder / TOKENIZER}: added_tokens_decoder is no JSON object")
    for index, token in decoder.items():
        added[_content(token)] = int(index) if str(index).isdecimal() else index
    listed = read_json(folder / VOCABULARY)
    special = {_content(value) for key, value in settings.items() if key.endswith("_token")}
    special |= set(_SPECIAL.values())
    found = {}
    for piece, index in added.items():
        if piece in special or (piece in listed and listed[piece] == index):
            continue
        code = LANGUAGE_CODE.match(piece)
        if code is None or code[0] != piece:
            raise UserError(
                f"{folder}: the tokenizer has an added token {piece!r}, which is not supported: "
                "only language codes can be added (>>xx<<)"
            )
        found[piece] = index
    return found


def _pieces(path: Path, size: int, added: Mapping[str, int]) -> tuple[str | None, ...]:
    """The piece of each of `size` ids."""
    found: list[str | None] = [None] * size
    for piece, index in [*read_json(path).items(), *added.items()]:
        where = path.parent if piece in added else path
        if not isinstance(index, int) or not 0 <= index < size:
            raise UserError(
                f"{where}: {piece!r} has the id {index!r}; config.json allows 0 to {size - 1}"
            )
        if found[index] is not None:
            raise UserError(f"{where}: {piece!r} and {found[index]!r} have the same id {index}")
        found[index] = piece
    return tuple(found)


def _refuse_strangers(
    model: bytes, folder: Path, name: str, pieces: tuple[str | None, ...]
) -> None:
    """Refuses a vocabulary without most of the model's pieces: it belongs to another model.

    Some are always missing: Marian's vocabulary has those that occurred in its training text.
    """
    own = set(Pieces(model).pieces())
    known = len(own & set(pieces))
    if known < len(own) / 2:
        raise UserError(
            f"{folder}: the vocabulary has only {known} of the {len(own)} pieces of {name}; "
            "the files belong to different models"
        )


def languages_of(folder: Path) -> tuple[str, str]:
    """Codes of the source and the target language; "und" (undetermined) for one not given."""
    settings = read_json(folder / TOKENIZER) if (folder / TOKENIZER).is_file() else {}
    return str(settings.get("source_lang") or "und"), str(settings.get("target_lang") or "und")


def write_subwords(
    folder: Path,
    subwords: Subwords,
    languages: tuple[str, str],
    longest: int,
    added: Mapping[str, int],
) -> None:
    """The files of a `MarianTokenizer`.

    Args:
      folder: where.
      subwords: any but of pretokenized text.
      languages: codes of source and target.
      longest: `model_max_length`.
      added: tokens that stand elsewhere than in `vocab.json` (`added_codes`).

    Raises:
      UserError: the text is pretokenized.
    """
    if subwords.pretokenized:
        raise UserError(
            "--to huggingface: Marian cannot express data.pretokenized=true: its tokenizer "
            "segments with SentencePiece"
        )
    if subwords.vocabulary is None:
        _warn_of_codes(subwords.source_model or subwords.target_model)
    (folder / SOURCE).write_bytes(subwords.source_model or subwords.target_model)
    (folder / TARGET).write_bytes(subwords.target_model)
    source = piece_list(subwords, "source")
    target = piece_list(subwords, "target")
    write_json(folder / VOCABULARY, _ids(source, added))
    if source != target:
        write_json(folder / TARGET_VOCABULARY, _ids(target, {}))
    settings: dict[str, Any] = {
        "tokenizer_class": "MarianTokenizer",
        "source_lang": languages[0],
        "target_lang": languages[1],
        "separate_vocabs": source != target,
        "model_max_length": longest,
        "pad_token": source[subwords.pad],
        "unk_token": source[subwords.unk],
        "eos_token": source[subwords.eos],
    }
    if subwords.bos != subwords.pad:
        # Only special tokens are left out of a text, and `generate` puts this one at its start.
        settings["bos_token"] = target[subwords.bos]
    write_json(folder / TOKENIZER, settings)


def _warn_of_codes(model: bytes) -> None:
    """Says which pieces of ours `MarianTokenizer` takes off a text before it segments the rest."""
    codes = [piece for piece in Pieces(model).pieces() if LANGUAGE_CODE.search(piece)]
    if codes:
        more = ", …" if len(codes) > 3 else ""
        log.warning(
            "the subwords have language codes as pieces (%s%s): MarianTokenizer segments a text "
            "that begins with one otherwise, so that its ids may differ from ours",
            ", ".join(codes[:3]), more,
        )  # fmt: skip


def _ids(pieces: list[str], added: Mapping[str, int]) -> dict[str, int]:
    """As `vocab.json`, without the ids that have no piece or stand elsewhere."""
    return {
        piece: index
        for index, piece in enumerate(pieces)
        if piece != f"<extra_{index}>" and piece not in added
    }
