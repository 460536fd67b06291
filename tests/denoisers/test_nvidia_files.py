"""NVIDIA's network pickles: our denoisers come back from that format bit for bit, and what does not fit is named."""

import io
import math
import pickle
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch
from nvidia_files import (
    DHARIWAL,
    EDM2,
    NCSNPP,
    SONG,
    EasyDict,
    PersistentObject,
    dump,
    snapshot_extras,
    tiny_denoiser,
    write_nvidia_pickle,
)

from disback_cli.denoisers.folder import TRUSTED_PREFIXES, build
from disback_cli.denoisers.pickles.nvidia import Persistent, flat_tensors, read_nvidia, read_object
from disback_cli.errors import UserError

KINDS = {
    "ddpmpp": (SONG, "EDMPrecond", "SongUNet (DDPM++), EDM preconditioning"),
    "ncsnpp": (NCSNPP | {"label_dim": 10}, "EDMPrecond", "SongUNet (NCSN++), EDM preconditioning"),
    "adm": (DHARIWAL, "EDMPrecond", "DhariwalUNet (ADM), EDM preconditioning"),
    "vp": (SONG | {"beta_d": 19.0}, "VPPrecond", "SongUNet (DDPM++), VP preconditioning"),
    "ve": (NCSNPP | {"sigma_max": 50.0}, "VEPrecond", "SongUNet (NCSN++), VE preconditioning"),
    "iddpm": (DHARIWAL | {"M": 100}, "iDDPMPrecond", "DhariwalUNet (ADM), iDDPM preconditioning"),
    "edm2": (EDM2, "Precond", "EDM2 UNet (magnitude-preserving), EDM preconditioning"),
}
SMALLEST = SONG | {"img_resolution": 4, "model_channels": 8, "channel_mult": [1], "attn_resolutions": []}


@pytest.fixture(scope="module")
def smallest():
    """The smallest SongUNet there is."""
    return tiny_denoiser(SMALLEST)


def rebuilt(source):
    """The denoiser a source describes, with its weights."""
    denoiser = build(source.spec, allow=TRUSTED_PREFIXES)
    denoiser.load_state_dict(source.weights, strict=True)
    return denoiser.eval()


@pytest.mark.parametrize("storage", ["inplace", "zip", "legacy"])
@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_is_exact(tmp_path, kind, storage):
    arguments, class_name, words = KINDS[kind]
    original = tiny_denoiser(arguments, class_name, seed=3)
    path = write_nvidia_pickle(tmp_path / "x.pkl", original, class_name=class_name, storage=storage)
    source = read_nvidia(path)
    assert source.format == ("edm2-pickle" if kind == "edm2" else "edm-pickle")
    assert source.facts["network"] == words and source.facts["key"] == "ema"
    assert source.facts["parameters"] == sum(parameter.numel() for parameter in original.parameters())
    assert list(source.weights) == list(original.state_dict())
    assert all(torch.equal(source.weights[name], tensor) for name, tensor in original.state_dict().items())
    copy = rebuilt(source)
    assert type(copy) is type(original) and copy.network_dtype == ("fp16" if arguments["use_fp16"] else "fp32")
    assert (copy.shape, copy.label_dim) == (original.shape, original.label_dim)
    x = torch.randn(2, *original.shape, generator=torch.Generator().manual_seed(1))
    labels = torch.eye(original.label_dim)[:2] if original.label_dim else None
    sigma = torch.tensor([0.5, 2.0])
    with torch.no_grad():
        assert torch.equal(copy(x, sigma, labels), original(x, sigma, labels))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("storage", ["inplace", "zip"])
def test_protocols(tmp_path, smallest, storage, protocol):
    path = write_nvidia_pickle(
        tmp_path / "x.pkl", smallest, storage=storage, protocol=protocol, extra=snapshot_extras()
    )
    source = read_nvidia(path)
    assert all(torch.equal(source.weights[name], tensor) for name, tensor in smallest.state_dict().items())
    assert source.facts["arguments"]["dropout"] == 0.13 and type(source.facts["arguments"]["dropout"]) is float


def test_weights_keep_the_type_of_the_file(tmp_path):
    original = tiny_denoiser(EDM2, "Precond")
    source = read_nvidia(write_nvidia_pickle(tmp_path / "x.pkl", original, class_name="Precond", dtype=torch.float16))
    assert {tensor.dtype for tensor in source.weights.values()} == {torch.float16}
    assert all(torch.equal(source.weights[name], t.half()) for name, t in original.state_dict().items())


@pytest.mark.parametrize("key", ["ema", "G_ema", "net", None])
def test_where_the_network_lies(tmp_path, smallest, key):
    path = write_nvidia_pickle(tmp_path / "x.pkl", smallest, key=key)
    assert read_nvidia(path).facts["key"] == key
    assert read_object(path).class_name == "EDMPrecond"


