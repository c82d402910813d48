"""Short descriptions of a run's fault."""

from tracefl.conf.constraints import choice_name
from tracefl.learning.faults.settings import AnyFault, Backdoor, FreeRider, LabelFlip, WeightNoise

NO_FAULT = "none"


def fault_share(fault: AnyFault | None) -> float | None:
    """Return the fraction of the faulty clients' matching examples that is changed, None if no examples are changed."""
    return None if fault is None or isinstance(fault, WeightNoise | FreeRider) else fault.share


def faulty_clients(fault: AnyFault | None) -> int:
    """Return how many clients are faulty."""
    return 0 if fault is None else fault.num_clients or len(fault.clients or (0,))


def describe_fault(fault: AnyFault | None, num_clients: int) -> str:
    """Return the fault as text such as ``label_flip 30 %, 2 of 10``, or ``none`` if there is none."""
    if fault is None:
        return NO_FAULT
    share, details = fault_share(fault), list[str]()
    if isinstance(fault, LabelFlip):
        details += [f"{label}>{becomes}" for label, becomes in (fault.flip or {}).items()]
        details += [f"all>{fault.all_to}"] if fault.all_to else []  # null means 0
    elif isinstance(fault, Backdoor):
        details += [f"target={fault.target}"] if fault.target else []
        details += [f"trigger_size={fault.trigger_size}"] if fault.trigger_size not in (None, 4) else []
        details += [f"trigger_token={fault.trigger_token}"] if fault.trigger_token is not None else []
    elif isinstance(fault, WeightNoise | FreeRider):
        details += [f"scale={fault.scale}"]
    details += [] if share is None else [f"{100 * share:g} %"]
    words = f"{' '.join((fault.name, *details))}, {faulty_clients(fault)} of {num_clients}"
    return words if fault.from_round == 1 else f"{words}, from round {fault.from_round}"


def fault_in_name(fault: AnyFault | None) -> str:
    """Return the part of a run's name that describes the fault, such as ``2xlabel_flip0.3``; "" if there is none."""
    if fault is None:
        return ""
    count, share = faulty_clients(fault), fault_share(fault)
    return f"{'' if count == 1 else f'{count}x'}{fault.name}{'' if share in (None, 1) else share}"


def fault_order(fault: AnyFault | None) -> tuple[str, int, float]:
    """Return a sort key for faults: by name, then by number of clients, then largest share first."""
    return choice_name(fault), faulty_clients(fault), -(fault_share(fault) or 0.0)
