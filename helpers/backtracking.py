"""From a decision back to the pixels that caused it: paper 3's algorithms, for any CNN.

"How you see me" (Gandikota & Mishra 2019) starts at the predicted class and goes down layer by
layer. A few nodes are followed; each hands over to the nodes of the layer below that contributed
to it. What arrives at the image are the important pixels.

    seen = record(model, images)             # one forward pass; seen.logits are the answers
    paths = seen.backtrack(seen.logits.argmax(1))
    paths.pixels                             # (n, h, w): how many paths end at each pixel

The paper treats fully connected layers, convolutions and max pooling ("any network till VGG") and
leaves ResNet and DenseNet to future work. Here the network is traced once with torch.fx, and every
operation has a rule of its own: additions, concatenations, averages, batch norm, gates and changes
of shape follow CNN-Fixations (Mopuri 2018, section 3), which has the same idea. Nobody has to write
anything per architecture; an operation without a rule is named in the error.

What a node contributes is its weight times its activation. The paper's activations are never
negative, so a positive contribution always means "this was active". Where they can be (linear
bottlenecks, sums of branches, the image itself), a node also carries a sign: for an activation
below zero, followed is what lowered it.

Images are (n, 3, h, w), in [0, 1] for the networks of `helpers.models`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, pairwise
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor, fx, nn
from torch.nn import functional as F

from helpers.models import frozen

_CHOICES = {
    "fully_connected": ("positive", "topn", "literal"),
    "channel": ("max", "positive", "literal"),
    "pixel": ("contribution", "activation"),
    "average": ("max", "positive"),
}


class Unsupported(ValueError):
    """An operation on the way to the image that has no rule."""


@dataclass(frozen=True)
class Rules:
    """Which nodes of the layer below a node hands over to: where the paper is open, a choice.

    Raises:
        ValueError: a name that is none of the choices, or `n` below 1.
    """

    # Fully connected (Algorithm 1). positive: all i with w_i a_i > 0. topn: the n largest of those
    # (section III-A). literal: all with w_i a_i + b > 0, as line 7 has it; with b > 0 those are all
    # nodes that are silent, which is why it is not the default.
    fully_connected: str = "positive"
    n: int = 10
    # Convolution (Algorithm 2), C_c = the channel's sum of w a over the window. max: the channel
    # with the largest (Fig. 4), also where the bias outweighs it. positive: every channel with
    # C_c > 0. literal: with b added to every product, as line 6 has it.
    channel: str = "max"
    # In that channel, the position of the largest product w a (Fig. 4), or of the largest
    # activation (section III-B).
    pixel: str = "contribution"
    # Averages. max: the largest contribution (CNN-Fixations). positive: all positive ones, because
    # an average is a fully connected layer with equal weights.
    average: str = "max"

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                wrong = getattr(self, name)
                raise ValueError(f"Rules.{name} is {wrong!r}; valid are {', '.join(known)}")
        if self.n < 1:
            raise ValueError(f"Rules.n is {self.n}; at least one node is followed")


@dataclass(frozen=True, eq=False)
class Nodes:
    """The nodes that paths pass in one layer's output: the paper's memory vector, of a batch.

    A node stands once for each sign, sorted by image and index. `count` says how many paths pass
    it, where the paper's list would hold it that often.
    """

    shape: tuple[int, ...]  # of the layer's output for one image: (channels, rows, columns) or (k,)
    image: Int64[Tensor, " m"]  # row of the batch
    index: Int64[Tensor, " m"]  # flat, into `shape`
    sign: Float[Tensor, " m"]  # +1: followed is what raised it; -1: what lowered it
    count: Float64[Tensor, " m"]  # paths from the start; float64 because they multiply

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, rows: Any) -> Nodes:
        picked = (self.image[rows], self.index[rows], self.sign[rows], self.count[rows])
        return Nodes(self.shape, *picked)

    @property
    def where(self) -> tuple[Int64[Tensor, " m"], ...]:
        """Indices into `shape`, one tensor per dimension: channel, row, column."""
        places, rest = [], self.index
        for size in reversed(self.shape):  # an order faster than torch.unravel_index
            places.append(rest % size)
            rest = rest // size
        return tuple(reversed(places))

    def dense(self, n: int) -> Float64[Tensor, n * shape]:
        """The number of paths through every node of the layer, for a batch of n images."""
        counts = self.count.new_zeros(n * prod(self.shape))
        counts.index_add_(0, self.image * prod(self.shape) + self.index, self.count)
        return counts.view(n, *self.shape)


@dataclass(frozen=True, eq=False)
class Paths:
    """All paths from the start down: the nodes of every layer they pass, top first.

    Layers are called as in the network ("network.features.34"); what is no module has the name of
    its operation behind that of the module it happens in ("network.layer1.0.add").
    """

    layers: dict[str, Nodes]
    ended: dict[str, Float64[Tensor, " n"]]  # paths that found nothing to follow there
    size: tuple[int, int]  # of the images, pixels
    n: int  # images

    @property
    def pixels(self) -> Float64[Tensor, "n h w"]:
        """How many paths end at each pixel, in whichever colour.

        Raises:
            ValueError: the paths were stopped at a layer.
        """
        if IMAGE not in self.layers:
            raise ValueError(f"these paths stop at {list(self.layers)[-1]!r}, above the image")
        return self.layers[IMAGE].dense(self.n).sum(1)


IMAGE = "image"  # what the lowest layer is called


def backtrack(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    classes: Int64[Tensor, " n"] | None = None,
    rules: Rules | None = None,
    batch_size: int = 8,
) -> Float64[Tensor, "n h w"]:
    """The important pixels of a decision (Figs. 6 and 9): how many paths end at each.

    The model is used in eval mode without gradients and comes back as it was. No result depends on
    which images share a batch, up to rounding where two nodes contribute the same.

    Args:
        classes: where to start in each image; by default the class the model predicts.
        batch_size: images whose activations are in memory at once.

    Raises:
        Unsupported, ValueError: as `record` and `Recording.backtrack`; or not one class per image,
            or no batch size.
    """
    if classes is not None and len(classes) != len(images):
        raise ValueError(f"{len(classes)} classes for {len(images)} images")
    if batch_size < 1:
        raise ValueError(f"a batch needs at least 1 image, not {batch_size}")
    _check_finite(images)
    found = [images.new_zeros(0, *images.shape[2:], dtype=torch.float64)]
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        seen = record(model, images[rows])
        wanted = seen.logits.argmax(1) if classes is None else classes[rows]
        found.append(seen.backtrack(wanted, rules=rules).pixels)
    return torch.cat(found)


# ---------------------------------------------------------------- forward, with a memory


def _whole(step: _Step, nodes: Nodes) -> list[Nodes]:
    return [nodes]


@dataclass(frozen=True, eq=False)
class Recording:
    """One forward pass, with the activations that backtracking needs.

    The paper wishes for networks that keep "the best activations directly and give a quick
    response": any class and any unit can be asked of a recording without another forward pass.
    """

    logits: Float[Tensor, "n k"]
    size: tuple[int, int]  # of the images, pixels
    steps: tuple[_Step, ...] = field(repr=False)  # in the order they ran, the image first

    @property
    def names(self) -> list[str]:
        """All layers that a path can start or stop at, from the image up."""
        return [step.name for step in self.steps]

    def shape(self, layer: str) -> tuple[int, ...]:
        """The shape of a layer's output for one image. Raises: ValueError: no such layer."""
        return self._step(layer).shape

    def backtrack(
        self,
        start: Int64[Tensor, "n ..."],
        layer: str | None = None,
        until: str = IMAGE,
        rules: Rules | None = None,
    ) -> Paths:
        """Follow one node of each image down.

        A path ends where nothing below is active, and in layers whose rule asks for positive
        contributions, where there is none: what is left is a bias, or nothing. `Paths.ended` counts
        these; an image whose paths all end has no pixels.

        Args:
            start: of each image, the class; or, with `layer`, the unit of that layer to start from:
                (n,) flat indices, or (n, d) with one column per dimension, as channel, row, column.
            until: the layer to stop at. Paths that pass it by, over a shortcut, stop beside it.

        Raises:
            ValueError: not one start per image, no such layer or unit, or a layer to stop at that
                lies above the start.
            Unsupported: an operation on the way has no rule.
        """
        *_, (_, paths) = self.descending(start, layer, until, rules)
        return paths

    def descending(
        self,
        start: Int64[Tensor, "n ..."],
        layer: str | None = None,
        until: str = IMAGE,
        rules: Rules | None = None,
        pieces: Callable[[_Step, Nodes], Iterable[Nodes]] = _whole,
    ) -> Iterator[tuple[float, Paths]]:
        """`backtrack` piece by piece, for those who watch it or have other work in between.

        Args:
            pieces: cuts the nodes of a layer into those that go down in one go. They do not depend
                on each other: where pieces meet in a node below, their paths add up.

        Yields:
            The share of the layers that are done, and the paths so far: one object that grows. The
            share is 1 at the last, which are the paths that `backtrack` returns, and only there.

        Raises:
            As `backtrack`.
        """
        first = self._step(layer) if layer else self.steps[-1]
        last = self._step(until)
        if last.number > first.number:
            raise ValueError(f"paths from {first.name!r} do not come past {until!r} above it")
        n, rules = len(self.logits), rules or Rules()
        waiting = {first.number: [_started(start, first, self.logits)]}
        layers, ended = {}, {}
        paths = Paths(layers, ended, self.size, n)
        total = first.number - last.number + 1
        for step in reversed(self.steps[last.number : first.number + 1]):
            if step.number not in waiting:
                continue
            nodes = layers[step.name] = _merged(waiting.pop(step.number))
            if step is last:
                break
            if step.rule is None:
                raise Unsupported(
                    f"{step.operation} at {step.name!r} cannot be backtracked; rules exist for "
                    f"{', '.join(sorted(_names_of_rules()))}"
                )
            for piece in pieces(step, nodes):
                handed, found = step.rule(step, piece, rules)
                for below, lower in handed:
                    waiting.setdefault(below.number, []).append(lower)
                if not found.all():
                    dead, none = piece[~found], nodes.count.new_zeros(n)
                    ended.setdefault(step.name, none).index_add_(0, dead.image, dead.count)
                yield 1 - (step.number - last.number) / total, paths
        if until not in layers:  # all paths ended, or passed it by
            layers[until] = _moved(nodes[:0], nodes.index[:0], last.shape)
        yield 1.0, paths

    def _step(self, layer: str) -> _Step:
        for step in self.steps:
            if step.name == layer:
                return step
        some = ", ".join(self.names[-8:])
        raise ValueError(f"no layer is called {layer!r}; the uppermost are {some}")


