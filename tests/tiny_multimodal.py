"""Folders of tiny random models that see and answer: stand-ins for jina's embeddings, and LLaVA's classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.tiny_models import BYTES, SIDE, clip_tokenizer, image_processor


def jina(folder: Path) -> Path:
    """A model that brings its own Python code, with jina-clip's two methods."""
    folder.mkdir(parents=True)
    (folder / "modeling_toy.py").write_text(
        """import numpy as np
import torch
from transformers import PretrainedConfig, PreTrainedModel


class ToyConfig(PretrainedConfig):
    model_type = "toy_jina"


class JinaCLIPModel(PreTrainedModel):
    config_class = ToyConfig
    all_tied_weights_keys = {}

    def __init__(self, config):
        super().__init__(config)
        self.scale = torch.nn.Parameter(torch.ones(4))

    def _init_weights(self, module):
        pass

    def encode_text(self, texts):
        return np.stack([np.array([len(t), t.count("a"), t.count("e"), 1.0]) for t in texts])

    def encode_image(self, images):
        return [torch.tensor([*np.asarray(i, np.float32).mean((0, 1)) / 255, 1.0]) for i in images]
"""
    )
    (folder / "config.json").write_text(
        json.dumps(
            {
                "architectures": ["JinaCLIPModel"],
                "model_type": "toy_jina",
                "auto_map": {"AutoConfig": "modeling_toy.ToyConfig", "AutoModel": "modeling_toy.JinaCLIPModel"},
            }
        )
    )
    from safetensors.torch import save_file

    save_file({"scale": torch.ones(4)}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def jina_v4(folder: Path, without: str | None = None) -> Path:
    """A model with the ways of jina-embeddings-v4's own code.

    Its ``from_pretrained`` reads an attribute that transformers 5 has no more, takes what transformers gives it for
    the model, and wraps it in peft's adapters, from the folder ``adapters``, by a layer of its own with one adapter a
    task. Its ``__init__`` reads the tokenizer from the folder. Texts and images are embedded by one adapted layer:
    how often six letters occur, and the mean of an image's colours.

    Args:
        folder: to be made.
        without: a weight that the file then lacks.
    """
    from peft import LoraConfig
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "modeling_stand_in.py").write_text(_JINA_V4)
    (folder / "config.json").write_text(
        json.dumps(
            {
                "architectures": ["JinaEmbeddingsV4Model"],
                "model_type": "stand_in_jina_v4",
                "auto_map": {
                    "AutoConfig": "modeling_stand_in.JinaEmbeddingsV4Config",
                    "AutoModel": "modeling_stand_in.JinaEmbeddingsV4Model",
                },
            }
        )
    )
    torch.manual_seed(4)
    weights = {"layer.weight": torch.randn(6, 6), "words.weight": torch.randn(6, 6)}
    save_file({k: v for k, v in weights.items() if k != without}, folder / "model.safetensors", {"format": "pt"})

    own = {f"base_model.model.layer.lora_{n}.{task}.weight": torch.randn(*shape)
           for task in ("retrieval", "code") for n, shape in (("A", (2, 6)), ("B", (6, 2)))}  # fmt: skip
    (folder / "adapters").mkdir()
    save_file(own, folder / "adapters/adapter_model.safetensors", {"format": "pt"})
    LoraConfig(r=2, lora_alpha=6, target_modules=["layer"]).save_pretrained(folder / "adapters")
    clip_tokenizer().save_pretrained(folder)
    return folder


