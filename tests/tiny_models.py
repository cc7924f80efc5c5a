"""Folders of tiny random models of the real classes. Each builder writes one folder and returns it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    BlipConfig,
    BlipForImageTextRetrieval,
    BlipTextConfig,
    BlipVisionConfig,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SIDE = 32
CLIP_LENGTH = 40
BYTES = sorted(ByteLevel.alphabet())
TEMPLATE = "{prompt} Rephrase:"


def image(seed: int, width: int = SIDE, height: int = SIDE) -> Image.Image:
    """An image of noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def _say(folder: Path, kind: str | None) -> Path:
    if kind is not None:
        (folder / "scorer.json").write_text(json.dumps({"kind": kind}))
    return folder


def _image_processor() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


# ------------------------------------------------------------------------------------------------------- rewriters


def gpt2(folder: Path, seed: int = 0, positions: int = 128) -> Path:
    """GPT-2 with a tokenizer of bytes; padding is the end token, as in the published one."""
    tokenizer = GPT2Tokenizer(vocab={"<|endoftext|>": 0, **{byte: i + 1 for i, byte in enumerate(BYTES)}}, merges=[])
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=positions,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "semdpo.json").write_text(json.dumps({"template": TEMPLATE}))
    return folder


# ------------------------------------------------------------------------------------------------------------ CLIP


def clip_tokenizer() -> CLIPTokenizer:
    """One token a byte. The end token is id 3, for 2 would switch on transformers' legacy pooling."""
    words = ["<|pad|>", "<|startoftext|>", "<|unk|>", "<|endoftext|>", *BYTES, *(byte + "</w>" for byte in BYTES)]
    return CLIPTokenizer(
        vocab={word: i for i, word in enumerate(words)},
        merges=[],
        pad_token="<|pad|>",
        unk_token="<|endoftext|>",
        model_max_length=CLIP_LENGTH,
    )


def _clip_text(vocabulary: int, end: int) -> dict[str, object]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": CLIP_LENGTH,
        "projection_dim": 16,
        "bos_token_id": 1,
        "eos_token_id": end,
        "pad_token_id": 0,
    }


def clip(folder: Path, kind: str | None = None, seed: int = 0, end: int | None = None, half: bool = False) -> Path:
    """A CLIPModel whose end token is not the largest id, so that pooling at the wrong place shows."""
    tokenizer = clip_tokenizer()
    torch.manual_seed(seed)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 8,
        "projection_dim": 16,
    }
    text = _clip_text(len(tokenizer), tokenizer.eos_token_id if end is None else end)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    (model.half() if half else model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _image_processor().save_pretrained(folder)
    return _say(folder, kind)


# ------------------------------------------------------------------------------------------------------------ BLIP


def bert_tokenizer(length: int = 40) -> BertTokenizer:
    """One token a character."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters)]
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=length)


def _blip_vision() -> BlipVisionConfig:
    return BlipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=8,
        layer_norm_eps=1e-6,
        initializer_range=0.02,
    )


def _blip_text() -> BlipTextConfig:
    return BlipTextConfig(
        vocab_size=len(bert_tokenizer()),
        hidden_size=32,
        encoder_hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=16,
        max_position_embeddings=40,
        bos_token_id=2,
        sep_token_id=3,
        eos_token_id=3,
        is_decoder=True,
        initializer_range=0.2,
    )


def image_reward(folder: Path, seed: int = 0) -> Path:
    """ImageReward's structure."""
    from semdpo.models.scorers.image_reward import ImageRewardModel

    torch.manual_seed(seed)
    model = ImageRewardModel(_blip_vision(), _blip_text(), (32, 24, 16, 8, 4, 1), mean=0.1, std=0.5)
    model.save_pretrained(folder)
    bert_tokenizer().save_pretrained(folder)
    _image_processor().save_pretrained(folder)
    return _say(folder, "image-reward")


def blip_itm(folder: Path, seed: int = 0) -> Path:
    """BLIP's matching model."""
    torch.manual_seed(seed)
    config = BlipConfig(
        text_config=_blip_text().to_dict(), vision_config=_blip_vision().to_dict(), image_text_hidden_size=16
    )
    BlipForImageTextRetrieval(config).save_pretrained(folder)
    bert_tokenizer().save_pretrained(folder)
    _image_processor().save_pretrained(folder)
    return folder


# ------------------------------------------------------------------------------------------------ Stable Diffusion


def _strict_checker() -> object:
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker

    sizes = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": SIDE, "patch_size": 8,
    }  # fmt: skip
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=sizes, projection_dim=16))
    with torch.no_grad():
        checker.concept_embeds_weights.fill_(-2.0)  # thresholds that every cosine exceeds
    return checker


