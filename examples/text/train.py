# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "numpy==2.4.6",
#   "onnx==1.23.2",
#   "torch==2.15.0",
# ]
# ///
# mypy: disable-error-code="import-not-found, import-untyped, misc, no-untyped-call"
# (torch is no dependency of Penstock, so a checker without it sees Any here.)
"""Makes the texts of the text example, trains a small network to sort them, and writes both.

A text is a short message to a shop that wants one thing and, most often, says what it does not want: "hello i do not
mean pay by card but my parcel is late". Which is which is told by the words around it, so the order matters. Words are
left out or misspelt at random, so no model gets all of them right.

Written are ``model.onnx``, ``words.json`` (the number of each word; 0 fills a text up, 1 is any unknown word),
``eval.npz`` and ``calibration.npz``. CPU only, one thread, some minutes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

SEED = 1
LENGTH = 32
WIDTH = 128
TRAINING_SAMPLES, HELD_OUT, CALIBRATION_SAMPLES = 12000, 1500, 200
EPOCHS = 8
BATCH = 64
PEAK_RATE = 2e-3
LOST_WORDS = 0.15
REQUIRED_ACCURACY = 0.9

TOPICS = {
    "delivery": ["my parcel is late", "the parcel has not come", "where is my order", "track the parcel"],
    "refund": ["send my money back", "a refund for my order", "the money for the parcel back", "a refund now"],
    "payment": ["pay by card", "the card was charged twice", "charge my other card", "pay for my order later"],
    "account": ["change my address", "my password was lost", "log in again", "delete my account"],
    "size": ["a larger size", "the size is wrong", "change the order to a smaller size", "a wider fit"],
    "damage": ["the parcel was broken", "it came with a crack", "my order is damaged", "a part of it is broken"],
    "opening": ["when is the shop open", "is the shop open on sunday", "visit the shop", "the way to the shop"],
    "praise": ["thank you for the order", "the shop was very kind", "i love it", "it came fast thank you"],
}
WANTED = ["i want to say {}", "it is about this {}", "please {}", "i ask because {}", "{}"]
UNWANTED = ["i do not mean {}", "it is not that {}", "never mind {}", "not {}", "forget {}"]
AROUND = ["hello", "good morning", "dear all", "please help", "as i wrote before", "many thanks", "best wishes", "so"]
JOINED = ["and", "but", "", "then"]

Ids = npt.NDArray[np.int64]


def text(topic: str, random: np.random.Generator) -> list[str]:
    """Words of a message that wants what ``topic`` is about."""
    others = [name for name in TOPICS if name != topic]
    parts = [random.choice(WANTED).format(random.choice(TOPICS[topic]))]
    for _ in range(random.integers(0, 3)):
        parts.insert(
            random.integers(0, len(parts) + 1),
            str(random.choice(UNWANTED)).format(random.choice(TOPICS[str(random.choice(others))])),
        )
    said = [str(random.choice(AROUND))]
    for part in parts:
        said += [part, str(random.choice(JOINED))]
    return " ".join(said).split()


def numbered() -> dict[str, int]:
    """Every word with its number."""
    phrases = [phrase for some in TOPICS.values() for phrase in some] + WANTED + UNWANTED + AROUND + JOINED
    words = sorted({word for phrase in phrases for word in phrase.replace("{}", "").split()})
    return {"": 0, "?": 1} | {word: place for place, word in enumerate(words, 2)}


def made(count: int, words: dict[str, int], random: np.random.Generator) -> tuple[Ids, Ids]:
    """Texts as numbers [count, LENGTH] and their topics [count]."""
    x, y = np.zeros((count, LENGTH), np.int64), random.integers(0, len(TOPICS), count)
    for row, label in zip(x, y, strict=True):
        ids = [words[word] for word in text(list(TOPICS)[label], random)]
        kept = [one if random.random() > LOST_WORDS / 2 else 1 for one in ids if random.random() > LOST_WORDS / 2]
        row[: len(kept[:LENGTH])] = kept[:LENGTH]
    return x, y


class Window(nn.Module):
    """Each place of a text with the two before and the two after it."""

    def __init__(self, wide_in: int) -> None:
        super().__init__()
        self.mixed = nn.Linear(5 * wide_in, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        around = functional.pad(x, (0, 0, 2, 2))
        return functional.relu(self.mixed(torch.cat([around[:, at : at + LENGTH] for at in range(5)], -1)))


class Sorter(nn.Module):
    """Numbers of words [N, LENGTH] to logits of topics [N, 8]: two windows over the words, then the largest of all."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, WIDTH // 2)
        self.first, self.second = Window(WIDTH // 2), Window(WIDTH)
        self.topics = nn.Linear(WIDTH, len(TOPICS))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        filled = (tokens != 0).float()[:, :, None]
        x = self.first(self.words(tokens) * filled) * filled
        return self.topics((self.second(x) * filled).amax(1))


def fit(x: torch.Tensor, y: torch.Tensor, words: int) -> nn.Module:
    """Trained on texts and their topics."""
    torch.manual_seed(SEED)
    net = Sorter(words)
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK_RATE, weight_decay=1e-2)
    steps = EPOCHS * len(x.split(BATCH))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH):
            loss = functional.cross_entropy(net(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {EPOCHS}: loss {loss.item():.3f}", flush=True)
    return net.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="where to write")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)

    words, random = numbered(), np.random.default_rng(SEED)
    (seen_x, seen_y), (held_x, held_y) = made(TRAINING_SAMPLES, words, random), made(HELD_OUT, words, random)
    net = fit(torch.from_numpy(seen_x), torch.from_numpy(seen_y), len(words))
    with torch.no_grad():
        accuracy = float((net(torch.from_numpy(held_x)).argmax(-1).numpy() == held_y).mean())
    print(f"{accuracy:.2%} of {HELD_OUT} right, {sum(one.numel() for one in net.parameters())} weights")
    torch.onnx.export(
        nn.Sequential(net, nn.Softmax(dim=1)).eval(),
        (torch.from_numpy(held_x[:2]),),
        str(folder / "model.onnx"),
        input_names=["tokens"],
        output_names=["scores"],
        dynamic_axes={"tokens": {0: "N"}, "scores": {0: "N"}},
        opset_version=17,
        dynamo=False,
    )
    (folder / "words.json").write_text(json.dumps(words) + "\n")
    np.savez_compressed(folder / "eval.npz", x=held_x, y=held_y)
    np.savez_compressed(folder / "calibration.npz", x=seen_x[:CALIBRATION_SAMPLES])
    if accuracy < REQUIRED_ACCURACY:
        raise SystemExit(f"model.onnx sorts {accuracy:.2%} right, below {REQUIRED_ACCURACY:.2%}: do not ship it")


if __name__ == "__main__":
    main()
