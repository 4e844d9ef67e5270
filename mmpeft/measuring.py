"""Time and memory of models side by side."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from mmpeft.costs import peak_bytes, saved_bytes
from mmpeft.counting import Operation, Operations, profiled
from mmpeft.hosts import adapters_of

MEGA = 1e6
DTYPES = dict(fp32=torch.float32, bf16=torch.bfloat16)


@dataclass(frozen=True)
class Setting:
    """What every model is measured with; ``size`` is the height and the width of the images."""

    size: tuple[int, int] = (384, 384)
    batch: int = 2
    repeats: int = 9
    dtype: str = 'fp32'
    channels_last: bool = False
    device: str = 'cpu'


@dataclass(frozen=True)
class Variant:
    """A model to measure.

    ``plain`` names the one that computes the same as published. Of a ``compiled`` one operations are not counted, which
    a compiler puts together, and adapters are not measured alone.
    """

    name: str
    model: nn.Module
    trains: bool = True
    infers: bool = True
    plain: str | None = None
    compiled: bool = False


@dataclass(frozen=True)
class Row:
    """What one model takes: medians of times in milliseconds, memory in megabytes (10^6 bytes).

    A ratio of times is the median of those of single rounds, in which the two stood side by side. A step is a forward
    and a backward pass; what an optimizer does is not in it. None is what a model is not measured for.

    Attributes:
        name: The model.
        forward: Forward pass in training.
        step: Forward and backward pass.
        step_of_full: That as a ratio to full fine-tuning.
        step_of_plain: And to the method as published.
        saved: What autograd keeps between forward and backward.
        saved_of_full: The same as a ratio to full fine-tuning.
        peak: How far a step raises the memory in use.
        operations: How many operations a step dispatches, views left out.
        operations_of_full: That as a ratio to full fine-tuning.
        waits: How many of them look at a value, for which a GPU has to be waited for.
        busy: How long a step keeps the GPU busy.
        busy_of_full: That as a ratio to full fine-tuning.
        launches: How many kernels and copies a step launches on the GPU.
        adapters: Forward and backward pass of the adapters alone, each with the input that it has in the model.
        adapters_of_plain: That as a ratio to the method as published.
        inference: Forward pass in eval mode without gradients.
        inference_of_stock: That as a ratio to the stock backbone.
    """

    name: str
    forward: float | None = None
    step: float | None = None
    step_of_full: float | None = None
    step_of_plain: float | None = None
    saved: float | None = None
    saved_of_full: float | None = None
    peak: float | None = None
    operations: int | None = None
    operations_of_full: float | None = None
    waits: int | None = None
    busy: float | None = None
    busy_of_full: float | None = None
    launches: int | None = None
    adapters: float | None = None
    adapters_of_plain: float | None = None
    inference: float | None = None
    inference_of_stock: float | None = None


def measure(
    variants: Sequence[Variant], setting: Setting, rounds: Callable[[list[int]], Iterable[int]] = iter
) -> list[Row]:
    """Measure models in turns, one step each, so that what disturbs the machine disturbs them alike.

    Args:
        variants: The models; the first is full fine-tuning, and in eval mode the stock backbone.
        setting: Input and device.
        rounds: Passes on the numbers of the rounds, and may show how far they are.
    """
    image = _image(setting)
    runners = {variant.name: _Runner(variant, setting, image) for variant in variants}
    for runner in runners.values():
        runner.warm_up()
    for start in rounds([*range(setting.repeats)]):
        for turn in range(len(variants)):
            runners[variants[(start + turn) % len(variants)].name].run()
    return [_row(runner, runners) for runner in runners.values()]


def largest_operations(variants: Sequence[Variant], setting: Setting, count: int = 5) -> list[Operation]:
    """The operations that a step of each model spends most time in, most first."""
    image, rows = _image(setting), []
    for variant in variants:
        if variant.trains:
            runner = _Runner(variant, setting, image)
            runner.first_step()
            rows += profiled(runner.step, variant.name, runner.device)[:count]
    return rows


def _image(setting: Setting) -> Tensor:
    torch.manual_seed(0)
    image = torch.randn(setting.batch, 3, *setting.size, device=setting.device)
    return image.to(memory_format=torch.channels_last) if setting.channels_last else image


class _Runner:
    """One model, with what was measured of it so far."""

    def __init__(self, variant: Variant, setting: Setting, image: Tensor) -> None:
        self.variant, self.image, self.device = variant, image, image.device
        self.model = variant.model.to(image.device)
        if setting.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.dtype = DTYPES[setting.dtype]
        self.forwards, self.steps, self.inferences, self.alone = [], [], [], []
        self.calls = []
        self.busy = self.launches = self.operations = None

    def first_step(self) -> None:
        self.seeds = [torch.randn_like(out) for out in self.outputs()]
        self.step()

    def warm_up(self) -> None:
        if self.variant.trains:
            self.first_step()
            self.saved = saved_bytes(self.model, self.outputs)
            self.peak = peak_bytes(self.step, self.device)
            self.count()
            self.calls = self.calls_of_adapters()
            self.adapters()
        if self.variant.infers:
            self.inference()

    def run(self) -> None:
        if self.variant.trains:
            forward, step = self.step()
            self.forwards.append(forward)
            self.steps.append(step)
            self.alone.append(self.adapters())
        if self.variant.infers:
            self.inferences.append(self.inference())

    def calls_of_adapters(self) -> list[tuple[nn.Module, tuple, Tensor]]:
        """Each adapter with what it is called with and a gradient of its output.

        None of them where others compute some of them: layers into which they are folded, or what is compiled.
        """
        if self.variant.compiled:
            return []
        adapters, calls = [adapter for _, adapter in adapters_of(self.model)], []

        def keep(adapter: nn.Module, args: tuple, out: Tensor) -> None:
            # What adapters computed together belongs to the graph of this forward; alone each computes its own.
            read = [None if what == 'together' else arg for what, arg in zip(adapter.reads, args[1:], strict=True)]
            calls.append((adapter, (args[0].detach().requires_grad_(), *read), torch.randn_like(out)))

        handles = [adapter.register_forward_hook(keep) for adapter in adapters]
        self.outputs()
        for handle in handles:
            handle.remove()
        return calls if len(calls) == len(adapters) else []

    def adapters(self) -> float:
        """Seconds of the forward and the backward pass of the adapters alone."""
        self.model.zero_grad()
        start = self.now()
        for adapter, args, seed in self.calls:
            args[0].grad = None
            with self.autocast():
                out = adapter(*args)
            out.backward(seed)
        return self.now() - start

    def count(self) -> None:
        """What a step asks of the device, and on a GPU how long that takes it."""
        if not self.variant.compiled:
            with Operations() as self.operations:
                self.step()
        if self.device.type == 'cuda':
            kernels = profiled(self.step, self.variant.name, self.device)
            self.busy = sum(kernel.time for kernel in kernels)
            self.launches = sum(kernel.calls for kernel in kernels)

    def outputs(self) -> list[Tensor]:
        with self.autocast():
            return list(self.model(self.image))

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def step(self) -> tuple[float, float]:
        """Seconds of the forward pass, and of it and the backward pass."""
        self.model.train()
        self.model.zero_grad()
        start = self.now()
        outputs = self.outputs()
        middle = self.now()
        # Early outputs have no gradient where only late blocks train.
        pairs = [pair for pair in zip(outputs, self.seeds, strict=True) if pair[0].requires_grad]
        torch.autograd.backward(*zip(*pairs, strict=True))
        return middle - start, self.now() - start

    @torch.no_grad()
    def inference(self) -> float:
        self.model.eval()
        start = self.now()
        self.outputs()
        return self.now() - start

    def now(self) -> float:
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        return perf_counter()


def _row(own: _Runner, runners: Mapping[str, _Runner]) -> Row:
    variant, full = own.variant, next(iter(runners.values()))
    row = {}
    if variant.trains:
        row |= dict(forward=1e3 * median(own.forwards), step=1e3 * median(own.steps))
        row |= dict(step_of_full=_ratio(own.steps, full.steps), saved=own.saved / MEGA)
        row |= dict(saved_of_full=own.saved / full.saved, peak=None if own.peak is None else own.peak / MEGA)
    if own.operations:
        row |= dict(operations=own.operations.launched, waits=own.operations.waits)
        row |= dict(operations_of_full=own.operations.launched / full.operations.launched)
    if own.busy is not None:
        row |= dict(busy=own.busy, busy_of_full=own.busy / full.busy, launches=own.launches)
    if own.calls:
        row |= dict(adapters=1e3 * median(own.alone))
    if variant.plain:
        plain = runners[variant.plain]
        row |= dict(step_of_plain=_ratio(own.steps, plain.steps))
        if own.calls and plain.calls:
            row |= dict(adapters_of_plain=_ratio(own.alone, plain.alone))
    if variant.infers:
        row |= dict(inference=1e3 * median(own.inferences))
        row |= dict(inference_of_stock=_ratio(own.inferences, full.inferences))
    return Row(variant.name, **row)


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return median(a / b for a, b in zip(ours, theirs, strict=True))