def record(model: nn.Module, images: Float[Tensor, "n 3 h w"]) -> Recording:
    """Run the images and keep what backtracking needs.

    Raises:
        ValueError: no images, a value that is not finite, or images the network cannot take:
            too small, or of another number of channels.
        Unsupported: torch.fx cannot trace the network, because its path depends on the data.
    """
    if not len(images):
        raise ValueError("there is no image to backtrack")
    _check_finite(images)
    with frozen(model), _out_of_place(model) as overwriting, torch.no_grad():
        try:
            graph = fx.Tracer().trace(model)
        except Exception as error:  # whatever the network's own code does with a stand-in
            raise Unsupported(f"torch.fx cannot trace this network: {error}") from error
        try:
            # channels last: the channels of one position are neighbours, see `_convolution`
            logits, steps = _run(
                model, graph, images.contiguous(memory_format=torch.channels_last), overwriting
            )
        except RuntimeError as error:
            shape = " x ".join(map(str, images.shape[1:]))
            raise ValueError(f"the network cannot take images of {shape}: {error}") from error
    if not (isinstance(logits, Tensor) and logits.ndim == 2):
        raise ValueError("the network's output is not one row of logits per image")
    return Recording(logits, tuple(images.shape[2:]), tuple(steps))


def _check_finite(images: Tensor) -> None:
    broken = ~images.isfinite().flatten(1).all(1)
    if broken.any():
        raise ValueError(f"image {int(broken.nonzero()[0])} has values that are not finite")


