from tests.helpers.linear_round import FLIP
from tracefl.experiment.mitigation.summary import mitigation_words, summarize_mitigation


def row(server_round, client, decision=""):
    """Return a row of mitigation.csv after a round."""
    evidence = {"toward": 7, "total": 2.5, "window_rounds": "1 2", "window_gain": 0.1}
    return evidence | {"round": server_round, "client": client, "decision": decision, "from_round": server_round + 1}


def test_who_was_hit_and_who_of_them_was_honest():
    """Client 1 is faulty from round 2 on."""
    rows = [row(1, "0"), row(2, "1", "exclude"), row(3, "2", "exclude"), row(4, "0", "too few left")]
    found = summarize_mitigation("exclude", rows, FLIP, True)
    assert [(each["client"], each["decision"], each["from_round"], each["faulty"]) for each in found["decisions"]] == [
        ("1", "exclude", 3, True),
        ("2", "exclude", 4, False),
        ("0", "too few left", 5, False),
    ]
    assert found["decisions"][0] == {
        **{"client": "1", "decision": "exclude", "from_round": 3, "toward": 7, "total": 2.5},
        **{"window_rounds": "1 2", "window_gain": 0.1, "faulty": True},
    }
    assert (found["clients_hit"], found["honest_clients_hit"]) == (2, 1)
    found |= {"clients_refused": {"2": 3}, "clients_capped": {"0": 1, "10": 2}}
    assert mitigation_words(found) == (
        "mitigate=exclude: clients hit: 2, honest ones among them: 1; client 1 (faulty) excluded from round 3 on; "
        "client 2 (honest) excluded from round 4 on; "
        "client 0 (honest) not excluded in round 5, for too few would have been left; "
        "refused: client 2 in 3 rounds; brought down to a bound: client 0 in 1 round, client 10 in 2 rounds"
    )
    assert summarize_mitigation("exclude", [row(1, "1", "exclude")], FLIP, True)["honest_clients_hit"] == 1


def test_a_client_that_is_hit_twice_counts_once():
    rows = [row(2, "1", "downweight"), row(4, "1", "restore"), row(6, "1", "downweight")]
    found = summarize_mitigation("downweight", rows, None, True)
    assert (len(found["decisions"]), found["clients_hit"], found["honest_clients_hit"]) == (3, 1, 1)


def test_of_a_deployments_clients_nobody_knows():
    found = summarize_mitigation("exclude", [row(2, "1", "exclude")], None, False)
    assert (found["honest_clients_hit"], found["decisions"][0]["faulty"]) == (None, None)
    nobody = {"clients_refused": {}, "clients_capped": {}}
    assert mitigation_words(found | nobody) == "mitigate=exclude: clients hit: 1; client 1 excluded from round 3 on"
    found = summarize_mitigation("exclude", [], None, False)
    assert mitigation_words(found | nobody) == "mitigate=exclude: clients hit: 0"