def test_average_is_preferred_to_the_raw_network(tmp_path, smallest):
    path = write_nvidia_pickle(tmp_path / "x.pkl", smallest, extra={"net": PersistentObject("Other", {}), "G_ema": 1})
    facts = read_nvidia(path).facts
    assert facts["key"] == "ema" and facts["others"] == {"net": "Other", "G_ema": "1"}


def test_training_snapshot(tmp_path, smallest):
    path = write_nvidia_pickle(tmp_path / "network-snapshot-000000.pkl", smallest, extra=snapshot_extras())
    facts = read_nvidia(path).facts
    assert facts["others"] == {"loss_fn": "EDMLoss", "augment_pipe": "None", "dataset_kwargs": "dict of 4"}
    assert facts["licence"] is None


@pytest.mark.parametrize("name", ["edm-cifar10-32x32-uncond-vp.pkl", "edm2-img512-s.pkl"])
def test_licence_of_the_public_files(tmp_path, smallest, name):
    assert read_nvidia(write_nvidia_pickle(tmp_path / name, smallest)).facts["licence"].startswith("CC BY-NC-SA 4.0")


def test_positional_arguments_follow_the_published_order(tmp_path, smallest):
    arguments = SMALLEST | {"sigma_min": 0.01, "sigma_max": 60.0, "sigma_data": 0.4}
    order = (
        "img_resolution", "img_channels", "label_dim", "use_fp16", "sigma_min", "sigma_max", "sigma_data", "model_type",
    )  # fmt: skip
    path = write_nvidia_pickle(tmp_path / "x.pkl", smallest, arguments=arguments, positional=order)
    source = read_nvidia(path)
    by_name = read_nvidia(write_nvidia_pickle(tmp_path / "y.pkl", smallest, arguments=arguments))
    assert source.spec == by_name.spec and source.facts["arguments"] == by_name.facts["arguments"]
    copy = rebuilt(source)
    assert (copy.sigma_min, copy.sigma_max, copy.sigma_data) == (0.01, 60.0, 0.4) and source.facts["notes"] == []


@pytest.mark.parametrize(
    ("limits", "used", "words"),
    [
        ({}, (0.002, 80.0), "sigma_min = 0.002 and sigma_max = 80"),
        ({"sigma_min": 0, "sigma_max": math.inf}, (0.002, 80.0), "sigma_min = 0.002 and sigma_max = 80"),
        ({"sigma_min": 0.02}, (0.02, 80.0), "sigma_max = 80"),
        ({"sigma_max": np.float64(50)}, (0.002, 50.0), "sigma_min = 0.002"),
    ],
)
def test_unlimited_noise_levels(tmp_path, smallest, limits, used, words):
    source = read_nvidia(write_nvidia_pickle(tmp_path / "x.pkl", smallest, arguments=SMALLEST | limits))
    copy = rebuilt(source)
    assert (copy.sigma_min, copy.sigma_max) == used
    assert len(source.facts["notes"]) == 1 and words in source.facts["notes"][0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"window_size": 7}, "window_size"),
        ({"_target_": "os.system"}, "_target_"),
        ({"in_channels": 3}, "in_channels"),
        ({"model_type": "VisionTransformer"}, "VisionTransformer"),
        ({"model_type": "DhariwalUNet"}, "DhariwalUNet"),
        ({"model_type": ["SongUNet"]}, "list of 1"),
        ({"model_channels": 16}, "has shape"),
        ({"augment_dim": 0}, "unexpected model.map_augment.weight"),
        ({"label_dim": 3}, "missing model.map_label.weight"),
        ({"num_blocks": 1_000_000}, "num_blocks=1000000"),
        ({"num_blocks": "3"}, "cannot be built"),
        ({"model_channels": -8}, "x.pkl"),
        ({"model_channels": 1 << 40}, "model_channels"),
        ({"channel_mult": [[1]]}, "channel_mult"),
        ({"channel_mult": []}, "channel_mult"),
        ({"channel_mult": "12"}, "x.pkl"),
        ({"attn_resolutions": {"a": 4}}, "attn_resolutions"),
        ({"resample_filter": [1] * 100}, "resample_filter"),
        ({"img_resolution": [4, 8]}, "img_resolution"),
        ({"sigma_data": -1.0}, "sigma_data"),
        ({"sigma_max": math.nan}, "sigma_max"),
        ({"embedding_type": "learned"}, "embedding_type"),
    ],
)
def test_arguments_that_do_not_fit_are_named(tmp_path, smallest, change, words):
    path = write_nvidia_pickle(tmp_path / "x.pkl", smallest, arguments=SMALLEST | change)
    with pytest.raises(UserError, match="x.pkl") as error:
        read_nvidia(path)
    assert words in str(error.value)


