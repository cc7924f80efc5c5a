"""``semdpo optimize``: rewrites prompts, and says how far each rewrite drifts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semdpo import disk
from semdpo.cli import asked
from semdpo.cli.closing import DEMO
from semdpo.cli.ending import interruptible
from semdpo.cli.options import named_as_options, number, refuse_without_effect
from semdpo.cli.output import refuse_inputs
from semdpo.errors import ConfigError, StoreError
from semdpo.progress import bar, say, show
from semdpo.texts import shown

if TYPE_CHECKING:
    from semdpo.best_of import BestOf
    from semdpo.prompt_optimizer import Optimized, PromptOptimizer, Request
    from semdpo.protocols import Renderer
    from semdpo.recipe.endpoints import ImageEndpointConfig

RENDERER = "tiny:sd"  # of the demo's rewriter
SCORER = "tiny:image-reward"
LARGEST_SEED_OF_A_SERVER = 2**31 - 1  # it would get a larger one modulo 2**31


def optimize(
    prompt: Annotated[str | None, typer.Argument(help="What the image should show; - reads lines from stdin.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="A file of prompts: txt (one on each line), jsonl, csv, tsv, parquet.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="The column of --prompts; by default, prompt.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File of the results: txt, jsonl, csv, tsv, parquet.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a record for each rewrite instead of its text.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(help="A trained rewriter, or a server's URL (http://…/v1); by default, the demo's Sem-DPO model."),
    ] = None,
    model_name: Annotated[
        str | None, typer.Option(help="The model's name on the server, where --model is a URL.")
    ] = None,
    key_env: Annotated[
        str | None, typer.Option(help="The environment variable with the server's key; by default, OPENAI_API_KEY.")
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="What a model behind a URL is asked to do; by default, a general instruction.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="The text encoder; by default, the one that measured the drift of the training pairs."),
    ] = None,
    max_drift: Annotated[
        float | None,
        typer.Option(help="Keep the prompt if all rewrites drift farther, 0 to 2; by default, as its run measured."),
    ] = None,
    keep: Annotated[
        str | None, typer.Option(help="Words and phrases that must not change, with commas between them.")
    ] = None,
    banned: Annotated[
        str | None, typer.Option(help="Words and phrases that no rewrite may contain, with commas between them.")
    ] = None,
    banned_file: Annotated[Path | None, typer.Option(help="A file of such words, one on each line.")] = None,
    length: Annotated[str | None, typer.Option(help="short, medium, long, or the most tokens of a rewrite.")] = None,
    n: Annotated[int, typer.Option("-n", help="Number of variants, 1 to 16.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the sampling and of images.")] = 0,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of a rewrite; by default, those of the longest rewrite in training.")
    ] = None,
    best_of: Annotated[
        int | None, typer.Option(help="Render this number of rewrites, and take the one with the best image.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option("--show", help="Render the prompt and its rewrite side by side into this PNG.")
    ] = None,
    renderer: Annotated[
        str | None,
        typer.Option(help="The text-to-image model of --show and --best-of, or a server's URL (http://…/v1)."),
    ] = None,
    renderer_name: Annotated[
        str | None, typer.Option(help="The model's name on the server, where --renderer is a URL.")
    ] = None,
    renderer_key_env: Annotated[
        str | None,
        typer.Option(help="The environment variable with that server's key; by default, OPENAI_API_KEY."),
    ] = None,
    scorer: Annotated[str | None, typer.Option(help="The scorer of --best-of.")] = None,
) -> None:
    """Rewrite prompts, and say how far each rewrite drifts from its prompt."""
    if max_drift is not None:
        number("--max-drift", max_drift, 0, 2)
    if max_new_tokens is not None:
        number("--max-new-tokens", max_new_tokens, 1)
    number("-n", n, 1, 16)
    number("--seed", seed, 0, 2**63 - 1)
    if best_of is not None:
        number("--best-of", best_of, 2, 64)
    if prompts is None:
        refuse_without_effect({"--column": column}, "without --prompts")
    if out is not None:
        refuse_without_effect({"--json": as_json}, f"with --out {out}, whose suffix says how records are written")
    if image is None and best_of is None:
        refuse_without_effect({"--renderer": renderer}, "without --show and --best-of")
    endpoint = asked.image_server(renderer, renderer_name, renderer_key_env)
    if endpoint is not None and seed > LARGEST_SEED_OF_A_SERVER:
        raise ConfigError(f"--seed is {seed}; a server that renders takes at most {LARGEST_SEED_OF_A_SERVER}")
    if best_of is None:
        refuse_without_effect({"--scorer": scorer}, "without --best-of")
    texts = asked.prompts(prompt, prompts, column)
    if image is not None and len(texts) > 1:
        raise ConfigError("--show renders one prompt; leave it out, or give one prompt")
    for path, suffixes in ((out, (".txt", ".jsonl", ".csv", ".tsv", ".parquet")), (image, (".png",))):
        _refuse_bad_output(path, suffixes, [prompts, banned_file])
    if out is not None and out.suffix.lower() == ".txt" and n > 1 and len(texts) > 1:
        raise ConfigError(
            f"-n is {n}, and a .txt does not say whose rewrite a line is; write a .jsonl, or leave it out"
        )
    if model is None and not DEMO.is_dir():
        raise StoreError(f"there is no {DEMO} yet; run `semdpo demo` first, or give --model")
    if renderer is None and model is not None and (image or best_of):
        raise ConfigError("no --renderer is given; name the text-to-image model that renders your prompts")
    if scorer is None and model is not None and best_of:
        raise ConfigError("no --scorer is given; name a scorer of images, such as image-reward")
    from semdpo.prompt_optimizer import Request

    phrases, words = asked.kept(keep, texts), asked.banned(banned, banned_file)
    requests = [Request(text, phrases, asked.length(length), None, words, n, seed) for text in texts]
    server = asked.server(model, model_name, key_env, system)
    images = Images(renderer or RENDERER, scorer or SCORER, best_of, image, endpoint)
    with named_as_options("max_new_tokens", "max_drift", "length", "banned", "keep", "seed"):
        rewriter = DEMO if model is None else model
        run(requests, rewriter, encoder, max_drift, max_new_tokens, images, server, out, as_json)


@dataclass(frozen=True, slots=True)
class Images:
    """What is rendered.

    Attributes:
        renderer: The text-to-image model's name.
        scorer: The scorer's name.
        best_of: The number of rewrites among which their images decide; None is none.
        shown: The PNG of the prompt and its rewrite; None is none.
        endpoint: How the renderer's server is asked; None where the renderer is no URL.
    """

    renderer: str
    scorer: str
    best_of: int | None = None
    shown: Path | None = None
    endpoint: ImageEndpointConfig | None = None


def run(
    requests: Sequence[Request],
    model: str | Path,
    encoder: str | None,
    max_drift: float | None,
    max_new_tokens: int | None,
    images: Images,
    server: Mapping[str, Any],
    out: Path | None,
    as_json: bool,
) -> None:
    """Rewrites prompts; prints the rewrites on stdout and all else on stderr, or writes a file.

    Args:
        requests: What is asked, at least one.
        model: The name or folder of a trained rewriter.
        encoder: The name of the encoder that measures the drift; None is the encoder of the rewriter's training pairs.
        max_drift: The largest drift of a rewrite; None is the limit that the rewriter's run measured.
        max_new_tokens: The token budget of a rewrite; None is the rewriter's own.
        images: What is rendered.
        server: How a server is asked: the arguments ``endpoint`` and ``system`` of ``from_pretrained``.
        out: The file to write; None prints.
        as_json: Whether records are printed.

    Raises:
        SemdpoError: A model, an option or a prompt cannot be used.
    """
    from semdpo.engine import fingerprint
    from semdpo.many_prompts import optimized, to_file
    from semdpo.prompt_optimizer import PromptOptimizer

    renderer = _renderer(images) if images.best_of or images.shown else None
    optimizer = PromptOptimizer.from_pretrained(
        model, encoder, max_drift=max_drift, max_new_tokens=max_new_tokens, best_of=_best_of(images, renderer), **server
    )
    if out is not None:
        settings = {
            "requests": asked.digest(requests),
            "max_drift": optimizer.max_drift,
            "max_new_tokens": max_new_tokens,
            "server": asked.described(model, server, optimizer.model),
            "best_of": images.best_of,
            "models": [fingerprint.model(name) for name in (optimizer.encoder_name, *_files_of(images))],
            **_server_of(images, renderer),
        }
        with interruptible(lambda: "run the same command again to resume"), bar("optimize: rewriting") as progress:
            variants = to_file(optimizer, requests, out, settings, progress)
        kept = sum(bool(variant.reason) for variant in variants)
        say(f"{len(variants)} rewrites of {len(requests)} prompts in {out}; {kept} are the prompt itself")
        if cut := sum(variant.truncated for variant in variants):
            say(f"{cut} rewrites were {_truncated(optimizer)}")
    else:
        variants = []
        for row in optimized(optimizer, requests):
            for variant in row:
                _print(variant, optimizer, as_json, alone=len(requests) == 1)
            variants += row
    if renderer is not None:
        _show(variants[0], optimizer, images, renderer)


def _print(variant: Optimized, optimizer: PromptOptimizer, as_json: bool, alone: bool) -> None:
    if as_json:
        print(json.dumps(variant.record(), ensure_ascii=False), flush=True)
        return
    show(" ".join(variant.rewrite.split()) if not alone else variant.rewrite)
    if variant.reason:
        say(variant.reason if alone else f"{shown(variant.prompt)}: {variant.reason}")
    elif alone:
        limit = f"at most {optimizer.max_drift:.3g}"
        say(f"drift: {variant.drift:.3f} (0: means the same; {limit}; {optimizer.encoder_name})")
    if variant.truncated:
        whose = "the rewrite" if alone else f"{shown(variant.prompt)}: the rewrite"
        say(f"{whose} was {_truncated(optimizer)}")


def _truncated(optimizer: PromptOptimizer) -> str:
    return f"truncated at {optimizer.max_new_tokens} tokens; raise --max-new-tokens"


def _show(variant: Optimized, optimizer: PromptOptimizer, images: Images, renderer: Renderer) -> None:
    from semdpo.before_after import Rendered, png, render_both, settings_of, too_long

    if images.shown is None:
        return
    both = render_both(renderer, variant.prompt, variant.rewrite, variant.seed)
    rewriter, settings = (optimizer.model, optimizer.fingerprint), settings_of(renderer)
    # A server's address is not written into an image that is passed on; the model's name is.
    name = images.renderer if images.endpoint is None else str(getattr(renderer, "model", ""))
    made = Rendered(variant.rewrite, variant.prompt, variant.seed, name, rewriter, settings)
    disk.write_bytes(images.shown, png(both, made))
    say(f"{images.shown}: the prompt on the left, its rewrite on the right, both with seed {variant.seed}")
    texts = {"prompt": variant.prompt, "rewrite": variant.rewrite}
    for what, long in zip(texts, too_long(renderer, list(texts.values())), strict=True):
        if long:
            say(f"the {what} is longer than the renderer reads, so its end is not in the image; shorten it")


def _renderer(images: Images) -> Renderer:
    if images.endpoint is not None:
        from semdpo.models.endpoint_renderer import load_named_renderer

        return load_named_renderer(images.renderer, images.endpoint, "--renderer-name")
    from semdpo.models.renderer import load_renderer

    return load_renderer(images.renderer)


def _best_of(images: Images, renderer: Renderer | None) -> BestOf | None:
    if images.best_of is None or renderer is None:
        return None
    from semdpo.best_of import BestOf
    from semdpo.models.scorers.registry import load_scorer

    return BestOf(renderer, load_scorer(images.scorer), images.best_of)


def _files_of(images: Images) -> list[str]:
    """The models with files that best-of needs."""
    if not images.best_of:
        return []
    return [images.scorer] if images.endpoint is not None else [images.renderer, images.scorer]


def _server_of(images: Images, renderer: Renderer | None) -> dict[str, Any]:
    """What stands for a renderer's server, which has no files that could be hashed."""
    if not images.best_of or images.endpoint is None:
        return {}
    return {"renderer": {"url": images.renderer, "model": getattr(renderer, "model", None)}}


def _refuse_bad_output(path: Path | None, suffixes: Sequence[str], inputs: Sequence[Path | None]) -> None:
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise ConfigError(f"cannot write {path}: name it with {' or '.join(suffixes)}")
    refuse_inputs(path, inputs)
    disk.refuse_unwritable(path)
    if path.exists():
        raise StoreError(f"{path} already exists; remove it or choose another file")
