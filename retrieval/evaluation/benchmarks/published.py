"""The paper's numbers (tables 1, 2, 3 and 5), in percent, measured with its own code; None: not reported."""

from collections.abc import Mapping
from types import MappingProxyType

COLUMNS = ("NIGHTS", "Dreambench++", "CUTE", "IP", "TID2013", "Sref", "InstantStyle")

_ROWS: dict[str, tuple[float | None, ...]] = {
    "LPIPS": (71.13, 62.33, 63.17, 84.01, 94.50, 87.85, 93.15),
    "Gram": (None, None, None, None, None, 84.05, 88.30),
    "CLIP": (82.26, 70.54, 72.71, 91.70, 90.33, 84.60, 82.90),
    "DINOv2": (85.24, 72.25, 77.27, 85.35, 91.50, 87.20, 86.10),
    "FFA": (77.78, 65.21, 76.55, 89.70, 75.17, 62.55, 60.65),
    "CLIP AAS": (82.18, 67.23, 71.78, 88.03, 96.33, 94.45, 97.80),
    "DINOv2 AAS": (86.47, 70.01, 77.04, 90.38, 95.83, 95.90, 96.65),
    "DiffSim-S SD1.5": (86.52, 71.50, 72.06, 92.04, 94.17, 97.40, 99.05),
    "DiffSim-C SD1.5": (79.16, 67.45, 76.17, 77.06, 94.00, 94.70, 95.10),
    "DiffSim-S SD-XL": (78.05, 63.93, 69.94, 83.41, 91.33, 93.05, 96.55),
    "DiT-XL/2 256": (63.38, 57.52, 53.44, 82.81, 83.50, 77.00, 80.15),
    "DiT-XL/2 512": (67.92, 57.31, 57.22, 81.00, 88.67, 78.20, 79.40),
    "Ensemble": (89.43, 72.15, 77.78, 94.92, 95.00, 91.70, 88.30),
}

PUBLISHED: Mapping[str, Mapping[str, float | None]] = MappingProxyType(
    {row: MappingProxyType(dict(zip(COLUMNS, values, strict=True))) for row, values in _ROWS.items()}
)
