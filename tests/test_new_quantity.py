"""The page about a new quantity: three files of one's own, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "add-a-quantity.md"


@pytest.mark.slow
def test_a_quantity_takes_three_files(tmp_path: Path) -> None:
    """Labels, two file formats, training and evaluation of a dipole, in a process of its own."""
    files = re.findall(r"^\*\*`(\w+\.py)`\*\*.*?^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert [name for name, _ in files] == ["dipole.py", "charged_network.py", "train_dipole.py"]
    for name, code in files:
        imports = "import torch\nimport hesse\nimport dipole\nfrom charged_network import ChargedNetwork\n"
        (tmp_path / name).write_text(imports + code if name == "train_dipole.py" else code)
    result = subprocess.run(
        [sys.executable, "train_dipole.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line}
    assert rows["dipole"][4:6] == ["e", "Å"]
    assert float(rows["dipole"][1]) < 0.1  # the labels have a root mean square of 0.27
