"""``torch.compile`` for diffusion models, behind a switch: regions of the networks become generated code.

A pass is stopped by a hook in front of an attention layer (:mod:`retrieval.models.capture`), and a hook inside of
compiled code is not called. So it is not the networks that are compiled, but the largest of their blocks that hold no
layer which is read: of Stable Diffusion the VAE's encoder as a whole, and every ResNet and transformer block of the
UNet. Shapes are fixed, and a short batch is filled up: another number of images would compile everything again.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import nn

from retrieval.encoding.loaded_models import LoadedModels
from retrieval.errors import DependencyError, UsageError
from retrieval.models.modes import Outputs
from retrieval.models.protocols import Compilable

REGIONS = frozenset({"Encoder", "ResnetBlock2D", "Transformer2DModel", "BasicTransformerBlock"})
"""Classes of diffusers that are compiled, the outermost first: their `forward` compiles without a break."""

# One code object a class serves all of its blocks, each shape of which counts as a compilation of it; SD 1.5's ResNet
# blocks have some fifteen. Beyond the limit (8 by default) torch would go on without compiling. What is set holds for
# the thread that sets it, and a build computes in another one than it compiles in: so it is set for every call.
MOST_SHAPES = 256


def compile_models(models: LoadedModels, batch: int, backend: str = "inductor") -> LoadedModels:
    """Compile a model's networks for batches of ``batch`` images, and run one, so that it is done once and at once.

    Args:
        models: loaded; their networks are changed in place, and from now on give the layers of their targets only.
        batch: images; shorter batches are filled up to it.
        backend: of torch.compile.

    Raises:
        UsageError: the model has no network that could be compiled.
        DependencyError: this machine lacks a compiler; the message says what to install.
    """
    extractor = compilable(models)
    read = {extractor.attention(target.layer) for target in models.targets.values()}
    for network in extractor.networks():
        for region in regions(network, read):
            compiled: Any = torch.compile(region.forward, dynamic=False, backend=backend)
            region.forward = _with_room(compiled)
    fixed = replace(models, fixed_batch=batch)
    blank = models.prepare(Image.new("RGB", (64, 64)), Outputs(tuple(models.targets)))
    dynamo: Any = torch._dynamo
    try:
        fixed.encode_stored([blank], Outputs(tuple(models.targets)))
    except dynamo.exc.TorchDynamoException as error:
        raise DependencyError(_what_is_missing(error)) from error
    return fixed


def compilable(models: LoadedModels) -> Compilable:
    """Return the extractor whose networks can be compiled, or raise a UsageError where there are none."""
    if not isinstance(models.extractor, Compilable):
        name = models.extractor.fingerprint()["name"]
        raise UsageError(
            f"model {name} has nothing to compile; leave --compile out (it serves sd15, diffsim-xl and dit)"
        )
    return models.extractor


def regions(network: nn.Module, read: Collection[nn.Module]) -> Iterator[nn.Module]:
    """Yield the largest blocks of ``network`` that can be compiled and hold none of the modules ``read``."""
    if type(network).__name__ in REGIONS and not any(part in read for part in network.modules()):
        yield network
        return
    for child in network.children():
        yield from regions(child, read)


def _with_room(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``compiled`` be compiled again for something new, such as another number of threads, in any thread."""
    dynamo: Any = torch._dynamo

    def run(*arguments: Any, **options: Any) -> Any:
        with dynamo.config.patch(recompile_limit=MOST_SHAPES, accumulated_recompile_limit=4 * MOST_SHAPES):
            return compiled(*arguments, **options)

    return run


def _what_is_missing(error: BaseException) -> str:
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    needed = "triton and a C compiler" if torch.cuda.is_available() else "a C++ compiler (g++, or one that CXX names)"
    return f"the model can't be compiled on this machine: {first}; install {needed}, or leave --compile out"
