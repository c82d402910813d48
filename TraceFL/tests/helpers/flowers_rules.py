"""Flower's own robust strategies, which a rule is compared with."""

from flwr.app import ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import Bulyan, FedMedian, FedTrimmedAvg, MultiKrum


def messages_of(states, examples):
    """Return replies of clients."""
    return [
        Message(
            RecordDict({"arrays": ArrayRecord(state), "metrics": MetricRecord({"num-examples": n, "train-loss": 1.0})}),
            1,
            MessageType.TRAIN,
        )
        for state, n in zip(states, examples, strict=False)
    ]


def made_by_flower(rule, states, examples):
    """Return what Flower's strategy makes of the floating-point tensors, in float64."""
    strategy = {
        "krum": lambda: MultiKrum(num_malicious_nodes=rule.malicious, num_nodes_to_select=rule.selected),
        "bulyan": lambda: Bulyan(num_malicious_nodes=rule.malicious),
        "trimmed_mean": lambda: FedTrimmedAvg(beta=rule.cut),
        "median": FedMedian,
    }[rule.rule]()
    doubles = [{n: w.double() for n, w in state.items() if w.is_floating_point()} for state in states]
    arrays, _ = strategy.aggregate_train(1, messages_of(doubles, examples))
    return arrays.to_torch_state_dict()
