"""Stand-ins for the programs that load the integrations: the part of their interfaces that these use, no more.

They are as strict as the originals: an argument or a name that the original does not have is an error. ComfyUI's is
that of version 0.3.48, the first with this interface; later versions add arguments.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, create_model

ROOT = Path(__file__).parents[2] / "integrations"


def load(file: Path, name: str, *, registered: bool = True) -> ModuleType:
    """Loads a file as these programs do: from its path, under a name of their own.

    Args:
        file: The file; of a folder, its ``__init__.py``.
        name: The module's name.
        registered: Whether the program puts it among ``sys.modules``; AUTOMATIC1111's does not.
    """
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if registered:
        sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def modules(**stand_ins: object) -> Iterator[None]:
    """Lets modules be imported; ``__`` in a name stands for a dot."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stand_ins.items():
            patch.setitem(sys.modules, name.replace("__", "."), value)
        yield


# ---- ComfyUI ----


class _Input:
    io_type = "*"

    def __init__(
        self,
        id: str,  # noqa: A002
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
    ) -> None:
        self.id, self.display_name, self.optional, self.tooltip, self.lazy = id, display_name, optional, tooltip, lazy
        self.extra_dict: dict[str, Any] = {}

    def as_dict(self) -> dict[str, Any]:
        own = {name: value for name, value in vars(self).items() if name not in ("id", "extra_dict")}
        return {name: value for name, value in (own | self.extra_dict).items() if value is not None}


def _kind(kind: str, **arguments: Any) -> SimpleNamespace:
    """A type of inputs and outputs whose inputs take some arguments more."""
    common = {"default": None, "socketless": None, "force_input": None}

    class Input(_Input):
        io_type = kind

        def __init__(self, name: str, *given: Any, **named: Any) -> None:
            own = {key: named.pop(key, value) for key, value in (common | arguments).items()}
            super().__init__(name, *given, **named)
            vars(self).update(own)

    class Output:
        io_type = kind

        def __init__(
            self,
            id: str | None = None,  # noqa: A002
            display_name: str | None = None,
            tooltip: str | None = None,
            is_output_list: bool = False,
        ) -> None:
            self.id, self.display_name, self.tooltip, self.is_output_list = id, display_name, tooltip, is_output_list

    return SimpleNamespace(Input=Input, Output=Output)


class Schema:
    def __init__(
        self,
        node_id: str,
        display_name: str | None = None,
        category: str = "sd",
        inputs: list[_Input] | None = None,
        outputs: list[Any] | None = None,
        hidden: list[Any] | None = None,
        description: str = "",
        is_input_list: bool = False,
        is_output_node: bool = False,
        is_deprecated: bool = False,
        is_experimental: bool = False,
        is_api_node: bool = False,
        not_idempotent: bool = False,
        enable_expand: bool = False,
    ) -> None:
        self.node_id, self.display_name, self.category, self.description = node_id, display_name, category, description
        self.inputs, self.outputs = inputs or [], outputs or []

    def validate(self) -> None:
        for fields in (self.inputs, self.outputs):
            names = [each.id for each in fields]
            assert len(set(names)) == len(names)


class ComfyNode:
    @classmethod
    def define_schema(cls) -> Schema:
        raise NotImplementedError

    @classmethod
    def GET_SCHEMA(cls) -> Schema:  # noqa: N802 - ComfyUI's name
        assert hasattr(cls, "execute")
        schema = cls.define_schema()
        schema.validate()
        return schema


class NodeOutput:
    def __init__(self, *args: Any, ui: Any = None, expand: Any = None, block_execution: str | None = None) -> None:
        self.args, self.ui = args, ui


class PreviewText:
    def __init__(self, value: str, **kwargs: Any) -> None:
        self.value = value

    def as_dict(self) -> dict[str, tuple[str]]:
        return {"text": (self.value,)}


class ComfyExtension:
    async def on_load(self) -> None: ...


def _locked(node: type) -> type:
    """ComfyUI calls a node's methods on a copy of its class that cannot be changed."""

    class Locked(type(node)):  # type: ignore[misc]
        def __setattr__(cls, name: str, value: object) -> None:
            raise AttributeError(f"cannot set {name} on a node")

    return Locked(node.__name__, (node,), {})


def comfy_nodes(folder: Path) -> dict[str, type]:
    """Loads a folder of nodes as ComfyUI does: by its path, whose name is no identifier."""
    import asyncio

    numbers = {"min": None, "max": None, "step": None, "display_mode": None}
    io = SimpleNamespace(
        String=_kind("STRING", multiline=False, placeholder=None, dynamic_prompts=None),
        Combo=_kind("COMBO", options=None, control_after_generate=None, upload=None, image_folder=None, remote=None),
        Int=_kind("INT", control_after_generate=None, **numbers),
        Float=_kind("FLOAT", round=None, **numbers),
        Schema=Schema,
        ComfyNode=ComfyNode,
        NodeOutput=NodeOutput,
        Input=_Input,
    )
    latest = SimpleNamespace(io=io, ui=SimpleNamespace(PreviewText=PreviewText), ComfyExtension=ComfyExtension)
    name = str(folder).replace(".", "_x_")
    with modules(comfy_api=ModuleType("comfy_api"), comfy_api__latest=latest):
        module = load(folder / "__init__.py", name)
    assert (folder / module.WEB_DIRECTORY).is_dir()
    entry = module.comfy_entrypoint
    assert inspect.iscoroutinefunction(entry)

    async def nodes() -> list[type]:
        extension = await entry()
        assert isinstance(extension, ComfyExtension)
        await extension.on_load()
        found: list[type] = await extension.get_node_list()
        return found

    return {node.GET_SCHEMA().node_id: _locked(node) for node in asyncio.run(nodes())}


