"""Snake convolution."""

import torch
import torch.nn.functional as F

from rbs.segmentation.snake import Snake, SnakeBundle


def snake(channels=3, taps=5):
    torch.manual_seed(0)
    made = Snake(channels, taps)
    torch.nn.init.normal_(made.weigh.weight)
    return made


def bent_to(made, steps):
    """Let every line go by these steps: outwards to the right, then outwards to the left."""
    torch.nn.init.zeros_(made.offsets.weight)
    with torch.no_grad():
        made.offsets.bias.copy_(torch.tensor(steps).atanh())
    return made


def test_without_offsets_it_is_a_convolution_along_rows():
    made, x = snake(), torch.randn(2, 3, 11, 9)
    torch.testing.assert_close(made(x), F.conv2d(x, made.weigh.weight, padding=(0, 2)), rtol=1e-5, atol=1e-5)


def test_a_bundle_without_offsets_is_the_sum_of_three_convolutions():
    torch.manual_seed(0)
    straight = torch.nn.Conv2d(3, 3, 3, padding=1)
    made, x = SnakeBundle(straight, 3), torch.randn(1, 3, 16, 12)
    torch.testing.assert_close(made(x), straight(x))
    along, down = made.along_rows.weigh.weight, made.along_columns.weigh.weight
    torch.nn.init.normal_(along)
    torch.nn.init.normal_(down)
    rows = F.conv2d(x, along, padding=(0, 4))
    columns = F.conv2d(x, down.transpose(2, 3), padding=(4, 0))
    torch.testing.assert_close(made(x), straight(x) + rows + columns, rtol=1e-4, atol=1e-4)


def test_samples_lie_on_a_line_whose_steps_add_up():
    x = torch.randn(1, 3, 20, 20)
    made = bent_to(snake(), [0.5, 0.25, -0.5, 0.75])
    rows = {-2: 0.25, -1: -0.5, 0: 0.0, 1: 0.5, 2: 0.75}
    i, j = 9, 8

    def read(row, column):
        low = int(row // 1)
        return (1 - row + low) * x[0, :, low, column] + (row - low) * x[0, :, low + 1, column]

    samples = torch.stack([read(i + rows[c], j + c) for c in range(-2, 3)], dim=-1)
    expected = torch.einsum("ocn,cn->o", made.weigh.weight[:, :, 0], samples)
    torch.testing.assert_close(made(x)[0, :, i, j], expected, rtol=1e-4, atol=1e-4)


def test_beyond_the_image_there_is_nothing():
    x = torch.ones(1, 3, 6, 7)
    made = bent_to(snake(), [-0.999999] * 2 + [0.0] * 2)
    weight = made.weigh.weight[:, :, 0].sum(dim=1)  # (out, taps)
    # In the first row both samples to the right lie above the image.
    torch.testing.assert_close(made(x)[0, :, 0, 3], weight[:, :3].sum(dim=1), rtol=0, atol=1e-4)


def test_it_learns_to_follow_a_slope():
    """Ones lie on a diagonal: the sum along it is met by offsets alone."""
    torch.manual_seed(0)
    x = torch.eye(24)[None, None].expand(1, 1, -1, -1)
    made = Snake(1, 5)
    torch.nn.init.ones_(made.weigh.weight)
    made.weigh.requires_grad_(False)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.05)
    inside = torch.eye(24, dtype=torch.bool)[None, None].clone()
    inside[..., :3, :] = inside[..., -3:, :] = False
    before = made(x)[inside].mean()
    for _ in range(100):
        optimizer.zero_grad()
        (made(x)[inside] - 5).square().mean().backward()
        optimizer.step()
    assert before < 1.1
    assert made(x)[inside].mean() > 3.5
