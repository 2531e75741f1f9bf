"""Videos of a pendulum, as a user's own data would be: nothing but frames.

    python examples/pendulum_video.py pendulum.npy            # one array (N, T, H, W, 3)
    python examples/pendulum_video.py --png pendulum          # a folder of frames for each video

A rod of fixed length swings without friction, theta'' = -w^2 sin(theta), from random angles at random speeds,
in front of a camera that stands still. For small angles theta_t = 2 cos(w dt) theta_{t-1} - theta_{t-2}, which
is what a linear SEM over the frames can find."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

PERIOD = 20.0  # frames, of small swings
COEFFICIENT = 2 * math.cos(2 * math.pi / PERIOD)  # of the frame before in the equation above: 1.902
_SUBSTEPS = 50
_ENLARGED = 4  # drawn at this scale and shrunk, for soft edges


def simulate(videos: int, frames: int, seed: int = 0) -> np.ndarray:
    """Angles (videos, frames) in radians, 0 straight down."""
    generator = np.random.default_rng(seed)
    frequency = 2 * math.pi / PERIOD
    amplitude, phase = generator.uniform(0.1, 0.9, videos), generator.uniform(0, 2 * math.pi, videos)
    angle, speed = amplitude * np.cos(phase), -amplitude * frequency * np.sin(phase)
    angles, step = np.empty((videos, frames)), 1 / _SUBSTEPS
    for t in range(frames):
        angles[:, t] = angle
        for _ in range(_SUBSTEPS):  # leapfrog
            speed -= 0.5 * step * frequency**2 * np.sin(angle)
            angle = angle + step * speed
            speed -= 0.5 * step * frequency**2 * np.sin(angle)
    return angles


def draw(angle: float, size: int) -> np.ndarray:
    """The frame (size, size, 3), uint8."""
    scale = _ENLARGED * size
    image = Image.new("RGB", (scale, scale), (238, 234, 226))
    pen = ImageDraw.Draw(image)
    x, y, length, radius = 0.5 * scale, 0.12 * scale, 0.62 * scale, 0.1 * scale
    pen.rectangle((0, 0, scale, y), fill=(120, 130, 140))
    pen.rectangle((0, 0.92 * scale, scale, scale), fill=(150, 170, 120))
    bob = (x + length * math.sin(angle), y + length * math.cos(angle))
    pen.line((x, y, *bob), fill=(60, 60, 70), width=round(0.03 * scale))
    pen.ellipse((bob[0] - radius, bob[1] - radius, bob[0] + radius, bob[1] + radius), fill=(200, 60, 50))
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))


def render(angles: np.ndarray, size: int = 64) -> np.ndarray:
    """Frames (N, T, size, size, 3), uint8, of angles (N, T)."""
    return np.stack([draw(angle, size) for angle in angles.ravel()]).reshape(*angles.shape, size, size, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the .npy file to write, or the folder with --png")
    parser.add_argument("--png", action="store_true", help="write image files")
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--frames", type=int, default=30, help="in each video")
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    frames = render(simulate(arguments.videos, arguments.frames, arguments.seed), arguments.size)
    if not arguments.png:
        np.save(arguments.out, frames)
    else:
        for number, video in enumerate(frames):
            folder = arguments.out / f"video_{number}"
            folder.mkdir(parents=True, exist_ok=True)
            for t, frame in enumerate(video):
                Image.fromarray(frame).save(folder / f"frame_{t}.png")
    print(f"{arguments.videos} videos of {arguments.frames} frames written to {arguments.out}")


if __name__ == "__main__":
    main()