# ---- AUTOMATIC1111's web UI, and Forge ----


class _Component:
    def __init__(self, *, label: str, value: Any = None, elem_id: str | None = None) -> None:
        self.label, self.value, self.elem_id = label, value, elem_id


class _Textbox(_Component):
    def __init__(self, *, placeholder: str | None = None, value: str = "", **more: Any) -> None:
        super().__init__(value=value, **more)


class _Dropdown(_Component):
    def __init__(self, *, choices: list[str], **more: Any) -> None:
        super().__init__(**more)
        assert self.value in choices


class _Slider(_Component):
    def __init__(self, *, minimum: float, maximum: float, step: float, **more: Any) -> None:
        super().__init__(**more)
        assert minimum <= self.value <= maximum


class _Number(_Component):
    def __init__(self, *, precision: int | None = None, **more: Any) -> None:
        super().__init__(**more)


@contextmanager
def _accordion(label: str, open: bool = True) -> Iterator[None]:  # noqa: A002
    yield


class Script:
    infotext_fields: list[tuple[_Component, str | Callable[[Mapping[str, str]], Any]]] | None = None

    def title(self) -> str:
        raise NotImplementedError

    def elem_id(self, item_id: str) -> str:
        return f"script_{item_id}"


class Processing:
    """What the web UI makes images from; of it, only what a script may change."""

    def __init__(self, prompt: str | list[str]) -> None:
        self.prompt = prompt
        self.negative_prompt = "blurry"
        self.extra_generation_params: dict[str, Any] = {}
        self.comments: dict[str, int] = {}

    def comment(self, text: str) -> None:
        self.comments[text] = 1

    def infotext(self, image: int) -> dict[str, str]:
        """The parameters that are written into an image."""
        own = {
            name: value[image] if isinstance(value, list) else value
            for name, value in self.extra_generation_params.items()
        }
        return {name: value for name, value in own.items() if value is not None}


def a1111_script(file: Path) -> Any:
    """Loads a script as the web UI does, and makes its one script."""
    gradio = SimpleNamespace(
        Accordion=_accordion, Checkbox=_Component, Textbox=_Textbox, Dropdown=_Dropdown, Slider=_Slider, Number=_Number
    )
    scripts = SimpleNamespace(Script=Script, AlwaysVisible=object())
    with modules(gradio=gradio, modules=SimpleNamespace(scripts=scripts), modules__scripts=scripts):
        module = load(file, file.name, registered=False)
    found = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Script)]
    assert len(found) == 1
    script = found[0]()
    assert script.show(is_img2img=False) is scripts.AlwaysVisible
    assert script.show(is_img2img=True) is scripts.AlwaysVisible
    return script


# ---- InvokeAI ----


def _field(
    *,
    default: Any = ...,
    description: str | None = None,
    ge: float | None = None,
    le: float | None = None,
    ui_component: Any = None,
) -> Any:
    return Field(default=default, description=description, ge=ge, le=le, json_schema_extra={"input": "any"})


class _Invocation(BaseModel):
    id: str = Field(default="1", json_schema_extra={"field_kind": "node_attribute"})
    use_cache: bool = Field(default=True, json_schema_extra={"field_kind": "node_attribute"})
    model_config = ConfigDict(protected_namespaces=(), validate_assignment=True)


class _Output(BaseModel):
    model_config = ConfigDict(protected_namespaces=(), validate_assignment=True)


class _UIComponent(StrEnum):
    Textarea = "textarea"


def invokeai_node(folder: Path) -> Any:
    """Loads a folder of nodes as InvokeAI does, and gives the class of its one node."""
    found: dict[str, Any] = {}

    def with_type(cls: Any, kind: str) -> Any:
        for name, field in cls.model_fields.items():
            assert isinstance(field.json_schema_extra, dict), f"{name} is no InputField or OutputField"
        return create_model(cls.__qualname__, __base__=cls, __module__=cls.__module__, type=(Literal[kind], kind))

    def invocation(
        invocation_type: str, *, title: str, tags: list[str], category: str, version: str, use_cache: bool = True
    ) -> Callable[[Any], Any]:
        def wrapper(cls: Any) -> Any:
            assert issubclass(inspect.signature(cls.invoke).return_annotation, _Output)
            cls.model_fields["use_cache"].default = use_cache
            found[invocation_type] = with_type(cls, invocation_type)
            return found[invocation_type]

        return wrapper

    api = SimpleNamespace(
        BaseInvocation=_Invocation,
        BaseInvocationOutput=_Output,
        InputField=_field,
        OutputField=lambda *, description: _field(description=description),
        InvocationContext=object,
        UIComponent=_UIComponent,
        invocation=invocation,
        invocation_output=lambda kind: lambda cls: with_type(cls, kind),
    )
    with modules(invokeai=ModuleType("invokeai"), invokeai__invocation_api=api):
        load(folder / "__init__.py", folder.name)
    assert len(found) == 1
    return next(iter(found.values()))