def stable_diffusion(folder: Path, seed: int = 0, strict_checker: bool = False) -> Path:
    """A StableDiffusionPipeline that draws 16x16 images; its scheduler is PNDM, as the published one's.

    A strict checker refuses every image.
    """
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(seed)
    tokenizer = clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(CLIPTextConfig(**_clip_text(len(tokenizer), tokenizer.eos_token_id))),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=PNDMScheduler(beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1),
        safety_checker=_strict_checker() if strict_checker else None,
        feature_extractor=_image_processor() if strict_checker else None,
        requires_safety_checker=strict_checker,
    )
    pipeline.save_pretrained(folder)
    return folder


# ------------------------------------------------------------------------------------------- models that see and answer


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


def llava(folder: Path) -> Path:
    """LLaVA's classes: CLIP's image tower and a small Llama, with a tokenizer of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    words = ["<pad>", "<s>", "</s>", "<image>", *BYTES]
    bpe = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
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
        image_processor=_image_processor(), tokenizer=tokenizer, patch_size=8, vision_feature_select_strategy="default",
        image_token="<image>", num_additional_image_tokens=1,
    )  # fmt: skip
    processor.save_pretrained(folder)
    return folder


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


# ------------------------------------------------------------------------------------------ other rewriters' classes


def sentence(folder: Path) -> Path:
    """A sentence-transformers model: a small BERT, and the mean of its tokens."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    tokenizer = bert_tokenizer(24)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=24,
    )
    bert = folder.with_name(f"{folder.name}-bert")
    BertModel(config).save_pretrained(bert)
    tokenizer.save_pretrained(bert)
    words = Transformer(str(bert), max_seq_length=24)
    SentenceTransformer(modules=[words, Pooling(32)], device="cpu").save(str(folder), create_model_card=False)
    shutil.rmtree(bert)
    return folder


def causal(folder: Path, kind: str, seed: int = 0, words: tuple[str, ...] = (), **more: int) -> Path:
    """Qwen2 (Qwen1.5's class), Llama, Qwen3 or BLOOM, with a tokenizer of bytes; ``words`` are tokens of their own.

    ``more`` are other settings of the configuration.
    """
    from transformers import AutoModelForCausalLM, BloomConfig, LlamaConfig, Qwen2Config, Qwen3Config

    known = {"<|endoftext|>": 0, **{byte: i + 1 for i, byte in enumerate(BYTES)}}
    tokenizer = GPT2Tokenizer(vocab=known, merges=[])
    tokenizer.add_tokens(list(words))
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "vocab_size": len(tokenizer)}
    sizes = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.2,
    }  # fmt: skip
    configs = {
        "qwen2": lambda: Qwen2Config(**sizes, **ends),
        "llama": lambda: LlamaConfig(**sizes, **ends),
        "qwen3": lambda: Qwen3Config(**sizes, **ends, head_dim=8),
        "bloom": lambda: BloomConfig(hidden_size=32, n_layer=2, n_head=4, initializer_range=0.2, **ends),
    }
    torch.manual_seed(seed)
    settings = configs[kind]()
    settings.update(more)
    AutoModelForCausalLM.from_config(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
