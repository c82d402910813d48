"""FLForensics: whose updates taught the wrong class for this input, but not for noise (Jia et al., NeurIPS 2025).

arXiv 2407.07221, with what the paper leaves to its program as there (github.com/jyqhahah/FLForensics). A client's
influence on an input x and the class y that is predicted for it is the first-order decrease of the loss by its updates,
each brought to length 1, over the stored rounds t:

    s_k = - sum_t 1 / K_t <grad loss(x, y; w_t), u_k,t / |u_k,t|>

where w_t are the weights that the round's K_t clients started from. Clients that hold many examples of class y have a
high s too. They are told apart by s', the same for an input of noise: an attacker's updates lead to y for x alone.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tracefl.common.imports import imported
from tracefl.common.seeds import derive_seed
from tracefl.provenance import Compute, RoundRecord
from tracefl.provenance.capture import frozen_eval
from tracefl.provenance.inputs import Batch, Inputs, read_batch
from tracefl.questions.baselines.directional import logits_along
from tracefl.questions.baselines.evidence import Evidence, NotApplicableError

_FEWEST = 4  # clients, who can make two clusters


def flforensics(evidence: Evidence, num_noises: int = 5) -> Tensor:
    """Suspect the clients in clusters of high influence on the input and low influence on noise.

    For each input and each of the noises, the clients' pairs (s, s'), each scaled to a range of 1, are clustered by
    HDBSCAN. Among the clusters of less than half of the clients, and of those that are in no cluster, attackers are
    sought where the mean s is positive. If there is one such, it is theirs; if there are several, it is those whose
    s' / s is no more than that of all clients in them together. The paper's attackers are the clients found with every
    noise.

    Here a client's suspicion is the number of noises with which it is found, and a fraction below 1 that orders those
    found equally often: the logistic function of s - s', scaled and averaged over noises. The smallest cluster, 7 of
    the paper's 100 clients, is as large a part of fewer, at least 2. Noise is uniform between the lowest and highest
    number of the inputs, and for texts a uniform draw of tokens from the vocabulary. A constant learning rate, by which
    the paper multiplies each round, is left out.

    Cost: for each round K forward passes with derivatives along the updates, two to three times as long as others.

    Args:
        evidence: The round, its inputs, and any number of rounds before it, none included.
        num_noises: Inputs of noise.

    Returns:
        ``(M, K)``, 0 to ``num_noises`` + 1.

    Raises:
        NotApplicableError: The round has fewer than 4 clients, or a layer of the model has no forward derivative.
    """
    num_clients = len(evidence.record.clients)
    if num_clients < _FEWEST:
        raise NotApplicableError(
            f"flforensics clusters the clients; it needs at least {_FEWEST}, this round has {num_clients}"
        )
    noise = noise_like(evidence, num_noises)
    classes = evidence.predicted.cpu()
    influences = torch.zeros(len(classes), num_clients, dtype=torch.float64)
    controls = torch.zeros(len(classes), num_noises, num_clients, dtype=torch.float64)
    rows = torch.arange(len(classes))
    with frozen_eval(evidence.model, evidence.device) as place:
        batches = [read_batch(evidence.model, inputs, place) for inputs in (evidence.inputs, noise)]
        for record in evidence.rounds:
            for k, client in enumerate(evidence.record.clients):
                if client in record.clients:
                    of_inputs, of_noise = (_slopes(evidence.model, record, client, batch, place) for batch in batches)
                    influences[:, k] -= of_inputs[rows, classes] / len(record.clients)
                    controls[:, :, k] -= of_noise[:, classes].t() / len(record.clients)
    suspicions = torch.stack(
        [
            sum((found_with(s, control) for control in of_input), torch.zeros(num_clients, dtype=torch.float64))
            for s, of_input in zip(influences, controls, strict=True)
        ]
    )
    margins = _scaled(influences).unsqueeze(1) - _scaled(controls)  # (M, noises, K)
    return suspicions + margins.mean(dim=1).sigmoid()


def found_with(influence: Tensor, control: Tensor) -> Tensor:
    """Return 1 for the clients that are found with one noise, else 0, ``(K,)`` float64.

    Args:
        influence: ``(K,)``, s.
        control: ``(K,)``, s'.
    """
    s, noise = _scaled(influence), _scaled(control)
    num_clients = len(s)
    hdbscan = imported("sklearn.cluster", "the rule flforensics").HDBSCAN(
        min_cluster_size=max(2, round(0.07 * num_clients)),
        min_samples=2,  # a client and its nearest; the package hdbscan does not count the client and calls it 1
        copy=True,
    )
    labels = torch.from_numpy(hdbscan.fit_predict(torch.stack([s, noise], dim=1).numpy()))
    groups = [labels == label for label in sorted(set(labels.tolist()))]
    likely = [group for group in groups if s[group].mean() > 0 and group.sum() < num_clients / 2]
    if len(likely) < 2:
        return likely[0].double() if likely else torch.zeros_like(s)
    clustered = torch.stack(likely).any(dim=0) & (labels >= 0)
    ratio = noise[clustered].mean() / s[clustered].mean()
    found = torch.zeros(num_clients, dtype=torch.bool)
    for group in likely:
        if bool(labels[group][0] >= 0):
            found |= group & (noise[group].mean() / s[group].mean() <= ratio)
    # One that is in no cluster is judged by itself.
    found |= (labels < 0) & (s > 0) & (noise / s <= ratio)
    return found.double()


def noise_like(evidence: Evidence, count: int) -> Inputs:
    """Return ``count`` inputs of noise, in the form of the evidence's."""
    generator = torch.Generator().manual_seed(derive_seed(evidence.seed, "flforensics", evidence.record.server_round))
    inputs = evidence.inputs
    if not isinstance(inputs, Mapping):
        low, high = inputs.min().item(), inputs.max().item()
        uniform = torch.rand(count, *inputs.shape[1:], generator=generator, dtype=torch.float64)
        return (low + (high - low) * uniform).to(inputs)
    embedding = next((m for m in evidence.model.modules() if isinstance(m, nn.Embedding)), None)
    if embedding is None or "input_ids" not in inputs or inputs.keys() - {"input_ids", "attention_mask"}:
        raise NotApplicableError("flforensics makes noise of images and of tokens; this model takes other inputs")
    ids = inputs["input_ids"]
    tokens = torch.randint(embedding.num_embeddings, (count, *ids.shape[1:]), generator=generator).to(ids)
    noise = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return {name: noise[name] for name in inputs}


def _slopes(model: nn.Module, record: RoundRecord, client: str, batch: Batch, device: torch.device) -> Tensor:
    """Return how each input's loss of each class changes along a client's update, ``(N, C)`` float64 on the CPU."""
    size = Compute().forward_batch_size
    logits, change = logits_along(model, record.previous_global, record.clients[client], batch, size, device)
    return ((logits.softmax(dim=1) * change).sum(dim=1, keepdim=True) - change).cpu()


def _scaled(values: Tensor) -> Tensor:
    """Return numbers divided by their range along the last dimension, where that is not 0."""
    spread = values.amax(dim=-1, keepdim=True) - values.amin(dim=-1, keepdim=True)
    return values / torch.where(spread > 0, spread, 1.0)
