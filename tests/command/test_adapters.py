"""LoRA from the command line: two processes do what one does, a path brings its fake score, the student is ordinary."""

from __future__ import annotations

import pytest
from disback_command import (
    BACKTRACK,
    RECORD,
    TWO_PROCESSES,
    Workplace,
    checkpoint,
    difference,
    load,
    refused,
    succeeded,
)
from safetensors.torch import load_file

ADAPTERS = ("fake=lora", "fake.rank=2", "fake.alpha=2", "fake.layers=[hidden.*,output]")


@pytest.mark.slow
def test_adapters_from_recording_to_samples(workplace: Workplace) -> None:
    succeeded(workplace(*RECORD, *ADAPTERS))
    recorded = workplace.run_of("record")
    assert load(recorded / "path" / "path.json")["adapter"]["rank"] == 2
    assert all("lora_" in name for name in load_file(recorded / "path" / "node_01.safetensors"))
    walk = (*BACKTRACK, f"path={recorded}")
    refused(workplace(*walk, "fake.rank=3"), "Type fake=lora fake.rank=2 fake.alpha=2 'fake.layers=[hidden.*,output]'")
    succeeded(workplace(*walk, "student=lora", "hydra.run.dir=one"))
    succeeded(workplace(*walk, "student=lora", *TWO_PROCESSES, "hydra.run.dir=two"))
    one, two = workplace.folder / "one", workplace.folder / "two"
    assert difference(checkpoint(two)["state_dict"], checkpoint(one)["state_dict"], rtol=1e-3) is None
    assert all("lora_" in name for name in checkpoint(one)["state_dict"])
    student = load(one / "student" / "config.json")
    assert student["student"]["kind"] == "one_step"
    assert not any("lora_" in name for name in load_file(one / "student" / "model.safetensors"))
    succeeded(workplace("sample", "student=one", "n=4"))
