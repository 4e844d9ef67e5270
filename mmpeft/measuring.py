"""Time and memory of models side by side."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from mmpeft.costs import peak_bytes, saved_bytes
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
    compile: bool = False
    device: str = 'cpu'


@dataclass(frozen=True)
class Variant:
    """A model to measure; ``plain`` names the one that computes the same as published."""

    name: str
    model: nn.Module
    trains: bool = True
    infers: bool = True
    plain: str | None = None


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


@dataclass(frozen=True)
class Operation:
    """What one kind of operation takes in a step of a model.

    Attributes:
        name: The model.
        operation: The operation of torch or, on a GPU, the kernel.
        calls: How often it runs.
        time: All its calls together, in milliseconds, without the operations that it calls.
        share: That as a share of all operations of the step.
    """

    name: str
    operation: str
    calls: int
    time: float
    share: float


def largest_operations(variants: Sequence[Variant], setting: Setting, count: int = 5) -> list[Operation]:
    """The operations that a step of each model spends most time in, most first."""
    image = _image(setting)
    return [row for variant in variants if variant.trains for row in _Runner(variant, setting, image).largest(count)]


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
        self.call = torch.compile(self.model) if setting.compile else self.model
        self.dtype = DTYPES[setting.dtype]
        self.forwards, self.steps, self.inferences, self.alone = [], [], [], []
        self.calls = []

    def first_step(self) -> None:
        self.seeds = [torch.randn_like(out) for out in self.outputs()]
        self.step()

    def warm_up(self) -> None:
        if self.variant.trains:
            self.first_step()
            self.saved = saved_bytes(self.model, self.outputs)
            self.peak = peak_bytes(self.step, self.device)
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
        if self.call is not self.model:
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

    def largest(self, count: int) -> list[Operation]:
        """The operations of a step that take most time in themselves; on a GPU its kernels."""
        self.first_step()
        on_gpu = self.device.type == 'cuda'
        with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiler:
            self.step()
        kind, total = (DeviceType.CUDA, 'self_device_time_total') if on_gpu else (DeviceType.CPU, 'self_cpu_time_total')
        events = [(event, getattr(event, total)) for event in profiler.key_averages() if event.device_type == kind]
        whole = sum(time for _, time in events)
        events.sort(key=lambda pair: pair[1], reverse=True)
        return [Operation(self.variant.name, e.key, e.count, time / 1e3, time / whole) for e, time in events[:count]]

    def outputs(self) -> list[Tensor]:
        with self.autocast():
            return list(self.call(self.image))

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
