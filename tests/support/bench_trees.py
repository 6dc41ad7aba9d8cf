"""Small folders in the layouts of the real benchmarks; the pixels hold the right answers.

A picture has one colour: red is its group, green its distance from the centre of the group, and blue makes it unique.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from retrieval.metrics.base import Features, Metric
from retrieval.types import Role


def paint(path: Path, group: int, distance: int = 0, number: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".bmp": "BMP"}.get(path.suffix.lower(), "PNG")
    Image.new("RGB", (8, 8), (group, distance, number)).save(path, kind)


class Oracle(Metric):
    """Reads the right answer from the pixels."""

    one_role = True
    batch_size = 64

    def encode(self, images: Sequence[Image.Image], role: Role) -> Features:
        return {"colour": torch.tensor([list(image.getpixel((0, 0))) for image in images])}  # type: ignore[arg-type]

    def score(self, query: Features, gallery: Features) -> np.ndarray:
        apart = (gallery["colour"] - query["colour"]).abs().float()
        scores: np.ndarray = (-(1000 * apart[:, 0] + apart[:, 1])).numpy()
        return scores

    def fingerprint(self) -> dict[str, Any]:
        return {"name": type(self).__name__}


class Guess(Oracle):
    """Scores by a hash of both colours, which is a guess."""

    def score(self, query: Features, gallery: Features) -> np.ndarray:
        own = tuple(query["colour"][0].tolist())
        return np.array([hash((own, tuple(row))) % 99991 for row in gallery["colour"].tolist()], np.float32)


def styles(folder: Path, groups: int = 24, each: int = 4) -> None:
    for group in reversed(range(groups)):
        for number in range(each):
            paint(folder / f"{group:03d}" / f"{number}.png", group, number=number)
    paint(folder / "alone" / "0.png", 250)  # a group of one takes no part
    (folder / "readme.txt").write_text("no image")


def characters(folder: Path, count: int = 12) -> None:
    for group in range(count):
        paint(folder / "original" / f"c{group}.JPG", group)
        for distance, weight in enumerate(("1.0", "0.8", "0.6", "0.4", "0.35", "0.3", "0.2"), 1):
            paint(folder / f"c{group}" / f"{weight}.png", group, distance)


def cute(folder: Path, categories: int = 6, objects: int = 3) -> None:
    for category in range(categories):
        for thing in range(objects):
            for lighting in ("pose_a", "pose_b", "studio"):
                for number in range(3):
                    group = category * objects + thing
                    home = folder / f"category{category}" / f"object{thing}" / lighting
                    paint(home / f"{number}.jpg", group, number=number)


def tid2013(folder: Path) -> None:
    for reference in range(1, 26):
        paint(folder / "reference_images" / f"I{reference:02}.BMP", reference)
        for distortion in range(1, 25):
            for level in (1, 2, 3, 5):
                name = f"i{reference:02}_{distortion:02}_{level}.bmp"
                paint(folder / "distorted_images" / name, reference, level, distortion)


def nights(folder: Path, test: int = 90, val: int = 60) -> None:
    rows = ["id,left_vote,right_vote,votes,ref_path,left_path,right_path,split,is_imagenet,prompt"]
    for number in range(test + val):
        left = number % 2
        names = [f"ref/000/{number}.png", f"distort/000/{number}_0.png", f"distort/000/{number}_1.png"]
        paint(folder / names[0], number % 200)
        paint(folder / names[1], number % 200, 1 if left else 9, 1)
        paint(folder / names[2], number % 200, 9 if left else 1, 2)
        split = "test" if number < test else "val"
        rows.append(f"{number},{left},{1 - left},8,{','.join(names)},{split},{number % 3 == 0},cat")
    (folder / "data.csv").write_text("\n".join(rows) + "\n")


def dreambench(folder: Path, references: int = 4) -> int:
    """Return the number of triplets: 4 pairs of ratings 0 1 2 4 differ by 2 or more, and 5 of 6 for the first name."""
    files = (("dreambooth_sd", "dreambooth_sd-cp.json"), ("ip_adapter_sdxl", "ip_adapter_vit_g_sdxl-cp.json"))
    for place, (pipeline, file) in enumerate(files):
        first, second = {}, {}
        for number in range(references):
            group = place * references + number
            name = f"live_{number:02d}"
            paint(folder / pipeline / "src_image" / name / "0_0.jpg", group)
            ratings = (0, 2, 4, 6) if number == 0 else (0, 1, 2, 4)
            for prompt, rating in enumerate((*ratings, 4)):
                paint(folder / pipeline / "tgt_image" / name / f"{prompt}_0.jpg", group, 10 - rating, prompt)
                first[f"{name}_{prompt}"] = rating
                second[f"{name}_{prompt}"] = rating if prompt < 4 else 1  # the last is disputed by 3
        for group_name, ratings_of in (("group1", first), ("group2", second)):
            target = folder / "data_human_rating" / "merged_data" / group_name / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(ratings_of))
    return len(files) * (5 + (references - 1) * 4)


def votes(folder: Path, count: int = 10) -> None:
    rows = ["id,page_section,human,dreamsim,clip,dino,lpips"]
    for number in range(count):
        human = number % 2
        for name, distance in (("ref", 0), (f"d{human}", 1), (f"d{1 - human}", 9)):
            paint(folder / f"{number:06d}" / f"{name}.jpg", number, distance, int(name == "d1"))
        rows.append(f"{number:06d},{'random' if number < 4 else 'ours_all|ours_dino'},{human},1,0,1,0")
    rows.append("999999,random,0,1,1,1,1")  # a folder that was not copied
    (folder / "votes.csv").write_text("\n".join(rows) + "\n")


def levels(folder: Path) -> None:
    rows = ["file,reference,distortion,level"]
    for scene in range(2):
        paint(folder / f"s{scene}" / "ref.jpg", scene)
        for distortion, count in (("blur", 4), ("noise", 3)):
            for level in range(1, count + 1):
                name = f"s{scene}/{distortion}_L{level}.jpg"
                paint(folder / name, scene, level, ord(distortion[0]))
                rows.append(f"{name},s{scene}/ref.jpg,{distortion},{level}")
    (folder / "levels.csv").write_text("\n".join(rows) + "\n")
