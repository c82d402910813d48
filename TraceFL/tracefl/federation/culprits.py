"""Who makes a round's model unusable, found by leaving clients out."""

from collections.abc import Callable, Collection, Sequence


def culprits(suspects: Sequence[str], logit_of: Callable[[Collection[str]], float], limit: float) -> tuple[str, ...]:
    """Return clients without whom a round is sound; empty where no choice of them is found.

    First each client alone is left out. Of several without whom the round is sound, the one whose leaving lowers the
    logits most is named: who brings them just above the limit would else be kept, and an honest client blamed that
    brings them a little nearer. Where no single one is enough, the average is built up from the least suspected client
    on, and whoever spoils it stays out. So nobody is named whose reply does no harm beside the others that are kept.

    Args:
        suspects: All clients of the round, the most suspected first: of equals, that one is named.
        logit_of: Returns the largest absolute logit, NaN or infinite where one is, of the average of some clients.
        limit: From which on a round is not sound; that of all clients is not.
    """
    without = {
        client: logit_of(others) for client in suspects if (others := [other for other in suspects if other != client])
    }
    sound = {client: logit for client, logit in without.items() if logit < limit}
    if sound:
        return (min(sound, key=lambda client: sound[client]),)
    kept: list[str] = []
    for client in reversed(suspects):
        if logit_of([*kept, client]) < limit:
            kept.append(client)
    return tuple(k for k in suspects if k not in kept) if kept else ()
