"""The papers' experiment files: training protocols, a few training steps each, and the errors of --check."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from liif_core import build_model, load, load_experiment
from liif_core.cli import liif_run
from liif_core.data.crops import CropDataset
from liif_core.data.loading import batches
from liif_core.data.sources import open_images
from liif_core.experiment.schema import Cosine, MultiStep
from liif_core.training.optimization import l1_loss
from liif_core.training.schedule import rate_factor

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
LIIF = MultiStep((200, 400, 600, 800), 0.5)
SRNO = Cosine(warmup_steps=12500, warmup_from=0.1)
LMF = MultiStep((200, 400, 600, 800, 1000), 0.5)
SWINIR = MultiStep((500, 800, 900, 950), 0.5)
LATER = {  # the same, and the range of scales, and how often an epoch goes over the images
    "edsr_opesr": (1000, 16, 1e-4, LIIF, 48, "none", (4.0, 4.0), 20),
    "edsr_hiif": (1050, 16, 4e-4, Cosine(0.005, 100000, 0.005), 48, "bilinear", (1.0, 4.0), 40),
    "edsr_thera": (5000, 16, 1e-4, Cosine(), 48, "none", (1.2, 4.0), 20),
    "edsr_thera_plus": (5000, 16, 1e-4, Cosine(), 48, "none", (1.2, 4.0), 20),
    "edsr_thera_pro": (5000, 16, 1e-4, Cosine(), 48, "none", (1.2, 4.0), 20),
    "edsr_ciaosr": (8000, 128, 1e-4, MultiStep((1600, 3200, 4800, 6400), 0.5), 48, "bilinear", (1.0, 4.0), 20),
    "edsr_clit": (1000, 32, 1e-4, LIIF, 48, "bilinear", (1.0, 4.0), 40),
}
PROTOCOLS = {  # file: epochs, batch size, learning rate, schedule, patch, residual
    "edsr_metasr": (1000, 16, 1e-4, LIIF, 48, "none"),
    "edsr_lte": (1000, 16, 1e-4, LIIF, 48, "bilinear"),
    "edsr_lte_plus": (1000, 16, 1e-4, LIIF, 48, "bilinear"),
    "edsr_srno": (1050, 64, 4e-4, SRNO, 128, "bilinear"),
    "edsr_lm_liif": (1200, 16, 1e-4, LMF, 48, "none"),
    "edsr_lm_lte": (1200, 16, 1e-4, LMF, 48, "bilinear"),
    "rcan_liif": (1000, 16, 1e-4, LIIF, 48, "none"),
    "swinir_liif": (1000, 32, 2e-4, SWINIR, 48, "none"),
    "swinir_lte": (1000, 32, 2e-4, SWINIR, 48, "bilinear"),
    "mixed_swinir_lm": (1000, 32, 2e-4, SWINIR, 48, "none"),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_training_protocols_of_the_papers(registry, name):
    found = load_experiment(EXPERIMENTS / f"{name}.toml", registry)
    train, data = found.train, found.data
    stated = (train.epochs, train.batch_size, train.optimizer.lr, train.schedule, data.patch, found.model.residual)
    assert stated == PROTOCOLS[name]
    assert train.optimizer.use == "adam" and data.scale == (1.0, 4.0) and data.queries == data.patch**2
    assert (data.repeat, data.images.split) == (20, "train")


@pytest.mark.parametrize("name", LATER)
def test_training_protocols_of_later_papers(registry, name):
    found = load_experiment(EXPERIMENTS / f"{name}.toml", registry)
    train, data, residual = found.train, found.data, getattr(found.model, "residual", "none")
    stated = (train.epochs, train.batch_size, train.optimizer.lr, train.schedule, data.patch, residual)
    assert (*stated, data.scale, data.repeat) == LATER[name]
    assert data.queries == 2304 and data.images.split == "train"


def test_srno_warms_up_from_a_tenth_and_decays_to_zero(registry):
    """4e-5 rising to 4e-4 over 50 epochs of 250 steps, and falling along a cosine over the other thousand."""
    train = load_experiment(EXPERIMENTS / "edsr_srno.toml", registry).train
    rates = [train.optimizer.lr * rate_factor(train.schedule, step, 250, train.epochs) for step in range(1050 * 250)]
    assert rates[0] == pytest.approx(4e-5, rel=1e-3) and max(rates) == rates[12500] == pytest.approx(4e-4)
    assert rates[12500 + 500 * 250] == pytest.approx(2e-4) and rates[-1] < 1e-12
    assert rates[6250] == pytest.approx(2.2e-4, rel=1e-3)


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "edsr_lte_plus"])  # which is edsr_lte
def test_the_loss_falls_in_the_quick_profile(registry, name):
    """A few steps on one batch of photographs, from the profile's own model, crops and rate.

    More of them where a last layer of zeros starts from the bilinear image, which is not easily bettered.
    """
    changes = ["data.images={source='skimage', names=['astronaut']}", "data.queries=288", "train.batch_size=4"]
    experiment = load_experiment(EXPERIMENTS / f"{name}.toml", registry, profile="quick", overrides=changes)
    torch.manual_seed(0)
    model = build_model(experiment.model).train()
    images = open_images(experiment.data.images)
    batch = next(batches(CropDataset(images, experiment.data, 0), 4, epoch=0))
    optimizer = torch.optim.Adam(model.parameters(), lr=experiment.train.optimizer.lr)
    losses = []
    for _ in range(45 if "mlp" in experiment.model.decoder.use else 12):
        loss = l1_loss(model(batch["image"], batch["coord"], batch["cell"]), batch["target"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert max(losses[-3:]) < 0.9 * losses[0], losses


def invoke(*arguments):
    return CliRunner().invoke(liif_run, [str(a) for a in arguments])


def test_a_composition_nobody_published_runs_from_its_file(tmp_path, registry):
    """SwinIR, plain features, the nearest code, LM-LIIF's decoder: trained, evaluated, reported, saved, used."""
    path, out = EXPERIMENTS / "mixed_swinir_lm.toml", tmp_path / "out"
    few = "{source='skimage', names=['astronaut']}"
    changes = [f"data.images={few}", f"validate.images={few}", "data.repeat=2", "train.batch_size=2", "train.epochs=1"]
    changes += [f"evaluate=[{{name='few', images={few}, scales=[8], protocol='rgb'}}]"]
    done = invoke(path, "--profile", "quick", "--out", out, "--quiet", *(p for c in changes for p in ("--set", c)))
    assert done.exit_code == 0, done.output
    model = load(out / "checkpoints" / "best.safetensors")
    assert (type(model.encoder).__name__, type(model.decoder).__name__) == ("SwinIR", "LMLIIF")
    assert (model.sampling.neighbours, model.features.channels) == (1, 32)
    assert model.encode(torch.rand(1, 3, 9, 13)).render((21, 30)).shape == (1, 3, 21, 30)