@dataclass(frozen=True, eq=False)
class _Step:
    """One operation as it ran, as a function of those inputs that follow from the image."""

    number: int
    n: int  # images
    name: str
    operation: str  # "Conv2d", "add"
    module: nn.Module | None
    run: Callable[..., Any]
    below: tuple[_Step, ...] = field(repr=False)  # what made the inputs
    inputs: tuple[Tensor, ...] = field(repr=False)  # what the rule looks at, see `_looked_at`
    shape: tuple[int, ...]  # of the output for one image
    rule: Rule | None
    pieces: bool  # the output is no map but several


def _run(
    model: nn.Module, graph: fx.Graph, images: Tensor, overwriting: list[nn.Module]
) -> tuple[Any, list[_Step]]:
    """The network's answer, and a step for every operation whose output follows from the image."""
    values: dict[fx.Node, Any] = {}
    steps: dict[fx.Node, _Step] = {}
    layers: dict[str, _Step] = {}
    uses = {node: len(node.users) for node in graph.nodes}
    order = {node: k for k, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if node.op == "output":
            break
        run, sources = _operation(model, node, values, steps, images)
        module = model.get_submodule(node.target) if node.op == "call_module" else None
        overwrites = sources and (module in overwriting or node.kwargs.get("inplace"))
        if overwrites and any(order[user] > order[node] for user in sources[0].users):
            raise Unsupported(f"{node.target!r} overwrites what is used again after it")
        value = values[node] = run(*(values[a] for a in sources))
        below = tuple(steps[a] for a in sources)
        cut = any(step.pieces for step in below)
        picked = cut and below[0].rule is rearrangement and _operation_name(node) == "getitem"
        if picked:  # a piece of a map that was cut: one step does both
            run, below = partial(_piece, below[0].run, node.args[1]), below[0].below
        pieces = value if isinstance(value, tuple | list) else [value]
        if (below or not layers) and pieces and isinstance(pieces[0], Tensor):
            rule, module = _rule_of(model, node, sources, values)
            whole = isinstance(value, Tensor)
            inputs = [values[a] for a in sources]
            if (cut and not picked) or (whole and not _keeps(rule, [value, *inputs], below)):
                rule = None
            step = steps[node] = _Step(
                number=len(layers),
                n=len(images),
                name=_name(node, layers),
                operation=type(module).__name__ if module else _operation_name(node),
                module=module,
                run=run,
                below=below,
                inputs=_looked_at(rule, run, inputs, below),
                shape=tuple(value.shape[1:]) if whole else (),
                rule=rule,
                pieces=not whole,
            )
            layers |= {step.name: step} if whole else {}
        for a in node.all_input_nodes:  # what is used up makes room, unless a step keeps it
            uses[a] -= 1
            if not uses[a]:
                del values[a]
    answer = node.args[0]
    if not isinstance(answer, fx.Node) or answer not in steps:
        return None, []
    # what runs after the answer, such as a second head, is no part of it
    return values[answer], list(layers.values())[: steps[answer].number + 1]


def _keeps(rule: Rule | None, values: Sequence[Any], below: Sequence[_Step]) -> bool:
    """Whether the output (the first value) has a row for each image, as the inputs do, and what
    changes no places leaves the shape as it is."""
    maps = [value for value in values if isinstance(value, Tensor)]
    if rule in (affine, elementwise) and maps[0].shape != maps[1].shape:
        return False
    return not below or all(value.ndim and len(value) == below[0].n for value in maps)


def _looked_at(
    rule: Rule | None, run: Callable, inputs: Sequence[Any], below: Sequence[_Step]
) -> tuple[Tensor, ...]:
    """The inputs' values, if the rule looks at them; of an affine map, its factors' signs.

    They are taken now because the caller's model may be in training mode or trained on later.
    """
    if rule is affine:
        zeros = inputs[0].new_zeros(1, *below[0].shape)
        return ((run(zeros + 1) - run(zeros)).sign(),)
    return tuple(inputs) if rule in _LOOKING else ()


def _operation(
    model: nn.Module,
    node: fx.Node,
    values: Mapping[fx.Node, Any],
    steps: Mapping[fx.Node, _Step],
    images: Tensor,
) -> tuple[Callable[..., Any], list[fx.Node]]:
    """What a node does, as a function of the inputs that follow from the image; and these."""
    inputs: list[fx.Node] = []
    fx.node.map_arg((node.args, node.kwargs), inputs.append)
    sources = [a for a in inputs if a in steps]
    constants = {a: values[a] for a in inputs if a not in steps}
    if node.op == "placeholder":  # the image comes first; others have their default
        return lambda: node.args[0] if steps else images, []
    if node.op == "get_attr":
        return lambda: operator.attrgetter(node.target)(model), []

    def run(*given: Any) -> Any:
        rest = iter(given)
        args, kwargs = fx.node.map_arg(
            (node.args, node.kwargs), lambda a: constants[a] if a in constants else next(rest)
        )
        if node.op == "call_module":
            return model.get_submodule(node.target)(*args, **kwargs)
        if "inplace" in kwargs:
            kwargs = {**kwargs, "inplace": False}
        if node.op == "call_method":
            name = node.target.removesuffix("_")  # the channels lie last, which `view` minds
            return getattr(args[0], "reshape" if name == "view" else name)(*args[1:], **kwargs)
        return _OUT_OF_PLACE.get(node.target, node.target)(*args, **kwargs)

    return run, sources


_OUT_OF_PLACE = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}


