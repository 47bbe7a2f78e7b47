"""Tiny image models of the library transformers, saved as people find them."""

import json
from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    PreTrainedModel,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 99}
TOKENS = {"bos_token_id": 1, "eos_token_id": 2}


def vit() -> PreTrainedModel:
    return ViTModel(ViTConfig(**SMALL))


def classifier() -> PreTrainedModel:
    """Saved without the pooler that a bare ViT has."""
    return ViTForImageClassification(ViTConfig(**SMALL))


def clip() -> PreTrainedModel:
    config = CLIPConfig(
        text_config=TEXT | TOKENS | {"intermediate_size": 16},
        vision_config=SMALL,
        projection_dim=24,
    )
    return CLIPModel(config)


def resnet() -> PreTrainedModel:
    """More features than a judge keeps."""
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 96], "depths": [1, 1]}
    return ResNetModel(ResNetConfig(**sizes, layer_type="basic"))


KINDS = {"vit": vit, "classifier": classifier, "clip": clip, "resnet": resnet}


def save_image_model(folder: Path, kind: str = "vit", **preprocessor: object) -> Path:
    """Save a model with weights that follow from the kind; `preprocessor` is its file's content."""
    torch.manual_seed(0)
    KINDS[kind]().eval().save_pretrained(folder)
    if preprocessor:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder
