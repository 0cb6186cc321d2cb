"""The description network: an encoder of the scan, and a decoder that writes a sentence a topic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbs.description.grammar import CHOICES, LONGEST, TOKENS, WAYS
from rbs.description.sentences import SENTENCES
from rbs.restorers.semantic_features import STRIDE, SemanticNetwork
from rbs.utils.checkpoint import describe

PLACES = 5
"""Channels that say where a cell lies, and whether it was scanned."""

_CELLS = 1024
"""Cells that a head sums up at first as if they were one: a single cell can stand out then."""
_SMALL = 0.2
"""Standard deviation of tokens and positions at first: the scan has a part in every word."""
_NEVER = -1e4


class Describer(nn.Module):
    r"""A network from whole scans to the probability of every sentence of the grammar.

    The encoder's features (`rbs.restorers.semantic_features`), and where each of their cells lies,
    pass through two linear layers: the memory. The decoder is given the beginning of a sentence,
    the token of its topic and the words so far, reads the memory, and says how probable each word
    is that the grammar lets follow. Its heads sum over cells rather than average (Ramapuram et al.,
    "Theory, Analysis, and Best Practices for Sigmoid Self-Attention", arXiv 2409.04431),

    .. math::
        a = \sum_j \sigma(q^T k_j / \sqrt d + b)\, v_j ,

    so that two foci are more than one. The grammar is small enough for every sentence to be rated:
    the likeliest one is found without search, and its probability is exact.

    Args:
        channels: Of the encoder, see `SemanticNetwork`.
        blocks: Likewise.
        heads: Heads of the attention; they divide the channels.
        layers: Times that the decoder reads the memory.

    Raises:
        ValueError: An argument is out of range.

    Attributes:
        encoder: The encoder.
        temperature: Divisor of the logits of each choice, fitted after the training.
    """

    def __init__(
        self,
        channels: Sequence[int] = (24, 40, 64),
        blocks: Sequence[int] = (0, 2, 3),
        heads: int = 4,
        layers: int = 2,
    ) -> None:
        super().__init__()
        self.encoder = SemanticNetwork(channels, blocks)
        width = self.encoder.feature_channels
        if not 1 <= layers <= 16 or heads < 1 or width % heads:
            raise ValueError(f"{layers} layers, {heads} heads of {width} channels")
        self.channels, self.blocks = self.encoder.channels, self.encoder.blocks
        self.heads, self.layers = heads, layers
        # Features are larger than places, which would be lost among them.
        self.feature_norm = nn.LayerNorm(width)
        self.memory = nn.Sequential(
            nn.Linear(width + PLACES, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.LayerNorm(width)
        )
        self.tokens = nn.Embedding(len(TOKENS), width)
        nn.init.normal_(self.tokens.weight, std=_SMALL)
        self.positions = nn.Parameter(_SMALL * torch.randn(LONGEST, width))
        self.beginning = _Averaging(width, heads)
        self.reading = nn.ModuleList(_Summing(width, heads) for _ in range(layers))
        self.state_norm = nn.LayerNorm(width)
        self.words = nn.Linear(width, len(TOKENS))
        self.temperature: Tensor
        self.starts: Tensor
        self.lengths: Tensor
        self.allowed: Tensor
        self.ways: Tensor
        self.taken: Tensor
        self.register_buffer("temperature", torch.ones(len(CHOICES)))
        # All below is the grammar's and no weight.
        starts, lengths, allowed = _choices()
        self.register_buffer("starts", starts, persistent=False)
        self.register_buffer("lengths", lengths, persistent=False)
        self.register_buffer("allowed", allowed, persistent=False)
        places, taken = _ways()
        self.register_buffer("ways", places, persistent=False)
        self.register_buffer("taken", taken, persistent=False)

    def encode(self, x: Tensor, exposure: Tensor) -> Tensor:
        """Features of the encoder and places, (B, C + 5, h, w); arguments as of `forward`."""
        return encode(self.encoder, x, exposure)

    def word_logits(self, encoded: Tensor) -> Tensor:
        """Logits of all tokens at each choice, (B, N, V), before temperatures, from `encode`."""
        return self.read(encoded)[0]

    def read(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of all tokens at each choice, and how much its first head looks at each cell.

        Args:
            encoded: Of `encode`, (B, C + 5, h, w).

        Returns:
            (B, N, V), before temperatures; and logits of weights, (B, N, h w).
        """
        given, scanned = encoded.flatten(2).transpose(1, 2), encoded[:, -1].flatten(1)
        features, places = given[..., :-PLACES], given[..., -PLACES:]
        cells = self.memory(torch.cat([self.feature_norm(features), places], 2))
        words = self.tokens(self.starts) + self.positions
        there = torch.arange(LONGEST, device=words.device) < self.lengths[:, None]
        begun = self.beginning(words, there)
        last = begun[torch.arange(len(begun), device=words.device), self.lengths - 1]
        state = last[None].expand(len(cells), -1, -1)
        looks = []
        for layer in self.reading:
            state, look = layer(state, cells, scanned)
            looks.append(look)
        return self.words(self.state_norm(state)).float(), looks[0]

    def rated(self, logits: Tensor, temperature: Tensor) -> Tensor:
        """Logarithm of the probability of each sentence of `SENTENCES` within its topic, (B, S).

        Args:
            logits: Of all tokens at each choice, (B, N, V).
            temperature: Of each choice, (N,).
        """
        allowed = torch.where(self.allowed, logits / temperature[:, None], _NEVER)
        chances = allowed.softmax(dim=2).clamp(min=1e-12).log()
        written = chances.flatten(1)[:, self.ways.flatten()].unflatten(1, tuple(self.ways.shape))
        return (written * self.taken).sum(dim=2)

    def forward(self, x: Tensor, exposure: Tensor) -> Tensor:
        """Logarithm of the probability of each sentence within its topic, (B, S).

        Args:
            x: Counts of coarse pixels at standard scale, (B, 2, H, W), aligned, of whole scans; a
                scan of one view is given twice.
            exposure: Exposure relative to the standard scan, (B,).
        """
        return self.rated(self.word_logits(self.encode(x, exposure)), self.temperature)

    def spec(self) -> dict[str, Any]:
        """Class path and arguments to build it again, untrained: {"class_path", "init_args"}."""
        return describe(self)


