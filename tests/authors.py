"""Small models with the parameter names of the authors' checkpoints, written from the papers' formulas."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def randomised(model: nn.Module, seed: int = 5) -> nn.Module:
    """Every parameter far from zero and from its start, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = 0.3 * noise + (parameter.dim() == 1) * 0.5
    return model.eval()


class Mona(nn.Module):
    """Mona with one module for each step, as published."""

    def __init__(self, dim: int, width: int = 4) -> None:
        super().__init__()
        self.project1, self.project2 = nn.Linear(dim, width), nn.Linear(width, dim)
        self.norm = nn.LayerNorm(dim)
        self.gamma, self.gammax = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.ones(dim))
        self.adapter_conv = nn.Module()
        for number, size in enumerate((3, 5, 7), 1):
            conv = nn.Conv2d(width, width, size, padding=size // 2, groups=width)
            setattr(self.adapter_conv, f'conv{number}', conv)
        self.adapter_conv.projector = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        y = self.project1(self.norm(x) * self.gamma + x * self.gammax)
        y = y.reshape(len(x), height, width, -1).permute(0, 3, 1, 2)
        convs = self.adapter_conv
        y = y + (convs.conv1(y) + convs.conv2(y) + convs.conv3(y)) / 3
        y = y + convs.projector(y)
        return x + self.project2(F.gelu(y.permute(0, 2, 3, 1).flatten(1, 2)))


def add_ssf(module: nn.Module, *dims: int) -> None:
    for number, dim in enumerate(dims, 1):
        for leaf in ('scale', 'shift'):
            module.register_parameter(f'ssf_{leaf}_{number}', nn.Parameter(torch.ones(dim)))


def ssf(module: nn.Module, number: int, x: Tensor) -> Tensor:
    if not hasattr(module, f'ssf_scale_{number}'):
        return x
    return x * getattr(module, f'ssf_scale_{number}') + getattr(module, f'ssf_shift_{number}')


class Mlp(nn.Module):
    def __init__(self, dim: int, with_ssf: bool, ratio: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, ratio * dim), nn.Linear(ratio * dim, dim)
        if with_ssf:
            add_ssf(self, ratio * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return ssf(self, 2, self.fc2(F.gelu(ssf(self, 1, self.fc1(x)))))


class Attention(nn.Module):
    """Self-attention, with ``bias`` (heads, N, N) added to the logits."""

    def __init__(self, dim: int, heads: int, with_ssf: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        if with_ssf:
            add_ssf(self, 3 * dim, dim)

    def forward(self, x: Tensor, bias: Tensor | float = 0.0) -> Tensor:
        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in ssf(self, 1, self.qkv(x)).chunk(3, -1))
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias
        return ssf(self, 2, self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)))