def _piece(cut: Callable[[Tensor], Sequence[Tensor]], which: int, whole: Tensor) -> Tensor:
    return cut(whole)[which]


def _operation_name(node: fx.Node) -> str:
    name = node.target if isinstance(node.target, str) else node.target.__name__
    return name.strip("_")


def _name(node: fx.Node, taken: Mapping[str, _Step]) -> str:
    """A module's own name; of other operations, the module they happen in and what they do."""
    if node.op == "placeholder":
        return IMAGE
    name = node.target
    if node.op != "call_module":
        inside = list(node.meta.get("nn_module_stack") or [""])[-1].split("@")[0]
        name = f"{inside}.{_operation_name(node)}".lstrip(".")
    repeated = (f"{name}:{k}" for k in count(2))  # a module may run more than once
    return name if name not in taken else next(k for k in repeated if k not in taken)


@contextmanager
def _out_of_place(model: nn.Module) -> Iterator[list[nn.Module]]:
    """No module overwrites its input, which may be another layer's activations."""
    modules = [m for m in model.modules() if getattr(m, "inplace", False)]
    for module in modules:
        module.inplace = False
    try:
        yield modules
    finally:
        for module in modules:
            module.inplace = True


# ---------------------------------------------------------------- down, one rule per operation

# A rule gets a step, the nodes in its output and the choices. It returns the nodes below, each
# with the step they are in, and which of the nodes found any.
Found = tuple[list[tuple["_Step", Nodes]], Bool[Tensor, " m"]]
Rule = Callable[["_Step", Nodes, Rules], Found]

_AT_ONCE = 1 << 18  # products computed at once: they stay in the processor's cache


def fully_connected(step: _Step, nodes: Nodes, rules: Rules) -> Found:
    """Algorithm 1: the inputs with a positive w a, all or the first n of them."""
    (a,), layer = step.inputs, step.module
    if a.ndim != 2:
        raise Unsupported(f"{step.name!r} is a linear layer on maps; rules exist for (n, k) only")
    follow = _all_positive if rules.fully_connected == "positive" else _some_positive
    counts, found = follow(layer, a, nodes, rules)
    image, index = counts.nonzero(as_tuple=True)
    signs = _sign(a[image, index])
    below = Nodes(tuple(a.shape[1:]), image, index, signs, counts[image, index])
    return [(step.below[0], below)], found


def _all_positive(
    layer: nn.Linear, a: Tensor, nodes: Nodes, rules: Rules
) -> tuple[Float64[Tensor, "n i"], Bool[Tensor, " m"]]:
    """Paths to all inputs with w a > 0, as products of matrices: what the signs of w and a agree
    on depends on the node or on the image, never on both."""
    outputs, place = nodes.index.unique(return_inverse=True)
    paths = nodes.count.new_zeros(2, len(a), len(outputs))  # that look up, that look down
    paths[(nodes.sign < 0).long(), nodes.image, place] = nodes.count
    active = torch.stack([a > 0, a < 0]).double()
    counts, reached = torch.zeros_like(active), torch.zeros_like(paths)
    below_zero = bool((a < 0).any() or (nodes.sign < 0).any())
    for some in torch.arange(len(outputs), device=a.device).split(64):
        weight = layer.weight[outputs[some]]
        for look, agree in ((0, weight > 0), (1, weight < 0))[: 1 + below_zero]:
            w = agree.double()
            counts[0] += paths[look, :, some] @ w
            counts[1] += paths[1 - look, :, some] @ w
            reached[0, :, some] += active[look] @ w.T
            reached[1, :, some] += active[1 - look] @ w.T
    found = reached[(nodes.sign < 0).long(), nodes.image, place] > 0
    return (counts * active).sum(0), found


