"""Figures of the rules that look for faulty clients, drawn with matplotlib without a display."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from tracefl.conf.constraints import choice_name
from tracefl.learning.faults.words import fault_share, faulty_clients
from tracefl.paper.grid_points import pretty_words
from tracefl.paper.published import published_seconds
from tracefl.paper.rule_findings import CHANCE, SeedMean, over_seeds, rule_names, rule_over_seeds
from tracefl.paper.suspects_settings import Setting, data_words
from tracefl.records.naming import fingerprint
from tracefl.report.measure_names import MEASURES
from tracefl.report.style import (
    BLACK,
    BLUE,
    COLUMN,
    GREEN,
    GREY,
    LOOKS,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    paper_style,
    save_figure,
    screen_style,
    write_figure,
)

# Provenance has the blue alone, the others take the rest in turn, with another marker and dash each time round.
_PROVENANCE = BLUE
_COLOURS = (VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK)
_STYLES = (("-", "s"), ("--", "^"), ("-.", "D"))
_CHANCE = LOOKS["chance_accuracy"]
_MOST_COLUMNS = 3
_THICK = 2.0  # line width of provenance and FedDebug, which alone have a band


@screen_style()
def draw_suspects(settings: Sequence[Setting], path: Path) -> bool:
    """Draw localization accuracy over the share of flipped labels, one panel per setting, one line per rule.

    Args:
        settings: The settings' findings; those that differ only in ``fault.share`` share a panel.
        path: Path of the picture.

    Returns:
        Whether there was anything to draw: a setting with at least two shares.
    """
    panels: dict[str, list[Setting]] = {}
    for setting in settings:
        if fault_share(setting.config.fault) is not None:
            panels.setdefault(_all_but_share(setting), []).append(setting)
    curves = [panel for panel in panels.values() if len({fault_share(s.config.fault) for s in panel}) > 1]
    if not curves:
        return False
    rules = rule_names(found for panel in curves for setting in panel for found in setting.found)
    columns = min(len(curves), _MOST_COLUMNS)
    rows = -(-len(curves) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.2 + 4.0 * columns, 3.3 * rows + 0.4), squeeze=False, sharey=True, layout="constrained"
    )
    for ax, panel in zip(axes.flat, curves, strict=False):
        _draw_panel(ax, panel, rules)
    for ax in axes.flat[len(curves) :]:
        ax.set_axis_off()
    for row in axes:
        row[0].set_ylabel(f"{MEASURES['localization_accuracy']}, percent")
    handles = {label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    shown = [name for name in (*rules, CHANCE) if name in handles]
    names = [_CHANCE.name if name == CHANCE else name for name in shown]
    figure.legend([handles[name] for name in shown], names, loc="outside right upper")
    write_figure(figure, path)
    return True


def draw_seconds(seconds: Mapping[str, Mapping[str, float]], path: Path, note: str = "") -> list[Path]:
    """Draw each rule's seconds per input on a logarithmic scale, fastest on top, as in the paper's Figure 6.

    Args:
        seconds: Model and data set to rule to seconds.
        path: Path of the files, without a suffix.
        note: Text above the figure.

    Returns:
        The files; none where there was nothing to draw.
    """
    measured = {label: {r: s for r, s in row.items() if s > 0} for label, row in seconds.items()}
    slowest = {
        r: max(row[r] for row in measured.values() if r in row) for r in {r for row in measured.values() for r in row}
    }
    if not slowest:
        return []
    rules = sorted(slowest, key=lambda rule: (slowest[rule], rule))
    published = {rule: theirs for rule, theirs in published_seconds().items() if rule in rules}
    labels = {label: "\n".join(textwrap.wrap(pretty_words(label), 50)) for label in measured}
    dodge = 0.6 / len(measured)  # beside each other, so that all are seen
    lines = sum(text.count("\n") + 1 for text in labels.values()) + bool(published)
    with paper_style():
        figure, ax = plt.subplots(figsize=(COLUMN, 0.55 + 0.24 * len(rules) + 0.13 * lines), layout="constrained")
        for number, (label, row) in enumerate(measured.items()):
            shown = [rule for rule in rules if rule in row]
            ax.plot(
                [row[r] for r in shown],
                [rules.index(r) + dodge * (number - (len(measured) - 1) / 2) for r in shown],
                "osD^v"[number % 5],
                color=(_PROVENANCE, *_COLOURS)[number % 7],
                label=labels[label],
                markersize=4,
            )
        for rule, theirs in published.items():
            name = "published mean and range (Figure 6, A100 cluster)"
            ends = [theirs.lowest or theirs.mean, theirs.mean, theirs.highest or theirs.mean]
            ax.plot(ends, [rules.index(rule)] * 3, "-|", color=BLACK, label=name, markersize=6, linewidth=0.8)
        ax.set_yticks(range(len(rules)), rules)
        for tick, rule in zip(ax.get_yticklabels(), rules, strict=True):
            tick.set_fontweight("bold" if rule == "provenance" else "normal")
        ax.set_title(note, color=GREY)
        ax.set(xscale="log", xlabel="seconds an input", ylim=(len(rules) - 0.4, -0.6))
        ax.grid()
        ax.set_axisbelow(True)
        handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside lower left")
        return save_figure(figure, path)


def _all_but_share(setting: Setting) -> str:
    resolved = setting.config.resolved
    return (
        f"{fingerprint({**resolved, 'seed': 0, 'fault': {**resolved['fault'], 'share': 0}})} {setting.config.exp_key}"
    )


def _draw_panel(ax: Axes, panel: Sequence[Setting], rules: Sequence[str]) -> None:
    config = panel[0].config
    name = choice_name(config.fault)
    ax.set_title(f"{data_words(panel[0].row)}\n{name}, {faulty_clients(config.fault)} of {config.num_clients}")
    ax.set_xlabel(f"{'labels flipped' if name == 'label_flip' else 'examples changed'}, percent")
    chance = {_percent(s): over_seeds(found.chance for found in s.found) for s in panel}
    _draw_curve(ax, chance, CHANCE, _CHANCE.colour, _CHANCE.line, "", 2.0)
    provenance = {_percent(setting): rule_over_seeds(setting.found, "provenance") for setting in panel}
    # The thin lines lie above the thick one: a rule that does as well can be seen.
    _draw_curve(ax, provenance, "provenance", _PROVENANCE, "-", "o", 3.2)
    for number, rule in reversed(list(enumerate(rule for rule in rules if rule != "provenance"))):
        line, marker = _STYLES[number // len(_COLOURS) % len(_STYLES)]
        values = {_percent(setting): rule_over_seeds(setting.found, rule) for setting in panel}
        width = _THICK if rule == "feddebug" else 1.2
        _draw_curve(ax, values, rule, _COLOURS[number % len(_COLOURS)], line, marker, width)
    ax.set(ylim=(-3, 103), xticks=sorted(chance))
    ax.grid()


def _draw_curve(
    ax: Axes, values: Mapping[float, SeedMean | None], name: str, colour: str, line: str, marker: str, width: float
) -> None:
    """Draw means over the shares, in percent; only thick lines get their spread as a band, as a dozen would overlap."""
    known = [(share, value) for share, value in sorted(values.items()) if value is not None]
    if not known:
        return
    shares = [share for share, _ in known]
    means = [100 * value.mean for _, value in known]
    spreads = [100 * (value.spread or 0.0) for _, value in known]
    ax.plot(shares, means, line, marker=marker, color=colour, label=name, linewidth=width, markersize=2.5 + 1.2 * width)
    if any(spreads) and name != CHANCE and width >= _THICK:
        low = [max(0.0, mean - spread) for mean, spread in zip(means, spreads, strict=True)]
        high = [min(100.0, mean + spread) for mean, spread in zip(means, spreads, strict=True)]
        ax.fill_between(shares, low, high, color=colour, alpha=0.15, linewidth=0)


def _percent(setting: Setting) -> float:
    return 100 * (fault_share(setting.config.fault) or 0.0)
