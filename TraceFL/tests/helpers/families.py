"""Small models, with random weights, of the families that people use: of torchvision, transformers and timm."""

import torch
import torchvision
import transformers
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

CLASSES = 4


def _torchvision(name, pixels=32, **sizes):
    return lambda: (getattr(torchvision.models, name)(weights=None, num_classes=CLASSES, **sizes), images(pixels))


def _resnet(block, pixels=32, **sizes):
    return lambda: (torchvision.models.ResNet(block, [1, 1, 1, 1], CLASSES, **sizes), images(pixels))


def _timm(name, pixels=32, **sizes):
    def make():
        import timm

        return timm.create_model(name, num_classes=CLASSES, **sizes), images(pixels)

    return make


def _vgg():
    model = torchvision.models.VGG(nn.Identity(), CLASSES, init_weights=False)
    model.features = torchvision.models.vgg.make_layers([8, "M", 8, "M"], batch_norm=True)
    model.classifier = nn.Sequential(nn.Linear(8 * 49, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, CLASSES))
    return model


def _text(kind, **sizes):
    def make():
        config = transformers.CONFIG_MAPPING[kind](
            **{
                "vocab_size": 50,
                "num_labels": CLASSES,
                "pad_token_id": 0,
                "bos_token_id": 1,
                "eos_token_id": 2,
                **sizes,
            }
        )
        return transformers.AutoModelForSequenceClassification.from_config(config), texts()

    return make


def _image(kind, pixels=32, **sizes):
    def make():
        config = transformers.CONFIG_MAPPING[kind](**{"num_labels": CLASSES, "image_size": pixels, **sizes})
        return transformers.AutoModelForImageClassification.from_config(config), {"pixel_values": images(pixels)}

    return make


def images(pixels):
    return torch.randn(3, 3, pixels, pixels)


def texts():
    ids = torch.randint(3, 50, (3, 12))
    mask = torch.ones_like(ids)
    ids[:, -1] = 2
    ids[0, 6], ids[0, 7:], mask[0, 7:] = 2, 0, 0
    return {"input_ids": ids, "attention_mask": mask}


_VIT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}
_BERT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 20,
}
_LLAMA = {**_BERT, "num_key_value_heads": 1}
_BART = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 20,
}
_T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}

TORCHVISION = {
    "alexnet": _torchvision("alexnet", 64),
    "vgg": lambda: (_vgg(), images(32)),
    "resnet": _resnet(torchvision.models.resnet.BasicBlock),
    "resnext": _resnet(torchvision.models.resnet.Bottleneck, groups=8, width_per_group=4),
    "densenet": lambda: (torchvision.models.DenseNet(8, (2, 2, 2, 2), 16, num_classes=CLASSES), images(32)),
    "mobilenet_v2": _torchvision("mobilenet_v2", width_mult=0.25),
    "mobilenet_v3_small": _torchvision("mobilenet_v3_small", width_mult=0.5),
    "efficientnet_b0": _torchvision("efficientnet_b0"),
    "convnext": lambda: (
        ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 2)], num_classes=CLASSES),
        images(32),
    ),
    "vit": lambda: (torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=CLASSES), images(32)),
    "swin": lambda: (
        torchvision.models.SwinTransformer([4, 4], 8, [1, 2], [1, 2], [4, 4], num_classes=CLASSES),
        images(32),
    ),
    "swin_v2": lambda: (
        torchvision.models.SwinTransformer(
            [4, 4],
            8,
            [2, 1],
            [1, 2],
            [4, 4],
            num_classes=CLASSES,
            block=torchvision.models.swin_transformer.SwinTransformerBlockV2,
            downsample_layer=torchvision.models.swin_transformer.PatchMergingV2,
        ),
        images(32),
    ),
    "maxvit": lambda: (
        torchvision.models.MaxVit((64, 64), 8, 2, [8, 16], [1, 1], 8, 0.1, num_classes=CLASSES),
        images(64),
    ),
    "googlenet": _torchvision("googlenet", aux_logits=False, init_weights=False),
    "googlenet with auxiliary heads": _torchvision("googlenet", 64, aux_logits=True, init_weights=False),
    "inception_v3": _torchvision("inception_v3", 80, aux_logits=True, init_weights=False),
    "squeezenet": _torchvision("squeezenet1_1", 32),
    "shufflenet": _torchvision("shufflenet_v2_x0_5"),
    "mnasnet": _torchvision("mnasnet0_5"),
    "regnet_y": _torchvision("regnet_y_400mf"),
    "regnet_x": _torchvision("regnet_x_400mf"),
}

