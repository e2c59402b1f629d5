"""Pictures of results, drawn with matplotlib: one function for each benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.results import Results, Row
from benchmarks.table import size_text

_WIDTH_IN = 11.0
_HEIGHT_IN = 4.5
_DPI = 100


def draw(results: Results, path: Path) -> None:
    """Writes a picture, in the format of the file name's suffix."""
    if results["results"]:
        _DRAW[_kind(results)](results, path)
    else:
        _draw_nothing(path)


def _kind(results: Results) -> str:
    if results["settings"].get("idle_s"):
        return "idle"
    return results["benchmark"]


def _draw_latency(results: Results, path: Path) -> None:
    """The mean by number of ranks for the smallest size, and by size for the fewest ranks.

    A panel is drawn only if its x axis has more than one value. If neither has, there is one panel.
    """
    rows = results["results"]
    smallest = min(row["size_bytes"] for row in rows)
    fewest = min(row["ranks"] for row in rows)
    by_ranks = ("ranks", size_text(smallest), [r for r in rows if r["size_bytes"] == smallest])
    by_size = ("size_bytes", f"ranks: {fewest}", [r for r in rows if r["ranks"] == fewest])
    panels = [(x, t, r) for x, t, r in (by_ranks, by_size) if len({row[x] for row in r}) > 1]
    panels = panels or [by_ranks]
    figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for one, (x, title, shown) in zip(axes, panels, strict=True):
        _lines(one, shown, x, "mean_us")
        _label(one, title, _NAMES[x], "mean round trip, µs" if one is axes[0] else "")
    _save(figure, axes, path)


def _draw_paced(results: Results, path: Path) -> None:
    """The p50 and the busiest rank's CPU, for each pattern, interval and number of ranks."""
    rows = results["results"]
    figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), layout="constrained")
    latency, cpu = figure.subplots(1, 2)
    cases = list(dict.fromkeys(_case(row) for row in rows))
    _bars(latency, rows, cases, "p50_us")
    _label(latency, "round trip", "ranks, pattern, interval", "p50, µs")
    latency.set_yscale("log")
    _bars(cpu, rows, cases, "rank_cpu_pct")
    _label(cpu, "the busiest rank", "ranks, pattern, interval", "CPU, % of a core")
    _save(figure, [latency], path)


def _draw_idle(results: Results, path: Path) -> None:
    rows = results["results"]
    figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, 2)
    for one, who in zip(axes, ("engine", "rank"), strict=True):
        names = [f"{row['transport']}\nn={row['ranks']}" for row in rows]
        one.bar(names, [max(row[f"{who}_cpu_pct"], 1e-3) for row in rows])
        one.set_yscale("log")
        one.tick_params(axis="x", labelrotation=60)
        _label(one, f"waiting in vain: {who}", "", "CPU, % of a core")
    figure.savefig(path, dpi=_DPI)


def _draw_throughput(results: Results, path: Path) -> None:
    """Bytes a second that each rank gets, by size and by number of ranks."""
    rows = sorted(results["results"], key=itemgetter("ranks"))
    _panels(rows, "ranks", "ranks: {}", "size_bytes", "gb_per_s", path)


def _draw_scaling(results: Results, path: Path) -> None:
    rows = results["results"]
    figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), layout="constrained")
    time, memory = figure.subplots(1, 2)
    ranks = [row["ranks"] for row in rows]
    for key, name in (
        ("writer_us", "writer, all awake"),
        ("writer_asleep_us", "writer, all asleep"),
        ("writer_cpu_us", "its CPU time"),
        ("first_reader_us", "first reader"),
        ("last_reader_us", "last reader"),
    ):
        time.plot(ranks, [row[key] for row in rows], marker="o", label=name)
    _label(time, "one broadcast", "ranks", "µs")
    memory.plot(ranks, [row["shared_bytes"] / 2**20 for row in rows], marker="o", label="shared")
    _label(memory, "shared memory", "ranks", "MiB")
    for one in (time, memory):
        one.set_xscale("log", base=2)
        one.set_xticks(ranks, [str(n) for n in ranks])
    time.set_yscale("log")
    time.legend(fontsize="small")
    figure.savefig(path, dpi=_DPI)


def _draw_step_codec(results: Results, path: Path) -> None:
    """Encoding and decoding by batch, in the first scenario that was measured."""
    rows = _of_one_scenario(results)
    title = f"{rows[0]['scenario']}: {{}}"
    _panels(rows, "direction", title, "batch", "p50_us", path, by="backend")


def _draw_step_overhead(results: Results, path: Path) -> None:
    """A step by batch, for each number of ranks."""
    rows = sorted(_of_one_scenario(results), key=itemgetter("tp"))
    title = f"{rows[0]['scenario']}, TP {{}}"
    _panels(rows, "tp", title, "batch", "p50_us", path, by="backend")


def _draw_nodes(results: Results, path: Path) -> None:
    """A step of vLLM over two nodes by batch, for each choice of ranks; without such steps, bytes."""
    rows = [row for row in results["results"] if row["what"] == "step"] or results["results"]
    _panels(rows, "ranks", "{}", "size", "p50_us", path, by="backend")


def _draw_vllm(results: Results, path: Path) -> None:
    """Tokens a second by requests, for each number of ranks."""
    rows = sorted(results["results"], key=itemgetter("tp"))
    _panels(rows, "tp", "TP {}", "concurrency", "tokens_per_s", path, by="backend")


