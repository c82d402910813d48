"""What client and server have agreed on: the names of the records in their messages, and how to read them."""

from flwr.app import ArrayRecord, Message

ARRAYS, METRICS, CLIENT, CONFIG = "arrays", "metrics", "client", "config"
"""Records of a training message and its reply."""

NUM_EXAMPLES, LOSS = "num-examples", "train-loss"
"""Metrics of a reply."""

CLIENT_ID = "client-id"
"""Whom a message is for, and who replies."""


def client_id_of(message: Message) -> str:
    """Return the id of the client that a message is addressed to."""
    return str(message.content.config_records[CONFIG][CLIENT_ID])


def arrays_of(message: Message) -> ArrayRecord:
    """Return the weights in a message."""
    return message.content.array_records[ARRAYS]


def num_examples_of(message: Message) -> float:
    """Return the number by which a message's weights are weighted in the average."""
    return float(str(message.content.metric_records[METRICS][NUM_EXAMPLES]))
