"""What later decoders ask of the contracts: other input, aligned features, own objectives, own chunks, limits."""

import pytest
import tiny
import torch
from parts import Encoder
from torch import nn

import liif_core
from liif_core import Trainer, UserError, load_experiment
from liif_core.data.sources import open_images
from liif_core.nn import nearest_code
from liif_core.training.optimization import l1_loss

PARTS = {
    "encoder": {"use": "edsr", "blocks": 1, "channels": 4},
    "features": "unfold",
    "sampling": "local-ensemble",
    "conditioning": ["coordinate", "cell"],
    "decoder": {"use": "mlp", "hidden": [8]},
}


def random(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3))


# The encoder's input


@pytest.mark.parametrize("mean, std", [([0.4488, 0.4371, 0.404], [0.2, 0.3, 1.0]), ([0.25], [1.5])])
def test_the_encoder_receives_a_renormalized_image(mean, std):
    model = liif_core.compose(**PARTS, input_mean=mean, input_std=std)
    image, seen = random(2, 3, 6, 5), []
    model.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    picture = model.encode(image)
    expected = (image - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(picture.field.image, image * 2 - 1, rtol=0, atol=1e-6)  # which stays in [-1, 1]


def test_renormalization_is_part_of_a_checkpoint(registry, tmp_path):
    model = liif_core.compose(**PARTS, input_mean=[0.3], input_std=[0.7])
    table = {**PARTS, "input_mean": [0.3], "input_std": [0.7]}
    table |= {kind: {"use": table[kind]} for kind in ("features", "sampling")}
    table["conditioning"] = [{"use": name} for name in PARTS["conditioning"]]
    checkpoint = liif_core.Checkpoint(model.state_dict(), {"model": table})
    liif_core.save_checkpoint(tmp_path / "m.safetensors", checkpoint)
    again, image = liif_core.load(tmp_path / "m.safetensors"), random(1, 3, 5, 5)
    assert torch.equal(again.encode(image).render((9, 9)), model.eval().encode(image).render((9, 9)))


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"input_mean": [0.1, 0.2]}, "input_mean: expected one number or 3, got 2"),
        ({"input_std": [0.1, 0.0, 0.2]}, "input_std: expected numbers above 0"),
        ({"input_std": []}, "input_std: expected one number or 3, got 0"),
        ({"input_mean": 0.5}, "input_mean: expected an array"),
        ({"use": "splat", "input_mean": [0.5]}, "input_mean: not together with 'use'"),
    ],
)
def test_wrong_numbers_are_refused(changes, reason):
    with pytest.raises(UserError) as error:
        liif_core.compose(**PARTS, **changes)
    assert reason in str(error.value)


# Features that see the whole image, or begin at certain places


class Windows(nn.Module):
    """The mean of each window of 4 x 4 codes, added to its codes."""

    radius, multiple_of, channels = 3, 4, 4

    def forward(self, features):
        height, width = features.shape[-2:]
        padded = nn.functional.pad(features, (0, -width % 4, 0, -height % 4))
        means = nn.functional.avg_pool2d(padded, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
        return Field(features + means[:, :, :height, :width])


class Everything(nn.Module):
    radius, channels = None, 4

    def forward(self, features):
        return Field(features + features.mean((2, 3), keepdim=True))


class Field(liif_core.LatentField):
    def __init__(self, features):
        self.features, self.channels = features, features.shape[1]

    def dense(self):
        return self.features


def with_features(features):
    parts = {**PARTS, "encoder": Encoder(None, 3), "features": features}
    return liif_core.compose(**parts).eval().requires_grad_(False)


def test_tiles_begin_at_multiples_of_what_the_features_need():
    model, image = with_features(Windows()), random(1, 3, 164, 150)
    assert isinstance(model.features, liif_core.AlignedFeatures) and model.multiple_of == 4
    whole = model.encode(image).render((328, 300), clamp=True)
    torch.testing.assert_close(model.upscale(image, 2, memory="7MB"), whole, rtol=0, atol=1e-5)


def test_features_of_the_whole_image_have_no_halo():
    model, image = with_features(Everything()), random(1, 3, 300, 300)
    assert model.halo is None
    with pytest.warns(UserWarning, match="approximate"):
        model.upscale(image, 2, memory="12MB")


# Decoders that divide queries themselves


class Whole(nn.Module):
    """Returns the code that is read first; counts its calls."""

    needs, num_statistics, scale_dependent, radius = frozenset(), 0, False, 0

    def __init__(self):
        super().__init__()
        self.calls = []

    def prepare(self, field, image_conditions):
        return {"code": liif_core.as_rows(field.dense())[..., :3]}

    def decode(self, maps, sites, conditions):
        self.calls.append(sites.index.shape[2:].numel())
        return liif_core.gather(maps["code"], sites.index)[0]


def test_a_decoder_may_ask_for_larger_chunks():
    decoder = Whole()
    model = liif_core.compose(**{**PARTS, "conditioning": [], "decoder": decoder}).eval().requires_grad_(False)
    decoder.queries_at_once = 1000
    decoder.calls.clear()
    with torch.no_grad():
        model.encode(random(1, 3, 30, 30)).render((60, 60))
    assert isinstance(decoder, liif_core.ChunkingDecoder)
    assert max(decoder.calls) == 1000 and sum(decoder.calls) == 3600


# Training objectives of a model


class Objective(Whole):
    """Its objective is the mean square of the difference."""

    def own_loss(self, maps, sites, conditions, target):
        return (self.decode(maps, sites, conditions) - target).square().mean()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny.experiment_file(tmp_path_factory.mktemp("own"))


@pytest.mark.parametrize("loss", ["l1", "none"])
@pytest.mark.parametrize("residual", ["none", "bilinear"])
def test_an_own_objective_is_added_to_the_loss(path, registry, loss, residual):
    changes = [f"train.loss={loss}", "train.own_loss=0.25"]
    experiment = load_experiment(path, registry, overrides=changes)
    decoder = Objective()
    parts = {**PARTS, "conditioning": [], "decoder": decoder, "residual": residual}
    model = liif_core.compose(**parts)
    trainer = Trainer(model, experiment, open_images(experiment.data.images))
    batch = next(trainer.batches())
    found = trainer._optimization.gradients(batch, seed=0)
    colors = model(batch["image"], batch["coord"], batch["cell"])
    expected = 0.25 * (2 * (colors - batch["target"])).square().mean()  # in [-1, 1] space
    if loss == "l1":
        expected = expected + l1_loss(colors, batch["target"])
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    gradients = torch.autograd.grad(expected, list(model.parameters()), allow_unused=True)
    for parameter, gradient in zip(model.parameters(), gradients):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6)