def test_missing_and_doubled_arguments(tmp_path, smallest):
    without = {name: value for name, value in SMALLEST.items() if name != "img_channels"}
    with pytest.raises(UserError, match="lack img_channels"):
        read_nvidia(write_nvidia_pickle(tmp_path / "x.pkl", smallest, arguments=without))
    state = {"_init_args": (4,), "_init_kwargs": {"img_resolution": 4}}
    (tmp_path / "y.pkl").write_bytes(dump({"ema": PersistentObject("EDMPrecond", state)}))
    with pytest.raises(UserError, match="img_resolution twice"):
        read_nvidia(tmp_path / "y.pkl")


@pytest.mark.parametrize("kind", KINDS)
def test_the_caller_keeps_its_random_state(tmp_path, kind):
    arguments, class_name, _ = KINDS[kind]
    path = write_nvidia_pickle(tmp_path / "x.pkl", tiny_denoiser(arguments, class_name), class_name=class_name)
    before = torch.get_rng_state()
    read_nvidia(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_tensor_under_many_names_cannot_exceed_the_file(tmp_path):
    """A file may refer to one large tensor often; a network of that size would not fit into memory."""
    tied = tiny_denoiser(SONG)
    first: dict[torch.Size, torch.nn.Parameter] = {}
    for module in tied.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, first.setdefault(parameter.shape, parameter))
    path = write_nvidia_pickle(tmp_path / "x.pkl", tied, storage="zip")
    tensors = flat_tensors(read_object(path))
    assert len({tensor.data_ptr() for tensor in tensors.values()}) < len(tensors) / 2
    with pytest.raises(UserError, match="more than the file"):
        read_nvidia(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"mu": np.zeros(4), "sigma": np.zeros((4, 4))}, r"mu \(array \[4\]\), sigma \(array \[4, 4\]\)"),
        ({"state": {"a": torch.ones(2)}}, r"state \(dict of 1\)"),
        ({"ema": {"a": torch.ones(2)}}, r"ema \(dict of 1\)"),
        ({}, "but nothing"),
        ([1, 2], "list of 2"),
        (torch.ones(2), r"tensor \[2\]"),
        ({"ema": PersistentObject("Generator", {})}, "class 'Generator'; the known ones are EDMPrecond"),
        ({"ema": PersistentObject("EDMPrecond", {"_init_kwargs": SMALLEST})}, "raw network of its EDMPrecond is 'no"),
    ],
)
def test_files_without_a_network_say_what_they_hold(tmp_path, content, words):
    path = tmp_path / "stats.pkl"
    path.write_bytes(dump(content))
    with pytest.raises(UserError, match=words):
        read_nvidia(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"absent.pkl cannot be read"):
        read_nvidia(tmp_path / "absent.pkl")
    with pytest.raises(UserError, match="cannot be read"):
        read_nvidia(tmp_path)
    (tmp_path / "empty.pkl").touch()
    with pytest.raises(UserError, match="is empty"):
        read_nvidia(tmp_path / "empty.pkl")
    (tmp_path / "page.pkl").write_text("<!DOCTYPE html><html>404</html>")
    with pytest.raises(UserError, match="does not begin like a pickle"):
        read_nvidia(tmp_path / "page.pkl")


def test_latent_networks_say_so(tmp_path):
    encoder = PersistentObject("StabilityVAEEncoder", {"scale": np.ones(4, np.float32), "_vae": None, "batch_size": 8})
    path = write_nvidia_pickle(
        tmp_path / "edm2-x.pkl", tiny_denoiser(EDM2, "Precond"), class_name="Precond", extra={"encoder": encoder}
    )
    source = read_nvidia(path)
    assert any("StabilityVAEEncoder" in note for note in source.facts["notes"])
    pixels = PersistentObject("StandardRGBEncoder", {})
    path = write_nvidia_pickle(
        tmp_path / "y.pkl", tiny_denoiser(EDM2, "Precond"), class_name="Precond", extra={"encoder": pixels}
    )
    assert read_nvidia(path).facts["notes"] == []


