"""QANet: reading comprehension by convolutions and self-attention, with nothing pretrained.

Yu et al. 2018, "QANet: Combining Local Convolution with Global Self-Attention for Reading Comprehension" (arXiv
1804.09541), section 2.2; its five layers are the classes below, from the first to the last. What is different here:

- Word vectors are learnt with the rest, from chance; the paper's are GloVe's, from 840 billion tokens, and fixed.
- The document begins with a mark that stands for "no answer", and the question ends with one.
- Stochastic depth divides what survives by its probability, where Huang et al. 2016 multiply at prediction.
- Characters are dropped alike wherever a word stands in a batch: each distinct word is spelt out once.
- Start and end begin as an even guess: their weights are 0. The paper does not say how it begins.

Legend: B rows, L positions a row, T tokens of all rows, N questions, C places of the longest document, Q of the longest
question, K either; W distinct words, V words in all, E width of an embedded word, D width.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pluri.batches.batch import Batch
from pluri.batches.example import IGNORE
from pluri.models.attention import Layout, SelfAttention
from pluri.models.blocks import FeedForward
from pluri.models.config import ModelConfig
from pluri.models.dropout import dropout
from pluri.models.heads import Model
from pluri.models.norms import build_norm
from pluri.models.positions import rotary_frequencies

# Section 4.1.1, "Training details", save the kernel over characters, which is that of Seo et al. 2017 (BiDAF), 2.
_WORD_WIDTH, _CHARACTER_WIDTH, _CHARACTER_KERNEL = 300, 200, 5
_WORD_DROPOUT, _CHARACTER_DROPOUT, _DROPOUT = 0.1, 0.05, 0.1
_LAST_SURVIVAL = 0.9
_PASSES = 3


class WordEmbedding(nn.Module):
    """Layer 1: a vector of the word and one of its spelling through a highway of two layers, mapped to the width.

    The spelling is a convolution over characters and its largest value in each channel (Kim 2014).
    """

    vectors: Tensor
    characters: Tensor

    def __init__(self, num_vectors: int, num_characters: int, width: int) -> None:
        super().__init__()
        embedded = _WORD_WIDTH + _CHARACTER_WIDTH
        self.words = nn.Embedding(num_vectors, _WORD_WIDTH)
        self.letters = nn.Embedding(num_characters, _CHARACTER_WIDTH)
        self.spelling = nn.Conv1d(_CHARACTER_WIDTH, _CHARACTER_WIDTH, _CHARACTER_KERNEL, padding="same")
        self.gates = nn.ModuleList(nn.Linear(embedded, embedded) for _ in range(2))
        self.changes = nn.ModuleList(nn.Linear(embedded, embedded) for _ in range(2))
        self.projection = nn.Linear(embedded, width)

    def forward(self, ids: Tensor) -> Tensor:
        """ids: words, (T,). Returns (T, D)."""
        distinct, which = ids.unique(return_inverse=True)
        letters = self.letters(self.characters[distinct]).transpose(1, 2)  # (W, channels, characters)
        words = self.words(self.vectors[ids])
        if self.training:
            letters, words = dropout(letters, _CHARACTER_DROPOUT), dropout(words, _WORD_DROPOUT)
        spelt = F.relu(self.spelling(letters)).amax(2)  # (W, channels)
        x = torch.cat([words, spelt[which]], dim=1)  # (T, E)
        for gate, change in zip(self.gates, self.changes, strict=True):  # Srivastava et al. 2015, equation 3
            x = torch.lerp(x, F.relu(change(x)), torch.sigmoid(gate(x)))
        return self.projection(x)


class SeparableConvolution(nn.Module):
    """Each channel by itself over `kernel` places, then all channels of a place together (Chollet 2017)."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        # Conv1d takes 4.0 ms on a CPU for 8 x 200 places of 128 channels, forward and backward; an image one row high
        # takes 1.6.
        self.depthwise = nn.Conv2d(width, width, (1, kernel), padding="same", groups=width, bias=False)
        self.pointwise = nn.Linear(width, width)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """x: (N, K, D) to (N, K, D). inside: bool (N, K); what is outside counts as 0."""
        x = (x * inside.unsqueeze(2)).transpose(1, 2).unsqueeze(2)  # (N, D, 1, K)
        return F.relu(self.pointwise(self.depthwise(x).squeeze(2).transpose(1, 2)))


