"""Code that travels: what is cut out needs none of our modules and computes the same."""

import ast
import sys
import types

import pytest
import torch
from nvidia_files import DHARIWAL, EDM2, NCSNPP

from disback_cli.denoisers.folder import build
from disback_cli.publishing import source_bundle
from disback_cli.publishing.custom_pipeline import ONE_STEP, class_names, local_spec
from disback_cli.publishing.source_bundle import bundle

NETWORKS = "disback_cli.denoisers."


def _network(arguments, target, **more):
    left_out = ("use_fp16", "model_type", "img_channels", "sigma_data", "logvar_channels")
    kept = {name: value for name, value in arguments.items() if name not in left_out}
    return {"_target_": NETWORKS + target, **kept, **more}


def _spec(target, network, shape, label_dim=0, **more):
    return {"_target_": NETWORKS + target, "network": network, "shape": shape, "label_dim": label_dim, **more}


IMAGE = {"in_channels": 3, "out_channels": 3}
ADM = _network(DHARIWAL, "dhariwal_unet.DhariwalUNet", **IMAGE)
SONG = _network(NCSNPP, "song_unet.SongUNet", **IMAGE)
UNET = {
    "_target_": NETWORKS + "diffusers_networks.UNet2D",
    "config": {
        "sample_size": 8, "block_out_channels": [8], "down_block_types": ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"], "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4,
    },
}  # fmt: skip
SPECS = {
    "adm": _spec("edm.EDMDenoiser", ADM, [3, 8, 8], 4),
    "iddpm": _spec("iddpm.IDDPMDenoiser", {**ADM, "out_channels": 6}, [3, 8, 8], 4),
    "ncsnpp": _spec("edm.EDMDenoiser", SONG, [3, 8, 8]),
    "vp": _spec("score_sde.VPDenoiser", SONG, [3, 8, 8]),
    "ve": _spec("score_sde.VEDenoiser", SONG, [3, 8, 8]),
    "edm2": _spec("edm2.EDM2Denoiser", _network(EDM2, "edm2.EDM2UNet", img_channels=4), [4, 8, 8], 5),
    "flow": _spec("flow.FlowDenoiser", UNET, [3, 8, 8]),
    "discrete": _spec("discrete.DiscreteDenoiser", UNET, [3, 8, 8], schedule={"beta_schedule": "linear"}),
}


def _executed(source, name):
    module = types.ModuleType(name)
    sys.modules[name] = module  # dataclasses look themselves up there
    try:
        exec(compile(source, name, "exec"), module.__dict__)
    finally:
        del sys.modules[name]
    return module


@pytest.mark.parametrize("family", SPECS)
def test_a_network_computes_the_same_without_our_modules(family):
    spec = SPECS[family]
    source = bundle([ONE_STEP[0], *class_names(spec)], "header")
    imported = [node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    assert not [module for module in imported if module.startswith("disback_cli")]
    assert "type: ignore" not in source
    torch.manual_seed(0)
    ours = build(spec).eval()
    theirs = _executed(source, f"bundle_{family}").OneStepGenerator(local_spec(spec), 2.5).eval()
    theirs.denoiser.load_state_dict(ours.state_dict(), strict=True)
    z = torch.randn(2, *ours.shape)
    labels = torch.eye(ours.label_dim)[:2] if ours.label_dim else None
    with torch.no_grad():
        expected = ours(2.5 * z, torch.full((2,), 2.5), labels)
        assert torch.equal(theirs(z, labels), expected) and expected.std() > 0


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Writes modules of a package that is taken for ours."""
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(source_bundle, "PACKAGE", "mine")
    yield lambda **sources: [(package / f"{name}.py").write_text(text) for name, text in sources.items()]
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]


def test_equal_names_are_told_apart_and_nothing_else_is_taken(modules):
    modules(
        first="import os\n_SCALE = 2\nUNUSED = os.getcwd()\n\n\n# why\ndef scale(x):\n    return _SCALE * x\n",
        second=(
            "import math\nfrom mine.first import scale as double\n_SCALE = 10\n\n\n"
            "def tenfold(x):\n    from mine.third import one\n\n"
            "    return 'é' and _SCALE * double(x) * one() * math.pi\n"
        ),
        third="def one():\n    return 1\n",
    )
    source = bundle([("mine.second", "tenfold")], "header")
    assert "mine" not in source.replace("# why", "") and "UNUSED" not in source and "import os" not in source
    assert "# why\ndef scale" in source
    assert _executed(source, "told_apart").tenfold(1) == pytest.approx(20 * 3.14159265)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import mine.third\n\n\ndef f():\n    return mine.third\n", "as a whole"),
        ("from . import third\n\n\ndef f():\n    return third\n", "relative"),
        ("from mine.third import absent\n\n\ndef f():\n    return absent()\n", "does not define absent"),
        ("from mine.third import F\nfrom torch.nn import functional as G\n\n\ndef f():\n    return F, G\n", "G means"),
    ],
)
def test_what_cannot_be_cut_out_is_refused(modules, text, message):
    modules(first=text, third="import math as G\n\nF = G.pi\n")
    with pytest.raises(ValueError, match=message):
        bundle([("mine.first", "f")], "header")