def _some_positive(
    layer: nn.Linear, a: Tensor, nodes: Nodes, rules: Rules
) -> tuple[Float64[Tensor, "n i"], Bool[Tensor, " m"]]:
    """Paths to the inputs that `topn` or `literal` choose, node by node."""
    counts, found = nodes.count.new_zeros(a.shape), []
    for some in _chunks(nodes, a.shape[1]):
        products = layer.weight[some.index] * a[some.image] * some.sign[:, None]
        if rules.fully_connected == "literal" and layer.bias is not None:
            products += (some.sign * layer.bias[some.index])[:, None]
        chosen = products > 0
        if rules.fully_connected == "topn":
            best = products.topk(min(rules.n, a.shape[1]), dim=1).indices
            chosen &= torch.zeros_like(chosen).scatter_(1, best, True)
        counts.index_add_(0, some.image, chosen * some.count[:, None])
        found.append(chosen.any(1))
    return counts, torch.cat(found)


def convolution(step: _Step, nodes: Nodes, rules: Rules) -> Found:
    """Algorithm 2: a channel of the window by its sum of w a, then a position in that channel.

    The largest sum may be negative: where a bias keeps a node active against all of its inputs
    (often so in depthwise convolutions, which have one channel to choose from), the path goes on to
    what spoke least against it. It ends where the chosen channel is silent.

    The sums are taken tap by tap: for each of the kernel's positions, all nodes' input channels are
    one gather of neighbouring values, because the channels lie last in memory.
    """
    (a,), layer = step.inputs, step.module
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise Unsupported(f"{step.name!r} pads by {layer.padding_mode!r}, {layer.padding!r}")
    (channels, h, w), groups = a.shape[1:], layer.groups
    per = channels // groups
    values = a.permute(0, 2, 3, 1).reshape(-1, per)  # a row per position and group
    values = torch.cat([values, values.new_zeros(1, per)])  # and one for the padding
    weights = layer.weight.permute(0, 2, 3, 1).flatten(1, 2)  # (out, taps, per)
    taps = weights.shape[1]
    rows_of_weights = weights.reshape(-1, per)
    below, found = [], []
    for some in _chunks(nodes, per):
        out, y, x = some.where
        position, inside = _windows(y, x, layer, (h, w), step.shape[1:])  # (m, taps)
        group = out // (len(weights) // groups)
        row = (some.image[:, None] * h * w + position) * groups + group[:, None]
        row = torch.where(inside, row, len(values) - 1)
        sums = values.new_zeros(len(some), per)
        for tap in range(taps):
            part = rows_of_weights.index_select(0, out * taps + tap)
            sums.addcmul_(values.index_select(0, row[:, tap]), part)
        sums *= some.sign[:, None]
        if rules.channel == "literal" and layer.bias is not None:
            sums += (taps * some.sign * layer.bias[out])[:, None]
        if rules.channel == "max":
            node, channel = torch.arange(len(some), device=a.device), sums.argmax(1)
        else:
            node, channel = (sums > 0).nonzero(as_tuple=True)
        value = values[row[node], channel[:, None]]  # (chosen, taps)
        score = value
        if rules.pixel == "contribution":
            score = value * weights[out[node], :, channel] * some.sign[node, None]
        active = inside[node]
        if rules.channel != "literal":
            active = (value != 0) & (weights[out[node], :, channel] != 0)
        live = active.any(1)
        node, channel, value, score = node[live], channel[live], value[live], score[live]
        tap = score.masked_fill(~active[live], -torch.inf).argmax(1, keepdim=True)
        index = (group[node] * per + channel) * h * w + position[node].gather(1, tap)[:, 0]
        sign = _sign(value.gather(1, tap)[:, 0])
        shape = tuple(a.shape[1:])
        below.append(Nodes(shape, some.image[node], index, sign, some.count[node]))
        found.append(torch.zeros_like(out, dtype=torch.bool).index_fill_(0, node, True))
    return [(step.below[0], lower) for lower in below], torch.cat(found)


def maximum(step: _Step, nodes: Nodes, rules: Rules) -> Found:
    """Algorithm 3: the largest activation of the window, in the same channel."""
    index, values, inside = _window_values(step, nodes)
    best = values.masked_fill(~inside, -torch.inf).argmax(1, keepdim=True)
    below = _moved(nodes, index.gather(1, best)[:, 0], step.below[0].shape)
    return [(step.below[0], below)], torch.ones_like(nodes.image, dtype=torch.bool)


def average(step: _Step, nodes: Nodes, rules: Rules) -> Found:
    """The largest contribution to the average (CNN-Fixations), or all positive ones."""
    index, values, inside = _window_values(step, nodes)
    parts, active = values * nodes.sign[:, None], inside & (values != 0)
    if rules.average == "max":
        best = parts.masked_fill(~active, -torch.inf).argmax(1, keepdim=True)
        followed = torch.zeros_like(active).scatter_(1, best, True) & active
    else:
        followed = active & (parts > 0)
    node, tap = followed.nonzero(as_tuple=True)
    below = _moved(nodes[node], index[node, tap], step.below[0].shape)
    below = replace(below, sign=_sign(values[node, tap]))
    return [(step.below[0], below)], followed.any(1)


