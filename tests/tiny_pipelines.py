"""Tiny random pipelines of diffusers' own classes, in memory. One token a character, so that lengths are plain."""

from __future__ import annotations

import string
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaSprintPipeline,
    SanaTransformer2DModel,
    SCMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralVisionConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from semdpo.models.text_processor import TextProcessor
from tests.tiny_models import clip_tokenizer

CHARACTERS = string.ascii_lowercase + string.digits + "<>/|_,.:"
CLIP_READS = 40


def t5_tokenizer() -> T5Tokenizer:
    """A token a character and one for each word's beginning; control pieces have the best score, as published."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((c, -3.0) for c in CHARACTERS)]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=10_000)


def qwen_tokenizer(*more: str) -> Qwen2Tokenizer:
    """A token a byte, the chat's special tokens, and more of them."""
    special = [AddedToken(each, special=True) for each in ("<|im_start|>", "<|im_end|>", *more)]
    tokenizer = Qwen2Tokenizer(
        vocab={"<|endoftext|>": 0, **{byte: i + 1 for i, byte in enumerate(sorted(ByteLevel.alphabet()))}}, merges=[]
    )
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    return tokenizer


def _t5() -> T5EncoderModel:
    config = T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
    return T5EncoderModel(config).eval()


def _clip(kind: Any = CLIPTextModel) -> Any:
    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=CLIP_READS, projection_dim=32, bos_token_id=1, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    return kind(config).eval()


def _vae(channels: int = 4) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8,), norm_num_groups=4, latent_channels=channels, sample_size=16, shift_factor=0.0,
        down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",),
    )  # fmt: skip


def _flow() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler()


def _turbo(kind: Any) -> Any:
    """The sampler of a model that was distilled to one step, which begins at the last of the training's times."""
    return kind(timestep_spacing="trailing", beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)


def sd_turbo() -> StableDiffusionPipeline:
    """A CLIP."""
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, cross_attention_dim=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2, use_linear_projection=True,
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae=_vae(), unet=unet, scheduler=_turbo(EulerDiscreteScheduler), text_encoder=_clip(),
        tokenizer=clip_tokenizer(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sdxl(turbo: bool = False) -> StableDiffusionXLPipeline:
    """Two CLIPs."""
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, cross_attention_dim=64,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2, addition_embed_type="text_time", addition_time_embed_dim=8, use_linear_projection=True,
        projection_class_embeddings_input_dim=80,
    )  # fmt: skip
    scheduler = _turbo(EulerAncestralDiscreteScheduler) if turbo else DDIMScheduler()
    return StableDiffusionXLPipeline(
        vae=_vae(), unet=unet, scheduler=scheduler, text_encoder=_clip(), tokenizer=clip_tokenizer(),
        text_encoder_2=_clip(CLIPTextModelWithProjection), tokenizer_2=clip_tokenizer(), add_watermarker=False,
    )  # fmt: skip


def sd3(t5: bool = True, **denoiser: Any) -> StableDiffusion3Pipeline:
    """Two CLIPs and, where wanted, a T5, which is read to 256 tokens."""
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=32, caption_projection_dim=32, pooled_projection_dim=64, out_channels=4, **denoiser,
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=transformer, scheduler=_flow(), vae=_vae(), text_encoder=_clip(CLIPTextModelWithProjection),
        tokenizer=clip_tokenizer(), text_encoder_2=_clip(CLIPTextModelWithProjection), tokenizer_2=clip_tokenizer(),
        text_encoder_3=_t5() if t5 else None, tokenizer_3=t5_tokenizer() if t5 else None,
    )  # fmt: skip


def flux(guidance_embeds: bool = False) -> FluxPipeline:
    """A CLIP and a T5, which is read to 512 tokens."""
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=[4, 4, 8], guidance_embeds=guidance_embeds,
    )  # fmt: skip
    return FluxPipeline(
        scheduler=_flow(), vae=_vae(1), text_encoder=_clip(), tokenizer=clip_tokenizer(), text_encoder_2=_t5(),
        tokenizer_2=t5_tokenizer(), transformer=transformer,
    )  # fmt: skip


