"""Which runs each job script is for: overrides of ``tracefl run``, in the order of their index.

The settings are in ``conf/experiment``, one file per figure or table; here is only what a figure varies.
"""

from itertools import product

Overrides = tuple[str, ...]

_ALPHAS = ("0.1", "0.2", "0.3")
_TEN_ALPHAS = ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1.0")
_NOISE = ("0.0001", "0.0003", "0.0007", "0.0009", "0.001", "0.003")
_CLIPS = ("15", "50")


def _training() -> list[Overrides]:
    groups = (
        (("resnet18", "densenet121"), ("mnist", "cifar10"), 50),
        (("resnet18", "densenet121"), ("pathmnist", "organamnist"), 25),
        (("gpt", "bert"), ("dbpedia_14", "yahoo_answers_topics"), 25),
    )
    return [
        ("experiment=figure2", f"model={model}", f"dataset={dataset}", f"dirichlet_alpha={alpha}", f"num_rounds={n}")
        for models, datasets, n in groups
        for model, dataset, alpha in product(models, datasets, _ALPHAS)
    ]


def _privacy() -> list[Overrides]:
    settings = (("densenet121", "mnist"), ("densenet121", "pathmnist"), ("gpt", "dbpedia_14"))
    figure4 = [
        ("experiment=figure4", f"model={model}", f"dataset={dataset}", *_noise(noise, clip))
        for (model, dataset), noise, clip in product(settings, _NOISE, _CLIPS)
    ]
    return [*figure4, *(("experiment=table2", *_noise(noise, clip)) for noise, clip in (("0.006", 10), ("0.012", 15)))]


def _scalability() -> list[Overrides]:
    of_clients = [(clients, 10) for clients in (200, 400, 600, 800, 1000)]
    a_round = [(400, sampled) for sampled in (20, 30, 40, 50)]
    table3 = [
        ("experiment=table3", f"num_clients={clients}", f"clients_per_round={sampled}")
        for clients, sampled in (*of_clients, *a_round)
    ]
    return [*table3, ("experiment=figure5",)]


def _dirichlet() -> list[Overrides]:
    settings = (
        ("gpt", "yahoo_answers_topics"),
        ("gpt", "dbpedia_14"),
        ("densenet121", "pathmnist"),
        ("densenet121", "organamnist"),
        ("densenet121", "mnist"),
        ("densenet121", "cifar10"),
    )
    return [
        ("experiment=figure3", f"model={model}", f"dataset={dataset}", f"dirichlet_alpha={alpha}")
        for (model, dataset), alpha in product(settings, _TEN_ALPHAS)
    ]


_TABLE1 = (
    ("densenet121", "organamnist"),
    ("densenet121", "pathmnist"),
    ("densenet121", "cifar10"),
    ("densenet121", "mnist"),
    ("gpt", "dbpedia_14"),
    ("gpt", "yahoo_answers_topics"),
)
# Beyond the paper: faults that are harder to see, and faults of other kinds.
_MORE_FAULTS: tuple[Overrides, ...] = (
    ("fault.share=0.1",),
    ("fault.share=0.3",),
    ("fault.share=0.5",),
    ("fault.num_clients=2",),
    ("fault.num_clients=3",),
    ("fault=backdoor",),
    ("fault=random_labels",),
    ("fault=free_rider",),
)


def _faulty() -> list[Overrides]:
    return [_fault(setting, alpha) for setting, alpha in product(_TABLE1, ("0.3", "0.7", "1.0"))]


def _more_faulty() -> list[Overrides]:
    return [(*_fault(setting, "0.3"), *fault) for setting, fault in product(_TABLE1, _MORE_FAULTS)]


def _fault(setting: tuple[str, str], alpha: str) -> Overrides:
    model, dataset = setting
    return ("experiment=table1", f"model={model}", f"dataset={dataset}", f"dirichlet_alpha={alpha}")


def _noise(noise: str, clip: str | int) -> Overrides:
    return (f"privacy.noise_multiplier={noise}", f"privacy.clipping_norm={clip}")


JOBS: dict[str, list[Overrides]] = {
    "training": _training(),
    "dp": _privacy(),
    "scalability": _scalability(),
    "dirichlet": _dirichlet(),
    "faulty": _faulty(),
}
"""Name of a script to its runs."""

EXTENDED: dict[str, list[Overrides]] = {"faulty": _more_faulty()}
"""Name of a script to what ``--extended`` adds: indices go on where those of ``JOBS`` end."""
