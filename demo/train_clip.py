"""Train the demo's tiny CLIP on drawn scenes whose captions name parts of all that is visible: python -m demo.train_clip

The real CLIP saw far more than any caption of a small corpus tells; this one stands in for it, and so learns from
captions that name random parts of all that is visible. Which text fits which picture is known from the truth, so
that the contrastive loss counts every fitting pair as positive, not only the picture's own caption.

Two habits of large CLIPs are trained in because the ranking divides cosines by cosines: all of them are positive
(pictures and texts lie in narrow cones), and a word that says nothing about pictures has nearly the same cosine with
every picture.

``--captions own`` learns from the demo's own captions instead, one fixed caption a scene and the truth unseen: what a
corpus without any help from outside would teach. docs/training.md says what archives that gives.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

import models.torchvision_ops  # noqa: F401  (before open_clip, see there)
from configs.errors import UserError, run_entry
from configs.paths import home_path
from demo.clip_data import (
    TEST_STREAM,
    TRAIN_STREAM,
    SceneSet,
    draw_set,
    label_prompts,
    neutral_texts,
    write_texts,
)
from demo.clip_quality import Quality, measure_quality
from demo.world.scenes import LABELS

__all__ = ["main", "matching_loss", "own_texts", "train"]

FOLDER = Path(__file__).parent / "clip"
MARGIN = 8
"""Pixels by which training pictures are larger than the model's input, for random shifts."""
LEAST_COSINE, NEUTRAL_COSINE = 0.1, 0.15
_RANGE_WEIGHT = 20.0
_NEUTRAL_TEXTS = 16