_JINA_V4 = """import os
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedModel


class JinaEmbeddingsV4Config(PretrainedConfig):
    model_type = "stand_in_jina_v4"
    task_names = ["retrieval", "code"]


class TaskLinear(torch.nn.Module, LoraLayer):
    def __init__(self, base_layer, adapter_name, task_names, r=0, lora_alpha=1, **kwargs):
        super().__init__()
        LoraLayer.__init__(self, base_layer, **kwargs)
        self._active_adapter = adapter_name
        self.r[adapter_name], self.scaling[adapter_name] = r, lora_alpha / r
        for layers, (inner, outer) in ((self.lora_A, (self.in_features, r)), (self.lora_B, (r, self.out_features))):
            layers[adapter_name] = torch.nn.ModuleDict(
                {task: torch.nn.Linear(inner, outer, bias=False) for task in task_names}
            )
        self.set_adapter(self.active_adapters)

    def forward(self, x, task):
        name = self.active_adapters[0]
        return self.base_layer(x) + self.lora_B[name][task](self.lora_A[name][task](x)) * self.scaling[name]


class Backbone(PreTrainedModel):
    config_class = JinaEmbeddingsV4Config
    _supports_sdpa = True

    def _init_weights(self, module):
        pass


class JinaEmbeddingsV4Model(Backbone):
    def __init__(self, config):
        Backbone.__init__(self, config)
        self.layer = torch.nn.Linear(6, 6, bias=False)
        self.words = torch.nn.Linear(6, 6, bias=False)
        self.post_init()
        tokenizer = AutoTokenizer.from_pretrained(self.name_or_path, trust_remote_code=True)
        self.processor = SimpleNamespace(tokenizer=tokenizer)

    def prepare_inputs_for_generation(self, *args, **kwargs):
        raise NotImplementedError

    def _seen(self, rows, task):
        with torch.no_grad():
            return list(torch.unbind(self.layer(torch.stack(rows).to(self.device), task=task)))

    def encode_text(self, texts, task=None, prompt_name=None):
        assert prompt_name == "query"
        rows = [torch.tensor([float(text.count(letter)) for letter in "aeiost"]) for text in texts]
        return self._seen([self.words(row.to(self.device)).detach() for row in rows], task)

    def encode_image(self, images, task=None):
        assert all(image.mode == "RGB" for image in images)
        means = [np.asarray(image, np.float32).mean((0, 1)) / 255 for image in images]
        return self._seen([torch.tensor([*mean, *(1 - mean)]) for mean in means], task)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        if "torch_dtype" not in kwargs:
            kwargs["torch_dtype"] = "auto"
        kwargs["key_mapping"] = super()._checkpoint_conversion_mapping
        kwargs["attn_implementation"] = "sdpa"
        base_model = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        adapter_dir = os.path.join(base_model.name_or_path, "adapters")
        lora_config = LoraConfig.from_pretrained(adapter_dir)
        lora_config._custom_modules = {
            torch.nn.Linear: partial(TaskLinear, task_names=base_model.config.task_names)
        }
        return PeftModel.from_pretrained(model=base_model, model_id=adapter_dir, config=lora_config)
"""


def llava(folder: Path, whole_words: Sequence[str] = ()) -> Path:
    """LLaVA's classes: CLIP's image tower and a small Llama, with a tokenizer of bytes and some whole words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    merges = list(dict.fromkeys(merge for word in whole_words for merge in _merges(word)))
    words = ["<pad>", "<s>", "</s>", "<image>", *BYTES, *dict.fromkeys("".join(merge) for merge in merges)]
    bpe = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=merges))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE,
            patch_size=8, projection_dim=16,
        ),
        text_config=LlamaConfig(
            vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=512, pad_token_id=0, bos_token_id=1, eos_token_id=2,
            initializer_range=0.3,
        ),
        image_token_index=3,
    )  # fmt: skip
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor = LlavaProcessor(
        image_processor=image_processor(), tokenizer=tokenizer, patch_size=8, vision_feature_select_strategy="default",
        image_token="<image>", num_additional_image_tokens=1,
    )  # fmt: skip
    processor.save_pretrained(folder)
    return folder


def _merges(word: str) -> list[tuple[str, str]]:
    """What joins a word's bytes into one token, and that with a space before it into another one."""
    return [*((word[:k], word[k]) for k in range(1, len(word))), ("Ġ", word)]


def llava_yes(folder: Path, image: Image.Image, prompt: str) -> float:
    """exp(−cross-entropy of the answer), token by token, by transformers alone."""
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    text = f'<image>\nDoes this figure show "{prompt}"? Please answer yes or no. '
    found = []
    for position, letter in enumerate("Yes"):
        inputs = processor(images=image, text=text + "Yes"[:position], return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits[0, -1]
        found.append(logits.log_softmax(-1)[processor.tokenizer.convert_tokens_to_ids(letter)].item())
    return float(np.exp(np.mean(found)))
