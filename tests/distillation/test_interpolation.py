"""Weights at a position of the path."""

import pytest
import torch

from disback_cli.distillation.interpolation import interpolated


def nodes(index: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(index)
    return {"w": torch.randn(3, 2, generator=generator), "counter": torch.tensor(7 * index)}


@pytest.mark.parametrize("node", [0, 1, 4])
def test_at_a_node_its_tensors_themselves_are_given_and_no_other_is_read(node):
    read = []
    own = nodes(node)

    def weights_of(index):
        read.append(index)
        return own

    assert interpolated(weights_of, float(node)) is own
    assert read == [node]


@pytest.mark.parametrize("position", [0.25, 1.5, 2 + 1 / 3])
def test_between_nodes_weights_lie_on_the_line_between_them(position):
    lower = int(position)
    share = position - lower
    found = interpolated(nodes, position)
    expected = (1 - share) * nodes(lower)["w"].double() + share * nodes(lower + 1)["w"].double()
    torch.testing.assert_close(found["w"].double(), expected, rtol=0, atol=1e-6)
    assert found.keys() == nodes(0).keys()


def test_what_is_no_weight_is_taken_from_the_node_nearer_to_the_teacher():
    assert interpolated(nodes, 2.5)["counter"] == 14


def test_interpolated_weights_approach_the_node():
    near = interpolated(nodes, 1 + 1e-6)["w"]
    torch.testing.assert_close(near, nodes(1)["w"], rtol=0, atol=1e-5)
