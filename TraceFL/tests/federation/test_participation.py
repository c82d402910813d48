import json
import random
from collections import Counter

import pytest

from tests.helpers.configuration import compose_settings
from tests.helpers.runs import LIGHT_MODEL, run
from tests.helpers.tables import read_csv
from tracefl.errors import ConfigError
from tracefl.federation.participation import Participation

IDS = tuple(map(str, range(10)))


def uniform(client_ids, count, seed):
    return random.Random(seed).sample(client_ids, count)


def test_nobody_left_out_changes_no_draw():
    for seed in range(50):
        assert Participation().sample(uniform, IDS, 4, seed) == uniform(IDS, 4, seed)


def test_the_others_stay_and_somebody_takes_the_place_of_who_is_left_out():
    part = Participation({"3", "7"})
    replaced = 0
    for seed in range(50):
        before, after = uniform(IDS, 4, seed), part.sample(uniform, IDS, 4, seed)
        assert after == part.sample(uniform, IDS, 4, seed)
        assert len(set(after)) == 4
        assert set(before) - {"3", "7"} <= set(after)
        assert not {"3", "7"} & set(after)
        replaced += bool({"3", "7"} & set(before))
    assert 0 < replaced < 50


def test_all_that_are_left_are_equally_likely():
    part = Participation({"3", "7"})
    pairs = Counter(tuple(sorted(part.sample(uniform, IDS[:8], 2, seed))) for seed in range(15_000))
    assert len(pairs) == 15  # of the 6 that are left
    assert all(abs(count - 1000) < 150 for count in pairs.values()), pairs  # 1000 +- 31


def test_a_round_takes_all_where_fewer_are_left():
    assert sorted(Participation({"0", "1"}).sample(uniform, IDS[:4], 4, 5)) == ["2", "3"]
    assert Participation(set(IDS)).sample(uniform, IDS, 4, 5) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["without=[10]"], r"without=\[10\] names client 10, and num_clients=10 are 0 to 9; name one of those"),
        (["without=3"], "without must be a list of different client numbers"),
        (["without=null"], r"without must be a list of different client numbers such as \[3,7\], or \[\], got None"),
        (["without=[3,3]"], r"got \[3, 3\]"),
        (["without=[-1]"], r"got \[-1\]"),
        (["without=[a]"], r"got \['a'\]"),
        (
            ["without=[0,1,2,3,4,5,6,7,8]"],
            r"leaves 1 of the 10 clients .*, and 2 are needed \(half of clients_per_round=4",
        ),
        (
            ["without=[0,1,2,3,4,5,6]", "strategy.min_clients=4"],
            "leaves 3 of the 10 .*, and 4 are needed .*strategy.min_clients=4",
        ),
    ],
)
def test_whom_a_run_cannot_leave_out(overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        compose_settings(*overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_client_that_is_left_out_is_in_no_round(tmp_path):
    folder = run(tmp_path, *LIGHT_MODEL, "without=[1,4]", "clients_per_round=5", "num_rounds=2")
    for number in (1, 2):
        found = json.loads((folder / f"rounds/000{number}/round.json").read_text())
        assert set(found["client_weights"]) == {"0", "2", "3"}
        assert sum(found["client_weights"].values()) == pytest.approx(1)
    assert [row["clients"] for row in read_csv(folder / "rounds.csv")] == ["3", "3"]
    assert "3 clients can take part" in (folder / "run.log").read_text()