class EncoderBlock(nn.Module):
    """Layers 2 and 4 are stacks of these: convolutions, self-attention, feed-forward, each layernorm -> it -> added.

    survival: the probability of each of these sub-layers to be there in a training step (`survivals`).
    """

    def __init__(self, config: ModelConfig, num_convolutions: int, kernel: int, survival: Sequence[float]) -> None:
        super().__init__()
        width = config.hidden_size
        self.convolutions = nn.ModuleList(SeparableConvolution(width, kernel) for _ in range(num_convolutions))
        self.attention = SelfAttention(config)
        self.ffn = FeedForward(config)
        self.norms = nn.ModuleList(build_norm(config, width) for _ in range(num_convolutions + 2))
        self.survival = tuple(survival)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """x: (N, K, D) to (N, K, D). inside: bool (N, K), where words are."""
        layout = Layout(inside[:, None, None], None)  # (N, 1, 1, K)
        layers: list[Callable[[Tensor], Tensor]] = [partial(layer, inside=inside) for layer in self.convolutions]
        layers += [partial(self.attention, layout=layout), self.ffn]
        x = x + sinusoids(x)
        for norm, layer, survival in zip(self.norms, layers, self.survival, strict=True):
            if not self.training:
                x = x + layer(norm(x))
            elif torch.rand(()) < survival:
                x = x + dropout(layer(norm(x)), _DROPOUT) / survival
        return x


def survivals(num_blocks: int, num_layers: int) -> list[list[float]]:
    """1 - l / L (1 - 0.9) for sub-layer l of the L in a stack (section 2.2, after Huang et al. 2016), by block."""
    last = num_blocks * num_layers
    flat = [1 - layer / last * (1 - _LAST_SURVIVAL) for layer in range(1, last + 1)]
    return [flat[first : first + num_layers] for first in range(0, last, num_layers)]


def sinusoids(x: Tensor) -> Tensor:
    """Positions (K, D) for x, (N, K, D) (Vaswani et al. 2017, section 3.5; sines in the first half of the channels)."""
    _, length, width = x.shape
    angles = torch.arange(length, device=x.device)[:, None] * rotary_frequencies(width, 10_000.0, x.device)
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(x.dtype)