def pixart() -> PixArtSigmaPipeline:
    """A T5, which is read to 300 tokens."""
    transformer = PixArtTransformer2DModel(
        sample_size=32, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=3, caption_channels=32,
        in_channels=4, cross_attention_dim=24, out_channels=8, use_additional_conditions=False,
    )  # fmt: skip
    return PixArtSigmaPipeline(
        tokenizer=t5_tokenizer(), text_encoder=_t5(), vae=_vae(), transformer=transformer, scheduler=DDIMScheduler()
    )


def qwen_image() -> QwenImagePipeline:
    """A Qwen2.5-VL, which reads a template of special tokens with the prompt in it, and of both 512 tokens."""
    tokenizer = qwen_tokenizer()
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
    }  # fmt: skip
    vision = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16,
        "fullatt_block_indexes": [0],
    }  # fmt: skip
    torch.manual_seed(0)
    encoder = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision)).eval()
    transformer = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    vae = AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    return QwenImagePipeline(
        scheduler=_flow(), vae=vae, text_encoder=encoder, tokenizer=tokenizer, transformer=transformer
    )


def _qwen3(kind: Any, vocabulary: int, layers: int) -> Any:
    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=16, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=1024,
    )  # fmt: skip
    return kind(config).eval()


def _chat_tokenizer() -> Qwen2Tokenizer:
    tokenizer = qwen_tokenizer()
    turn = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    tokenizer.chat_template = "{% for m in messages %}" + turn + "{% endfor %}<|im_start|>assistant\n"
    return tokenizer


def z_image(shift: float = 3.0) -> ZImagePipeline:
    """A Qwen3, which reads a chat's template with the prompt in it, and of both 512 tokens."""
    tokenizer = _chat_tokenizer()
    transformer = ZImageTransformer2DModel(
        all_patch_size=(2,), all_f_patch_size=(1,), in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2,
        n_kv_heads=2, cap_feat_dim=16, axes_dims=[8, 4, 4], axes_lens=[1024, 64, 64],
    )  # fmt: skip
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift), vae=_vae(), tokenizer=tokenizer,
        transformer=transformer, text_encoder=_qwen3(Qwen3Model, len(tokenizer), 2),
    )  # fmt: skip


FLUX2_LAYERS = [1, 2, 3]  # in place of the published model's 9, 18 and 27


def flux2_klein(distilled: bool = True) -> Flux2KleinPipeline:
    """A Qwen3, which reads a chat's template with the prompt in it, and of both 512 tokens."""
    tokenizer = _chat_tokenizer()
    return Flux2KleinPipeline(
        scheduler=_flow(), vae=_flux2_vae(), text_encoder=_qwen3(Qwen3ForCausalLM, len(tokenizer), 3),
        tokenizer=tokenizer, transformer=_flux2_denoiser(guidance_embeds=False), is_distilled=distilled,
    )  # fmt: skip


def _flux2_denoiser(guidance_embeds: bool) -> Flux2Transformer2DModel:
    return Flux2Transformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=48, timestep_guidance_channels=16, axes_dims_rope=[4, 4, 4, 4],
        guidance_embeds=guidance_embeds,
    )  # fmt: skip


def _flux2_vae() -> AutoencoderKLFlux2:
    return AutoencoderKLFlux2(
        block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=16, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",),
    )  # fmt: skip


PIXTRAL = ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]", "[IMG_BREAK]", "[IMG_END]")


def pixtral_tokenizer() -> PreTrainedTokenizerFast:
    """A token a byte, and Mistral's special tokens and turns: an instruction of the system, then the user's."""
    words = ["<unk>", "<s>", "</s>", "<pad>", *PIXTRAL, *sorted(ByteLevel.alphabet())]
    bpe = Tokenizer(BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    bpe.pre_tokenizer = ByteLevel(add_prefix_space=False)
    system, user = ("[SYSTEM_PROMPT]{}[/SYSTEM_PROMPT]", "[INST]{}[/INST]")
    text = "{{ m.content[0].text }}"
    turns = "{% if m.role == 'system' %}" + system.format(text) + "{% else %}" + user.format(text) + "{% endif %}"
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=list(PIXTRAL), padding_side="left",
        chat_template="{{ bos_token }}{% for m in messages %}" + turns + "{% endfor %}",
    )  # fmt: skip


