"""Whose replies make a round's average unusable, found by averaging again without them."""

from collections.abc import Callable, Collection, Sequence


def culprits(suspects: Sequence[str], is_sound: Callable[[Collection[str]], bool]) -> tuple[str, ...]:
    """Return clients without whom a round is sound; empty where no choice of them is found.

    First each client alone is left out, the most suspected first. Where that is never enough, the average is built up
    from the least suspected one on, and whoever spoils it stays out. So nobody is named whose reply does no harm beside
    the others that are kept.

    Args:
        suspects: All clients of the round, the most suspected first.
        is_sound: Returns whether the average of some of the clients is sound; that of all of them is not.
    """
    for client in suspects:
        if (others := [k for k in suspects if k != client]) and is_sound(others):
            return (client,)
    kept: list[str] = []
    for client in reversed(suspects):
        if is_sound([*kept, client]):
            kept.append(client)
    return tuple(k for k in suspects if k not in kept) if kept else ()
