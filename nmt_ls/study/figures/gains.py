"""What smoothing gains as another setting changes: dropout, label noise, …"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nmt_ls.study.comparison import settings_text
from nmt_ls.study.figures.drawing import (
    Picture,
    columns_for,
    legend_below,
    look,
    panel,
)
from nmt_ls.study.strength import strength_in
from nmt_ls.study.wording import evidence

NAMES = {"model.dropout": "dropout", "data.noise": "label noise"}


def gains(blocks: Mapping[str, Mapping[str, Any]]) -> Iterator[Picture]:
    """BLEU over the baseline's against each numeric setting that runs differ in.

    Args:
      blocks: of comparison["pooled"] or comparison["tests"]. Those that differ in one setting only
        make a figure; with two settings there is one for each value of the other.
    """
    fields = dict.fromkeys(f for block in blocks.values() for f in block.get("settings") or {})
    for field in fields:
        groups: dict[str, list[Mapping[str, Any]]] = {}
        for block in blocks.values():
            settings = block.get("settings") or {}
            if _is_number(settings.get(field)):
                rest = {name: value for name, value in settings.items() if name != field}
                same = json.dumps([block.get("test"), rest], sort_keys=True)
                groups.setdefault(same, []).append(block)
        for same, group in groups.items():
            test, rest = json.loads(same)
            if drawn := _against(field, test, rest, group):
                yield drawn


def _against(
    field: str, test: str | None, rest: dict[str, Any], group: Sequence[Mapping[str, Any]]
) -> Picture | None:
    group = sorted(group, key=lambda block: block["settings"][field])
    # Settings that lack the common baseline have one of their own: another line.
    lines: dict[tuple[float, str], list[tuple[float, dict]]] = {}
    for block in group:
        for epsilon, setting in block["by_smoothing"].items():
            difference = (setting["differences"] or {}).get("bleu")
            found = evidence(difference) if difference else None
            if found:
                point = (float(block["settings"][field]), found)
                lines.setdefault((float(block["baseline"]), epsilon), []).append(point)
    values = [block["settings"][field] for block in group]
    if len(set(values)) < 2 or not lines:
        return None
    what, strength = NAMES.get(field, field), strength_in(group[0])
    figure, axes = panel(f"BLEU gained by {strength.method}", what)
    axes.axhline(0, color="black", linewidth=0.8)
    span = max(values) - min(values)
    bases = dict.fromkeys(strength.value(base) for base, _ in lines)
    for index, ((base, epsilon), points) in enumerate(lines.items()):
        over = f" over {strength.value(base)}" if len(bases) > 1 else ""
        # Beside each other, so that intervals do not hide intervals.
        shift = (index - (len(lines) - 1) / 2) * 0.02 * span
        y = [found["difference"] for _, found in points]
        low = [found["difference"] - found["ci95"][0] for _, found in points]
        high = [found["ci95"][1] - found["difference"] for _, found in points]
        axes.errorbar([x + shift for x, _ in points], y, [low, high], capsize=3, elinewidth=1,
                      label=f"{strength.value(epsilon)}{over}", **look(index))  # fmt: skip
    axes.set_xticks(values, [f"{value:g}" for value in values])
    legend_below(figure, axes, columns_for(len(lines)))
    others = settings_text(rest)
    on = f" on {test}" if test else ""
    caption = f"Gain over {' or '.join(bases)} against {what}{on}{f' ({others})' if others else ''}"
    label = " ".join(filter(None, [test, others]))
    return Picture(f"gain_{field}", label, "settings", caption, figure)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