def addition(step: _Step, nodes: Nodes, rules: Rules) -> Found:
    """At a shortcut: the branch with the larger contribution (CNN-Fixations, section 3)."""
    if len({value.shape for value in step.inputs}) > 1:
        raise Unsupported(f"{step.name!r} adds maps of different shapes")
    at = nodes.image, *nodes.where
    parts = torch.stack([value[at] * nodes.sign for value in step.inputs])
    branch = parts.masked_fill(parts == 0, -torch.inf).argmax(0)
    found = (parts != 0).any(0)
    nodes = replace(nodes, sign=_sign(parts.gather(0, branch[None])[0] * nodes.sign))
    below = [nodes[(branch == k) & found] for k in range(len(step.inputs))]
    return list(zip(step.below, below, strict=True)), found


def product(step: _Step, nodes: Nodes, rules: Rules) -> Found:
    """Through a gate (squeeze-and-excitation): to the map, for which the gate is a weight."""
    gates = [below.operation in _GATES or below.shape != step.shape for below in step.below]
    if gates.count(False) != 1:
        raise Unsupported(f"{step.name!r} multiplies two maps and neither is a gate")
    gate = step.inputs[gates.index(True)]
    gate = gate.expand(len(gate), *step.shape)[(nodes.image, *nodes.where)]
    below = Nodes(nodes.shape, nodes.image, nodes.index, nodes.sign * gate.sign(), nodes.count)
    return [(step.below[gates.index(False)], below[gate != 0])], gate != 0


def elementwise(step: _Step, nodes: Nodes, rules: Rules) -> Found:
    """Through what rises with its input (activations) or does nothing: to the same place."""
    return [(step.below[0], nodes)], torch.ones_like(nodes.image, dtype=torch.bool)


def affine(step: _Step, nodes: Nodes, rules: Rules) -> Found:
    """Batch norm and arithmetic with constants: to the same place, or to its opposite.

    They fold into the weights of the layer below or above, so that only the sign of the factor
    matters. A factor of 0 ends the path.
    """
    factor = step.inputs[0].flatten()[nodes.index]
    below = Nodes(nodes.shape, nodes.image, nodes.index, nodes.sign * factor, nodes.count)
    return [(step.below[0], below[factor != 0])], factor != 0