def flux2() -> Flux2Pipeline:
    """A Mistral 3, which reads a message of the system and the prompt, of both 512 tokens; its guidance is embedded."""
    tokenizer = pixtral_tokenizer()
    text = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=1024, bos_token_id=1, eos_token_id=2, pad_token_id=3,
    )  # fmt: skip
    vision = PixtralVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    config = Mistral3Config(
        text_config=text, vision_config=vision, image_token_index=tokenizer.convert_tokens_to_ids("[IMG]")
    )
    return Flux2Pipeline(
        scheduler=_flow(), vae=_flux2_vae(), text_encoder=Mistral3ForConditionalGeneration(config).eval(),
        tokenizer=TextProcessor(tokenizer, tokenizer.chat_template), transformer=_flux2_denoiser(guidance_embeds=True),
    )  # fmt: skip


def qwen_image_21(sample_sigmas: list[float] | None = None) -> QwenImage21Pipeline:
    """A Qwen3-VL, of which all tokens after the system's message are read; its images have transparency."""
    vision_tokens = [f"<|{name}|>" for name in ("image_pad", "video_pad", "vision_start", "vision_end")]
    tokenizer = qwen_tokenizer(*vision_tokens)
    turn = "<|im_start|>{{ m.role }}\n{{ m.content[0].text }}<|im_end|>\n"
    tokenizer.chat_template = "{% for m in messages %}" + turn + "{% endfor %}"
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 16_384,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]},
    }  # fmt: skip
    vision = {
        "depth": 1, "num_heads": 2, "out_hidden_size": 16, "hidden_size": 16, "intermediate_size": 16,
        "deepstack_visual_indexes": [0], "num_position_embeddings": 16, "patch_size": 16,
    }  # fmt: skip
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = dict(zip(names, tokenizer.convert_tokens_to_ids(vision_tokens), strict=True))
    transformer = QwenImage21Transformer2DModel(
        in_channels=4, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2, context_in_dim=16,
        mlp_ratio=1, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    vae = AutoencoderKLQwenImage21(
        base_dim=8, decoder_base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )  # fmt: skip
    encoder = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **ids)).eval()
    return QwenImage21Pipeline(
        scheduler=_flow(), vae=vae, transformer=transformer, text_encoder=encoder, sample_sigmas=sample_sigmas,
        processor=TextProcessor(tokenizer, tokenizer.chat_template),
    )  # fmt: skip


def gemma_tokenizer() -> GemmaTokenizer:
    """A token a character."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "▁", "\n", *(chr(code) for code in range(33, 127))]
    return GemmaTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])


def sana() -> SanaPipeline:
    """A Gemma, which reads an instruction and 298 tokens of the prompt; sampled as a flow by DPM-Solver."""
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, final_sigmas_type="zero"
    )
    return SanaPipeline(**_parts_of_sana(), scheduler=scheduler)


def sana_sprint() -> SanaSprintPipeline:
    """Sana with embedded guidance and a sampler of few steps, which adds noise after each."""
    return SanaSprintPipeline(**_parts_of_sana(guidance_embeds=True), scheduler=SCMScheduler())


def _parts_of_sana(**denoiser: Any) -> dict[str, Any]:
    tokenizer = gemma_tokenizer()
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, bos_token_id=2, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    transformer = SanaTransformer2DModel(
        patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=4,
        num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=16,
        sample_size=32, **denoiser,
    )  # fmt: skip
    vae = AutoencoderDC(
        in_channels=3, latent_channels=4, attention_head_dim=2, encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"), encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8), encoder_qkv_multiscales=((), (5,)), decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1), downsample_block_type="conv",
        upsample_block_type="interpolate", decoder_norm_types="rms_norm", decoder_act_fns="silu", scaling_factor=0.4,
    )  # fmt: skip
    return {
        "tokenizer": tokenizer, "text_encoder": Gemma2Model(config).eval(), "vae": vae, "transformer": transformer,
    }  # fmt: skip