class SwinBlock(nn.Module):
    """A block of windows as attention over the whole map, masked to pairs of one window and one side of the seam."""

    def __init__(self, dim: int, heads: int, window: int, shift: int, method: str) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = Attention(dim, heads, method == 'SSF')
        self.attn.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        place = torch.cartesian_prod(torch.arange(window), torch.arange(window))
        offset = place[:, None] - place[None] + window - 1
        self.attn.register_buffer('relative_position_index', offset[..., 0] * (2 * window - 1) + offset[..., 1])
        if shift:
            self.register_buffer('attn_mask', torch.zeros(4, window**2, window**2))
        self.mlp = Mlp(dim, method == 'SSF', 4)
        if method == 'SSF':
            add_ssf(self, dim, dim)
        if method == 'Mona':
            self.my_module_1, self.my_module_2 = Mona(dim), Mona(dim)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        y = ssf(self, 1, self.norm1(x)).unflatten(1, (height, width))
        w, s = self.window, self.shift
        y = F.pad(y, (0, 0, 0, -width % w, 0, -height % w)).roll((-s, -s), (1, 2))
        rows, cols = y.shape[1:3]
        y = self.attn(y.flatten(1, 2), self.bias(rows, cols)).unflatten(1, (rows, cols)).roll((s, s), (1, 2))
        x = x + y[:, :height, :width].flatten(1, 2)
        x = self.my_module_1(x, height, width) if hasattr(self, 'my_module_1') else x
        x = x + self.mlp(ssf(self, 2, self.norm2(x)))
        return self.my_module_2(x, height, width) if hasattr(self, 'my_module_2') else x

    def bias(self, rows: int, cols: int) -> Tensor:
        w, s = self.window, self.shift
        place = torch.cartesian_prod(torch.arange(rows), torch.arange(cols))
        offset = (place[:, None] - place[None]).clamp(1 - w, w - 1) + w - 1
        bias = self.attn.relative_position_bias_table[offset[..., 0] * (2 * w - 1) + offset[..., 1]].movedim(-1, 0)
        side = (place >= torch.tensor([rows, cols]) - s) * (s > 0)
        group = torch.cat((place // w, side), 1)
        together = (group[:, None] == group[None]).all(-1)
        return bias.masked_fill(~together, -torch.inf)


class PatchMerging(nn.Module):
    """The Swin authors' own order: the four patches of a window, column by column, one after the other."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        x = x.unflatten(1, (height, width))
        x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        parts = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return self.reduction(ssf(self, 1, self.norm(torch.cat(parts, -1).flatten(1, 2))))


class MicrosoftSwin(nn.Module):
    """Swin with a norm for each output, or with one norm and a head."""

    def __init__(self, method: str, classes: int = 0) -> None:
        super().__init__()
        dims, depths, heads, window = (8, 16, 32, 64), (1, 2, 1, 1), (1, 1, 2, 2), 2
        self.patch_embed = nn.Module()
        self.patch_embed.proj, self.patch_embed.norm = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8)
        self.layers = nn.ModuleList(nn.Module() for _ in dims)
        for i, (layer, dim) in enumerate(zip(self.layers, dims, strict=True)):
            blocks = (SwinBlock(dim, heads[i], window, k % 2 * window // 2, method) for k in range(depths[i]))
            layer.blocks = nn.ModuleList(blocks)
            if i < 3:
                layer.downsample = PatchMerging(dim)
        if classes:
            self.norm, self.head = nn.LayerNorm(64), nn.Linear(64, classes)
        else:
            for i, dim in enumerate(dims):
                setattr(self, f'norm{i}', nn.LayerNorm(dim))
        if method == 'SSF':
            add_ssf(self.patch_embed, 8, 8)
            add_ssf(self, 64)

    def maps(self, x: Tensor) -> list[Tensor]:
        """The last tokens of each stage, normed where there is a norm for them, as maps."""
        x = self.patch_embed.proj(x)
        height, width = x.shape[2:]
        x = ssf(self.patch_embed, 1, x.flatten(2).transpose(1, 2))
        x = ssf(self.patch_embed, 2, self.patch_embed.norm(x))
        maps = []
        for i, layer in enumerate(self.layers):
            for block in layer.blocks:
                x = block(x, height, width)
            last = i == len(self.layers) - 1
            own = getattr(self, f'norm{i}', getattr(self, 'norm', None) if last else None)
            out = F.layer_norm(x, x.shape[-1:]) if own is None else own(x)
            out = ssf(self, 1, out) if last else out
            maps.append(out.transpose(1, 2).unflatten(2, (height, width)))
            if not last:
                x = layer.downsample(x, height, width)
                height, width = (height + 1) // 2, (width + 1) // 2
        return maps

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.maps(x)[-1].mean((2, 3)))


class Cross(nn.Module):
    """CVPT's cross-attention with four layers of its own."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor, prompts: Tensor) -> Tensor:
        q, k, v = (
            layer(t).unflatten(-1, (self.heads, -1)).transpose(-2, -3)
            for layer, t in ((self.q, x), (self.k, prompts), (self.v, prompts))
        )
        scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
        return self.proj((scores @ v).transpose(1, 2).flatten(2))

    def copy(self, weight: Tensor, bias: Tensor, out: nn.Linear) -> None:
        """Take the values of a self-attention whose rows are those of the queries, keys and values."""
        for layer, part, shift in zip((self.q, self.k, self.v), weight.chunk(3), bias.chunk(3), strict=True):
            layer.weight.data, layer.bias.data = part.detach().clone(), shift.detach().clone()
        self.proj.load_state_dict(out.state_dict())


class TimmViT(nn.Module):
    """ViT as in timm, with SSF or with CVPT."""

    def __init__(self, method: str, classes: int = 5) -> None:
        super().__init__()
        dim, heads, depth = 16, 2, 3
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 17, dim))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, dim, 16, 16)
        self.blocks = nn.ModuleList(nn.Module() for _ in range(depth))
        for block in self.blocks:
            block.norm1, block.norm2 = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
            block.attn, block.mlp = Attention(dim, heads, method == 'SSF'), Mlp(dim, method == 'SSF', 2)
            if method == 'SSF':
                add_ssf(block, dim, dim)
            else:
                block.cross = Cross(dim, heads)
        self.norm, self.head = nn.LayerNorm(dim, 1e-6), nn.Linear(dim, classes)
        if method == 'SSF':
            add_ssf(self.patch_embed, dim)
            add_ssf(self, dim)
        else:
            self.Prompt_Tokens = nn.Parameter(torch.zeros(depth, 6, dim))

    def copy_attention(self) -> None:
        """Give each cross-attention the weights of its block's self-attention, as the authors' loader does."""
        for block in self.blocks:
            block.cross.copy(block.attn.qkv.weight, block.attn.qkv.bias, block.attn.proj)

    def tokens(self, x: Tensor) -> Tensor:
        x = ssf(self.patch_embed, 1, self.patch_embed.proj(x).flatten(2).transpose(1, 2))
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1) + self.pos_embed
        for i, block in enumerate(self.blocks):
            x = x + block.attn(ssf(block, 1, block.norm1(x)))
            x = x + block.cross(x, self.Prompt_Tokens[i]) if hasattr(block, 'cross') else x
            x = x + block.mlp(ssf(block, 2, block.norm2(x)))
        return ssf(self, 1, self.norm(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.tokens(x)[:, 0])