def rearrangement(step: _Step, nodes: Nodes, rules: Rules) -> Found:
    """Flattening, cutting, shuffling, concatenation: where each value came from.

    Found by rearranging the values' positions instead of the values.
    """
    starts = [0]
    for below in step.below:
        starts.append(starts[-1] + step.n * prod(below.shape))
    device = nodes.image.device
    places = [
        torch.arange(start, end, device=device).view(step.n, *below.shape)
        for (start, end), below in zip(pairwise(starts), step.below, strict=True)
    ]
    came_from = step.run(*places).flatten(1)[nodes.image, nodes.index]
    handed = []
    for (start, end), below in zip(pairwise(starts), step.below, strict=True):
        mine = (start <= came_from) & (came_from < end)
        index = (came_from[mine] - start) % prod(below.shape)
        if ((came_from[mine] - start) // prod(below.shape) != nodes.image[mine]).any():
            raise Unsupported(f"{step.name!r} mixes the images of a batch")
        handed.append((below, _moved(nodes[mine], index, below.shape)))
    return handed, torch.ones_like(came_from, dtype=torch.bool)


def _window_values(step: _Step, nodes: Nodes) -> tuple[Tensor, Tensor, Tensor]:
    """Of each node's pooling window: flat indices, activations, what lies inside: (m, taps)."""
    channels, h, w = step.below[0].shape
    rows, columns = step.shape[1:] or (1, 1)
    channel, place = nodes.index // (rows * columns), nodes.index % (rows * columns)
    y, x = place // columns, place % columns
    position, inside = _windows(y, x, step.module, (h, w), (rows, columns))
    at = nodes.image[:, None], channel[:, None], position // w, position % w
    return channel[:, None] * h * w + position, step.inputs[0][at], inside


def _windows(
    y: Int64[Tensor, " m"],
    x: Int64[Tensor, " m"],
    layer: nn.Module,
    size: tuple[int, int],
    output: tuple[int, int],
) -> tuple[Int64[Tensor, "m taps"], Bool[Tensor, "m taps"]]:
    """The window that each position of a layer's output was computed from: flat positions in a map
    of this size, and which of them are no padding."""
    axes = []
    for axis, at in enumerate((y, x)):
        if isinstance(layer, _ADAPTIVE):
            first, end = at * size[axis] // output[axis], -(-(at + 1) * size[axis] // output[axis])
            reach = torch.arange(-(-size[axis] // output[axis]) + 1, device=at.device)
            place = first[:, None] + reach
            inside = place < end[:, None]
        else:
            stride = layer.kernel_size if layer.stride is None else layer.stride
            kernel, stride, padding, dilation = (
                value if isinstance(value, int) else value[axis]
                for value in (layer.kernel_size, stride, layer.padding, _dilation(layer))
            )
            reach = torch.arange(kernel, device=at.device) * dilation
            place = at[:, None] * stride - padding + reach
            inside = (place >= 0) & (place < size[axis])
        axes.append((place.clamp(0, size[axis] - 1), inside))
    (rows, in_rows), (columns, in_columns) = axes
    position = rows[:, :, None] * size[1] + columns[:, None, :]
    return position.flatten(1), (in_rows[:, :, None] & in_columns[:, None, :]).flatten(1)


def _dilation(layer: nn.Module) -> int | tuple[int, int]:
    return getattr(layer, "dilation", 1)


def _started(start: Tensor, first: _Step, logits: Tensor) -> Nodes:
    """One path per image, from these units of the layer."""
    n, device = len(logits), logits.device
    start = start.to(device)
    if len(start) != n or start.ndim > 2 or start.is_floating_point():
        raise ValueError(f"{n} images need as many starts, whole numbers, not {list(start.shape)}")
    units = start[:, None] if start.ndim == 1 else start
    shape = (prod(first.shape),) if start.ndim == 1 else first.shape
    sizes = torch.tensor(shape, device=device)
    if units.shape[1] != len(shape) or not ((units >= 0) & (units < sizes)).all():
        raise ValueError(
            f"a start lies outside {first.name!r}, whose units are 0 to "
            f"{', '.join(str(k - 1) for k in shape)}; the starts reach from "
            f"{units.min(0).values.tolist()} to {units.max(0).values.tolist()}"
        )
    strides = torch.tensor([prod(shape[k + 1 :]) for k in range(len(shape))], device=device)
    index, ones = (units * strides).sum(1), logits.new_ones(n)
    return Nodes(first.shape, torch.arange(n, device=device), index, ones, ones.double())


def _merged(parts: Sequence[Nodes]) -> Nodes:
    """Every node once, its paths added up. The same node with another sign is another node."""
    image, index, sign, count = (
        torch.cat([getattr(part, name) for part in parts])
        for name in ("image", "index", "sign", "count")
    )
    each = prod(parts[0].shape)
    keys, which = torch.unique((image * each + index) * 2 + (sign > 0), return_inverse=True)
    count = count.new_zeros(len(keys)).index_add_(0, which, count)
    sign = (keys % 2 * 2 - 1).to(sign.dtype)
    return Nodes(parts[0].shape, keys // 2 // each, keys // 2 % each, sign, count)


def _moved(nodes: Nodes, index: Tensor, shape: tuple[int, ...]) -> Nodes:
    """The same paths at other places, in a layer of this shape."""
    return Nodes(shape, nodes.image, index, nodes.sign, nodes.count)


def _chunks(nodes: Nodes, products: int) -> Iterator[Nodes]:
    """The nodes in pieces of about `_AT_ONCE` products; one empty piece if there are none."""
    some = max(1, _AT_ONCE // products)
    for start in range(0, max(1, len(nodes)), some):
        yield nodes[start : start + some]


def _sign(activations: Tensor) -> Tensor:
    """What to look for below: what raised an activation, or, if it is below 0, what lowered it."""
    return torch.where(activations < 0, -1.0, 1.0).to(activations.dtype)


_ADAPTIVE = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_GATES = ("Sigmoid", "Hardsigmoid", "sigmoid", "hardsigmoid")
_MODULES: dict[type[nn.Module], Rule] = {
    nn.Linear: fully_connected,
    nn.Conv2d: convolution,
    nn.MaxPool2d: maximum,
    nn.AdaptiveMaxPool2d: maximum,
    nn.AvgPool2d: average,
    nn.AdaptiveAvgPool2d: average,
    nn.BatchNorm1d: affine,
    nn.BatchNorm2d: affine,
    nn.Flatten: rearrangement,
    nn.Unflatten: rearrangement,
    nn.ChannelShuffle: rearrangement,
    nn.PixelShuffle: rearrangement,
    nn.PixelUnshuffle: rearrangement,
}
# The last three fall a little below zero before they rise.
_MODULES |= dict.fromkeys(
    (nn.Identity, nn.Dropout, nn.Dropout2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU)
    + (nn.Tanh, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus, nn.Hardswish, nn.SiLU, nn.GELU),
    elementwise,
)
_FUNCTIONS: dict[str, Rule] = dict.fromkeys(
    ("relu", "relu6", "leaky_relu", "sigmoid", "hardsigmoid", "hardswish", "silu", "gelu", "tanh")
    + ("dropout", "stochastic_depth", "contiguous", "clone"),
    elementwise,
) | dict.fromkeys(
    ("flatten", "view", "reshape", "permute", "transpose", "unsqueeze", "squeeze", "getitem")
    + ("cat", "concat", "chunk", "split", "channel_shuffle", "pixel_shuffle"),
    rearrangement,
)
_POOLINGS = {
    "max_pool2d": nn.MaxPool2d,
    "avg_pool2d": nn.AvgPool2d,
    "adaptive_avg_pool2d": nn.AdaptiveAvgPool2d,
    "adaptive_max_pool2d": nn.AdaptiveMaxPool2d,
}
_LOOKING = (fully_connected, convolution, maximum, average, addition, product)


def _rule_of(
    model: nn.Module, node: fx.Node, inputs: Sequence[fx.Node], values: Mapping[fx.Node, Any]
) -> tuple[Rule | None, nn.Module | None]:
    """The rule for an operation, and its module, or for a function the module that does the same.

    An addition or a product of two maps is another thing than one with a constant.
    """
    if node.op == "call_module":
        module = model.get_submodule(node.target)
        if getattr(module, "running_mean", True) is None:  # its factors depend on the batch
            return None, module
        return next((_MODULES[t] for t in type(module).mro() if t in _MODULES), None), module
    name = _operation_name(node)
    kwargs = {k: v for k, v in node.kwargs.items() if k not in ("input", "return_indices")}
    if name in _POOLINGS:
        given = fx.node.map_arg((node.args[1:], kwargs), values.__getitem__)
        module = _POOLINGS[name](*given[0], **given[1])
        return _MODULES[type(module)], module
    if name == "mean":
        dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        both = isinstance(dims, tuple | list) and sorted(d % 4 for d in dims) == [2, 3]
        return (average, nn.AdaptiveAvgPool2d(1)) if both else (None, None)
    if "alpha" in node.kwargs:
        return None, None
    constant = [a for a in node.all_input_nodes if isinstance(values.get(a), Tensor)]
    if name in ("cat", "concat") and set(constant) - set(inputs):
        return None, None
    if name in ("add", "iadd", "mul", "imul") and len(inputs) == 2:
        return (addition if "add" in name else product), None
    divisor = name in ("truediv", "itruediv", "div") and node.args[0] not in inputs
    if name in _ARITHMETIC and len(inputs) == 1 and not divisor:
        return affine, None
    return _FUNCTIONS.get(name), None


_ARITHMETIC = ("add", "iadd", "sub", "isub", "mul", "imul", "truediv", "itruediv", "div", "neg")


def _names_of_rules() -> set[str]:
    named = {kind.__name__ for kind in _MODULES} | set(_FUNCTIONS) | set(_POOLINGS)
    return named | {"add", "sub", "mul", "div", "mean"}


# ---------------------------------------------------------------- what the pixels are good for


SHARP = 0.03  # of the Gaussian around pixels as maps are shown, share of the side (ours)


def attention(
    pixels: Float[Tensor, "n h w"], sigma: float, weigh: bool = True
) -> Float[Tensor, "n h w"]:
    """A Gaussian around each important pixel, added up (section IV-A, Fig. 8).

    Args:
        pixels: how many paths end at each, see `backtrack`.
        sigma: standard deviation, pixels. The paper does not say which it took.
        weigh: each pixel as often as paths end there; else each pixel once.

    Returns:
        Maps in [0, 1], the maximum of each is 1; an image without paths gives zeros.

    Raises:
        ValueError: no positive sigma.
    """
    if not sigma > 0:
        raise ValueError(f"a Gaussian needs a positive standard deviation, not {sigma}")
    maps = pixels if weigh else (pixels > 0)
    maps = (maps / maps.amax((1, 2), keepdim=True).clamp(min=1)).float()
    bells = []
    for side in maps.shape[1:]:  # a Gaussian is one along the rows times one along the columns
        place = torch.arange(side, device=maps.device, dtype=maps.dtype)
        bells.append(torch.exp(-(((place[:, None] - place) / sigma) ** 2) / 2))
    maps = bells[0] @ maps @ bells[1]
    peak = maps.amax((1, 2), keepdim=True)
    return maps / torch.where(peak > 0, peak, 1.0)


def without_strays(
    pixels: Float[Tensor, "n h w"], share: float = 0.05, radius: float = 0.1
) -> Float[Tensor, "n h w"]:
    """Only the pixels in company: others drop out if at most this share of an image's important
    pixels lies within the radius around them (CNN-Fixations, section 3).

    Args:
        share: of the distinct pixels, itself included.
        radius: in diagonals of the image.
    """
    h, w = pixels.shape[1:]
    reach = radius * (h * h + w * w) ** 0.5
    steps = torch.arange(-int(reach), int(reach) + 1, device=pixels.device)
    disk = (steps[:, None] ** 2 + steps**2 <= reach**2).float()
    points = (pixels > 0).float()
    near = F.conv2d(points[:, None], disk[None, None], padding="same")[:, 0]
    return pixels * (near.round() > share * points.sum((1, 2), keepdim=True))


def bounding_box(pixels: Float[Tensor, "n h w"]) -> Int64[Tensor, "n 4"]:
    """The box around the extreme important pixels (section IV): x0, y0, x1, y1, half open.

    All zeros for an image without any.
    """
    box = []
    for along in (1, 2):  # columns, then rows
        hit = (pixels > 0).any(along).long()
        first, last = hit.argmax(1), hit.shape[1] - hit.flip(1).argmax(1)
        box.append(torch.stack([first, last], 1) * hit.any(1, keepdim=True))
    return torch.stack([box[0][:, 0], box[1][:, 0], box[0][:, 1], box[1][:, 1]], 1)


def cells(nodes: Nodes, n: int, size: tuple[int, int]) -> tuple[Float64[Tensor, "n r c"], Tensor]:
    """Fig. 2: paths through each position of a layer of maps, and the box of the first position.

    The image is split into as many equal boxes as the layer has positions; x0, y0, x1, y1 in
    pixels, half open. The paper shows the box of "the top responsible node"; here the position
    that most paths pass.
    """
    paths = nodes.dense(n).sum(1)
    rows, columns = paths.shape[1:]
    top = paths.flatten(1).argmax(1)
    y, x = top // columns, top % columns
    high, wide = size[0] / rows, size[1] / columns
    corners = (x * wide, y * high, (x + 1) * wide, (y + 1) * high)
    return paths, torch.stack([corner.round().long() for corner in corners], 1)