class _Layer(nn.Module):
    """Attention of several heads, and two linear layers; both are added to the state."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.mix = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def match(self, state: Tensor, given: Tensor) -> Tensor:
        """How well each of (B, N, C) and each of (B, M, C) match, (B, heads, N, M)."""
        query, key = self._split(self.query(self.norm(state))), self._split(self.key(given))
        return query @ key.transpose(2, 3) * self.scale

    def added(self, state: Tensor, weights: Tensor, given: Tensor) -> Tensor:
        """The state (B, N, C) after reading (B, M, C) by weights (B, heads, N, M)."""
        read = (weights @ self._split(self.value(given))).transpose(1, 2).flatten(2)
        state = state + self.out(read)
        mixed: Tensor = state + self.mix(self.second_norm(state))
        return mixed

    def _split(self, values: Tensor) -> Tensor:
        """(B, N, C) by heads, (B, heads, N, C / heads)."""
        return values.unflatten(2, (self.heads, -1)).transpose(1, 2)


class _Averaging(_Layer):
    """Attention by means, over the words of a beginning."""

    def forward(self, words: Tensor, there: Tensor) -> Tensor:
        """Words (N, L, C) after reading those of each other that are `there`, (N, L)."""
        match = torch.where(there[:, None, None], self.match(words, words), _NEVER)
        return self.added(words, match.softmax(dim=-1), words)


class _Summing(_Layer):
    """Attention by sums, over the cells of a memory."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.bias = nn.Parameter(torch.full((heads, 1, 1), -math.log(_CELLS)))

    def forward(self, state: Tensor, cells: Tensor, scanned: Tensor) -> tuple[Tensor, Tensor]:
        """The state (B, N, C) after reading cells (B, M, C), those where `scanned` (B, M) is 1.

        Returns:
            The state; and logits of the weights of the first head, (B, N, M).
        """
        match = self.match(state, cells) + self.bias
        return self.added(state, match.sigmoid() * scanned[:, None, None], cells), match[:, 0].float()


