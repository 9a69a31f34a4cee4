"""Beam search against exhaustive search and plain greedy search, on made-up distributions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nmt_ls.decoding.beam import Asked, LengthPenalty, Variety, beam_search

PAD, BOS, EOS = 0, 1, 2
VOCAB, LENGTH = 6, 4
SECOND_ORDER = -0.05
"""Times the last token but one: added to every log-probability, so that the cache matters."""


def tables(seed: int, batch: int, sharpness: float = 1.5) -> np.ndarray:
    """log p(next | previous, position) `[B, T, V, V]`; a Markov chain is its own cache test."""
    logits = np.random.default_rng(seed).normal(size=(batch, LENGTH, VOCAB, VOCAB)) * sharpness
    return np.array(jax.nn.log_softmax(jnp.asarray(logits, jnp.float32)))


def search(log_p, beam, penalty, limits=None, length=LENGTH, **options):
    batch = len(log_p)
    limits = np.full(batch, length, np.int32) if limits is None else np.asarray(limits, np.int32)

    def step(tokens, position, cache):
        # The cache holds each hypothesis' last token but one. Were it not reordered with the
        # hypotheses, the second-order term below would come from another one.
        before = cache.reshape(batch, beam)
        rows = jnp.asarray(log_p)[jnp.arange(batch), position]  # [B, V, V]
        out = jnp.take_along_axis(rows, tokens[..., None], axis=1)  # [B, K, V]
        out = out + SECOND_ORDER * before[..., None]
        return out, tokens.reshape(-1)

    cache = jnp.full(batch * beam, BOS, jnp.int32)
    shortest, prefix = options.pop("shortest", None), options.pop("prefix", None)
    found = jax.jit(
        lambda limits: beam_search(
            step,
            cache,
            Asked(limits, shortest, prefix),
            beam=beam,
            length=length,
            penalty=penalty,
            bos=BOS,
            eos=EOS,
            pad=PAD,
            **options,
        )
    )(limits)
    return jax.device_get(found)


def every_hypothesis(log_p, limit):
    """(log p, tokens) of each token sequence that ends within `limit`; forced to end there."""
    words = [v for v in range(VOCAB) if v not in (PAD, BOS, EOS)]
    for n in range(limit):
        for middle in itertools.product(words, repeat=n):
            tokens, total, before, previous = (*middle, EOS), 0.0, BOS, BOS
            for i, token in enumerate(tokens):
                total += float(log_p[i, previous, token]) + SECOND_ORDER * before
                before, previous = previous, token
            yield total, tokens


@pytest.mark.parametrize(
    "penalty",
    [LengthPenalty("none"), LengthPenalty("average", 1.0), LengthPenalty("gnmt", 0.6)],
    ids=lambda p: p.kind,
)
def test_a_wide_beam_finds_what_exhaustive_search_finds(penalty):
    log_p = tables(1, batch=5)
    found = search(log_p, beam=60, penalty=penalty)
    for row in range(5):
        scored = [
            (lp / float(penalty(len(t))), t) for lp, t in every_hypothesis(log_p[row], LENGTH)
        ]
        best = sorted(scored, reverse=True)[:3]
        for k, (score, tokens) in enumerate(best):
            assert found.scores[row, k] == pytest.approx(score, rel=1e-5)
            assert tuple(found.tokens[row, k, : found.lengths[row, k]]) == tokens
        assert (np.diff(found.scores[row][np.isfinite(found.scores[row])]) <= 0).all()


def test_beam_one_is_greedy_search():
    log_p = tables(2, batch=40)
    found = search(log_p, beam=1, penalty=LengthPenalty("average"))
    for row in range(40):
        tokens, before, previous, total = [], BOS, BOS, 0.0
        for i in range(LENGTH):
            scores = log_p[row, i, previous] + SECOND_ORDER * before
            scores[[PAD, BOS]] = -np.inf
            if i == LENGTH - 1:
                scores[np.arange(VOCAB) != EOS] = -np.inf
            before, previous = previous, int(scores.argmax())
            total += float(scores[previous])
            tokens.append(previous)
            if previous == EOS:
                break
        assert found.tokens[row, 0, : found.lengths[row, 0]].tolist() == tokens
        assert found.log_probs[row, 0] == pytest.approx(total, rel=1e-5)


def test_limits_are_kept_for_each_sentence():
    log_p = tables(3, batch=4)
    log_p[..., EOS] = -30.0  # nothing wants to end
    found = search(log_p, beam=3, penalty=LengthPenalty(), limits=[1, 2, 3, 4])
    assert found.lengths[:, 0].tolist() == [1, 2, 3, 4]
    for row in range(4):
        tokens = found.tokens[row, 0]
        assert tokens[found.lengths[row, 0] - 1] == EOS
        assert (tokens[found.lengths[row, 0] :] == PAD).all()


def test_a_sentence_does_not_depend_on_its_neighbours():
    log_p = tables(4, batch=8)
    together = search(log_p, beam=3, penalty=LengthPenalty())
    for row in range(8):
        alone = search(log_p[row : row + 1], beam=3, penalty=LengthPenalty())
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[row])
        np.testing.assert_array_equal(alone.scores[0], together.scores[row])


def test_length_penalties_by_hand():
    assert float(LengthPenalty("none")(7)) == 1
    assert float(LengthPenalty("average", 1.0)(7)) == 7
    assert float(LengthPenalty("average", 0.5)(4)) == pytest.approx(2)
    assert float(LengthPenalty("average", 1.0, excludes_eos=True)(7)) == 6
    assert float(LengthPenalty("gnmt", 1.0)(7)) == pytest.approx(2)
    with pytest.raises(ValueError, match="no length penalty"):
        LengthPenalty("best")(3)


@pytest.mark.parametrize("diversity", [None, 1e6])
def test_the_paths_of_log_probabilities_end_in_the_whole(diversity):
    log_p = tables(6, batch=5)
    groups = {} if diversity is None else {"variety": Variety(groups=2), "diversity": diversity}
    found = search(log_p, beam=4, penalty=LengthPenalty(), **groups)
    for row in range(5):
        for k in range(4):
            n = found.lengths[row, k]
            path = found.paths[row, k]
            assert path[n - 1] == found.log_probs[row, k]
            before, previous, total = BOS, BOS, 0.0
            for i, token in enumerate(found.tokens[row, k, :n]):
                total += log_p[row, i, previous, token] + SECOND_ORDER * before
                assert path[i] == pytest.approx(total, rel=1e-5)
                before, previous = previous, token


@pytest.mark.parametrize("penalty", [LengthPenalty("none"), LengthPenalty("average")])
def test_stopping_at_the_first_k_never_finds_better(penalty):
    log_p = tables(7, batch=60)
    bound = search(log_p, beam=3, penalty=penalty)
    first = search(log_p, beam=3, penalty=penalty, stopping="first_k")
    assert (first.scores[:, 0] <= bound.scores[:, 0] + 1e-6).all()
    if penalty.kind == "average":
        assert (first.scores[:, 0] < bound.scores[:, 0] - 1e-6).any(), "and now and then worse"


def test_the_shortest_output_is_the_best_of_those_long_enough():
    log_p = tables(8, batch=5)
    shortest = np.array([1, 2, 3, 4, 2], np.int32)
    found = search(log_p, beam=60, penalty=LengthPenalty("none"), shortest=shortest)
    for row in range(5):
        score, tokens = max(
            (lp, t) for lp, t in every_hypothesis(log_p[row], LENGTH) if len(t) >= shortest[row]
        )
        assert found.scores[row, 0] == pytest.approx(score, rel=1e-5)
        assert tuple(found.tokens[row, 0, : found.lengths[row, 0]]) == tokens
    # A limit under it wins: something must be said.
    capped = search(log_p, 3, LengthPenalty(), limits=[1] * 5, shortest=np.full(5, 3, np.int32))
    assert capped.lengths[:, 0].tolist() == [1] * 5


def test_a_prefix_is_kept_and_continued_at_its_best():
    log_p = tables(9, batch=3)
    prefix = np.array([[4, PAD, PAD], [3, 5, PAD], [PAD, PAD, PAD]], np.int32)
    found = search(log_p, beam=60, penalty=LengthPenalty(), prefix=prefix)
    for row, given in enumerate([(4,), (3, 5), ()]):
        score, tokens = max(
            (lp / len(t), t)
            for lp, t in every_hypothesis(log_p[row], LENGTH)
            if t[: len(given)] == given
        )
        assert found.scores[row, 0] == pytest.approx(score, rel=1e-5)
        assert tuple(found.tokens[row, 0, : found.lengths[row, 0]]) == tokens


def real_tokens(found, row, k):
    return tuple(found.tokens[row, k, : found.lengths[row, k]].tolist())


def test_no_n_gram_twice_is_the_best_without_one():
    log_p = tables(7, batch=4)
    log_p[:, :, range(3, VOCAB), range(3, VOCAB)] += 3.0  # words are fond of themselves
    log_p[:, : LENGTH - 1, :, EOS] -= 3.0
    found = search(log_p, 60, LengthPenalty("none"), variety=Variety(no_repeat=1))
    free = search(log_p, 60, LengthPenalty("none"))
    changed = 0
    for row in range(4):
        once = [
            (total, tokens)
            for total, tokens in every_hypothesis(log_p[row], LENGTH)
            if len(set(tokens)) == len(tokens)
        ]
        total, tokens = max(once)
        assert real_tokens(found, row, 0) == tokens
        assert found.scores[row, 0] == pytest.approx(total, abs=1e-5)
        changed += real_tokens(free, row, 0) != tokens
    assert changed


def greedy_avoiding(log_p, others, diversity):
    """A group of one hypothesis: greedy, where tokens of the other groups at a step cost."""
    tokens, total, before, previous = [], 0.0, BOS, BOS
    for i in range(LENGTH):
        scores = log_p[i, previous] + SECOND_ORDER * before
        cost = np.zeros(VOCAB)
        for other in others:
            if i < len(other):
                cost[other[i]] += diversity
        cost[[PAD, BOS]] = np.inf
        token = EOS if i == LENGTH - 1 else int(np.argmax(scores - cost))
        total += float(scores[token])
        tokens.append(token)
        if token == EOS:
            break
        before, previous = previous, token
    return total, tuple(tokens)


@pytest.mark.parametrize("diversity", [0.0, 0.7, 50.0])
def test_groups_of_one_are_greedy_searches_that_avoid_each_other(diversity):
    # Ends come last, so that every group has a token at every step.
    log_p = tables(8, batch=5)
    log_p[:, : LENGTH - 1, :, EOS] = -30.0
    found = search(
        log_p, 3, LengthPenalty("none"), variety=Variety(groups=3), diversity=np.float32(diversity)
    )
    for row in range(5):
        groups = []
        for _ in range(3):
            others = [tokens[:-1] for _, tokens in groups]
            groups.append(greedy_avoiding(log_p[row], others, diversity))
        groups.sort(key=lambda one: -one[0])
        assert [real_tokens(found, row, k) for k in range(3)] == [tokens for _, tokens in groups]
        np.testing.assert_allclose(found.scores[row], [total for total, _ in groups], rtol=1e-5)
    assert (len({real_tokens(found, 0, k) for k in range(3)}) == 1) == (diversity == 0)


def test_a_group_alone_is_a_search_of_its_size():
    log_p = tables(9, batch=4)
    both = search(log_p, 6, LengthPenalty(), variety=Variety(groups=2), diversity=np.float32(0))
    one = search(log_p, 3, LengthPenalty())
    # Without a cost both groups find the same.
    for k in range(3):
        np.testing.assert_array_equal(both.tokens[:, 2 * k], one.tokens[:, k])
        np.testing.assert_allclose(both.scores[:, 2 * k + 1], one.scores[:, k], rtol=1e-6)


@pytest.mark.parametrize("stopping", ["bound", "first_k"])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_best_few_are_those_of_the_whole_search(stopping, groups):
    log_p = tables(10, batch=60)
    options = {"stopping": stopping, "variety": Variety(groups=groups), "diversity": 0.3}
    whole = search(log_p, 6, LengthPenalty(), **options)
    for wanted in (1, 2):
        found = search(log_p, 6, LengthPenalty(), wanted=np.int32(wanted), **options)
        for name in ("tokens", "scores", "log_probs", "lengths", "paths"):
            np.testing.assert_array_equal(
                getattr(found, name)[:, :wanted], getattr(whole, name)[:, :wanted]
            )
        if (stopping, groups, wanted) == ("bound", 1, 1):
            assert (found.scores[:, -1] < whole.scores[:, -1]).any(), "others cost no time"


def test_a_group_that_is_done_costs_the_others_what_it_did_before():
    """By hand: of the first group's best it is sure early, of all it is not; the second must not
    see which was asked for."""
    log_p = np.full((1, LENGTH, VOCAB, VOCAB), -20.0, np.float32)
    log_p[0, 0, BOS, 3:] = -1.2, -1.3, -1.4  # the first group has 3 and 4, the second 5
    log_p[0, 1, 3, [EOS, 3]] = -1.0, -2.0
    log_p[0, 1, 4, 3] = -2.0
    log_p[0, 1, 5, 4] = 0.0
    log_p[0, 2, 3, [EOS, 4]] = -0.1, -1.0  # both of the first group's end here
    log_p[0, 2, 4, [EOS, 3, 5]] = 0.0, -5.0, -5.0  # and that costs the second's end
    options = {"variety": Variety(groups=2), "diversity": np.float32(50)}
    for wanted in (1, 2):
        found = search(log_p, 4, LengthPenalty("none"), wanted=np.int32(wanted), **options)
        assert real_tokens(found, 0, 0) == (3, EOS)


def test_a_model_that_gives_nan_comes_to_an_end():
    log_p = np.full_like(tables(11, batch=2), np.nan)
    assert search(log_p, 3, LengthPenalty()).tokens.shape == (2, 3, LENGTH)