REFUSED = [  # file, what is changed, the reason
    ("edsr_lte", ["model.conditioning=[{use='coordinate'}]"], "model.conditioning: decoder 'lte' needs 'cell'"),
    ("edsr_lm_lte", ["model.conditioning=[{use='cell'}]"], "model.conditioning: decoder 'lm-lte' needs 'coordinate'"),
    ("edsr_lm_liif", ["model.conditioning=[]"], "model.conditioning: decoder 'lm-liif' needs 'coordinate'"),
    (
        "edsr_srno",
        ["model.decoder.heads=5"],
        "model.decoder.heads: each needs the same part of width (256), at least 2, got 5",
    ),
    ("edsr_lm_lte", ["model.decoder.channels=7"], "model.decoder.channels: expected an even number from 2"),
    ("swinir_lte", ["model.encoder.heads=7"], "model.encoder.heads: 7 heads cannot share 180 channels evenly"),
    ("rcan_liif", ["model.encoder.reduction=128"], "model.encoder.reduction: 128 leaves nothing of 64 channels"),
    ("edsr_metasr", ["model.sampling.use='corners'"], "no sampling is named 'corners' (did you mean 'corner'?)"),
]


@pytest.mark.parametrize("name, changes, reason", REFUSED)
def test_check_refuses_what_cannot_work(name, changes, reason):
    refused = invoke(EXPERIMENTS / f"{name}.toml", "--check", *(p for c in changes for p in ("--set", c)))
    assert refused.exit_code == 2 and reason in refused.output
    assert "Traceback" not in refused.output and isinstance(refused.exception, SystemExit)


STRANGER = """
import torch
from torch import nn
from liif_core import Component, hookimpl

class OtherCondition(nn.Module):
    channels, scope = {channels}, "query"

    def forward(self, query, sites, grid):
        return sites.offset[..., :1].repeat(*[1] * (sites.offset.ndim - 1), self.channels)

@hookimpl
def liif_conditionings():
    return Component("{name}", lambda options: OtherCondition())
"""
STRANGE = [  # decoder's file, the stranger's conditioning and its width, the reason
    ("edsr_lm_liif", "cell", 2, "'prepare' needs the condition 'cell' with scope 'image'; of that scope here: none"),
    ("edsr_lte", "cell", 5, "conditions: expected 'coordinate' of width 2, 'cell' of width 2; 'cell' is 5 wide"),
    ("edsr_srno", "noise", 3, "'noise' would have no effect"),
]


@pytest.mark.parametrize("name, condition, width, reason", STRANGE)
def test_check_explains_why_a_third_party_conditioning_does_not_fit(tmp_path, name, condition, width, reason):
    """Of scope "query" where the decoder needs scope "image"; of another width; without effect."""
    plugin = tmp_path / "stranger.py"
    plugin.write_text(STRANGER.format(channels=width, name=condition))
    own = f"{{use='stranger.py:{condition}'}}"
    others = ["{use='coordinate'}"] if condition == "cell" else ["{use='coordinate'}", "{use='cell'}"]
    given = f"model.conditioning=[{', '.join([*others, own])}]"
    refused = invoke(EXPERIMENTS / f"{name}.toml", "--check", "--plugin", plugin, "--set", given)
    assert refused.exit_code == 2 and reason in refused.output, refused.output
    assert "Traceback" not in refused.output and isinstance(refused.exception, SystemExit)
