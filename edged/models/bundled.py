"""The model that comes with the package."""

from pathlib import Path
from typing import Final

BUNDLED_MODEL: Final = Path(__file__).parent.parent / "assets" / "edged-tiny-phi3-q4_0.gguf"