def _draw_start_stop(results: Results, path: Path) -> None:
    """Seconds of a start and of a stop, for each number of ranks."""
    rows = results["results"]
    figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, 2)
    for one, what in zip(axes, ("start", "stop"), strict=True):
        for number, row in enumerate(rows):
            name = row["backend"]
            one.bar(number, row[f"{what}_s"], color=COLOURS[name], label=name)
        one.set_xticks(range(len(rows)), [f"TP {row['tp']}" for row in rows])
        _label(one, what, "", "seconds" if one is axes[0] else "")
    _save(figure, axes, path)


def _of_one_scenario(results: Results) -> list[Row]:
    """The first one's."""
    rows = results["results"]
    return [row for row in rows if row["scenario"] == rows[0]["scenario"]]


def _draw_nothing(path: Path) -> None:
    figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN))
    figure.text(0.5, 0.5, "nothing was measured", ha="center")
    figure.savefig(path, dpi=_DPI)


def _panels(
    rows: Sequence[Row], split: str, title: str, x: str, y: str, path: Path, by: str = "transport"
) -> None:
    """One panel of lines for each value of `split`, which the panel's title shows."""
    values = list(dict.fromkeys(row[split] for row in rows))
    figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    for one, value in zip(axes, values, strict=True):
        shown = [row for row in rows if row[split] == value]
        _lines(one, shown, x, y, by)
        across = {row[x] for row in shown}
        name = _NAMES[x] if len(across) > 1 else f"{_NAMES[x]}: {_in_words(x, across.pop())}"
        _label(one, title.format(value), name, _NAMES[y] if one is axes[0] else "")
    _save(figure, axes, path)


def _lines(axes: Axes, rows: Sequence[Row], x: str, y: str, by: str = "transport") -> None:
    """A line for each transport, on logarithmic axes; a bar if there is only one x."""
    places = sorted({row[x] for row in rows})
    for number, name in enumerate(dict.fromkeys(row[by] for row in rows)):
        points = sorted((row[x], row[y]) for row in rows if row[by] == name)
        if len(places) == 1:
            axes.bar(number, points[0][1], color=COLOURS[name], label=name)
            continue
        style = "-" if name.startswith(("mpspmd", "mp-spmd")) else "--"
        options = {"color": COLOURS[name], "marker": "o", "markersize": 4, "label": name}
        axes.plot(*zip(*points, strict=True), style, **options)
    if len(places) == 1:
        axes.set_xticks([])
    else:
        axes.set_yscale("log")
        axes.set_xscale("log", base=2)
        axes.set_xticks(places, [_in_words(x, place) for place in places], fontsize="small")
        axes.minorticks_off()


def _in_words(x: str, place: int) -> str:
    return size_text(place) if x == "size_bytes" else str(place)


def _bars(axes: Axes, rows: Sequence[Row], cases: Sequence[str], y: str) -> None:
    """A group of bars for each case, with a bar for each transport."""
    names = list(dict.fromkeys(row["transport"] for row in rows))
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        values = {_case(row): row[y] for row in rows if row["transport"] == name}
        places = [number + index * width for number, case in enumerate(cases) if case in values]
        heights = [values[case] for case in cases if case in values]
        axes.bar(places, heights, width, color=COLOURS[name], label=name)
    axes.set_xticks([number + 0.4 - width / 2 for number in range(len(cases))], cases)
    axes.tick_params(axis="x", labelrotation=60, labelsize="small")


def _case(row: Row) -> str:
    return f"n={row['ranks']} {row['pattern']} {row['interval_ms']:g} ms"


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, alpha=0.3)


def _save(figure: Figure, axes: Sequence[Axes], path: Path) -> None:
    """Writes the file, with one legend for all axes."""
    handles: dict[str, Artist] = {}
    for one in axes:
        for handle, name in zip(*one.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    figure.legend(
        list(handles.values()), list(handles), loc="outside right upper", fontsize="small"
    )
    figure.savefig(path, dpi=_DPI)


COLOURS = {
    "mpspmd": "tab:green",
    "mpspmd-raw": "tab:orange",
    "mpspmd-engine": "tab:red",
    "mpspmd-park": "limegreen",
    "mpspmd-yield": "darkgreen",
    "mpspmd-spin": "yellowgreen",
    "mp-spmd": "tab:green",
    "mp": "tab:purple",
    "mpspmd-delta": "tab:green",
    "pickle5": "tab:purple",
    "flat-tuple": "tab:blue",
    "c-pingpong": "black",
    "vllm-messagequeue": "tab:purple",
    "iceoryx2": "tab:brown",
    "zmq-ipc": "tab:pink",
    "zmq-curve": "tab:orange",
    "mp-pipe": "tab:gray",
    "mp-queue": "tab:olive",
    "gloo": "tab:cyan",
    "ray-graph": "tab:blue",
    "ray-actor": "navy",
}
"""Each transport and backend has the same colour in every picture, and no two in a picture share one."""


_NAMES = {
    "ranks": "ranks",
    "size_bytes": "size of a message",
    "gb_per_s": "GB/s to each rank",
    "batch": "requests in a step",
    "size": "requests in a step",
    "p50_us": "p50, µs",
    "concurrency": "requests at once",
    "tokens_per_s": "tokens/s",
}
"""The labels of axes, by the key that they show."""

_DRAW: dict[str, Callable[[Results, Path], None]] = {
    "channel_latency": _draw_latency,
    "paced_latency": _draw_paced,
    "idle": _draw_idle,
    "throughput": _draw_throughput,
    "scaling": _draw_scaling,
    "step_codec": _draw_step_codec,
    "step_overhead": _draw_step_overhead,
    "nodes": _draw_nodes,
    "vllm_e2e": _draw_vllm,
    "start_stop": _draw_start_stop,
}
