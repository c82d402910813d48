"""No function's answer depends on the caller's mode: evaluation is asked from within no_grad or inference_mode."""

import warnings
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from tests.helpers import net_rounds
from tests.helpers.net_rounds import FUNCTIONS, INPUTS, LABELS, P, Round
from tracefl.provenance import attribute, attribute_round, who

ASKED = {
    **FUNCTIONS,
    "default": lambda model, record: attribute_round(model, record, net_rounds.INPUTS, LABELS),
    "attribute": lambda model, record: attribute(model, record.clients, net_rounds.INPUTS, p=P),
    "who": lambda model, record: who(model, record.clients, net_rounds.INPUTS, sizes=P),
}


def numbers(found):
    """Return the tensors of an answer."""
    if isinstance(found, torch.Tensor):
        return found
    if hasattr(found, "clients"):
        return torch.tensor([[client.contribution, client.removal.effect] for client in found.clients])
    return next(getattr(found, name) for name in ("contributions", "effects", "values") if name in dir(found))


@pytest.mark.parametrize("made_there", [False, True])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_the_caller_s_mode_changes_no_answer(ask, mode, made_there, monkeypatch):
    """Neither does it where the clients' weights and the inputs were made in that mode too."""
    round_ = Round()
    expected = ask(round_.model, round_.record)
    with mode():
        record = round_.record
        if made_there:
            copies = {k: {n: t.clone() for n, t in c.items()} for k, c in record.clients.items()}
            weights = {n: t.clone() for n, t in record.global_weights.items()}
            record = replace(record, clients=copies, global_weights=weights)
            monkeypatch.setattr(net_rounds, "INPUTS", INPUTS.clone())
        found = ask(round_.model, record)
        assert not torch.is_grad_enabled()
    if isinstance(expected, dict):
        assert_close(found, expected)
    else:
        assert_close(numbers(found), numbers(expected))
        assert not numbers(found).is_inference()


def test_a_warning_names_the_caller_s_line():
    round_ = Round()
    for ask in (
        lambda: attribute(round_.model, round_.clients, INPUTS),
        lambda: attribute(round_.model, round_.clients, INPUTS, p=P, also=()),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ask()
        assert [found.filename for found in caught] == [__file__]
