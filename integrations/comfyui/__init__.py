"""A ComfyUI node that rewrites prompts with `semdpo serve`, or with any server that has OpenAI's chat completions.

It installs nothing: it needs ComfyUI and the standard library.
"""

from __future__ import annotations

import asyncio

from comfy_api.latest import ComfyExtension, io, ui

from .semdpo_client import DEFAULT_URL, INSTRUCTION, LENGTHS, TOKEN_VARIABLE, optimize_or_keep, phrases

WEB_DIRECTORY = "./web"  # the script that shows the node's text
SERVERS_OWN = -1.0  # as max_drift: the server's own limit; as drift: the server does not measure it

_faults = 0  # how often a server was down or answered with nonsense


class SemdpoRewrite(io.ComfyNode):
    """Rewrites a prompt; when that fails, the prompt goes on as it is, with the reason."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's inputs and outputs."""
        return io.Schema(
            node_id="SemdpoRewrite",
            display_name="Rewrite Prompt (semdpo)",
            category="text",
            description="Rewrites a prompt so that the image becomes better and still shows what you asked for.",
            inputs=_inputs(),
            outputs=[
                _output(io.String, "rewrite", "The text for the image model. If a rewrite fails: your prompt."),
                _output(io.String, "original", "Your prompt."),
                _output(io.Float, "drift", "How far the rewrite left your prompt: 0 is not at all; -1: unknown."),
                _output(io.String, "reason", "Why your prompt was kept. Empty if it was rewritten."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: object) -> int:
        """ComfyUI may use its cache, for equal inputs give equal rewrites; but not after a fault, which may be over."""
        return _faults

    @classmethod
    async def execute(
        cls,
        prompt: str,
        keep: str,
        length: str,
        seed: int,
        max_drift: float,
        url: str,
        model: str,
        token_env: str = TOKEN_VARIABLE,
        instruction: str = INSTRUCTION,
        timeout: int = 60,
    ) -> io.NodeOutput:
        """Asks the server in a thread of its own, so that ComfyUI can do other work meanwhile."""
        global _faults
        reply = await asyncio.to_thread(
            optimize_or_keep,
            prompt,
            url,
            token_env=token_env,
            keep=phrases(keep),
            length=length,
            max_drift=max_drift if max_drift >= 0 else None,
            seed=seed,
            model=model.strip(),
            instruction=instruction,
            timeout=timeout,
        )
        _faults += reply.fault
        measured = "drift: not measured" if reply.drift is None else f"drift: {reply.drift:.3f}"
        shown = ui.PreviewText(f"{reply.rewrite}\n\n{reply.reason or measured}")
        drift = SERVERS_OWN if reply.drift is None else reply.drift
        return io.NodeOutput(reply.rewrite, reply.original, drift, reply.reason, ui=shown)


def _inputs() -> list[io.Input]:
    return [
        io.String.Input("prompt", multiline=True, default="", dynamic_prompts=True, tooltip="What the image shows."),
        io.String.Input("keep", default="", tooltip="Words that must not change, with commas between them."),
        io.Combo.Input("length", options=list(LENGTHS), default="auto", tooltip="How long the rewrite becomes."),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**31 - 1,
            control_after_generate="fixed",
            tooltip="Another seed may give another rewrite.",
        ),
        io.Float.Input(
            "max_drift",
            default=SERVERS_OWN,
            min=SERVERS_OWN,
            max=2.0,
            step=0.05,
            tooltip="A rewrite that drifts farther is not used. -1: the server's own limit.",
        ),
        io.String.Input("url", default=DEFAULT_URL, tooltip="`semdpo serve`, or a server with OpenAI's routes."),
        io.String.Input("model", default="", tooltip="The model's name. Empty: the server's own."),
        _advanced(
            io.String.Input(
                "token_env",
                default=TOKEN_VARIABLE,
                optional=True,
                tooltip="The name of the environment variable with the server's key. Not the key: workflows travel.",
            )
        ),
        _advanced(
            io.String.Input(
                "instruction",
                default=INSTRUCTION,
                multiline=True,
                optional=True,
                tooltip="What a server other than `semdpo serve` is asked to do. Empty: it gets the prompt alone.",
            )
        ),
        _advanced(
            io.Int.Input(
                "timeout",
                default=60,
                min=1,
                max=600,
                optional=True,
                tooltip="Seconds to wait for the server. After that your prompt is used.",
            )
        ),
    ]


def _output(kind: type, name: str, tooltip: str) -> io.Output:
    """An output that shows its name; older versions of ComfyUI would show its type."""
    return kind.Output(name, display_name=name, tooltip=tooltip)


def _advanced(field: io.Input) -> io.Input:
    """Hides a field until the user asks for more. In older versions of ComfyUI it is an ordinary one."""
    field.extra_dict = {"advanced": True}
    return field


class SemdpoExtension(ComfyExtension):
    """What ComfyUI loads."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The nodes of this folder."""
        return [SemdpoRewrite]


async def comfy_entrypoint() -> SemdpoExtension:
    """Where ComfyUI begins."""
    return SemdpoExtension()
