"""Small models of the four families, with all of their kinds of layers, and clients near them."""

import torch
import torchvision
import transformers
from torchvision.models.resnet import BasicBlock


def gpt():
    config = transformers.OpenAIGPTConfig(
        vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2, num_labels=4, pad_token_id=0
    )
    return transformers.OpenAIGPTForSequenceClassification(config)


def bert():
    config = transformers.BertConfig(
        vocab_size=50,
        max_position_embeddings=16,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_labels=4,
    )
    return transformers.BertForSequenceClassification(config)


MODELS = {
    "resnet18": lambda: torchvision.models.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10),
    "densenet121": lambda: torchvision.models.DenseNet(16, (2, 2, 2, 2), 32, num_classes=10),
    "gpt": gpt,
    "bert": bert,
}
WHOLE = {
    "whole resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "whole densenet121": lambda: torchvision.models.densenet121(num_classes=10),
}
"""The image models of the paper as they are: slow, for what depth may change."""


def model_and_inputs(name, dtype=torch.float32, num_inputs=3):
    torch.manual_seed(0)
    model = {**MODELS, **WHOLE}[name]().to(dtype).eval()
    if name in ("gpt", "bert"):
        ids = torch.randint(1, 50, (num_inputs, 12))
        mask = torch.ones_like(ids)
        ids[0, 7:], mask[0, 7:] = 0, 0
        return model, {"input_ids": ids, "attention_mask": mask}
    return model, torch.randn(num_inputs, 3, 32, 32, dtype=dtype)


def clients_near(model, num_clients=3, scale=0.05, seed=1):
    """Client id to state dict: the model's parameters and floating buffers, each with noise of its own."""
    return states_near(model.state_dict(), num_clients, scale, seed)


def states_near(state, num_clients, scale, seed):
    """The same of a state dict."""
    generator = torch.Generator().manual_seed(seed)

    def noisy(tensor):
        if not tensor.is_floating_point():
            return tensor.clone()
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
        return tensor + scale * noise * tensor.abs().mean()

    return {str(k): {n: noisy(t) for n, t in state.items()} for k in range(num_clients)}