def test_object_of_an_unknown_class(tmp_path):
    """What the Inception reader needs: the whole tree, in definition order, whatever the classes are called."""
    conv = torch.nn.Conv2d(2, 3, 1)
    mixed = PersistentObject("Mixed", {"_modules": OrderedDict(z=conv, a=torch.nn.BatchNorm2d(3)), "stride": 2})
    layers = torch.nn.ModuleDict({"m": conv})
    root = PersistentObject("Features", {
        "_init_args": (np.float32(0.5),), "_init_kwargs": EasyDict(pool=True),
        "_parameters": OrderedDict(w=torch.nn.Parameter(torch.ones(2)), none=None),
        "_buffers": OrderedDict(shown=torch.zeros(1), hidden=torch.zeros(1)), "_non_persistent_buffers_set": {"hidden"},
        "_modules": OrderedDict(stack=torch.nn.Sequential(torch.nn.Identity()), layers=layers),
        "_forward_hooks": OrderedDict(), "mean": np.arange(3.0), "training": False,
    })  # fmt: skip
    root.state["_modules"]["mixed"] = mixed
    path = tmp_path / "inception.pkl"
    path.write_bytes(dump(root))
    found = read_object(path)
    assert isinstance(found, Persistent) and found.class_name == "Features"
    assert found.init_args == (0.5,) and found.init_kwargs == {"pool": True}
    assert found.module_source == root.source and "source" not in repr(found)
    assert list(found.modules) == ["stack", "layers", "mixed"] and found.modules["mixed"].attributes["stride"] == 2
    assert found.attributes["mean"].tolist() == [0, 1, 2] and found.attributes["training"] is False
    assert list(flat_tensors(found)) == [
        "w", "shown", "layers.m.weight", "layers.m.bias", "mixed.z.weight", "mixed.z.bias", "mixed.a.weight",
        "mixed.a.bias", "mixed.a.running_mean", "mixed.a.running_var", "mixed.a.num_batches_tracked",
    ]  # fmt: skip
    assert torch.equal(flat_tensors(found)["mixed.z.weight"], conv.weight)


def test_nothing_named_in_the_file_is_imported_or_run(tmp_path, monkeypatch, smallest):
    """Modules of the names that occur in the file lie ready to be imported, and the source text is a trap."""
    canary = tmp_path / "canary"
    trap = f"open({str(canary)!r}, 'w')\n"
    for name in ("torch_utils", "dnnlib", "training"):
        (tmp_path / "traps" / name).mkdir(parents=True)
        for module in ("__init__", "persistence", "util", "networks"):
            (tmp_path / "traps" / name / f"{module}.py").write_text(trap)
    monkeypatch.syspath_prepend(str(tmp_path / "traps"))
    path = write_nvidia_pickle(tmp_path / "x.pkl", smallest, extra=snapshot_extras())
    assert b"the source text inside a pickle was executed" in path.read_bytes()
    before = set(sys.modules)
    read_nvidia(path)
    assert not canary.exists()
    assert not {name.split(".")[0] for name in set(sys.modules) - before} & {"torch_utils", "dnnlib", "training"}
    with pytest.raises((AttributeError, ImportError)):
        pickle.loads(path.read_bytes())  # the traps do work: Python's own reader imports them
    assert canary.exists()
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("torch_utils", "dnnlib", "training"):
            del sys.modules[name]


def test_the_writer_leaves_no_modules_behind(tmp_path, smallest):
    write_nvidia_pickle(tmp_path / "x.pkl", smallest, extra=snapshot_extras())
    assert not {"torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util"} & set(sys.modules)


def test_the_writer_writes_the_published_layout(smallest, tmp_path):
    """Read with the standard library, every global inert: the known ones, all of them, and no others."""
    path = write_nvidia_pickle(tmp_path / "x.pkl", smallest, extra=snapshot_extras())
    named, metas = set(), []

    class Inert(dict):
        def __init__(self, *arguments):
            metas.extend(argument for argument in arguments if isinstance(argument, dict) and "module_src" in argument)

        def __setstate__(self, state):
            pass

    class Recorder(pickle.Unpickler):
        def find_class(self, module, name):
            named.add((module.replace("_core", "core"), name))
            return Inert

    Recorder(io.BytesIO(path.read_bytes())).load()
    assert named == {
        ("torch_utils.persistence", "_reconstruct_persistent_obj"), ("collections", "OrderedDict"),
        ("torch._utils", "_rebuild_parameter"), ("torch._utils", "_rebuild_tensor_v2"),
        ("torch.storage", "_load_from_bytes"), ("torch.nn.modules.container", "ModuleDict"), ("numpy", "dtype"),
        ("numpy.core.multiarray", "scalar"), ("dnnlib.util", "EasyDict"),
    }  # fmt: skip
    outer = next(meta for meta in metas if meta["class_name"] == "EDMPrecond")
    assert outer.keys() == {"type", "version", "module_src", "class_name", "state"}
    assert (outer["type"], outer["version"]) == ("class", 6)
    assert {"_init_args", "_init_kwargs", "_parameters", "_buffers", "_modules"} <= outer["state"].keys()
