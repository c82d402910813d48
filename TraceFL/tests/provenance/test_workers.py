import threading
import time

import pytest
import torch

from tests.helpers.formula import attribute
from tests.helpers.models import clients_near, model_and_inputs
from tests.helpers.processes import PATIENCE
from tracefl.provenance.workers import OrderedSum, Work, run_workers

CPU = torch.device("cpu")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_every_job_is_done_once_and_torch_has_its_threads_again(two_threads):
    work = Work([lambda n=n: [f"{n}.{i}" for i in range(n)] for n in (3, 0, 2)])
    done, both_at_work = [], threading.Barrier(2)

    def run():
        for place, job in work:
            assert torch.get_num_threads() == 1
            done.append((place, job))
            if len(done) <= 2:
                both_at_work.wait(PATIENCE)

    run_workers(work, run, CPU)
    assert sorted(done) == [((0, 0), "3.0"), ((0, 1), "3.1"), ((0, 2), "3.2"), ((2, 0), "2.0"), ((2, 1), "2.1")]
    assert work.made == {0: 3, 1: 0, 2: 2}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("in_a_source", [True, False])
def test_what_one_worker_raises_ends_all(two_threads, in_a_source):
    def failing():
        raise RuntimeError("a layer fails")

    sources = [lambda: [1, 2], failing if in_a_source else lambda: [3], *[lambda: [4]] * 1000]
    work, done = Work(sources), []

    def run():
        for _, job in work:
            if job == 3:
                failing()
            done.append(job)
            time.sleep(0.001)

    with pytest.raises(RuntimeError, match="a layer fails"):
        run_workers(work, run, CPU)
    assert len(done) < 1000
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]])
def test_a_sum_does_not_depend_on_who_is_first(order):
    """In floating point 1e16 + 1 - 1e16 is 0 or 1, as the order of the terms is."""
    terms = {(0, 0): 1e16, (0, 1): 1.0, (2, 0): -1e16, (3, 0): 1.0}
    found = OrderedSum({0: 2, 1: 0, 2: 1, 3: 1, 4: 0})
    for i in order:
        place = list(terms)[i]
        found.add(place, torch.tensor(terms[place], dtype=torch.float64))
    assert found.total() == (1e16 + 1.0) - 1e16 + 1.0


def test_a_sum_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no layer that was called has a gradient"):
        OrderedSum({0: 0}).total()


@pytest.mark.filterwarnings("ignore:not traced")
def test_contributions_are_the_same_bits_every_time(family, two_threads):
    model, inputs = model_and_inputs(family)
    clients = clients_near(model)
    first = attribute(model, clients, inputs).contributions
    for _ in range(3):
        assert torch.equal(attribute(model, clients, inputs).contributions, first)