def encode(encoder: SemanticNetwork, x: Tensor, exposure: Tensor) -> Tensor:
    """Features of an encoder and places, (B, C + 5, h, w), of counts as `SemanticNetwork` takes."""
    features = encoder.features(x, exposure)
    return torch.cat([features, places_of(x).to(features)], 1)


def places_of(x: Tensor) -> Tensor:
    """Where each cell of scans (B, V, H, W) lies, (B, 5, h, w).

    In standard deviations from the mean place of the roots of counts, rows and columns; in cells
    from that mean row, and in cells from the middle column of the scan; and 1 where a view counted
    anything.
    """
    height, width = x.shape[-2:]
    rows, columns = ((side + STRIDE - 1) // STRIDE for side in (height, width))
    with torch.autocast(x.device.type, enabled=False):
        margins = (0, columns * STRIDE - width, 0, rows * STRIDE - height)
        padded = F.pad(x.detach().float().sum(dim=1, keepdim=True), margins)
        counts = F.avg_pool2d(padded, STRIDE)[:, 0].clamp(min=0)
        weight = counts.sqrt()
        weight = weight / weight.sum(dim=(1, 2), keepdim=True).clamp(min=1e-6)
        row = torch.arange(rows, device=x.device, dtype=torch.float32)
        column = torch.arange(columns, device=x.device, dtype=torch.float32)
        down, row_spread = _standard(weight.sum(dim=2), row)
        across, column_spread = _standard(weight.sum(dim=1), column)
        aside = column - (width / STRIDE - 1) / 2
        ones = torch.ones_like(weight)
        each = [
            (down / row_spread)[:, :, None] * ones,
            (across / column_spread)[:, None] * ones,
            down[:, :, None] / 16 * ones,
            aside / 4 * ones,
            (counts > 0).float(),
        ]
        return torch.stack(each, dim=1)


def _standard(marginal: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Distance from the mean place, (B, n), and the standard deviation of places, (B, 1)."""
    away = place - (marginal * place).sum(dim=1, keepdim=True)
    return away, (marginal * away**2).sum(dim=1, keepdim=True).sqrt().clamp(min=1)


def _choices() -> tuple[Tensor, Tensor, Tensor]:
    """Beginnings (N, L), their lengths (N,), and tokens that may follow, bool (N, V)."""
    starts = torch.zeros(len(CHOICES), LONGEST, dtype=torch.long)
    allowed = torch.zeros(len(CHOICES), len(TOKENS), dtype=torch.bool)
    for number, choice in enumerate(CHOICES):
        starts[number, : len(choice.beginning)] = torch.tensor(choice.beginning)
        allowed[number, list(choice.options)] = True
    return starts, torch.tensor([len(choice.beginning) for choice in CHOICES]), allowed


def _ways() -> tuple[Tensor, Tensor]:
    """Choice and token as one number on the way of each sentence, (S, K); 1 where one is."""
    most = max(len(way) for way in WAYS)
    ways, taken = (torch.zeros(len(SENTENCES), most, dtype=kind) for kind in (torch.long, torch.float32))
    for number, way in enumerate(WAYS):
        for step, (choice, token) in enumerate(way):
            ways[number, step], taken[number, step] = choice * len(TOKENS) + token, 1
    return ways, taken