class ContextQueryAttention(nn.Module):
    """Layer 3: what each place of a document finds in the question, and through it in the document (Xiong et al. 2017).

    The similarity of document c and question q is trilinear: w . [c, q, c * q] (Seo et al. 2017).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3, width))

    def similarity(self, document: Tensor, question: Tensor) -> Tensor:
        """document: (N, C, D). question: (N, Q, D). Returns (N, C, Q)."""
        of_document, of_question, of_both = self.weight
        both = (document * of_both) @ question.transpose(1, 2)  # (N, C, Q)
        return both + (document @ of_document).unsqueeze(2) + (question @ of_question).unsqueeze(1)

    def forward(self, document: Tensor, inside: Tensor, question: Tensor, asked: Tensor) -> Tensor:
        """inside: bool (N, C), asked: bool (N, Q), where words are. Returns [c, a, c * a, c * b], (N, C, 4D)."""
        scores = self.similarity(document, question)
        to_question = scores.masked_fill(~asked[:, None, :], -torch.inf).softmax(2)
        to_document = scores.masked_fill(~inside[:, :, None], -torch.inf).softmax(1)
        a = to_question @ question  # (N, C, D)
        b = to_question @ (to_document.transpose(1, 2) @ document)  # (N, C, D)
        return torch.cat([document, a, document * a, document * b], dim=2)


class SpanHead(nn.Module):
    """Layer 5: the start from the first and second pass of the model encoder, the end from the first and third."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.start = nn.Linear(2 * width, 1, bias=False)
        self.end = nn.Linear(2 * width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., 3D) to logits (..., 2)."""
        first, second, third = x.chunk(_PASSES, dim=-1)
        start, end = self.start(torch.cat([first, second], -1)), self.end(torch.cat([first, third], -1))
        return torch.cat([start, end], -1)


class QANet(Model):
    """A Model in all that training and decoding of answers ask of one: `config`, `hidden`, and the head "answer".

    vectors: int64 (V,), the vector of each word; rarer words may share one. characters: int64 (V, 16), its spelling.
    blocks: of the model encoder; 7 in the paper. num_heads: 8 there. width: 128 there, a multiple of `num_heads`.
    max_length: of question and document together, which come in windows as `AnswerExamples` makes them: in a batch
        the first position and the document are labelled, and the question has token type 0.
    seed: of the initial values, which come from their own generator.
    """

    def __init__(
        self,
        vectors: NDArray[np.int64],
        characters: NDArray[np.int64],
        *,
        blocks: int = 7,
        width: int = 128,
        num_heads: int = 8,
        max_length: int = 512,
        seed: int = 0,
    ) -> None:
        nn.Module.__init__(self)  # none of a Transformer's parts
        shape = {"family": "modern", "vocab_size": len(vectors), "max_length": max_length, "num_layers": blocks}
        shape |= {"hidden_size": width, "intermediate_size": width, "num_heads": num_heads}
        self.config = ModelConfig.parse(shape | {"activation": "relu", "pre_norm": True})
        self.num_classes, self.new_heads = {"answer": 2}, ("answer",)
        with torch.device("meta"):  # no draw from the global generator
            self.embedding = WordEmbedding(int(vectors.max()) + 1, int(characters.max()) + 1, width)
            (survival,) = survivals(1, 4 + 2)
            self.encoder = EncoderBlock(self.config, 4, 7, survival)
            self.attention = ContextQueryAttention(width)
            self.resizer = nn.Linear(4 * width, width)
            self.blocks = nn.ModuleList(EncoderBlock(self.config, 2, 5, each) for each in survivals(blocks, 2 + 2))
            self.heads = nn.ModuleDict({"answer": SpanHead(width)})
        self.to_empty(device="cpu")
        _initialize(self, seed)
        for name, table in {"vectors": vectors, "characters": characters}.items():
            self.embedding.register_buffer(name, torch.from_numpy(table))

    def hidden(self, batch: Batch, at: Tensor | None = None) -> Tensor:
        """The three passes of the model encoder beside each other, (B, L, 3D), or at the flat positions `at` (P, 3D).

        0 outside of the documents.
        """
        assert batch.labels is not None
        places, count = batch.places, len(batch.lengths)  # (T,), N
        owner = torch.repeat_interleave(torch.arange(count, device=places.device), batch.lengths)  # (T,)
        in_document = batch.labels.flatten()[places] != IGNORE
        in_question = ~in_document & (batch.token_type_ids.flatten()[places] == 0)
        x = self.embedding(batch.input_ids.flatten()[places])  # (T, D)
        document, inside = _laid_out(x[in_document], owner[in_document], count)
        question, asked = _laid_out(x[in_question], owner[in_question], count)
        document, question = self.encoder(document, inside), self.encoder(question, asked)
        x = self.resizer(self.attention(document, inside, question, asked))  # (N, C, D)
        passes = []
        for _ in range(_PASSES):
            for block in self.blocks:
                x = block(x, inside)
            passes.append(x[inside])
        found = torch.cat(passes, dim=1)  # (places in documents, 3D)
        flat = found.new_zeros(batch.input_ids.numel(), found.shape[1])
        flat = flat.index_copy(0, places[in_document], found)
        return flat.view(*batch.input_ids.shape, -1) if at is None else flat.index_select(0, at)


def _laid_out(x: Tensor, owner: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """A row for each of `count` sequences: (N, K, D), and bool (N, K) where it is filled. owner: ascending."""
    lengths = torch.bincount(owner, minlength=count)
    inside = torch.arange(int(lengths.max()), device=x.device) < lengths[:, None]  # (N, K)
    return x.new_zeros(*inside.shape, x.shape[1]).masked_scatter(inside.unsqueeze(2), x), inside


@torch.no_grad()
def _initialize(model: QANet, seed: int) -> None:
    """Normal values, each matrix by its fan-in; the span's own weights 0."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if isinstance(module, nn.LayerNorm):
            module.weight.fill_(1.0)
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(generator=generator)
        elif isinstance(weight, nn.Parameter):
            weight.normal_(0.0, weight[0].numel() ** -0.5, generator=generator)
        if isinstance(bias, nn.Parameter):
            bias.zero_()
    for output in model.heads["answer"].children():
        output.get_parameter("weight").zero_()
