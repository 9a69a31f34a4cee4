"""A name for every subword id, as formats want it that know their tokens by name."""

from nmt_ls.data.subwords import Side, Subwords


def piece_list(subwords: Subwords, side: Side) -> list[str]:
    """The piece of each id of a side, all different.

    Special ids without a piece have the usual names (`<pad>`, `<s>`); others without one, or
    with one that stands before, are `<extra_ID>`. Pretokenized text has words for pieces.
    """
    size = subwords.source_size if side == "source" else subwords.target_size
    pieces = [subwords.piece(side, index) for index in range(size)]
    if subwords.pretokenized:
        pieces = [piece.removeprefix("▁") for piece in pieces]
    usual = {subwords.bos: "<s>", subwords.eos: "</s>", subwords.unk: "<unk>"}
    for index, name in {**usual, subwords.pad: "<pad>"}.items():
        if pieces[index] == "<extra>":
            pieces[index] = name
    seen: set[str] = set()
    for index, piece in enumerate(pieces):
        if piece in seen or piece == "<extra>":
            pieces[index] = f"<extra_{index}>"
        seen.add(pieces[index])
    return pieces
