"""Where every exact removal leaves the prediction as sure as it was, nobody carries it."""

from dataclasses import replace

import pytest
import torch

from tests.helpers.nobodys_round import IDS, make_nobodys_round, slow_effects
from tracefl.provenance import Method, attribute_round, counterfactuals, explain, score_inputs, summarize
from tracefl.provenance.attribution import ROUNDING

LABEL = torch.tensor([0])
ARTIFACT = Method(0.9, "none", "none", "predicted", None, (), 0)
BY_EFFECT = tuple(sorted(IDS, key=lambda k: -slow_effects()[k]))


@pytest.fixture
def made():
    return make_nobodys_round()


def test_the_made_round_is_one(made):
    """All exact effects are negative, and the published formula scores client 3 first."""
    found = attribute_round(*made, LABEL, ARTIFACT)
    assert found.ranking(0)[0][0] == "3"
    assert found.ranking(0)[0][1] > 1 / len(IDS)
    assert max(slow_effects().values()) < -0.1


def test_exact_removals_of_all_say_nobody_and_rank_all_the_same(made):
    found = attribute_round(*made, LABEL, Method(verify="all"))
    assert found.responsible == (None,)
    assert tuple(client for client, _ in found.ranking(0)) == BY_EFFECT
    assert dict(found.ranked_contributions(0)) == pytest.approx(slow_effects(), abs=1e-6)


def test_estimates_and_some_removals_leave_it_open(made):
    assert attribute_round(*made, LABEL, ARTIFACT).responsible == ("3",)
    some = attribute_round(*made, LABEL, Method(verify="all"))
    first = IDS.index(BY_EFFECT[0])
    others = torch.ones(1, len(IDS), dtype=torch.bool)
    others[0, first] = False
    assert replace(some, verified=others).responsible == (BY_EFFECT[0],)
    # Where the first one was left out, nobody carries it: the others are estimated to be below it.
    assert replace(some, verified=~others).responsible == (None,)


@pytest.mark.parametrize(("effect", "responsible"), [(2 * ROUNDING, "3"), (ROUNDING / 2, None)])
def test_rounding_carries_nothing(made, effect, responsible):
    found = attribute_round(*made, LABEL, Method(verify="all"))
    effects = found.contributions.clone()
    effects[0, IDS.index("3")] = effect
    assert replace(found, contributions=effects).responsible == (responsible,)


@pytest.mark.parametrize(("method", "settled"), [(Method(verify="all"), True), (ARTIFACT, False)])
def test_an_explanation_says_nobody_only_where_exact_effects_rank_the_first(made, method, settled):
    found = explain(*made, method, checked=3)
    assert found.is_settled == settled
    assert found.responsible == (None if settled else "3")
    words = None if settled else "* without client 3 the model is as sure, and not all clients were left out"
    assert words is None or found.caveat.startswith(words)
    assert ("3" in found.contradicted) == (not settled)
    whole = explain(*made, method, checked=len(IDS))
    assert whole.responsible is None
    assert tuple(part.client_id for part in whole.clients) == BY_EFFECT  # exact effects order where all are known
    for part in whole.clients:
        assert part.removal.effect == pytest.approx(slow_effects()[part.client_id], abs=1e-6)


def test_counterfactuals_say_nobody_and_what_all_removals_have_in_common(made):
    found, slow = counterfactuals(*made), slow_effects()
    assert found.nobody.tolist() == [True]
    common = sum(slow.values()) / len(slow)
    assert found.common_effects.tolist() == [pytest.approx(common, abs=1e-6)]
    assert found.own_effects[0].tolist() == [pytest.approx(slow[k] - common, abs=1e-6) for k in IDS]


def test_a_removal_that_is_not_known_leaves_it_open_and_names_nobody(made):
    found = counterfactuals(*made)
    lost = found.predicted_without.clone()
    lost[0, 1], without = -1, found.centered_logits_without.clone()
    without[0, 1] = torch.nan  # without client 2 the model gives no finite logits
    some = replace(found, predicted_without=lost, centered_logits_without=without)
    assert (some.nobody.tolist(), some.carried_by.tolist(), found.carried_by.tolist()) == ([False], [-1], [-1])
    without[0, 0] = found.centered_logits[0] - 1
    assert replace(some, centered_logits_without=without).carried_by.tolist() == [0]


def test_a_traced_input_is_carried_by_nobody_and_localized_all_the_same(made):
    model, record, inputs = made
    attribution = attribute_round(model, record, inputs, LABEL, ARTIFACT)
    effects = counterfactuals(model, record, inputs).effects
    expected = torch.tensor([[False, False, True, False]])
    (traced,) = score_inputs(attribution, LABEL, LABEL, expected, None, effects)
    assert (traced.responsible, traced.traced_client, traced.localized) == (None, "3", True)
    assert traced.by_effect == BY_EFFECT
    assert (summarize((traced,)).nobody_fraction, summarize((traced,)).localization_accuracy) == (1.0, 1.0)
    (unchecked,) = score_inputs(attribution, LABEL, LABEL, expected, None, None)
    assert (unchecked.responsible, unchecked.by_effect[0]) == ("3", "3")
    assert summarize((unchecked,)).nobody_fraction is None
    some = replace(unchecked, verified=("3",), contributions=(("3", -0.5), *unchecked.contributions[1:]))
    assert (some.responsible, some.is_settled) == (None, False)  # the others are estimated to be below client 3
    assert summarize((some,)).nobody_fraction == 1.0


def test_where_the_orders_differ_exact_effects_say_who_carries(made):
    model, record, inputs = made
    attribution = attribute_round(model, record, inputs, LABEL, ARTIFACT)
    (traced,) = score_inputs(attribution, LABEL, LABEL, None, None, torch.tensor([[-1.0, 0.5, 0.25, -0.5]]))
    assert (traced.responsible, traced.traced_client) == ("2", "3")
    assert traced.by_effect == ("2", "3", "4", "1")
