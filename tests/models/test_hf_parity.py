from __future__ import annotations

import pytest
import torch

from models.groupvit import GroupViT, GroupViTConfig
from models.losses import contrastive_loss, multi_label_loss
from models.weights import load_model, save_model
from tests.models import hf_reference
from tests.models.hf_reference import PAPER, SMALL


def test_the_paper_has_its_number_of_parameters():
    model = GroupViT(GroupViTConfig.preset("paper"))
    count = lambda module: sum(parameter.numel() for parameter in module.parameters())  # noqa: E731
    assert (count(model), count(model.image_encoder), count(model.text_encoder)) == (
        55_726_610,
        28_837_136,
        22_145_792,
    )


@pytest.mark.parametrize(
    ("values", "side", "length", "vocabulary"),
    [(SMALL, 48, 18, 120), (PAPER, 224, 77, 49408)],
    ids=["small", "paper"],
)
def test_features_maps_and_logits_equal_hugging_faces(values, side, length, vocabulary):
    reference, ours = hf_reference.pair(values, seed=0)
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    texts = hf_reference.tokens(3, length, vocabulary, seed=2)
    with torch.no_grad():
        expected = reference(input_ids=texts, pixel_values=images, output_attentions=True)
        image, text = ours.encode_image(images), ours.encode_text(texts)
    normal = torch.nn.functional.normalize
    torch.testing.assert_close(normal(image.pooled, dim=-1), expected.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(normal(text, dim=-1), expected.text_embeds, atol=1e-5, rtol=0)
    logits = normal(image.pooled, dim=-1) @ normal(text, dim=-1).T * ours.scales().caption
    torch.testing.assert_close(logits, expected.logits_per_image, atol=1e-4, rtol=1e-5)
    maps = [value for value in expected.vision_model_output.attentions if value is not None]
    assert len(maps) == len(image.assignments) == 2
    for mine, theirs in zip(image.assignments, maps, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


def _naive_losses(image, prompts, scale):
    """Both reductions by loops over images and prompts, from the definition."""
    image, prompts = (torch.nn.functional.normalize(value, dim=-1) for value in (image, prompts))
    batch, count = prompts.shape[:2]
    to_text = [
        [[scale * image[i] @ prompts[j, k] for k in range(count)] for j in range(batch)] for i in range(batch)
    ]
    log_sum = mean_log = text = 0.0
    for i in range(batch):
        mass = sum(value.exp() for row in to_text[i] for value in row)
        chances = [to_text[i][i][k].exp() / mass for k in range(count)]
        log_sum = log_sum - sum(chances).log() / batch
        mean_log = mean_log - sum(chance.log() for chance in chances) / count / batch
        for k in range(count):
            column = sum(to_text[j][i][k].exp() for j in range(batch))
            text = text - (to_text[i][i][k].exp() / column).log() / (batch * count)
    return (log_sum + text) / 2, (mean_log + text) / 2


def test_losses_equal_their_definition():
    torch.manual_seed(0)
    image = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    prompts = torch.randn(5, 3, 6, dtype=torch.float64, requires_grad=True)
    log_sum, mean_log = _naive_losses(image, prompts, 7.0)
    torch.testing.assert_close(multi_label_loss(image, prompts, 7.0, "log_sum"), log_sum)
    torch.testing.assert_close(multi_label_loss(image, prompts, 7.0, "mean_log"), mean_log)
    torch.testing.assert_close(
        contrastive_loss(image, prompts[:, 0], 7.0), _naive_losses(image, prompts[:, :1], 7.0)[0]
    )
    assert torch.autograd.gradcheck(lambda a, b: multi_label_loss(a, b, 7.0), (image, prompts))


def test_a_step_lowers_the_loss():
    torch.manual_seed(0)
    model = GroupViT(GroupViTConfig.preset("tiny"))
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    images = torch.randn(8, 3, 32, 32)
    texts = hf_reference.tokens(8, 16, 49408, seed=0)
    losses = []
    for _ in range(15):
        out = model(images, texts)
        loss = contrastive_loss(out.image, out.caption, model.scales().caption)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0]


def test_weights_are_stored_whole_and_code_is_refused(tmp_path):
    from configs.errors import UserError

    model = GroupViT(GroupViTConfig.preset("tiny")).eval()
    save_model(tmp_path / "m.pt", model, step=3)
    again, meta = load_model(tmp_path / "m.pt")
    assert meta["step"] == 3
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    )
    data = (tmp_path / "m.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"cut\.pt: truncated"):
        load_model(tmp_path / "cut.pt")

    mark = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return (open, (str(mark), "w"))

    with (tmp_path / "evil.pt").open("wb") as stream:
        torch.save({"format": "cocu-groupvit-1", "config": {}, "model": Payload()}, stream)
    with pytest.raises(UserError, match="code"):
        load_model(tmp_path / "evil.pt")
    assert not mark.exists()
