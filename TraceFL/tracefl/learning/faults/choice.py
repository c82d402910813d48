"""Which clients are faulty."""

import logging
import random
from collections.abc import Mapping

from tracefl.common.seeds import derive_seed
from tracefl.errors import DataError
from tracefl.learning.faults.settings import AnyFault

log = logging.getLogger(__name__)


def choose_faulty(settings: AnyFault, held: Mapping[str, int], seed: int) -> tuple[str, ...]:
    """Return the ids of the faulty clients, in numeric order.

    A named client that holds too few examples is replaced, with a warning, by the unnamed client that holds the most.
    Clients drawn at random are drawn from those that hold enough.

    Args:
        settings: The fault.
        held: Client id to the number of its examples that the fault can change, for clients that take part.
        seed: The run's root seed.

    Raises:
        DataError: Too few clients hold enough examples.
    """
    least = settings.min_examples
    enough = [client for client in sorted(held, key=int) if held[client] >= least]
    most = max(sorted(held, key=int), key=lambda client: held[client])
    remedy = (
        f"the most that any holds is {held[most]}, client {most}; lower fault.min_examples, make fewer clients faulty, "
        "or change what the fault changes or dirichlet_alpha"
    )
    if settings.num_clients is not None:
        if len(enough) < settings.num_clients:
            raise DataError(
                f"fault.num_clients={settings.num_clients}, and {len(enough)} of {len(held)} clients that take part "
                f"hold fault.min_examples={least} examples that the fault can change; {remedy}"
            )
        drawn = random.Random(derive_seed(seed, "fault", "clients")).sample(enough, settings.num_clients)
        return tuple(sorted(drawn, key=int))
    named = [str(client) for client in settings.clients or (0,)]
    chosen = [client for client in named if client in enough]
    for client in (client for client in named if client not in enough):
        others = [other for other in enough if other not in named and other not in chosen]
        holds = f"holds {held[client]} examples that the fault can change" if client in held else "does not take part"
        what = f"fault.clients: client {client} {holds}, fault.min_examples is {least}"
        if not others:
            raise DataError(f"{what}, and no other client holds as many; {remedy}")
        other = max(others, key=lambda other: held[other])
        log.warning("%s; client %s with %d is faulty in its place", what, other, held[other])
        chosen.append(other)
    return tuple(sorted(chosen, key=int))
