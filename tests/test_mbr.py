"""Utilities of all pairs against sacreBLEU's of each; choices by hand and by brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF

from nmt_ls.decoding import mbr
from nmt_ls.decoding.mbr import MinimumBayesRisk, sentence_bleu_matrix, sentence_chrf_matrix

MATRICES = {"chrf": sentence_chrf_matrix, "bleu": sentence_bleu_matrix}
METRICS = {"chrf": CHRF(), "bleu": BLEU(effective_order=True)}

HAND_MADE = [
    "",
    " ",
    " \t\n\u00a0\u3000\u2028",  # white space of every kind
    "a",
    "b",
    " a ",
    "ab",
    "aa",
    "aaaa",
    "abcdef",  # exactly as long as chrF's largest order …
    "abcdefg",
    "a b c",
    "a b c d",  # … and as BLEU's
    "a b c d e",
    "d c b a",
    "the the the the the the",
    "the cat the",
    "The cat sat on the mat.",
    "the cat is on the mat .",
    "The cat sat on the mat, which cost 3.50 - not 1,000.",
    "well-known &quot;quotes&quot; &amp; <skipped>tags-\nacross\nlines",
    "Ein Mann geht die Straße entlang.",
    "Straße",
    "Strasse",
    "e\u0301",  # a combining accent
    "é",
    "日本語のテキスト。",
    "🙂🙂🏳️‍🌈",
    "\U0010ffff\x00\x00",  # the last code point; zeros at the end are characters too
    "\x00",
    "\ud83d",  # half a surrogate pair,
    "\ude42",  # the other half,
    "\ud83d\ude42",  # and both, which are not 🙂
    "🙂",
    "ab" * 400,
    "a" * 700,
    "word " * 200,
]

# Few characters, so that n-grams repeat within and between strings; and any characters at all.
LINES = st.lists(
    st.one_of(
        st.text("ab", max_size=12),
        st.text("ab .,-1&\n\u3000é", max_size=25),
        st.lists(st.sampled_from(["a", "b", "the", "The", "x.", "1.5"]), max_size=9).map(" ".join),
        st.text(max_size=12),
    ),
    max_size=5,
)


def by_sacrebleu(utility, hypotheses, references):
    scores = [METRICS[utility].sentence_score(h, [r]).score for h in hypotheses for r in references]
    return np.reshape(scores, (len(hypotheses), len(references)))


@pytest.mark.parametrize("utility", MATRICES)
def test_every_pair_of_hand_made_strings(utility):
    found = MATRICES[utility](HAND_MADE, HAND_MADE)
    assert found.dtype == np.float64
    np.testing.assert_allclose(
        found, by_sacrebleu(utility, HAND_MADE, HAND_MADE), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("utility", MATRICES)
@settings(max_examples=100, deadline=None)
@given(hypotheses=LINES, references=LINES)
def test_same_as_sacrebleu(utility, hypotheses, references):
    found = MATRICES[utility](hypotheses, references)
    expected = by_sacrebleu(utility, hypotheses, references)
    assert found.shape == (len(hypotheses), len(references))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_chrf_by_hand():
    # "ab" and "ac" share 1 of 2 characters and no bigram: precision and recall are 1/4. Against
    # "a" only the first order counts: precision 1/2, recall 1; and the other way round.
    thirds = [5 / 2 / (4 / 2 + 1), 5 / 2 / (4 + 1 / 2)]
    expected = [
        [100, 25, 100 * thirds[0]],
        [25, 100, 100 * thirds[0]],
        [100 * thirds[1]] * 2 + [100],
    ]
    names = ["ab", "ac", "a"]
    np.testing.assert_allclose(sentence_chrf_matrix(names, names), expected, rtol=1e-12)


def test_bleu_by_hand():
    # 3 of 4 words, 1 of 3 bigrams, then 0 of 2 and 0 of 1, smoothed to 1/2 and 1/4.
    expected = 100 * (3 / 4 * 1 / 3 * (1 / 2) / 2 * (1 / 4) / 1) ** 0.25
    assert sentence_bleu_matrix(["a b x d"], ["a b y d"])[0, 0] == pytest.approx(expected)
    # Half as long as the reference.
    short = sentence_bleu_matrix(["a b"], ["a b c d"])[0, 0]
    assert short == pytest.approx(100 * np.exp(1 - 4 / 2))


@pytest.mark.parametrize("matrix", MATRICES.values())
def test_no_strings_and_bare_strings(matrix):
    assert matrix([], []).shape == (0, 0)
    assert matrix([], ["a"]).shape == (0, 1)
    assert matrix(["a", "b"], []).shape == (2, 0)
    for arguments in [("ab", ["a"]), (["a"], "ab")]:
        with pytest.raises(ValueError, match="not one string"):
            matrix(*arguments)


def test_choice_by_hand():
    # The table of `test_chrf_by_hand`: "a" agrees best with all three, though no one drew it more.
    choice = MinimumBayesRisk("chrf").choose(["ab", "ac", "a"])
    assert choice.index == 2
    first = (100 + 25 + 250 / 3) / 3
    assert choice.expected == pytest.approx([first, first, (2 * 500 / 9 + 100) / 3])


def test_weights_are_normalised_and_decide():
    names = ["ab", "ac", "a"]
    choice = MinimumBayesRisk().choose(names, [0.5, 0.25, 0.25])
    assert choice.index == 0
    assert choice.expected == pytest.approx(
        [
            50 + 25 / 4 + 250 / 12,
            25 / 2 + 25 + 250 / 12,
            500 / 18 + 500 / 36 + 25,
        ]
    )
    same = MinimumBayesRisk().choose(names, np.array([2e-30, 1e-30, 1e-30]))
    assert same.index == 0
    assert same.expected == pytest.approx(choice.expected)
    # A candidate that is no pseudo-reference may still be chosen.
    assert MinimumBayesRisk().choose(["a", "ab", "ac"], [0, 1, 1]).expected[0] == pytest.approx(
        500 / 9
    )


@pytest.mark.parametrize("utility", MATRICES)
def test_duplicates_count_but_are_compared_once(utility, monkeypatch):
    compared = []

    def spy(hypotheses, references):
        compared.append((list(hypotheses), list(references)))
        return MATRICES[utility](hypotheses, references)

    monkeypatch.setitem(mbr._MATRICES, utility, spy)
    risk = MinimumBayesRisk(utility)
    drawn = risk.choose(["a c", "a b", "a b", "a", "a b"])
    weighted = risk.choose(["a c", "a b", "a"], [1, 3, 1])
    assert compared == [(["a c", "a b", "a"],) * 2] * 2
    assert drawn.index == weighted.index == 1
    assert drawn.expected.tolist() == weighted.expected[[0, 1, 1, 2, 1]].tolist()
    # Weights of duplicates add up.
    split = risk.choose(["a c", "a b", "a", "a b"], [1, 1, 1, 2])
    assert split.expected == pytest.approx(weighted.expected[[0, 1, 2, 1]])


@pytest.mark.parametrize("utility", MATRICES)
@pytest.mark.parametrize("letters", ["abcdefg", "abcdefghijk", "abcdefghijklm"])
def test_ties_go_to_the_earlier(utility, letters):
    # Three letters in a row on a circle: all have the same neighbours, each in another order.
    joint = {"chrf": "", "bleu": " "}[utility]
    circle = letters * 2
    names = [joint.join(circle[i : i + 3]) for i in range(len(letters))]
    choice = MinimumBayesRisk(utility).choose(names)
    assert len(set(choice.expected.tolist())) == 1
    assert choice.index == 0
    assert MinimumBayesRisk(utility).choose(["", *names]).index == 1


@pytest.mark.parametrize("utility", MATRICES)
def test_one_candidate_is_chosen(utility):
    assert MinimumBayesRisk(utility).choose(["a b c"]).index == 0
    assert MinimumBayesRisk(utility).choose(["a b c"], [0.1]).expected == pytest.approx([100])
    # sacreBLEU gives an empty string nothing, even for itself.
    empty = MinimumBayesRisk(utility).choose(["", ""])
    assert (empty.index, empty.expected.tolist()) == (0, [0, 0])


@pytest.mark.parametrize("utility", MATRICES)
@settings(max_examples=40, deadline=None)
@given(
    drawn=st.lists(
        st.tuples(
            st.sampled_from(["", "a", "a b", "a b c", "b c a.", "c a b d", "a b d"]),
            st.integers(1, 9),
        ),
        min_size=1,
        max_size=9,
    )
)
def test_same_as_brute_force(utility, drawn):
    names, weights = zip(*drawn, strict=True)
    expected = by_sacrebleu(utility, names, names) @ np.array(weights) / sum(weights)
    choice = MinimumBayesRisk(utility).choose(names, weights)
    np.testing.assert_allclose(choice.expected, expected, rtol=0, atol=1e-9)
    assert expected[choice.index] == pytest.approx(expected.max(), abs=1e-9)
    assert choice.index == choice.expected.tolist().index(choice.expected.max())


@pytest.mark.parametrize(
    ("candidates", "weights", "message"),
    [
        ([], None, "no candidates"),
        ([], [], "no candidates"),
        ("ab", None, "not one string"),
        (["a", "b"], [1.0], r"2 candidates but weights of shape \(1,\)"),
        (["a", "b"], [[1.0, 1.0]], "shape"),
        (["a", "b"], [1.0, -0.1], "weights must be"),
        (["a", "b"], [1.0, float("nan")], "weights must be"),
        (["a", "b"], [1.0, float("inf")], "weights must be"),
        (["a", "b"], [0.0, 0.0], "weights must be"),
    ],
)
def test_bad_input_is_named(candidates, weights, message):
    with pytest.raises(ValueError, match=message):
        MinimumBayesRisk().choose(candidates, weights)


def test_unknown_utility_is_named():
    with pytest.raises(ValueError, match="no utility 'ter'"):
        MinimumBayesRisk("ter")