TRANSFORMERS = {
    "bert": _text("bert", **_BERT),
    "distilbert": _text("distilbert", dim=16, hidden_dim=32, n_layers=2, n_heads=2),
    "roberta": _text("roberta", **{**_BERT, "max_position_embeddings": 24}),
    "xlm-roberta": _text("xlm-roberta", **{**_BERT, "max_position_embeddings": 24}),
    "albert": _text("albert", embedding_size=8, **_BERT),
    "electra": _text("electra", embedding_size=8, **_BERT),
    "deberta": _text("deberta", relative_attention=True, pos_att_type="c2p|p2c", **_BERT),
    "deberta-v2": _text("deberta-v2", relative_attention=True, pos_att_type="c2p|p2c", **_BERT),
    "mpnet": _text("mpnet", **{**_BERT, "max_position_embeddings": 24}),
    "xlnet": _text("xlnet", d_model=16, n_layer=2, n_head=2, d_inner=32),
    "roformer": _text("roformer", **_BERT),
    "modernbert": _text("modernbert", cls_token_id=1, sep_token_id=2, **_BERT),
    "longformer": _text("longformer", attention_window=4, **{**_BERT, "max_position_embeddings": 24}),
    "funnel": _text("funnel", d_model=16, n_head=2, d_head=8, d_inner=32, block_sizes=[1, 1], num_decoder_layers=1),
    "gpt2": _text("gpt2", n_embd=16, n_layer=2, n_head=2, n_positions=16),
    "openai-gpt": _text("openai-gpt", n_embd=16, n_layer=2, n_head=2, n_positions=16),
    "gpt_neo": _text(
        "gpt_neo",
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=16,
    ),
    "gpt_neox": _text("gpt_neox", **_BERT),
    "opt": _text(
        "opt",
        hidden_size=16,
        word_embed_proj_dim=8,
        ffn_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=20,
    ),
    "bloom": _text("bloom", hidden_size=16, n_layer=2, n_head=2),
    "llama": _text("llama", **_LLAMA),
    "mistral": _text("mistral", **_LLAMA),
    "qwen2": _text("qwen2", **_LLAMA),
    "qwen3": _text("qwen3", head_dim=8, **_LLAMA),
    "phi": _text("phi", **_LLAMA),
    "phi3": _text("phi3", **_LLAMA),
    "gemma": _text("gemma", head_dim=8, **_LLAMA),
    "gemma2": _text("gemma2", head_dim=8, **_LLAMA),
    "falcon": _text("falcon", hidden_size=16, num_hidden_layers=2, num_attention_heads=2),
    "bart": _text("bart", **_BART),
    "t5": _text("t5", decoder_start_token_id=0, **_T5),
    "squeezebert": _text("squeezebert", embedding_size=16, **_BERT),
    "vit": _image("vit", **_VIT),
    "deit": lambda: (
        transformers.DeiTForImageClassification(transformers.DeiTConfig(num_labels=CLASSES, image_size=32, **_VIT)),
        {"pixel_values": images(32)},
    ),
    "beit": _image("beit", use_relative_position_bias=True, layer_scale_init_value=0.1, **_VIT),
    "dinov2": _image("dinov2", mlp_ratio=2, **{k: v for k, v in _VIT.items() if k != "intermediate_size"}),
    "swin": _image(
        "swin", patch_size=4, embed_dim=8, depths=[1, 2], num_heads=[1, 2], window_size=4, use_absolute_embeddings=True
    ),
    "swinv2": _image("swinv2", patch_size=4, embed_dim=8, depths=[1, 2], num_heads=[1, 2], window_size=4),
    "convnext": _image("convnext", hidden_sizes=[8, 16], depths=[1, 2], num_stages=2),
    "convnextv2": _image("convnextv2", hidden_sizes=[8, 16], depths=[1, 2], num_stages=2),
    "resnet": _image("resnet", embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic"),
    "regnet": _image("regnet", embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1], groups_width=8),
    "mobilenet_v2": _image("mobilenet_v2", depth_multiplier=0.25),
    "mobilevit": _image(
        "mobilevit", 32, hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 32], num_attention_heads=2
    ),
    "poolformer": _image("poolformer", hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1]),
    "segformer": _image(
        "segformer", hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 2]
    ),
    "pvt_v2": _image("pvt_v2", hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 2]),
    "siglip": _image(
        "siglip",
        vision_config={**_VIT, "image_size": 32},
        text_config={"vocab_size": 50, **_BERT},
    ),
}

