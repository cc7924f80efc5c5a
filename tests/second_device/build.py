"""Compiles the second device once for all tests, and loads it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from platformdirs import user_cache_path

NAME = "second"
SOURCE = Path(__file__).with_name("second.cpp")


def compiler() -> str | None:
    """The C++ compiler of this machine, from ``CXX`` or the path; None where there is none."""
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    return next((found for name in wanted if (found := shutil.which(name))), None)


NO_COMPILER = "nothing was tested on the second device, which stands for a GPU: it needs a C++ compiler such as g++"
needs_second_device = pytest.mark.skipif(compiler() is None, reason=NO_COMPILER)


def library() -> Path:
    """The compiled extension, from a cache folder that knows source, torch and command; about 30 s where it is new.

    Raises:
        RuntimeError: there is no compiler, or it refuses the source.
    """
    used = compiler()
    if used is None:
        raise RuntimeError("no C++ compiler; install g++")
    root = Path(torch.__file__).parent
    flags = ["-std=c++20", "-O1", "-w", "-fPIC", "-shared"]
    flags += [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"]
    places = [f"-I{root / 'include'}", f"-I{root / 'include/torch/csrc/api/include'}", f"-L{root / 'lib'}"]
    key = hashlib.sha256(repr((SOURCE.read_bytes(), torch.__version__, used, flags)).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("SEMDPO_TEST_CACHE") or user_cache_path("semdpo-tests"))
    folder.mkdir(parents=True, exist_ok=True)
    file, partial = folder / f"{NAME}-{key}.so", folder / f"{NAME}-{key}.part"
    with FileLock(f"{file}.lock"):  # several workers of pytest-xdist ask at once
        if not file.exists():
            command = [used, *flags, str(SOURCE), *places, "-lc10", "-ltorch_cpu", "-o", str(partial)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"the second device cannot be compiled:\n{done.stderr[-4000:]}")
            partial.replace(file)
    return file