def test_a_model_without_an_objective_is_refused(path, registry):
    with pytest.raises(UserError, match="train.own_loss: this model has no training objective of its own"):
        Trainer.from_experiment(load_experiment(path, registry, overrides=["train.own_loss=1"]))
    with pytest.raises(NotImplementedError):
        liif_core.ContinuousImage.own_loss(None, torch.zeros(1), None, torch.zeros(1))


@pytest.mark.parametrize(
    "changes, reason",
    [
        (["train.loss=none"], "train.loss: 'none' leaves nothing to minimize"),
        (["train.own_loss=-1"], "train.own_loss"),
    ],
)
def test_nothing_to_minimize(path, registry, changes, reason):
    with pytest.raises(UserError, match=reason):
        load_experiment(path, registry, overrides=changes)


# Sizes that a model cannot render


def test_a_model_may_refuse_a_scale(path, registry, tmp_path):
    model = liif_core.compose(**PARTS).eval().requires_grad_(False)

    def only_twice(size, target):
        if target != (2 * size[0], 2 * size[1]):
            raise ValueError(f"this model enlarges 2 times only, and {target} of {size} was asked for")

    model.check_scale = only_twice
    image = random(1, 3, 6, 5)
    assert model.upscale(image, 2).shape == (1, 3, 12, 10)
    assert model.upscale(image[0].permute(1, 2, 0).numpy(), 2, region=(1, 1, 4, 4)).shape == (6, 6, 3)
    for given in (image, image[0].permute(1, 2, 0).numpy()):
        with pytest.raises(ValueError, match="2 times only"):
            model.upscale(given, 3)
    with pytest.raises(UserError, match=r"images\[0\] at x3: this model enlarges 2 times only"):
        liif_core.evaluate(model, [random(3, 12, 12)], [2, 3], "rgb")


# Ties between codes


def test_ties_away_from_zero():
    """Positions halfway between codes 0 and 1, 1 and 2, ... of 4: half to even, or up."""
    halfway = torch.tensor([-0.5, 0.0, 0.5])
    assert nearest_code(halfway, 4)[0].tolist() == [0, 2, 2]
    assert nearest_code(halfway, 4, "away")[0].tolist() == [1, 2, 3]
    outside = torch.tensor([-3.0, -1.0, 1.0, 3.0])
    assert nearest_code(outside, 4, "away")[0].tolist() == [0, 0, 3, 3]
    query = liif_core.Query.grid(halfway, halfway, torch.tensor([0.5, 0.5]))
    for ties, expected in (("even", [0, 2, 2]), ("away", [1, 2, 3])):
        model = liif_core.compose(**{**PARTS, "sampling": {"use": "nearest", "ties": ties}})
        assert (model.sampling(query, (4, 4)).index[0, 0] // 4)[:, 0].tolist() == expected
