"""What sides must have in common for their ratio to be held against what is asked for."""

import jax
import pytest

from nmt_ls.bench.sides import asked_for, equal_precision


@pytest.mark.parametrize(
    ("ours", "devices", "theirs", "found"),
    [
        ("cpu", 2, "cpu", 1.8),
        ("cpu", 2, "cuda", None),
        ("gpu", 1, "cuda", 1.8),
        ("gpu", 4, "cuda", None),
        ("gpu", 1, "cpu", None),
        ("tpu", 1, "cuda", None),
    ],
)
def test_a_ratio_is_held_against_equal_devices(ours, devices, theirs, found, monkeypatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: ours)
    assert asked_for(1.8, devices, theirs) == found
    assert asked_for(None, devices, theirs) is None


def precision() -> str | None:
    return jax.config.jax_default_matmul_precision


def test_float32_is_whole_on_a_gpu_alone(monkeypatch) -> None:
    before = precision()
    with equal_precision("float32") as name:  # on a CPU it is anyway
        assert (name, precision()) == (before or "", before)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with equal_precision("bfloat16") as name:
        assert (name, precision()) == (before or "", before)
    with equal_precision("float32") as name:
        assert name == precision() == "highest"
        with equal_precision("float32"):
            assert precision() == "highest"
    assert precision() == before
    with jax.default_matmul_precision("tensorfloat32"), equal_precision("float32") as name:
        assert name == precision() == "tensorfloat32"