def matching_loss(
    image: torch.Tensor, text: torch.Tensor, fits: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Contrastive loss with all fitting pairs as positives, both directions, means over rows with a positive.

    Args:
        image: (B, E) L2-normalised; text: (T, E) L2-normalised.
        fits: (B, T) bool, whether the text is true of the picture.
        scale: the exponentiated logit scale.
    """
    logits = scale * image @ text.t()
    total = logits.new_zeros(())
    for scores, positive in ((logits, fits), (logits.t(), fits.t())):
        target = positive.float()
        share = target.sum(1)
        rows = share > 0
        target = target[rows] / share[rows, None]
        entropy = -(target * target.clamp_min(1e-9).log()).sum(1)
        total = total + (-(target * functional.log_softmax(scores[rows], 1)).sum(1) - entropy).mean()
    return total / 2


def range_loss(image: torch.Tensor, text: torch.Tensor, neutral: torch.Tensor) -> torch.Tensor:
    """How far cosines are below :data:`LEAST_COSINE`, and those of neutral texts from :data:`NEUTRAL_COSINE`.

    ``image`` (B, E), ``text`` (T, E) and ``neutral`` (N, E) are L2-normalised; mean squares, added.
    """
    below = functional.relu(LEAST_COSINE - image @ text.t())
    off = image @ neutral.t() - NEUTRAL_COSINE
    return below.square().mean() + off.square().mean()


def _batch_pixels(scenes: SceneSet, rows: np.ndarray, side: int, rng: np.random.Generator) -> torch.Tensor:
    """(B, 3, side, side) float32 in [0, 1]: shifted, mirrored, brighter or darker."""
    pixels = np.empty((len(rows), side, side, 3), np.uint8)
    for place, row in enumerate(rows):
        top, left = rng.integers(0, MARGIN + 1, 2)
        cut = scenes.pictures[row, top : top + side, left : left + side]
        pixels[place] = cut[:, ::-1] if rng.random() < 0.5 else cut
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255.0)
    gain = torch.from_numpy(np.exp(rng.normal(0, 0.08, (len(rows), 3, 1, 1)))).float()
    return (tensor * gain).clamp_(0, 1).contiguous(memory_format=torch.channels_last)


def _parameter_groups(model: torch.nn.Module) -> list[dict[str, object]]:
    """Weight decay only on matrices and kernels; word vectors and scales keep theirs."""
    decayed = [p for n, p in model.named_parameters() if p.ndim >= 2 and "embedding" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim < 2 or "embedding" in n]
    return [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]


@dataclass(frozen=True)
class _Parts:
    """A new model and what prepares its inputs."""

    model: torch.nn.Module
    tokenizer: Callable[[list[str]], torch.Tensor]
    mean: torch.Tensor
    std: torch.Tensor
    dtype: torch.dtype


def _new_model(batch_size: int, side: int) -> _Parts:
    import open_clip

    open_clip.add_model_config(FOLDER / "model.json")
    model, _, transform = open_clip.create_model_and_transforms("model")
    model = model.to(memory_format=torch.channels_last)
    normalise = transform.transforms[-1]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (normalise.mean, normalise.std))
    dtype = _faster_dtype(model, batch_size, side)
    print(f"  computing in {dtype}", flush=True)
    return _Parts(model.train(), open_clip.get_tokenizer("model"), mean, std, dtype)


def _faster_dtype(model: torch.nn.Module, batch_size: int, side: int) -> torch.dtype:
    """bfloat16 where this processor computes a picture batch faster in it, else float32 (measured here)."""
    pixels = torch.rand(batch_size, 3, side, side).contiguous(memory_format=torch.channels_last)
    model.eval()
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        for _ in range(2):  # the first pass only prepares kernels
            start = time.perf_counter()
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                model.encode_image(pixels)
            seconds[dtype] = time.perf_counter() - start
    return min(seconds, key=seconds.__getitem__)


def _full_texts(scenes: SceneSet, rows: np.ndarray, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """New texts of all that is visible and a prompt for every label; bool (B, T): everything named can be seen."""
    texts, named = write_texts(rng, scenes.visible[rows], scenes.counts[rows])
    named = np.concatenate([named, np.eye(len(LABELS), dtype=bool)])
    unseen = (~scenes.visible[rows]).astype(np.float32) @ named.T.astype(np.float32)
    return texts + label_prompts(rng), unseen < 0.5


def own_texts(scenes: SceneSet, rows: np.ndarray, _rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """The scenes' own captions; bool (B, B): the picture's, or the same words."""
    texts = [scenes.captions[row] for row in rows]
    return texts, np.array([[one == other for other in texts] for one in texts])


_TEXTS = {"full": _full_texts, "own": own_texts}


def _batch_loss(
    parts: _Parts, scenes: SceneSet, rows: np.ndarray, rng: np.random.Generator, captions: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of the pictures ``rows`` with texts for them, and all cosines (B, T)."""
    texts, fitting = _TEXTS[captions](scenes, rows, rng)
    fits = torch.from_numpy(fitting)
    side = scenes.pictures.shape[1] - MARGIN
    pixels = (_batch_pixels(scenes, rows, side, rng) - parts.mean) / parts.std
    with torch.autocast("cpu", torch.bfloat16, enabled=parts.dtype == torch.bfloat16):
        image = parts.model.encode_image(pixels)
    image = functional.normalize(image.float(), dim=-1)
    tokens = parts.tokenizer(texts + neutral_texts(rng, parts.tokenizer, _NEUTRAL_TEXTS))
    text = functional.normalize(parts.model.encode_text(tokens), dim=-1)
    text, neutral = text[: len(texts)], text[len(texts) :]
    loss = matching_loss(image, text, fits, parts.model.logit_scale.exp())
    return loss + _RANGE_WEIGHT * range_loss(image, text, neutral), (image @ text.t()).detach()


def train(
    scenes: SceneSet,
    steps: int,
    batch_size: int,
    seed: int,
    captions: str = "full",
    peak_rate: float = 1.5e-3,
) -> torch.nn.Module:
    """Train a new model of model.json on ``scenes`` with ``captions`` (full or own); returns it in eval mode."""
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, TRAIN_STREAM, 1 << 30))
    parts = _new_model(batch_size, scenes.pictures.shape[1] - MARGIN)
    model = parts.model
    optimiser = torch.optim.AdamW(_parameter_groups(model), lr=peak_rate, betas=(0.9, 0.98))
    warm = max(1, min(200, steps // 10))
    start, running = time.perf_counter(), None
    for step in range(steps):
        rate = peak_rate * min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        rows = rng.choice(len(scenes.pictures), batch_size, replace=False)
        loss, cosines = _batch_loss(parts, scenes, rows, rng, captions)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            _progress(step + 1, steps, running, batch_size, start)
            low, high = np.quantile(cosines.numpy(), (0.01, 0.99))
            print(f"    cosines {low:.2f} to {high:.2f}, scale {model.logit_scale.exp():.1f}", flush=True)
    return model.eval()


def _progress(step: int, steps: int, loss: float, batch_size: int, start: float) -> None:
    seconds = time.perf_counter() - start
    left = seconds / step * (steps - step)
    print(
        f"  step {step}/{steps}  loss {loss:.3f}  {step * batch_size / seconds:,.0f} pictures/s  "
        f"{left / 60:.1f} min left",
        flush=True,
    )


def save(model: torch.nn.Module, path: Path) -> None:
    """Write the weights as float16 safetensors (open_clip copies them into its float32 parameters)."""
    from safetensors.torch import save as serialise

    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(serialise(state, metadata={"format": "pt"}))
    temporary.replace(path)


_CAPTIONS = {
    "full": "name random parts of everything visible, and with every text known to fit or not",
    "own": "are the demo's own: one or two things named, one caption a scene",
}


def _readme(options: argparse.Namespace, quality: Quality, minutes: float, path: Path) -> str:
    worst = sorted(quality.average_precision.items(), key=lambda item: item[1])
    rows = "\n".join(
        f"| {label} | {value:.2f} |" for label, value in sorted(quality.average_precision.items())
    )
    return f"""# The demo's tiny CLIP

An [open_clip](https://github.com/mlfoundations/open_clip) model of our own configuration (`model.json`: a small
ModifiedResNet at 128 pixels, a two-layer text transformer over CLIP's full vocabulary, 96 dimensions). It knows the
demo's drawn world and nothing else, and is loaded by the same calls as `ViT-B-16`.

Made by `make demo-clip` (`python -m demo.train_clip --scenes {options.scenes} --steps {options.steps}
--batch-size {options.batch_size} --seed {options.seed} --captions {options.captions}`) in {minutes:.0f} minutes on {torch.get_num_threads()} CPU
threads, from drawn scenes whose captions {_CAPTIONS[options.captions]}. Their seeds are not those of the
demo's pairs or evaluation scenes. Training again gives like figures, not the same bytes: the processor decides
between float32 and bfloat16.

Measured on {quality.scenes} unseen scenes after loading `weights.safetensors` ({path.stat().st_size / 1e6:.2f} MB)
through open_clip:

| measure | value |
| --- | --- |
| label mAP: cosine with "a photo of a {{label}}" ranks the scenes, mean over {len(LABELS)} labels | {quality.mean_average_precision:.3f} |
| the same by chance (mean share of scenes that show a label) | {quality.chance:.3f} |
| picture to full caption among {quality.retrieval_scenes}, R@1 | {quality.recall_at_1:.3f} |
| picture to full caption among {quality.retrieval_scenes}, R@5 | {quality.recall_at_5:.3f} |
| share of labels in common with the nearest of the other scenes (a random one: {quality.random_overlap:.2f}) | {quality.neighbour_overlap:.2f} |

Weakest: {", ".join(f"{label} {value:.2f}" for label, value in worst[:3])}.

| label | average precision |
| --- | --- |
{rows}
"""


def main(argv: list[str]) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="demo.train_clip", description="Train the demo's tiny CLIP again (CPU)."
    )
    parser.add_argument("--scenes", type=int, default=20_000, help="training scenes (default %(default)s)")
    parser.add_argument("--steps", type=int, default=1900, help="default %(default)s")
    parser.add_argument("--batch-size", type=int, default=128, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument(
        "--test-scenes", type=int, default=2000, help="unseen scenes to judge by (default %(default)s)"
    )
    parser.add_argument(
        "--captions", choices=sorted(_TEXTS), default="full", help="of all that is visible, or the demo's own"
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default %(default)s)")
    parser.add_argument(
        "--out", type=home_path, default=FOLDER, help="folder for weights.safetensors and README.md"
    )
    options = parser.parse_args(argv)
    if options.scenes < options.batch_size:
        raise UserError(
            f"--scenes {options.scenes} is less than --batch-size {options.batch_size}: name more scenes"
        )
    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    side = json.loads((FOLDER / "model.json").read_text())["vision_cfg"]["image_size"]
    print(f"drawing {options.scenes:,} scenes", flush=True)
    scenes = draw_set(options.seed, TRAIN_STREAM, options.scenes, side + MARGIN, options.threads)
    print(f"training, {(time.perf_counter() - start) / 60:.1f} min so far", flush=True)
    model = train(scenes, options.steps, options.batch_size, options.seed, options.captions)
    minutes = (time.perf_counter() - start) / 60
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "weights.safetensors"
    save(model, path)
    quality = measure_quality(
        FOLDER / "model.json", path, options.seed, TEST_STREAM, options.test_scenes, options.threads
    )
    (options.out / "README.md").write_text(_readme(options, quality, minutes, path))
    print(quality.summary(), flush=True)


if __name__ == "__main__":
    run_entry(main)
