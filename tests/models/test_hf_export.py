"""Weight files as Hugging Face folders: transformers reads them with equal logits, and nothing is lost on the way back."""

import json

import pytest
import torch
from safetensors import safe_open
from transformers import CLIPImageProcessor, GroupViTModel

from configs.errors import UserError
from models.groupvit import GroupViT, GroupViTConfig
from models.hf import main
from models.hf_export import hf_state_dict
from models.pixels import normalise
from models.weights import load_model, save_model
from tests.models.hf_reference import PAPER, SMALL, pair, tokens


@pytest.fixture(scope="module", params=["preset tiny", "sizes that all differ"])
def model(request):
    if request.param == "preset tiny":
        torch.manual_seed(3)
        made = GroupViT(GroupViTConfig.preset("tiny")).eval()
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    else:
        made = pair(SMALL, 2)[1]
    with torch.no_grad():
        made.multi_label_logit_scale.fill_(3.25)
    return made


@pytest.fixture
def folder(model, tmp_path):
    save_model(tmp_path / "last.pt", model, progress={"epoch": 8, "global_step": 1200, "rows": 19200})
    main([str(tmp_path / "last.pt"), str(tmp_path / "hf")])
    return tmp_path / "hf"


def test_transformers_reads_it_with_equal_logits(model, folder):
    theirs, report = GroupViTModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    config = model.config
    images = torch.randn(3, 3, config.image_size, config.image_size)
    texts = tokens(4, config.context_length, config.vocab_size, 0)
    with torch.no_grad():
        expected = theirs.eval()(input_ids=texts, pixel_values=images)
        image, text = (
            torch.nn.functional.normalize(features, dim=-1)
            for features in (model.encode_image(images).pooled, model.encode_text(texts))
        )
        logits = model.scales().caption * image @ text.T
    torch.testing.assert_close(logits, expected.logits_per_image, rtol=1e-5, atol=1e-5)
    assert logits.std() > 0.01


def test_there_and_back_nothing_is_lost(model, folder, tmp_path):
    main([str(folder), str(tmp_path / "back.pt")])
    back, _ = load_model(tmp_path / "back.pt")
    assert back.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name
    given, found = (m.config.to_dict() for m in (model, back))
    for name in ("drop_path", "gumbel_noise"):  # of training alone; HF's configuration has no place for them
        del given[name], found[name]
    assert found == pytest.approx(given)


def test_an_inverse_temperature_beyond_the_cap_is_written_at_the_cap():
    model = GroupViT(GroupViTConfig.preset("tiny"))
    with torch.no_grad():
        model.logit_scale.fill_(9.0)
    assert hf_state_dict(model.state_dict())["logit_scale"].exp().item() == pytest.approx(100.0)


def test_its_names_and_shapes_are_those_of_the_published_size(tmp_path):
    reference, ours = pair(PAPER, 1)
    expected = {name: value for name, value in reference.state_dict().items() if "position_ids" not in name}
    found = hf_state_dict(ours.state_dict())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_the_preprocessor_makes_the_pixels_that_training_sees(model, folder):
    photo = torch.randint(0, 256, (1, model.config.image_size, model.config.image_size, 3), dtype=torch.uint8)
    processor = CLIPImageProcessor.from_pretrained(folder)
    found = processor(photo[0].numpy(), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(found, normalise(photo), rtol=0, atol=1e-5)


def test_the_card_and_the_config_say_what_it_is(model, folder):
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in card
    assert "Trained for 8 epochs, 1,200 steps, 19,200 images." in card
    values = json.loads((folder / "config.json").read_text())
    assert (values["model_type"], values["architectures"]) == ("groupvit", ["GroupViTModel"])
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_place_that_cannot_be_written_is_one_line(model, tmp_path):
    save_model(tmp_path / "a.pt", model)
    with pytest.raises(UserError, match="a.pt/hf: cannot be written"):
        main([str(tmp_path / "a.pt"), str(tmp_path / "a.pt" / "hf")])


@pytest.mark.parametrize("option", [{"stem": "convolution"}, {"assign_centred": True}])
def test_what_hugging_faces_model_does_not_have_is_refused_before_anything_is_written(option, tmp_path):
    save_model(tmp_path / "a.pt", GroupViT(GroupViTConfig.preset("tiny", **option)))
    with pytest.raises(UserError, match=f"{next(iter(option))}=.*has no such part"):
        main([str(tmp_path / "a.pt"), str(tmp_path / "hf")])
    assert not (tmp_path / "hf").exists()