_THIN = {"layers": (1, 1, 1, 1), "channels": (8, 16, 16, 32), "stem_width": 8}
_TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}

TIMM = {
    "resnet50": _timm("resnet50", **_THIN),
    "resnet18": _timm("resnet18", **_THIN),
    "seresnet50": _timm("seresnet50", **_THIN),
    "resnext50_32x4d": _timm("resnext50_32x4d", layers=(1, 1, 1, 1), channels=(32, 32, 32, 64), base_width=32),
    "efficientnet_b0": _timm("efficientnet_b0"),
    "tf_efficientnetv2_b0": _timm("tf_efficientnetv2_b0"),
    "mobilenetv3_small_050": _timm("mobilenetv3_small_050"),
    "mobilenetv2_035": _timm("mobilenetv2_035"),
    "ghostnet_050": _timm("ghostnet_050"),
    "regnety_002": _timm("regnety_002"),
    "densenet121": _timm("densenet121", growth_rate=8, block_config=(2, 2, 2, 2)),
    "convnext_atto": _timm("convnext_atto", depths=(1, 1, 2, 1), dims=(8, 16, 16, 32)),
    "convnextv2_atto": _timm("convnextv2_atto", depths=(1, 1, 2, 1), dims=(8, 16, 16, 32)),
    "vit_tiny_patch16_224": _timm("vit_tiny_patch16_224", **_TINY),
    "vit_small_patch16_224": _timm("vit_small_patch16_224", init_values=0.1, **_TINY),
    "deit_tiny_distilled": _timm("deit_tiny_distilled_patch16_224", **_TINY),
    "deit3_small": _timm("deit3_small_patch16_224", **_TINY),
    "cait_xxs24_224": _timm("cait_xxs24_224", **_TINY),
    "beit_base_patch16_224": _timm("beit_base_patch16_224", **_TINY),
    "eva02_tiny_patch14_224": _timm("eva02_tiny_patch14_224", **_TINY),
    "swin_tiny": _timm(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=4, embed_dim=8, depths=(1, 2), num_heads=(1, 2)
    ),
    "mixer_s16_224": _timm("mixer_s16_224", 64, img_size=64),
    "pvt_v2_b0": _timm("pvt_v2_b0", embed_dims=(8, 16, 16, 16), num_heads=(1, 2, 2, 2), depths=(1, 1, 1, 1)),
    "coat_tiny": _timm(
        "coat_tiny", img_size=32, embed_dims=(16, 16, 16, 16), serial_depths=(1, 1, 1, 1), parallel_depth=1, num_heads=8
    ),
    "hrnet_w18_small": _timm("hrnet_w18_small", 64),
    "inception_v3": _timm("inception_v3", 80),
    "xception41": _timm("xception41", 64),
    "nf_resnet50": _timm("nf_resnet50", 32),
    "maxvit_rmlp_pico_rw_256": _timm("maxvit_rmlp_pico_rw_256", 32, img_size=32),
    "edgenext_xx_small": _timm("edgenext_xx_small", 32),
    "mobilevit_xxs": _timm("mobilevit_xxs", 64),
}

#: One of each kind of layer and of forward; the others are the longer form of the test.
ALWAYS = {
    "torchvision": (
        *("resnext", "densenet", "mobilenet_v3_small", "shufflenet", "squeezenet"),
        *("convnext", "vit", "swin", "swin_v2", "maxvit"),
    ),
    "transformers": (
        *("bert", "distilbert", "roberta", "albert", "electra", "deberta-v2", "mpnet", "xlnet", "funnel", "gpt2"),
        *("openai-gpt", "gpt_neo", "opt", "bloom", "llama", "qwen2", "phi", "gemma", "bart", "t5", "vit", "beit"),
        *("swin", "swinv2", "convnext", "convnextv2", "resnet", "poolformer", "siglip"),
    ),
    "timm": (
        *("resnet18", "seresnet50", "mobilenetv3_small_050", "densenet121", "convnext_atto", "vit_small_patch16_224"),
        *("cait_xxs24_224", "beit_base_patch16_224", "eva02_tiny_patch14_224", "swin_tiny", "pvt_v2_b0", "coat_tiny"),
    ),
}


def small_model(make):
    """Return a family's model and inputs in float64; no parameter is 0, or all the same, as some begin."""
    torch.manual_seed(0)
    model, inputs = make()
    model = model.double().eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=draw, dtype=torch.float64)
                tensor.add_(noise.abs_() * 0.2 if name.endswith("running_var") else noise * 0.02)
    return model, inputs
